package store

import (
	"context"
	"iter"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

// SubjectRows returns every readable row that has any of the subject keys, in
// order of kind and time, each event once. Rows are streamed: memory does not
// grow with their number. After an error there are no more rows, and those before
// it are not all.
func (s *Store) SubjectRows(ctx context.Context, keys []string, now time.Time) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		if len(keys) == 0 {
			return
		}
		// Leaving the loop early must also stop the server.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, kind := range event.Kinds {
			q, _ := read(event.Filter{Subjects: keys, Now: now}, kind, readable)
			text := q.text(selected[kind], kind, " ORDER BY occurred_at, source, id, received_at, src_topic, src_partition, src_offset")
			var last *event.Row
			more := true
			err := s.each(ctx, kind, text, q.params, streamed, func(r *event.Row) bool {
				if last == nil || !same(last, r) {
					more = yield(r, nil)
				}
				last = r
				return more
			})
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

// streamed keeps a long answer small: short blocks here, a sort that goes to
// disk there, and as much time as the reader takes.
var streamed = clickhouse.Settings{
	"max_block_size":                 2048,
	"max_bytes_before_external_sort": 256 << 20,
	"max_execution_time":             0,
}
