package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/internal/verify"
)

// swept is a store as a Sweeper sees it, that stops after so many of its writes.
type swept struct {
	*store.Store
	policy *policy.Policy
	writes int
}

var errKilled = errors.New("killed")

func (s *swept) next() error {
	if s.writes--; s.writes < 0 {
		return errKilled
	}
	return nil
}

func (s *swept) Promises(context.Context) ([]policy.StoredClass, error) {
	return s.policy.Stored(), nil
}

func (s *swept) WriteMoves(ctx context.Context, w event.Sweep, moves []event.Move) error {
	if len(moves) > 0 && s.next() != nil {
		return errKilled
	}
	return s.Store.WriteMoves(ctx, w, moves)
}

func (s *swept) WriteCopies(ctx context.Context, w event.Sweep, copies []*event.Row) error {
	if s.next() != nil {
		return errKilled
	}
	return s.Store.WriteCopies(ctx, w, copies)
}

func (s *swept) Move(ctx context.Context, w event.Sweep, kind event.Kind) error {
	if s.next() != nil {
		return errKilled
	}
	return s.Store.Move(ctx, w, kind)
}

func (s *swept) EndSweep(ctx context.Context, w event.Sweep, moved int) (bool, error) {
	if s.next() != nil {
		return false, errKilled
	}
	return s.Store.EndSweep(ctx, w, moved)
}

// Copies without one of a row's people are in no cell of the ledger, and accounted for
// all the same: wherever a sweep was killed, when one more leaves, and when everything
// is read again.
func TestVerifyKnowsCopies(t *testing.T) {
	p, err := policy.Load("../../schemas/policies/infratrace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := newStack(t, 1)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: all.dsn, Policy: p}); err != nil {
		t.Fatal(err)
	}
	all.query("SYSTEM STOP MERGES request_events")
	noHash := func(string) []string { return nil }
	known := func(facts ...event.Fact) func(o *Options) {
		return func(o *Options) {
			o.Policy, o.PolicyVersion = p, p.Version
			o.Known = retention.New(p, retention.Source{Promises: p.Stored(), Facts: facts}, noHash)
		}
	}
	var values []string
	for id := range 10 { // of u_0 to u_9, on what two others own
		values = append(values, olderEvent(id, 40*24*time.Hour, `,"target.owner.id":["u_98","u_99"]`))
	}
	all.publish(topics[event.Request], 0, 0, values...)
	r := all.start(known())
	eventually(t, "all offsets in the ledger", all.done(topics[event.Request], 10))
	r.stop()
	all.save()

	owner := event.Fact{Subject: "user:u_98", Action: "account.deleted", OccurredAt: time.Now().AddDate(0, 0, -40), Source: "/svc", ID: "1", ReceivedAt: time.Now(), ForgetAt: time.Now().AddDate(1, 0, 0)}
	actor := owner
	actor.Subject = "user:u_3"
	run := func(name string, f func(t *testing.T, s *stack)) {
		t.Run(name, func(t *testing.T) {
			s := *all
			s.t = t
			s.restore()
			s.query("TRUNCATE TABLE anchors")
			s.query("SYSTEM START MERGES request_events") // a mutation is one
			s.fact(owner)
			f(t, &s)
		})
	}
	sweep := func(s *stack, writes int) (retention.Result, error) {
		s.t.Helper()
		w := retention.NewSweeper(retention.Options{Storage: &swept{s.store, p, writes}, Policy: p, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		return w.Sweep(s.t.Context(), nil)
	}
	clean := func(s *stack, when string) {
		s.t.Helper()
		for _, change := range []func(*verify.Options){shorter, both(everything, after(2*time.Hour))} {
			if r := s.verify(change); !r.OK() {
				s.t.Errorf("%s: got %q", when, found(r))
			}
		}
	}
	const visible = "SELECT toString(retention_class) AS c, countIf(expires_at > now()) AS n, countIf(hasAny(subject_keys, ['user:u_98']) AND expires_at > now()), countIf(user_id = 'u_3' AND expires_at > now()) FROM (SELECT DISTINCT *, expires_at FROM request_events) GROUP BY c HAVING n > 0 ORDER BY c FORMAT TSV"
	const one = "request/anonymised@within-30d-of-account.deleted\t10\t0\t1"
	finished := false
	for writes := 1; !finished; writes++ {
		run(fmt.Sprintf("killed after %d writes", writes), func(t *testing.T, s *stack) {
			_, err := sweep(s, writes)
			if finished = err == nil; !finished && !errors.Is(err, errKilled) || writes > 9 {
				t.Fatal(err)
			}
			clean(s, "between")
			if _, err := sweep(s, 99); err != nil {
				t.Fatal(err)
			}
			clean(s, "after")
			if got := s.query("%s", visible); got != one {
				t.Errorf("got %q, want %q", got, one)
			}
		})
	}
	swept := func(s *stack) {
		s.t.Helper()
		if res, err := sweep(s, 99); err != nil || res.Moved != 10 {
			s.t.Fatalf("got %+v, %v", res, err)
		}
	}
	const copies = "retention_class LIKE '%/anonymised%' AND "
	for name, c := range map[string]struct{ breaks, want string }{
		"a copy that is gone":        {"DELETE FROM request_events WHERE " + copies + "src_offset = 4", "missing lethe.request/0 4-4"},
		"a copy that nobody entered": {"DELETE FROM retention_moves WHERE " + copies + "src_offset = 4", "unexpected lethe.request/0 4-4"},
		"a copy with another expiry": {"ALTER TABLE request_events UPDATE expires_override = 4291660800 WHERE " + copies + "src_offset = 4 SETTINGS mutations_sync = 2", "moved lethe.request/0 4-4"},
	} {
		run(name, func(t *testing.T, s *stack) {
			swept(s)
			clean(s, "before")
			s.query("SYSTEM START MERGES retention_moves")
			s.query("%s", c.breaks)
			if got := found(s.verify(everything)); !slices.Equal(got, []string{c.want}) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	run("one more leaves", func(t *testing.T, s *stack) {
		swept(s)
		s.fact(actor)
		if res, err := sweep(s, 99); err != nil || res.Moved != 1 {
			t.Fatalf("got %+v, %v", res, err)
		}
		want := "request/anonymised-again@within-30d-of-account.deleted\t1\t0\t0\nrequest/anonymised@within-30d-of-account.deleted\t9\t0\t0"
		if got := s.query("%s", visible); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		clean(s, "one more")
	})
	run("a second delivery of what was swept", func(t *testing.T, s *stack) {
		swept(s)
		s.query("INSERT INTO request_events SELECT * REPLACE (received_at + 1 AS received_at) FROM request_events WHERE retention_class LIKE '%%/anonymised%%'")
		s.query("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation, received_at + 1 AS received_at, ['request/anonymised@within-30d-of-account.deleted'] AS `cells.retention`) FROM ingest_ledger")
		clean(s, "delivered again")
		if res, err := sweep(s, 99); err != nil || res.Moved != 0 {
			t.Errorf("got %+v, %v", res, err)
		}
	})
	run("read where the facts are known", func(t *testing.T, s *stack) {
		s.query("TRUNCATE TABLE request_events")
		s.query("TRUNCATE TABLE ingest_ledger")
		s.group = "again"
		r := s.start(known(owner))
		eventually(t, "all offsets in the ledger", s.done(topics[event.Request], 10))
		r.stop()
		if got := s.query("%s", visible); got != one {
			t.Errorf("got %q, want %q", got, one)
		}
		clean(s, "read again")
		if res, err := sweep(s, 99); err != nil || res.Moved != 0 {
			t.Errorf("got %+v, %v", res, err)
		}
		s.fact(actor)
		if res, err := sweep(s, 99); err != nil || res.Moved != 1 {
			t.Errorf("got %+v, %v", res, err)
		}
		clean(s, "one more")
	})
}

func (s *stack) fact(f event.Fact) {
	s.t.Helper()
	if err := s.store.WriteFacts(s.t.Context(), []event.Fact{f}); err != nil {
		s.t.Fatal(err)
	}
}
