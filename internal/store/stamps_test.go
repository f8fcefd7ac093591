package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

func TestContentsTellWhatABucketHolds(t *testing.T) {
	s := open(t)
	do := func(format string, args ...any) {
		t.Helper()
		if err := s.conn.Exec(t.Context(), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	contents := func() []ledger.Content {
		t.Helper()
		all, err := s.Contents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	do("SYSTEM STOP MERGES request_events")
	row := newRow(event.Request, usage, "a", now.Add(-time.Hour))
	other := newRow(event.Request, pro, "b", now.Add(-time.Hour))
	insert(t, s, row, other)
	first := contents()
	if len(first) != 2 || first[0].Retention != pro || first[1].Bucket != (ledger.Bucket{Table: "request_events", Retention: usage, First: row.Bucket}) || first[1].Rows != 1 {
		t.Fatalf("got %+v", first)
	}
	insert(t, s, newRow(event.Request, usage, "c", now.Add(-time.Hour)))
	second := contents()
	if second[0] != first[0] || second[1].Parts == first[1].Parts || second[1].Rows != 2 {
		t.Errorf("another row in one bucket: got %+v after %+v", second, first)
	}
	part := scalar[string](t, s, "SELECT _part FROM request_events WHERE id = 'c'")
	do("ALTER TABLE request_events DETACH PART '%s'", part)
	if got := contents(); !slices.Equal(got, first) {
		t.Errorf("its part detached: got %+v, want %+v", got, first)
	}
	do("ALTER TABLE request_events ATTACH PART '%s'", part)
	if got := contents(); !slices.Equal(got, second) {
		t.Errorf("and attached: got %+v, want %+v", got, second)
	}
	do("SYSTEM START MERGES request_events")
	do("DELETE FROM request_events WHERE id = 'c'")
	if got := contents(); got[0] != first[0] || got[1].Parts == first[1].Parts || got[1].Parts == second[1].Parts {
		t.Errorf("the row deleted: got %+v after %+v and %+v", got, first, second)
	}
}

func TestTheNewestStampCounts(t *testing.T) {
	s := open(t)
	at := func(bucket int32, parts string, ago time.Duration) ledger.Stamp {
		return ledger.Stamp{Bucket: ledger.Bucket{Table: "request_events", Retention: usage, First: bucket}, Parts: parts, Ledger: 1 << 63, At: now.Add(-ago)}
	}
	for _, stamps := range [][]ledger.Stamp{{at(20_000, "new", 0), at(20_031, "old", time.Hour)}, {at(20_000, "old", time.Minute), at(20_031, "", time.Minute)}, nil} {
		if err := s.WriteStamps(t.Context(), stamps); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Stamps(t.Context())
	slices.SortFunc(got, func(a, b ledger.Stamp) int { return int(a.First - b.First) })
	if want := []ledger.Stamp{at(20_000, "new", 0), at(20_031, "", time.Minute)}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}
