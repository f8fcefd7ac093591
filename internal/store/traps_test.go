package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// These tests hold what the way in which expiries are moved rests on: the table
// of ways under "Moving an expiry" in the design page on storage. Each trap is a
// control: an engine that no longer has it fails here, and the page is read again.

// trap says which line of the page an engine has made untrue.
func trap(t *testing.T, line, saw string) {
	t.Helper()
	t.Errorf("this engine no longer does what \"Moving an expiry\" in the design page on storage says of %q: %s; revisit that line", line, saw)
}

func exec(t *testing.T, s *Store, statement string) {
	t.Helper()
	if err := s.conn.Exec(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// ids names the rows of a table that are physically there, whatever their expiry.
func ids(t *testing.T, s *Store) string {
	t.Helper()
	return scalar[string](t, s, "SELECT arrayStringConcat(arraySort(groupArray(id)), ' ') FROM request_events")
}

// expiring is a row of the class of 30 days that expires in a time from now.
func expiring(id string, offset int64, in time.Duration) *event.Row {
	r := newRow(event.Request, pro, id, time.Now().Add(in).AddDate(0, 0, -30))
	r.Offset = offset
	r.Bucket = int32(r.RetainedFrom.Unix() / 86400) // as the class says: days
	return r
}

// merged merges every partition until the rows are the ones wanted, which they
// MUST be within 80 seconds.
func merged(t *testing.T, s *Store, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(80 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		exec(t, s, "OPTIMIZE TABLE request_events FINAL")
		if got = ids(t, s); got == want {
			return
		}
	}
	t.Fatalf("got rows %q, want %q", got, want)
}

// TestSynchronousUpdateMovesAnExpiryBothWays is the one way in use: after it the
// TTL follows, and not the reader alone.
func TestSynchronousUpdateMovesAnExpiryBothWays(t *testing.T) {
	for _, form := range []string{"Compact", "Wide"} {
		for _, inserts := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s in %d parts", form, inserts), func(t *testing.T) {
				t.Parallel()
				s := open(t)
				if form == "Wide" {
					exec(t, s, "ALTER TABLE request_events MODIFY SETTING min_bytes_for_wide_part = 0")
				}
				exec(t, s, "SYSTEM STOP MERGES request_events")
				const soon = 10 * time.Second
				var stay []string
				for i := range inserts {
					var rows []*event.Row
					for j, id := range []string{"due", "earlier", "held", "later", "released", "stays"} {
						in := soon
						if id == "earlier" || id == "stays" {
							in = 20 * 24 * time.Hour
						}
						r := expiring(fmt.Sprint(id, i), int64(10*i+j), in)
						if id == "released" { // was held until now
							r.ExpiresOverride = 4291660800
						}
						rows = append(rows, r)
						if id == "held" || id == "later" || id == "stays" {
							stay = append(stay, r.ID)
						}
					}
					insert(t, s, rows...)
				}
				due := time.Now().Add(soon)
				parts := scalar[string](t, s, "SELECT concat(any(part_type), ' ', toString(max(n))) FROM (SELECT part_type, partition, count() AS n FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND active GROUP BY ALL)")
				if want := fmt.Sprintf("%s %d", form, inserts); parts != want {
					t.Fatalf("got parts %q, want %q", parts, want)
				}
				exec(t, s, "SYSTEM START MERGES request_events")
				later := fmt.Sprint(time.Now().AddDate(0, 0, 9).Unix())
				exec(t, s, "ALTER TABLE request_events UPDATE expires_override = multiIf("+
					"startsWith(id, 'earlier'), 1, startsWith(id, 'released'), 0, startsWith(id, 'held'), 4291660800, "+later+
					") WHERE match(id, '^(earlier|released|held|later)') SETTINGS mutations_sync = 2")
				if time.Now().After(due) {
					t.Fatal("the machine is too slow: the old expiry passed during the move")
				}
				time.Sleep(time.Until(due.Add(time.Second))) // the clock is the engine's own
				want := sorted(stay)
				merged(t, s, want)
				exec(t, s, "ALTER TABLE request_events MATERIALIZE TTL SETTINGS mutations_sync = 2")
				exec(t, s, "OPTIMIZE TABLE request_events FINAL")
				if got := ids(t, s); got != want {
					t.Errorf("after another round: got %q, want %q", got, want)
				}
			})
		}
	}
}

func sorted(ids []string) string {
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// TestExpiryFollowsWithoutBeingAsked waits for the engine's own merges.
func TestExpiryFollowsWithoutBeingAsked(t *testing.T) {
	s := open(t)
	exec(t, s, "ALTER TABLE request_events MODIFY SETTING merge_with_ttl_timeout = 1")
	insert(t, s, expiring("erased", 1, 480*time.Hour), expiring("stays", 2, 480*time.Hour))
	exec(t, s, "ALTER TABLE request_events UPDATE expires_override = 1 WHERE id = 'erased' SETTINGS mutations_sync = 2")
	var got string
	for deadline := time.Now().Add(80 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got = ids(t, s); got == "stays" {
			return
		}
	}
	t.Errorf("after 80 s: got rows %q, want %q", got, "stays")
}

// TestTrapInsertingAgainBringsTheOldRowBack inserts a delivery a second time with
// an expiry that has passed.
func TestTrapInsertingAgainBringsTheOldRowBack(t *testing.T) {
	s := open(t)
	// The two parts stay apart, as parts of unequal age and size do.
	exec(t, s, "ALTER TABLE request_events MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1")
	old := expiring("row", 1, 480*time.Hour)
	insert(t, s, old)
	again := *old
	again.ExpiresOverride = 1
	insert(t, s, &again)
	readable := func() uint64 {
		return scalar[uint64](t, s, "SELECT count() FROM request_events FINAL WHERE expires_at > now() SETTINGS optimize_move_to_prewhere_if_final = 0")
	}
	exec(t, s, "ALTER TABLE request_events MATERIALIZE TTL SETTINGS mutations_sync = 2")
	if got := readable(); got != 1 {
		trap(t, "insert the row again with an earlier expiry", fmt.Sprintf("%d rows are readable after the TTL, the old one did not come back", got))
	}
}

// patchable lets the lightweight UPDATE in, which the tables as they are refuse.
func patchable(t *testing.T, s *Store) {
	t.Helper()
	err := s.conn.Exec(context.Background(), "UPDATE request_events SET expires_override = 1 WHERE id = 'none'")
	if err == nil {
		t.Error("the tables accept a lightweight UPDATE: a way that loses rows is open")
	}
	exec(t, s, "ALTER TABLE request_events MODIFY SETTING enable_block_number_column = 1, enable_block_offset_column = 1, merge_with_ttl_timeout = 1")
}

// TestTrapLightweightUpdateLosesRows moves an expiry to a later one with the
// quick UPDATE: readers see it, the TTL does not.
func TestTrapLightweightUpdateLosesRows(t *testing.T) {
	s := open(t)
	patchable(t, s)
	insert(t, s, expiring("later", 1, 6*time.Second))
	due := time.Now().Add(6 * time.Second)
	exec(t, s, "UPDATE request_events SET expires_override = "+fmt.Sprint(time.Now().AddDate(0, 0, 9).Unix())+" WHERE id = 'later'")
	if got := scalar[uint64](t, s, "SELECT count() FROM request_events WHERE expires_at > now() + INTERVAL 8 DAY"); got != 1 || !time.Now().Before(due) {
		t.Fatalf("got %d rows moved, want 1 before the old expiry", got)
	}
	for deadline := time.Now().Add(80 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if ids(t, s) == "" {
			return
		}
	}
	trap(t, "lightweight UPDATE to a later expiry", "the row outlived its old expiry by 80 s")
}

// TestTrapLightweightUpdateKeepsRows moves an expiry into the past with it.
func TestTrapLightweightUpdateKeepsRows(t *testing.T) {
	s := open(t)
	patchable(t, s)
	insert(t, s, expiring("erased", 1, 480*time.Hour))
	insert(t, s, expiring("due", 2, 6*time.Second))
	exec(t, s, "UPDATE request_events SET expires_override = 1 WHERE id = 'erased'")
	if got := scalar[uint64](t, s, "SELECT count() FROM request_events WHERE expires_at > now() AND id = 'erased'"); got != 0 {
		t.Fatalf("got %d readable rows, want 0", got)
	}
	for deadline := time.Now().Add(80 * time.Second); time.Now().Before(deadline) && strings.Contains(ids(t, s), "due"); time.Sleep(200 * time.Millisecond) {
	}
	if got := ids(t, s); got != "erased" {
		trap(t, "lightweight UPDATE to an earlier expiry", fmt.Sprintf("rows %q are there once another row's expiry has been executed", got))
	}
}

// TestKeyColumnsCannotBeUpdated: an identity cannot be blanked in place.
func TestKeyColumnsCannotBeUpdated(t *testing.T) {
	s := open(t)
	insert(t, s, expiring("row", 1, 480*time.Hour))
	err := s.conn.Exec(context.Background(), "ALTER TABLE request_events UPDATE user_id = '' WHERE id = 'row' SETTINGS mutations_sync = 2")
	if err == nil {
		trap(t, "update of a key column", "it was accepted")
	}
}
