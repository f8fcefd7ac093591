package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/fetch"
)

// fetchAll runs one loop per broker: each has one request under way, for all of
// the broker's partitions together, so that memory does not depend on their number.
func (r *route) fetchAll(ctx context.Context) {
	var (
		loops   sync.WaitGroup
		leaders atomic.Pointer[map[place]int]
		running = make(map[int]bool)
		brokers atomic.Int32
	)
	defer loops.Wait()
	for len(r.parts) > 0 {
		m, err := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: r.o.Topics[:]})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.failed(partKafka, "leaders", "ask for the partitions' leaders", leaderEvery, err)
		default:
			r.status.resume(partKafka, "leaders")
			found := make(map[place]int)
			for _, t := range m.Topics {
				for _, p := range t.Partitions {
					if p.Error == nil {
						found[place{t.Name, int32(p.ID)}] = p.Leader.ID
					}
				}
			}
			leaders.Store(&found)
			for _, p := range r.parts {
				if id, ok := found[p.place]; ok && !running[id] {
					running[id] = true
					brokers.Add(1)
					loops.Go(func() { r.fetchFrom(ctx, id, &leaders, &brokers) })
				}
			}
		}
		if !sleep(ctx, leaderEvery) {
			return
		}
	}
}

const (
	leaderEvery = time.Second            // looks for moved leaders
	idle        = 50 * time.Millisecond  // a broker's loop has nothing to ask for
	minRequest  = 64 << 10               // least bytes of a request
	refused     = 500 * time.Millisecond // a partition's pause after a broker's refusal
)

func (r *route) fetchFrom(ctx context.Context, broker int, leaders *atomic.Pointer[map[place]int], brokers *atomic.Int32) {
	cause, turn, wait := fmt.Sprintf("broker %d", broker), 0, r.o.RetryMin
	defer r.status.resume(partKafka, cause)
	for {
		// Half is fetched while the other half is worked on.
		size := max(minRequest, r.o.FetchBytes/(2*int(brokers.Load())))
		if !r.budget.take(ctx, size) {
			return
		}
		turn++
		asked, rounds, wants := r.claim(broker, *leaders.Load(), turn)
		if len(wants) == 0 {
			// Nothing is asked of a broker that leads nothing any more, nor waited for.
			r.status.resume(partKafka, cause)
			wait = r.o.RetryMin
			r.budget.give(size)
			if !sleep(ctx, idle) {
				return
			}
			continue
		}
		// Several partitions in an answer keep several workers busy.
		each := max(minRequest, size/min(len(wants), 2*len(r.workers)))
		answers, err := r.fetch.Fetch(ctx, wants, size, each)
		came := 0
		for i := range answers {
			came += answers[i].Bytes()
		}
		r.metrics.inFlight.Set(float64(r.budget.use(size, came)))
		for i := range answers {
			p := r.places[place{answers[i].Topic, answers[i].Partition}]
			r.accept(ctx, p, rounds[p], answers[i])
		}
		for _, p := range asked {
			p.mu.Lock()
			p.fetching = false
			p.mu.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.status.resume(partKafka, cause)
			wait = r.o.RetryMin
			continue
		}
		r.failed(partKafka, cause, "fetch from "+cause, wait, err)
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, r.o.RetryMax)
	}
}

// claim takes the partitions that a broker leads and nobody fetches, beginning
// with another one each turn: answers fill in the order of the request.
func (r *route) claim(broker int, leaders map[place]int, turn int) (asked []*partition, rounds map[*partition]int, wants []fetch.Want) {
	now := time.Now()
	rounds = make(map[*partition]int)
	for i := range r.parts {
		p := r.parts[(i+turn)%len(r.parts)]
		if id, ok := leaders[p.place]; !ok || id != broker || r.status.isStopped(p.place) {
			continue
		}
		p.mu.Lock()
		if !p.fetching && !now.Before(p.retryAt) && !p.over(p.next) {
			p.fetching = true
			asked = append(asked, p)
			rounds[p] = p.round
			wants = append(wants, fetch.Want{Topic: p.topic, Partition: p.partition, Offset: p.next})
		}
		p.mu.Unlock()
	}
	return asked, rounds, wants
}

// accept takes an answer for one partition.
func (r *route) accept(ctx context.Context, p *partition, round int, a fetch.Answer) {
	if a.Err != nil {
		r.release(&a)
		r.refuse(ctx, p, round, a.Err)
		return
	}
	r.status.resume(partKafka, p.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	if round != p.round {
		r.release(&a)
		return
	}
	p.end, p.told = max(p.end, a.HighWatermark), time.Now()
	p.note(mark{a.Asked, a.HighWatermark})
	p.note(mark{a.Appended, a.From})
	p.settle()
	if !a.Written.IsZero() {
		p.oldest = a.Written
	}
	if a.Bytes() > 0 {
		r.enqueue(p, a)
	}
}

// refuse handles what a broker says instead of records.
func (r *route) refuse(ctx context.Context, p *partition, round int, err error) {
	var b bounds
	outside := errors.Is(err, kafka.OffsetOutOfRange)
	if outside {
		if b, err = r.bounds(ctx, p.place); err != nil {
			return // ctx is done
		}
	} else {
		r.log.Warn("trying again", "what", "fetch", "partition", p.String(), "error", err)
		r.status.pause(partKafka, p.String(), fmt.Sprintf("the broker refused %s: %v; trying again", p, err))
	}
	p.mu.Lock()
	p.retryAt = time.Now().Add(refused)
	from, beyond, taken := p.next, false, false
	if outside && round == p.round {
		switch {
		case p.until > 0: // of a replay: the ledger knows what became of these offsets
			taken = from < b.start || from >= b.end
		case from < b.start: // topic retention was faster
			r.enqueue(p, fetch.Answer{From: from, Next: b.start, LogStart: b.start})
		case from > b.end:
			p.damaged++
			beyond = p.damaged >= settle
		}
	}
	p.mu.Unlock()
	if taken {
		r.halt(p, fmt.Errorf("the topic has offsets %d to %d now", b.start, b.end-1))
	}
	if beyond {
		r.halt(p, fmt.Errorf("it was read up to offset %d but ends at %d: the topic was made anew or lost its end; "+
			"stop the ingesters and run ingest ledger new-epoch TOPIC, and it is read again from its start", from, b.end))
	}
}
