package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// moving enters moves and sweeps.
type moving struct {
	*Store
	t *testing.T
}

func (m moving) do(format string, args ...any) {
	m.t.Helper()
	if err := m.conn.Exec(m.t.Context(), fmt.Sprintf(format, args...)); err != nil {
		m.t.Fatal(err)
	}
}

// enter moves an offset of a row from one override to another.
func (m moving) enter(sweep, offset int, digest uint64, row *event.Row, from, to uint32, planned time.Time) {
	m.t.Helper()
	m.do("INSERT INTO retention_moves (table, retention_class, bucket, day, src_topic, src_partition, src_offset, digest, received_at, from_override, to_override, sweep, planned_at) "+
		"VALUES ('request_events', '%s', toDate(%d), toDate(%d), '%s', 0, %d, %d, fromUnixTimestamp64Milli(%d), %d, %d, %d, fromUnixTimestamp64Milli(%d))",
		row.Retention, row.Bucket, row.RetainedFrom.Unix()/86400, row.Topic, offset, digest, row.ReceivedAt.UnixMilli(), from, to, sweep, planned.UnixMilli())
}

func (m moving) sweep(n int, state string, at time.Time) {
	m.t.Helper()
	m.do("INSERT INTO retention_sweeps (sweep, state, updated_at) VALUES (%d, '%s', fromUnixTimestamp64Milli(%d))", n, state, at.UnixMilli())
}

func TestMovesAreReadBySweep(t *testing.T) {
	s := moving{open(t), t}
	if w, err := s.Sweeps(t.Context()); err != nil || w.Last != 0 || len(w.Open) != 0 {
		t.Fatalf("no sweep: got %+v and %v", w, err)
	}
	row := newRow(event.Request, usage, "a", now.Add(-time.Hour))
	bucket := ledger.Bucket{Table: "request_events", Retention: usage, First: row.Bucket}
	v := ledger.View{Eras: []ledger.Era{{Cluster: "c", Topic: row.Topic, From: time.Unix(0, 0)}, {Cluster: "c", Topic: row.Topic, Epoch: 1, From: now}}, Now: now, Due: now.Add(-time.Minute)}
	planned := now.Add(-30 * time.Second)
	s.enter(1, 7, 70, row, 0, 100, planned)
	s.enter(2, 7, 70, row, 100, sentinel, planned)
	s.enter(2, 8, 80, row, 0, 1, planned)
	s.enter(3, 8, 80, row, 1, 0, planned)
	s.enter(2, 9, 1<<63, row, 0, 1, planned)
	later := *row
	later.ReceivedAt = now.Add(time.Second)
	s.enter(2, 7, 71, &later, 0, 1, planned)   // of the second life
	s.sweep(1, "planned", now.Add(-time.Hour)) // before it was done: the newest row counts
	s.sweep(1, "done", now.Add(-2*time.Minute))
	s.sweep(2, "planned", now.Add(-time.Hour))
	s.sweep(2, "done", now.Add(-time.Minute))
	s.sweep(3, "planned", now.Add(-time.Hour))
	var err error
	if v.Sweeps, err = s.Sweeps(t.Context()); err != nil || !reflect.DeepEqual(v.Sweeps, ledger.Sweeps{Last: 3, Open: []uint64{3}}) {
		t.Fatalf("got %+v and %v, want 3 to be open", v.Sweeps, err)
	}
	s.sweep(3, "done", now) // since then
	read := func(era int) (all []ledger.Move) {
		t.Helper()
		for m, err := range s.Moves(t.Context(), []ledger.Bucket{bucket, {Table: "audit_events", Retention: pro}}, v, era, 0, ledger.Range{First: 7, Last: 8}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		return all
	}
	cell := ledger.Cell{Table: "request_events", Retention: usage, Day: int32(row.RetainedFrom.Unix() / 86400)}
	step := func(from, to uint32, done bool, at time.Time) ledger.Step {
		return ledger.Step{From: from, To: to, Done: done, At: at}
	}
	want := []ledger.Move{
		{Delivery: ledger.Delivery{Offset: 7, Digest: 70, Cell: cell}, Steps: []ledger.Step{step(0, 100, true, now.Add(-2*time.Minute)), step(100, sentinel, true, now.Add(-time.Minute))}},
		{Delivery: ledger.Delivery{Offset: 8, Digest: 80, Cell: cell}, Steps: []ledger.Step{step(0, 1, true, now.Add(-time.Minute)), step(1, 0, false, planned)}},
	}
	if got := read(0); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := read(1); len(got) != 1 || got[0].Digest != 71 {
		t.Errorf("of the second life: got %+v", got)
	}
	days := ledger.Days{Table: "request_events", Retention: usage, First: row.Bucket, End: row.Bucket + 31}
	moved, err := s.Moved(t.Context(), days, days, v)
	if err != nil {
		t.Fatal(err)
	}
	type amount struct {
		era              int
		term             ledger.Term
		rows, taken, due uint64
	}
	got := make(map[amount]bool)
	for _, m := range moved {
		got[amount{m.Era, m.Term, m.Rows, m.Taken, m.Overdue}] = true
	}
	if want := map[amount]bool{{0, ledger.Own, 1, 80, 0}: true, {0, ledger.Past, 1, 1 << 63, 1}: true, {0, ledger.Future, 1, 70, 0}: true, {1, ledger.Past, 1, 71, 1}: true}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMoveSumsChange(t *testing.T) {
	s := moving{open(t), t}
	row := newRow(event.Request, usage, "a", now.Add(-time.Hour))
	other := newRow(event.Request, pro, "b", now.Add(-time.Hour))
	sums := func(due time.Time) []ledger.Sum {
		t.Helper()
		all, err := s.MoveSums(t.Context(), due)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	s.enter(1, 7, 70, row, 0, uint32(now.Add(time.Hour).Unix()), now)
	s.enter(1, 8, 80, other, 0, 1, now)
	s.sweep(1, "planned", now)
	first := sums(now.Add(-time.Minute))
	if len(first) != 2 || first[1].Table != "request_events" || first[1].Retention != usage || first[1].Day != row.Bucket || first[1].Cells != 1 {
		t.Fatalf("got %+v", first)
	}
	changed := func(what string, got []ledger.Sum, pro, usage bool) {
		t.Helper()
		if got[0].Hash != first[0].Hash != pro || got[1].Hash != first[1].Hash != usage {
			t.Errorf("%s: got %+v after %+v", what, got, first)
		}
	}
	changed("nothing", sums(now.Add(-time.Second)), false, false)
	changed("the grace of the other move is over", sums(now), true, false)
	changed("that of both", sums(now.Add(time.Hour)), true, true)
	s.enter(2, 7, 70, row, uint32(now.Add(time.Hour).Unix()), 0, now)
	changed("one moved again", sums(now.Add(-time.Minute)), false, true)
	first = sums(now.Add(-time.Minute))
	s.sweep(2, "done", now)
	changed("the second sweep done", sums(now.Add(-time.Minute)), false, true)
}
