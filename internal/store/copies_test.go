package store

import (
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// A copy has the delivery of its original and lies in another class: each is read by
// its class, and each has its own expiry.
func TestCopiesLieBesideTheirOriginals(t *testing.T) {
	s := open(t)
	a, b := newRow(event.Audit, account, "a", now.Add(-time.Hour)), newRow(event.Audit, account, "b", now.Add(-time.Hour))
	a.Offset, b.Offset = 1, 2
	a.Text[event.TUserID], a.SubjectKeys = "u_1", []string{"user:u_1", "user:u_2"}
	insert(t, s, a, b)
	whole := func(of ...*event.Row) (all []*event.Row) {
		t.Helper()
		for r, err := range s.Rows(t.Context(), event.Audit, of) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		return all
	}
	early, late := uint32(now.Add(time.Hour).Unix()), uint32(now.Add(2*time.Hour).Unix())
	found := whole(a)
	if len(found) != 1 || found[0].ID != "a" || found[0].Text[event.TUserID] != "u_1" {
		t.Fatalf("got %+v", found)
	}
	made := found[0]
	made.Retention, made.Text[event.TUserID], made.SubjectKeys, made.ExpiresOverride = event.Anonymised(account), "", []string{"user:u_2"}, late
	if got := whole(made); got != nil {
		t.Errorf("got %+v before it is there", got)
	}
	sweep, err := s.BeginSweep(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	moves := []event.Move{{Row: made, To: late, Cause: "anonymised"}, {Row: a, To: early, Cause: "identity"}}
	if err := s.WriteMoves(t.Context(), sweep, moves); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if err := s.WriteCopies(t.Context(), sweep, []*event.Row{made}); err != nil {
			t.Fatal(err)
		}
		if err := s.Move(t.Context(), sweep, event.Audit); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint32
	for _, r := range whole(made, a, b) {
		got = append(got, r.ExpiresOverride)
	}
	if slices.Sort(got); !slices.Equal(slices.Compact(got), []uint32{0, early, late}) {
		t.Errorf("got expiries %v, want %v", got, []uint32{0, early, late})
	}
	// The insert is recognised as a repeat and stores nothing, which must not pass for a copy.
	if err := s.conn.Exec(t.Context(), "DELETE FROM audit_events WHERE retention_class = '"+made.Retention+"'"); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteCopies(t.Context(), sweep, []*event.Row{made}); err == nil {
		t.Error("a copy that is not there was read back")
	}
}
