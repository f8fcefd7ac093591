package store

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"

	"github.com/lethe-audit/lethe/internal/event"
)

// firstWindow is how far back the first step of a page looks, each further step
// four times as far: most pages are full after the first.
const firstWindow = 24 * time.Hour

// Events returns up to limit rows that match the filter and come after the
// position, newest first, then by kind, source and id: fewer only when there are
// no more. Each event is returned once, however often it was delivered, and none
// that f.Visible refuses. f.From and f.To MUST be set.
//
// An error that answers true to TooLarge says that the filter asks for more than
// one query may cost.
func (s *Store) Events(ctx context.Context, f event.Filter, after *event.Position, limit int) ([]event.Row, error) {
	page := make([]event.Row, 0, min(limit, 1000))
	to := f.To
	if after != nil && after.OccurredAt.Before(to) {
		to = after.OccurredAt.Add(time.Millisecond)
	}
	// Where rows are refused the steps get longer, so that many of them cost few queries.
	length := limit
	for width := firstWindow; len(page) < limit && f.From.Before(to); width *= 4 {
		step := f
		step.To = to
		if from := to.Add(-width); from.After(f.From) && width < 1<<61 {
			step.From = from
		}
		for len(page) < limit {
			rows, end, err := s.step(ctx, step, after, max(length, limit)-len(page))
			if err != nil {
				return nil, wrap("read events", err)
			}
			page = append(page, rows...)
			if end == nil {
				break
			}
			after = end
			length = min(2*length, longestStep)
		}
		to = step.From
	}
	return page[:min(len(page), limit)], nil
}

// longestStep is the most rows that one query of a walk reads of a kind.
const longestStep = 8192

// step reads one window of the walk: of each kind the next rows, at most limit,
// those that may be seen, merged. end is not nil when there may be more rows in the
// window, after it.
func (s *Store) step(ctx context.Context, f event.Filter, after *event.Position, limit int) (rows []event.Row, end *event.Position, err error) {
	var found [event.NumKinds][]event.Row
	var last [event.NumKinds]*event.Position
	group, ctx := errgroup.WithContext(ctx)
	for _, kind := range event.Kinds {
		group.Go(func() error {
			var err error
			found[kind], last[kind], err = s.newest(ctx, f, kind, after, limit)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for kind, list := range found {
		// A kind that may go on: nothing after the last row that was read is certain.
		if p := last[kind]; p != nil && (end == nil || before(*p, *end)) {
			end = p
		}
		rows = append(rows, list...)
	}
	slices.SortStableFunc(rows, func(a, b event.Row) int { return compare(position(&a), position(&b)) })
	rows = slices.CompactFunc(rows, func(a, b event.Row) bool { return same(&a, &b) })
	if end != nil {
		cut := len(rows)
		for cut > 0 && before(*end, position(&rows[cut-1])) {
			cut--
		}
		rows = rows[:cut]
	}
	return rows, end, nil
}

// newest reads the first rows of one kind after the position, repeats included,
// and returns those that may be seen. last is where the reading stopped, whether
// or not that row may be; nil: at the end.
func (s *Store) newest(ctx context.Context, f event.Filter, kind event.Kind, after *event.Position, limit int) (list []event.Row, last *event.Position, err error) {
	q, ok := read(f, kind, readable)
	if !ok {
		return nil, nil, nil
	}
	if after != nil {
		q.bind("after", millis(after.OccurredAt))
		switch {
		case kind < after.Kind: // its rows of that instant came before
			q.add("occurred_at < " + instant("after"))
		case kind > after.Kind:
			q.add("occurred_at <= " + instant("after"))
		default:
			q.add("(occurred_at < " + instant("after") + " OR occurred_at = " + instant("after") +
				" AND (source, id) > ({after_source:String}, {after_id:String}))")
			q.bind("after_source", after.Source)
			q.bind("after_id", after.ID)
		}
	}
	q.bind("limit", strconv.Itoa(limit))
	text := q.text(selected[kind], kind, " ORDER BY occurred_at DESC, source, id, received_at, src_topic, src_partition, src_offset, retention_class LIMIT {limit:UInt64}")
	n := 0
	err = s.each(ctx, kind, text, q.params, nil, func(r *event.Row) bool {
		if n++; n == limit {
			p := position(r)
			last = &p
		}
		if f.Visible == nil || f.Visible(r) {
			list = append(list, *r)
		}
		return true
	})
	return list, last, err
}

// each runs a SELECT of a row's columns and hands over the rows until do says no.
func (s *Store) each(ctx context.Context, kind event.Kind, text string, params []any, settings clickhouse.Settings, do func(*event.Row) bool) (err error) {
	rows, err := s.conn.Query(s.bounded(ctx, settings), text, params...)
	if err != nil {
		return err
	}
	sc := scanner{kind: kind}
	for rows.Next() {
		r, err := sc.scan(rows)
		if err != nil {
			rows.Close()
			return err
		}
		if !do(r) {
			break
		}
	}
	return cmp.Or(rows.Err(), rows.Close())
}

func position(r *event.Row) event.Position {
	return event.Position{OccurredAt: r.OccurredAt, Kind: r.Kind, Source: r.Source, ID: r.ID}
}

// compare orders positions as pages do.
func compare(a, b event.Position) int {
	return cmp.Or(
		b.OccurredAt.Compare(a.OccurredAt),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Source, b.Source),
		cmp.Compare(a.ID, b.ID))
}

func before(a, b event.Position) bool { return compare(a, b) < 0 }
