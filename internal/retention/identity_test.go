package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// killed stops a sweep after so many of its writes, or before the first.
type killed struct {
	Storage
	writes int
}

func (k *killed) next() error {
	if k.writes--; k.writes < 0 {
		return errKilled
	}
	return nil
}

func (k *killed) WriteMoves(ctx context.Context, s event.Sweep, moves []event.Move) error {
	if len(moves) > 0 && k.next() != nil {
		return errKilled
	}
	return k.Storage.WriteMoves(ctx, s, moves)
}

func (k *killed) WriteCopies(ctx context.Context, s event.Sweep, copies []*event.Row) error {
	if k.next() != nil {
		return errKilled
	}
	return k.Storage.WriteCopies(ctx, s, copies)
}

func (k *killed) Move(ctx context.Context, s event.Sweep, kind event.Kind) error {
	if k.next() != nil {
		return errKilled
	}
	return k.Storage.Move(ctx, s, kind)
}

func (k *killed) EndSweep(ctx context.Context, s event.Sweep, moved int) (bool, error) {
	if k.next() != nil {
		return false, errKilled
	}
	return k.Storage.EndSweep(ctx, s, moved)
}

// stored returns the classes and the people of the rows that have not expired.
func (w *world) stored() (all []string) {
	w.t.Helper()
	rows, err := w.conn.Query(context.Background(), "SELECT DISTINCT toString(retention_class), arrayStringConcat(subject_keys, ' '), event_reason, expires_override FROM audit_events WHERE expires_at > now() ORDER BY ALL")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var class, people, reason string
		var override uint32
		if err := rows.Scan(&class, &people, &reason, &override); err != nil {
			w.t.Fatal(err)
		}
		name, _, _ := strings.Cut(class, "@")
		all = append(all, strings.TrimSpace(name+" "+people)+fmt.Sprintf(", %q, %d", reason, override))
	}
	return all
}

func (w *world) has(why string, want ...string) {
	w.t.Helper()
	if got := w.stored(); !slices.Equal(got, want) {
		w.t.Errorf("%s: got %q, want %q", why, got, want)
	}
}

// readers returns who a reader finds in the rows, by a key.
func (w *world) readers(key string, officer bool) (all []string) {
	w.t.Helper()
	source, err := read(w.t.Context(), w)
	if err != nil {
		w.t.Fatal(err)
	}
	facts := New(w.policy, source, marked)
	see := func(r *event.Row) bool {
		fate := facts.Fate(r)
		Strip(r, fate.Without(now, officer))
		return fate.Visible(now, officer) && slices.Contains(r.SubjectKeys, key)
	}
	for r, err := range w.SubjectRows(w.t.Context(), []string{key}, now, see) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, strings.Join(r.SubjectKeys, " "))
	}
	return all
}

const (
	whole    = `audit user:a device:a-phone user:b user:c, "because I say so", 0`
	withoutA = `audit/anonymised user:b user:c, "", 0`
)

func TestIdentityLeavesAndTheRowStays(t *testing.T) {
	w := newWorld(t, "infratrace")
	w.exec("SYSTEM STOP TTL MERGES audit_events") // what expired stays to be looked at
	w.store(shared(now.AddDate(0, -5, 0)))
	w.fact("user:a", "account.deleted", now.AddDate(0, 0, -28))
	if n := w.sweep(); n != 0 {
		t.Errorf("moved %d rows before the time", n)
	}
	if got := w.readers("user:a", false); got != nil {
		t.Errorf("everybody finds %q", got)
	}
	if got := w.readers("user:b", false); !slices.Equal(got, []string{"user:b user:c"}) {
		t.Errorf("everybody sees %q", got)
	}
	if got := w.readers("user:a", true); len(got) != 1 {
		t.Errorf("an officer finds %q", got)
	}
	w.fact("user:a", "account.restored", now.AddDate(0, 0, -1))
	w.sweep()
	w.has("restored", whole)
	if got := w.readers("user:a", false); len(got) != 1 {
		t.Errorf("restored: everybody finds %q", got)
	}

	w.fact("user:b", "account.deleted", now.AddDate(0, 0, -29))
	if n := w.sweep(); n != 1 {
		t.Errorf("moved %d rows, want the one", n)
	}
	w.has("an owner has gone", `audit/anonymised user:a device:a-phone user:c, "because I say so", 0`)
	w.fact("user:a", "account.deleted", now.AddDate(0, 0, -30).Add(time.Hour)) // told late, and not cleared: it came before
	w.fact("user:a", "account.deleted", now.AddDate(0, 0, -60))
	w.sweep()
	w.has("who acted has gone", `audit/anonymised-again user:c, "", 0`)
	for _, officer := range []bool{false, true} {
		if a, c := w.readers("user:a", officer), w.readers("user:c", officer); a != nil || !slices.Equal(c, []string{"user:c"}) {
			t.Errorf("officer %v: finds %q by a, %q by c", officer, a, c)
		}
	}
	if n := w.sweep(); n != 0 {
		t.Errorf("%d rows were moved again", n)
	}
	w.fact("user:c", "account.deleted", now.AddDate(0, 0, -3))
	w.sweep()
	w.has("the last is deleted", fmt.Sprintf(`audit/anonymised-again user:c, "", %d`, now.AddDate(0, 0, 26).Unix()))
}

// Wherever a sweep is killed, everybody sees one row without the one who left, and
// the next sweep does the rest.
func TestIdentityLeavesWhereverASweepIsKilled(t *testing.T) {
	w := newWorld(t, "infratrace")
	w.exec("SYSTEM STOP TTL MERGES audit_events")
	finished := false
	for writes := 0; !finished; writes++ {
		t.Run(fmt.Sprint(writes), func(t *testing.T) {
			w.exec("TRUNCATE TABLE audit_events")
			w.exec("TRUNCATE TABLE anchors")
			w.store(shared(now.AddDate(0, -5, 0)))
			w.fact("user:a", "account.deleted", now.AddDate(0, 0, -29))
			_, err := w.sweeper(&killed{w, writes}).Sweep(t.Context(), nil)
			if finished = err == nil; !finished && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			between := w.stored()
			for _, officer := range []bool{false, true} {
				if a, b := w.readers("user:a", officer), w.readers("user:b", officer); a != nil || !slices.Equal(b, []string{"user:b user:c"}) {
					t.Errorf("with %q, officer %v finds %q by a, %q by b", between, officer, a, b)
				}
			}
			w.sweep()
			w.has("after the next sweep", withoutA)
			if n := w.sweep(); n != 0 {
				t.Errorf("%d rows were moved again", n)
			}
		})
		if writes > 9 {
			t.Fatal("it never comes to an end")
		}
	}
}

// The copy before the last has the key that the next one would have.
func TestTheNextCopyWaitsForRoom(t *testing.T) {
	w := newWorld(t, "infratrace")
	w.exec("SYSTEM STOP MERGES audit_events")
	last := shared(now.AddDate(0, -5, 0))
	last.Retention = event.Anonymised(event.Anonymised(team))
	w.store(last)
	before := *last
	before.Retention, before.ExpiresOverride = event.Anonymised(team), uint32(now.AddDate(0, 0, -1).Unix())
	b := w.NewBatch()
	b.Add(&before)
	if err := w.Insert(t.Context(), b, "before"); err != nil {
		t.Fatal(err)
	}
	w.fact("user:a", "account.deleted", now.AddDate(0, 0, -29))
	if n := w.sweep(); n != 0 {
		t.Errorf("moved %d rows", n)
	}
	w.has("no room", `audit/anonymised-again user:a device:a-phone user:b user:c, "because I say so", 0`)
	w.exec("SYSTEM START MERGES audit_events")
	w.exec("OPTIMIZE TABLE audit_events FINAL")
	if n := w.sweep(); n != 1 {
		t.Errorf("moved %d rows, want the one", n)
	}
	w.has("room", withoutA)
}

// asked records that somebody asked to be erased.
func (w *world) asked(subject string) {
	w.t.Helper()
	deadline := now.AddDate(0, 0, 30)
	err := errors.Join(w.WriteErasureSubjects(w.t.Context(), "e", []string{subject}, deadline),
		w.WriteErasure(w.t.Context(), event.Erasure{ID: "e", Scope: "subject", State: event.ErasureRequested, Hashes: marked(subject), Until: now, Deadline: deadline,
			Everywhere: now.AddDate(0, 0, 90), UpdatedAt: now, ForgetAt: now.AddDate(0, 0, 91)}))
	if err != nil {
		w.t.Fatal(err)
	}
}

// survey holds what the erasure has before it against what is wanted.
func (w *world) survey(left, kept uint64, reason string) {
	w.t.Helper()
	source, err := read(w.t.Context(), w)
	if err != nil {
		w.t.Fatal(err)
	}
	e := source.Erasures[0]
	if n, err := w.sweeper(w).survey(w.t.Context(), &e, New(w.policy, source, marked)); err != nil || n != left || e.KeptRows != kept || e.KeptReason != reason {
		w.t.Errorf("got %d left and %d kept by %q, %v, want %d and %d by %q", n, e.KeptRows, e.KeptReason, err, left, kept, reason)
	}
}

// An erased person leaves a shared row at once, and the erasure counts the row until
// its bytes are gone.
func TestErasureTakesOneOutOfASharedRow(t *testing.T) {
	w := newWorld(t, "infratrace")
	w.store(shared(now.AddDate(0, -5, 0)), row(team, "a", now.AddDate(0, -4, 0)))
	w.asked("user:a")
	w.survey(2, 0, "")
	if _, err := w.sweeper(w).Sweep(t.Context(), []string{"user:a"}); err != nil {
		t.Fatal(err)
	}
	w.has("swept", withoutA)
	w.exec("OPTIMIZE TABLE audit_events FINAL")
	w.survey(0, 0, "")
	w.has("removed", withoutA)
	if e, err := w.Erasures(t.Context()); err != nil || e[0].State != event.ErasureMoved || e[0].ErasedRows != 2 {
		t.Errorf("got %+v, %v", e, err)
	}
}

// A law keeps an erased person in a shared row, for officers, until its time is over; the
// erasure says so, and does not count what the law keeps no longer as kept.
func TestALawKeepsOneOfASharedRow(t *testing.T) {
	w := newWorld(t, "infratrace")
	w.exec("SYSTEM STOP TTL MERGES audit_events")
	bill := func(r *event.Row) *event.Row {
		r.Retention = "billing@within-30d-of-account.deleted-but-7y"
		return r
	}
	over, due := now.AddDate(-8, 0, 0), bill(shared(now.AddDate(-7, 0, 3)))
	last := bill(row("", "a", now.AddDate(-1, 0, 0)))
	w.store(due, bill(shared(over)), bill(row("", "a", over)), last)
	end := func(r *event.Row) time.Time { return policy.Period{Months: 84}.End(r.RetainedFrom) }
	w.asked("user:a")
	w.survey(2, 2, "statute")
	others := []string{"user:b user:c", "user:b user:c"}
	for range 2 {
		if got := w.readers("user:a", false); got != nil {
			t.Errorf("everybody finds %q", got)
		}
		if got := w.readers("user:b", false); !slices.Equal(got, others) {
			t.Errorf("everybody sees %q, want %q", got, others)
		}
		if got := w.readers("user:a", true); !slices.Equal(got, []string{"user:a device:a-phone user:b user:c", "user:a"}) {
			t.Errorf("an officer finds %q", got)
		}
		w.sweep()
	}
	if e, err := w.Erasures(t.Context()); err != nil || e[0].ErasedRows != 2 || e[0].KeptRows != 2 || e[0].KeptReason != "statute" {
		t.Errorf("got %+v, %v", e, err)
	}
	var keys time.Time
	if err := w.conn.QueryRow(t.Context(), "SELECT max(forget_at) FROM erasure_keys").Scan(&keys); err != nil {
		t.Fatal(err)
	}
	if e, err := w.Erasures(t.Context()); err != nil || e[0].ForgetAt.Before(end(last).AddDate(0, 0, 90)) {
		t.Errorf("got %+v, %v: the law's rows outlive it", e, err)
	}
	if keys.Before(now.AddDate(0, 0, 59)) {
		t.Errorf("its keys are forgotten at %s, want them kept while it keeps rows", keys)
	}
	s := w.sweeper(w)
	s.o.Now = func() time.Time { return end(due).Add(time.Hour) } // the engine's clock is not there yet
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w.has("the law's time is over", `billing/anonymised user:b user:c, "", 0`, fmt.Sprintf(`billing user:a, "", %d`, end(last).Unix()),
		fmt.Sprintf(`billing user:a device:a-phone user:b user:c, "because I say so", %d`, end(due).Unix()))
}
