package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// Reread is what Replay is to do: offsets of one partition, both ends included.
type Reread struct {
	Topic     string
	Partition int32
	ledger.Range
	Survey *Survey
	// Progress, if not nil, is told now and then which offset comes next.
	Progress func(next int64)
}

// Replayed is what a replay has done.
type Replayed struct {
	Next   int64 // the offset behind the last in the ledger
	Counts [ledger.NumOutcomes]uint64
}

// replayGeneration stands in the ledger where a generation of the group would.
const replayGeneration = -1

// Replay takes offsets that were consumed before through the route again:
// transform, insert, dead letters, ledger. It is no member of the group and
// commits nothing, and may run beside ingesters. What is stored already is
// stored as a repeat of the same delivery, which collapses; a dead letter that
// the dead topic still has is not published again.
//
// It returns how far it came, whatever the error, and MUST NOT run at the same
// time as Run.
func (i *Ingester) Replay(ctx context.Context, q Reread) (Replayed, error) {
	done := Replayed{Next: q.First}
	p, err := i.reopen(ctx, q)
	if err != nil {
		return done, fmt.Errorf("replay %s/%d: %w", q.Topic, q.Partition, err)
	}
	counted := &outcomes{Storage: i.o.Storage}
	i.o.Storage = counted
	defer func() { i.o.Storage = counted.Storage }()

	working, end := context.WithCancel(ctx)
	defer end()
	// What is in hand when the work is interrupted is finished within this time.
	finishing, forget := context.WithCancel(context.WithoutCancel(ctx))
	defer forget()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(i.o.StopTimeout, forget) })()

	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer end()
		for sleep(working, progressTick) {
			next := p.progress(time.Now()).Next
			if q.Progress != nil {
				q.Progress(next)
			}
			if next >= p.until || i.status.isStopped(p.place) {
				return
			}
		}
	}()
	r := newRoute(i, uncommitted{}, replayGeneration, []*partition{p})
	r.aside = true
	err = r.run(working, finishing)
	end()
	<-watched

	done.Next = p.progress(time.Now()).Next
	for o := range done.Counts {
		done.Counts[o] = counted.counts[o].Load()
	}
	why := i.status.whyStopped(p.place)
	switch {
	case done.Next >= p.until:
		return done, nil
	case why != "":
		return done, fmt.Errorf("replay %s: it is stopped at offset %d: %s", p.place, done.Next, why)
	case ctx.Err() != nil:
		return done, fmt.Errorf("replay %s: interrupted at offset %d: %w", p.place, done.Next, context.Cause(ctx))
	}
	return done, fmt.Errorf("replay %s: at offset %d: %w", p.place, done.Next, err)
}

// progressTick is how often a replay looks how far it is.
const progressTick = 200 * time.Millisecond

// reopen checks that a range was consumed and is still there.
func (i *Ingester) reopen(ctx context.Context, q Reread) (*partition, error) {
	kind, ok := i.kinds[q.Topic]
	if !ok {
		return nil, fmt.Errorf("%s is no topic of events", q.Topic)
	}
	i.cluster = q.Survey.Cluster()
	id := q.Survey.partition(q.Topic, int(q.Partition))
	committed, err := q.Survey.Committed(ctx)
	if err != nil {
		return nil, err
	}
	ends, err := i.o.Storage.LedgerEnds(ctx, i.cluster)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	known, epochs := latest(ends)
	at := place{q.Topic, q.Partition}
	// Behind a gap the group's offset knows better than the ledger's contiguous end.
	end := max(known[at], committed[id])
	all, err := q.Survey.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	b, ok := all[id]
	if !ok {
		return nil, errors.New("there is no such partition in Kafka")
	}
	end = min(end, b.End)
	switch {
	case q.First > q.Last || q.First < 0:
		return nil, fmt.Errorf("offsets %d to %d are no range", q.First, q.Last)
	case q.First < b.Start || q.Last >= end:
		if b.Start >= end {
			return nil, fmt.Errorf("no offset can be replayed: the log begins at %d and what was consumed ends before %d", b.Start, end)
		}
		return nil, fmt.Errorf("offsets %d to %d can be replayed, not %d to %d: the log begins at %d, and what was consumed and is accounted for ends before %d",
			b.Start, end-1, q.First, q.Last, b.Start, end)
	}
	letters, err := q.Survey.Letters(ctx)
	if err != nil {
		return nil, err
	}
	id.Epoch = epochs[q.Topic]
	return &partition{
		place: at, kind: kind, id: id, at: q.First, next: q.First, done: q.First, until: q.Last + 1,
		end: b.End, started: time.Now(), lettered: letters.Offsets[id],
	}, nil
}

// uncommitted is the committer of a replay: it leaves the group alone.
type uncommitted struct{}

func (uncommitted) CommitOffsets(map[string]map[int]int64) error { return nil }

// outcomes counts what goes into the ledger.
type outcomes struct {
	Storage
	counts [ledger.NumOutcomes]atomic.Uint64
}

func (c *outcomes) WriteLedger(ctx context.Context, entries []ledger.Entry) error {
	err := c.Storage.WriteLedger(ctx, entries)
	if err == nil {
		for _, e := range entries {
			for o, n := range e.Counts {
				c.counts[o].Add(n)
			}
		}
	}
	return err
}
