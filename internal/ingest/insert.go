package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// insertAll stores batches one after another until full is closed. After an
// error nothing more is stored: what follows would leave a hole in the ledger.
func (r *route) insertAll(ctx context.Context) error {
	for b := range r.full {
		err := r.store(ctx, b)
		if err != nil {
			r.metrics.forgotten.Inc()
			return err
		}
		b.reset()
		r.free <- b
	}
	return nil
}

// store takes a batch through insert, dead letters, ledger and commit.
func (r *route) store(ctx context.Context, b *batch) error {
	slices.SortFunc(b.spans, func(x, y *span) int { return x.part.index - y.part.index })
	entries := b.entries(r.id, r.o.PolicyVersion)
	name := token(r.process, entries)
	first, next := offsets(b.spans, entries)

	began := time.Now()
	parts := b.rows.Parts()
	err := r.insert(ctx, first, func(ctx context.Context) error {
		if b.rows.Rows() == 0 {
			return nil
		}
		return r.o.Storage.Insert(ctx, b.rows, name)
	})
	switch {
	case err == nil:
		r.taken(entries)
	case permanent(err) && ctx.Err() == nil:
		if parts, err = r.isolate(ctx, b, entries, first, name); err != nil {
			return err
		}
	default:
		return err
	}
	r.metrics.inserted(b.rows, parts, time.Since(began))

	if len(b.letters) > 0 {
		err = r.retry(ctx, partKafka, "publish dead letters", func(ctx context.Context) error {
			return r.o.Dead.Publish(ctx, b.letters...)
		})
		if err == nil {
			err = r.retry(ctx, partClickHouse, "count dead letters", func(ctx context.Context) error {
				return r.o.Storage.WriteDead(ctx, b.deadCounts(entries))
			})
		}
	}
	if err == nil && len(b.facts) > 0 {
		err = r.retry(ctx, partClickHouse, "write facts", func(ctx context.Context) error {
			return r.o.Storage.WriteFacts(ctx, b.facts)
		})
	}
	if err == nil && len(b.moves) > 0 {
		err = r.retry(ctx, partClickHouse, "enter held rows", func(ctx context.Context) error {
			return r.o.Storage.WriteMoves(ctx, event.Sweep{}, b.moves)
		})
	}
	if err == nil && len(b.asked) > 0 {
		err = r.retry(ctx, partClickHouse, "write erasures and holds", func(ctx context.Context) error {
			return r.writeAsked(ctx, b.asked)
		})
	}
	if err == nil {
		err = r.retry(ctx, partClickHouse, "write the ledger", func(ctx context.Context) error {
			return r.o.Storage.WriteLedger(ctx, entries)
		})
	}
	if err != nil {
		if permanent(err) && ctx.Err() == nil {
			return r.stopAll(b.spans, err)
		}
		return err
	}
	for n, s := range b.spans {
		s.part.finished(entries[n].Last + 1)
	}
	r.metrics.accounted(entries, b.tallies)
	r.tellLost(entries)
	return r.commit(next)
}

func (r *route) writeAsked(ctx context.Context, all []asked) error {
	for _, a := range all {
		if a.erasure != nil {
			if err := r.o.Storage.WriteErasure(ctx, *a.erasure); err != nil {
				return err
			}
		}
		if a.hold != nil {
			if err := r.o.Storage.WriteHold(ctx, *a.hold); err != nil {
				return err
			}
		}
	}
	return nil
}

// insert tries an insert behind the fence until it succeeds or fails for good: a
// member that lost its partitions finds out here, and not after it has stored what
// another one stores as well.
func (r *route) insert(ctx context.Context, first map[string]map[int]int64, f func(context.Context) error) error {
	return r.retry(ctx, partClickHouse, "insert a batch", func(ctx context.Context) error {
		if err := r.commit(first); err != nil {
			return err
		}
		return f(ctx)
	})
}

// taken notes that every row of the entries was stored.
func (i *Ingester) taken(entries []ledger.Entry) {
	if len(i.refusals) == 0 {
		return
	}
	for _, e := range entries {
		for _, c := range e.Cells {
			delete(i.refusals, c.Table)
		}
	}
}

// offsets returns where each partition of a batch begins and where it goes on,
// as commits want it: never back.
func offsets(spans []*span, entries []ledger.Entry) (first, next map[string]map[int]int64) {
	first, next = make(map[string]map[int]int64), make(map[string]map[int]int64)
	for n, s := range spans {
		topic := s.part.topic
		if first[topic] == nil {
			first[topic], next[topic] = make(map[int]int64), make(map[int]int64)
		}
		first[topic][int(s.part.partition)] = max(entries[n].First, s.part.committed)
		next[topic][int(s.part.partition)] = max(entries[n].Last+1, s.part.committed)
	}
	return first, next
}

// commit commits in the generation. Any failure counts as being fenced: the
// next generation begins at the ledger's end, so nothing is stored twice.
func (r *route) commit(at map[string]map[int]int64) error {
	if err := r.gen.CommitOffsets(at); err != nil {
		r.metrics.fenced.Inc()
		r.status.pause(partKafka, "commit", "could not commit; joining the consumer group again")
		return errors.Join(errFenced, fmt.Errorf("commit: %w", err))
	}
	r.status.resume(partKafka, "commit")
	return nil
}

// stopAll stops the partitions of spans that ClickHouse will never take.
func (r *route) stopAll(spans []*span, err error) error {
	for _, s := range spans {
		r.stop(s.part.place, fmt.Errorf("ClickHouse refuses offsets %d to %d for good: %w; restart after the cause is gone",
			s.builder.Range().First, s.builder.Range().Last, err))
	}
	return errors.Join(errStopped, err)
}

// deadCounts says how many dead letters each partition has for which reason.
func (b *batch) deadCounts(entries []ledger.Entry) []ledger.DeadCount {
	var all []ledger.DeadCount
	for t, c := range b.tallies {
		if t.outcome != ledger.Dead {
			continue
		}
		n := slices.IndexFunc(b.spans, func(s *span) bool { return s.part.index == t.index })
		all = append(all, ledger.DeadCount{
			Partition: entries[n].Partition, First: entries[n].First, Last: entries[n].Last,
			Reason: t.reason, Attribute: t.attribute, Publisher: t.publisher,
			Count: c.events, ReceivedAt: b.opened,
		})
	}
	return all
}
