package store

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

// SubjectRows returns every readable row that has any of the subject keys and that
// visible does not refuse, in order of kind and time, each event once. visible may
// be nil and is called by several goroutines. Rows are streamed: memory does not
// grow with their number. After an error there are no more rows, and those before
// it are not all.
func (s *Store) SubjectRows(ctx context.Context, keys []string, now time.Time, visible func(*event.Row) bool) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		if len(keys) == 0 {
			return
		}
		// Leaving the loop early must also stop the server.
		ctx, cancel := context.WithCancel(ctx)
		var ahead [event.NumKinds]lookahead
		var reading sync.WaitGroup
		defer reading.Wait()
		defer cancel()
		for _, kind := range event.Kinds[1:] {
			a := &ahead[kind]
			a.done = make(chan struct{})
			reading.Go(func() {
				defer close(a.done)
				a.read(ctx, func(ctx context.Context, do func(*event.Row) bool) error {
					return s.subject(ctx, kind, keys, now, visible, do)
				})
			})
		}
		for _, kind := range event.Kinds {
			var last *event.Row
			more := true
			do := func(r *event.Row) bool {
				if last == nil || !same(last, r) {
					more = yield(r, nil)
				}
				last = r
				return more
			}
			var err error
			if a := &ahead[kind]; !a.ended() {
				err = s.subject(ctx, kind, keys, now, visible, do)
			} else if err = a.err; err == nil {
				for _, r := range a.rows {
					if !do(r) {
						break
					}
				}
			}
			if !more {
				return
			}
			if err != nil {
				yield(nil, wrap("read subject", err))
				return
			}
		}
	}
}

// subject hands over one kind's rows of a person that may be seen, repeats included.
func (s *Store) subject(ctx context.Context, kind event.Kind, keys []string, now time.Time, visible, do func(*event.Row) bool) error {
	q, _ := read(event.Filter{Subjects: keys, Now: now}, kind, readable)
	text := q.text(selected[kind], kind, " ORDER BY occurred_at, source, id, received_at, src_topic, src_partition, src_offset, retention_class")
	return s.each(ctx, kind, text, q.params, streamed, func(r *event.Row) bool {
		return visible != nil && !visible(r) || do(r)
	})
}

// lookahead reads a kind while another one is handed over: planning a query takes
// a tenth of a lookup's time, and most people have few rows in most kinds. What
// is longer is read again in its turn, because a server does not wait long for a
// reader that is busy elsewhere.
type lookahead struct {
	done chan struct{} // nil: not read ahead
	rows []*event.Row
	all  bool // rows are all there are
	err  error
}

// mostAhead is how many rows of a kind are held, about a kilobyte each.
const mostAhead = 1000

func (a *lookahead) read(ctx context.Context, rows func(context.Context, func(*event.Row) bool) error) {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	a.all = true
	a.err = rows(ctx, func(r *event.Row) bool {
		if len(a.rows) == mostAhead {
			a.all = false
			enough() // closing an answer reads it to its end, which the server must cut
			return false
		}
		a.rows = append(a.rows, r)
		return true
	})
}

// ended waits and reports whether the kind needs no other query.
func (a *lookahead) ended() bool {
	if a.done == nil {
		return false
	}
	<-a.done
	if !a.all {
		a.rows = nil
	}
	return a.all
}

// streamed keeps a long answer small: short blocks here, a sort that goes to
// disk there, and as much time as the reader takes.
var streamed = clickhouse.Settings{
	"max_block_size":                 2048,
	"max_bytes_before_external_sort": 256 << 20,
	"max_execution_time":             0,
}
