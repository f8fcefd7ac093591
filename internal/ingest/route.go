package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/fetch"
)

// errStopped ends a route because partitions were stopped; the others go on.
var errStopped = errors.New("partitions were stopped")

// committer is the part of a kafka.Generation that the route needs.
type committer interface {
	CommitOffsets(offsets map[string]map[int]int64) error
}

// generationID is for the ledger only; fencing is the committer's business.
type generationID = int32

// route carries the records of the assigned partitions to the commit. It lives
// as long as a generation, or until one of its partitions is stopped.
type route struct {
	*Ingester
	gen    committer
	id     generationID
	aside  bool // a replay: says nothing of how far ingesters are
	parts  []*partition
	places map[place]*partition
	budget *budget
	ready  chan *partition // has something pending and no worker

	// open holds the batch that fills, for whoever takes it out; full hands a
	// closed one to the inserter, and free brings an empty one back.
	open, full, free chan *batch
}

func (r *route) run(ctx, finishing context.Context) error {
	// A route that has ended may have waited for partitions that are somebody else's
	// now, or for a commit that nobody makes any more.
	r.status.afresh(partKafka)
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	// On the way out the inserter finishes the last batch: it has no part in ctx.
	inserted := make(chan error, 1)
	go func() {
		err := r.insertAll(finishing)
		end(err)
		inserted <- err
	}()

	var tasks sync.WaitGroup
	tasks.Go(func() { r.fetchAll(ctx) })
	tasks.Go(func() { r.closeOld(ctx) })
	if !r.aside {
		tasks.Go(func() { r.tell(ctx) })
		tasks.Go(func() { r.writeProgress(ctx) })
	}
	for _, w := range r.workers {
		tasks.Go(func() { w.run(ctx, r) })
	}
	for _, p := range r.parts {
		if p.start > 0 { // what topic retention took before it was read
			p.mu.Lock()
			r.enqueue(p, fetch.Answer{From: p.at, Next: p.start, LogStart: p.start})
			p.mu.Unlock()
		}
	}
	<-ctx.Done()
	tasks.Wait()

	last := <-r.open
	var err error
	select {
	case err = <-inserted: // it failed before
	default:
		if !last.empty() {
			select {
			case r.full <- last:
			case err = <-inserted:
			}
		}
		if err == nil {
			close(r.full)
			err = <-inserted
		}
	}
	for _, p := range r.parts {
		for i := range p.pending {
			p.pending[i].Release()
		}
		r.metrics.forget(p.place)
	}
	r.metrics.inFlight.Set(0)
	return err
}

// enqueue hands an answer to the workers, behind the partition's earlier ones.
// Callers hold p.mu.
func (r *route) enqueue(p *partition, a fetch.Answer) {
	p.next = a.Next
	p.pending = append(p.pending, a)
	if !p.working {
		p.working = true
		r.ready <- p // has room for every partition
	}
}

// setBack makes a partition's fetching begin again at what no batch holds yet.
// Its worker calls it.
func (r *route) setBack(p *partition, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.pending {
		r.release(&p.pending[i])
	}
	p.pending = p.pending[:0]
	p.next = p.at
	p.round++
	p.retryAt = time.Now().Add(wait)
}

// halt stops a partition: nothing more of it is fetched or worked on.
func (r *route) halt(p *partition, why error) {
	r.stop(p.place, why)
	r.setBack(p, 0)
}

// release gives an answer's memory back to the fetchers.
func (r *route) release(a *fetch.Answer) {
	n := a.Bytes()
	a.Release()
	r.metrics.inFlight.Set(float64(r.budget.give(n)))
}

// budget bounds the bytes that are fetched and not yet worked on.
type budget struct {
	mu    sync.Mutex
	limit int
	used  int
	freed chan struct{} // has a token when something was given back
}

func newBudget(limit int) *budget {
	return &budget{limit: limit, freed: make(chan struct{}, 1)}
}

// take waits for n bytes and reports false when ctx is done before. One taker
// always gets through, whatever n is.
func (b *budget) take(ctx context.Context, n int) bool {
	for {
		b.mu.Lock()
		if b.used == 0 || b.used+n <= b.limit {
			b.used += n
			room := b.used < b.limit
			b.mu.Unlock()
			if room { // the token may have been meant for another taker as well
				b.wake()
			}
			return true
		}
		b.mu.Unlock()
		select {
		case <-b.freed:
		case <-ctx.Done():
			return false
		}
	}
}

// use replaces what was taken by what came.
func (b *budget) use(taken, came int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += came - taken
	if came < taken {
		b.wake()
	}
	return b.used
}

// give returns bytes and says how many are still used.
func (b *budget) give(n int) int { return b.use(n, 0) }

func (b *budget) wake() {
	select {
	case b.freed <- struct{}{}:
	default:
	}
}
