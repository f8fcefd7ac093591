package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/verify"
)

// auditEvent is one audit event as a service publishes it.
func auditEvent(id, action string, age time.Duration, more string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"%s","source":"/svc/api","type":"com.example.audit.v1","time":"%s",
"data":{"event.action":"%s","event.outcome":"success","user.id":"u_9","organization.id":"org_1"%s}}`,
		id, time.Now().UTC().Add(-age).Truncate(time.Second).Format(time.RFC3339Nano), action, more)
}

func TestFactsAreKept(t *testing.T) { onBoth(t, 1, factsAreKept) }

// What an event says of other rows is kept whatever becomes of the event, and once.
func factsAreKept(t *testing.T, s *stack) {
	const year = 365 * 24 * time.Hour
	deleted := auditEvent("a-1", "workspace.deleted", time.Hour, `,"workspace.id":"w_1"`)
	s.publish(s.topics[event.Audit], 0, 0,
		deleted, deleted,
		auditEvent("a-2", "plan.changed", 2*year, `,"plan.tier":"free"`), // its own period is long over
		auditEvent("a-3", "job.started", time.Hour, ""),
	)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[event.Audit], 4))
	r.stop()
	want := "organization:org_1\tplan.changed\tfree\nworkspace:w_1\tworkspace.deleted\t"
	if got := s.query("SELECT DISTINCT subject, action, plan_tier FROM anchors ORDER BY subject FORMAT TSV"); got != strings.TrimSpace(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.query("SELECT countIf(forget_at > occurred_at) = count() FROM anchors"); got != "1" {
		t.Error("a fact is forgotten before it happened")
	}
	if got := s.query("SELECT sum(stored), sum(expired) FROM ingest_ledger FORMAT TSV"); got != "3\t1" {
		t.Errorf("got outcomes %q, want 3 stored and 1 expired", got)
	}
}

func TestErasedStaysErased(t *testing.T) { onBoth(t, 1, erasedStaysErased) }

// What was erased is not stored again when it is read or published again, and
// what comes later of the same person is. A deleted workspace's late events expire
// on arrival once its time is over.
func erasedStaysErased(t *testing.T, s *stack) {
	rules := tiers(t)
	until := time.Now().Add(-30 * time.Minute)
	hash := func(subject string) []string { return []string{"hash of " + subject} }
	facts := retention.New(rules, retention.Source{
		Promises: rules.Stored(),
		Erasures: []event.Erasure{{Hashes: hash("user:u_1"), Until: until}},
		Facts:    []event.Fact{{Subject: "workspace:w_1", Action: "workspace.deleted", OccurredAt: time.Now().AddDate(0, 0, -200)}},
	}, hash)
	known := func(o *Options) { o.Known = facts }
	s.publish(s.topics[event.Request], 0, 0,
		olderEvent(1, time.Hour, ""),      // of u_1, erased
		olderEvent(1, 10*time.Minute, ""), // u_1 came back
		olderEvent(2, time.Hour, ""),      // of u_2
		olderEvent(1, time.Hour, ""),      // erased and published again
	)
	s.publish(s.topics[event.Audit], 0, 0, auditEvent("a-1", "workspace.configured", 48*time.Hour, `,"workspace.id":"w_1","target.owner.id":"u_3"`))
	for _, group := range []string{"first", "second"} { // the second reads everything again
		s.group = group
		if group == "second" {
			s.query("TRUNCATE TABLE ingest_ledger")
		}
		r := s.start(known)
		eventually(t, "all requests in the ledger", s.done(s.topics[event.Request], 4))
		eventually(t, "all audit events in the ledger", s.done(s.topics[event.Audit], 1))
		r.stop()
		want := s.topics[event.Audit] + "\t0\t0\t1\n" + s.topics[event.Request] + "\t2\t2\t0"
		if got := s.query("SELECT topic, sum(stored), sum(suppressed), sum(expired) FROM ingest_ledger GROUP BY topic ORDER BY topic FORMAT TSV"); got != want {
			t.Errorf("%s: got %q, want %q", group, got, want)
		}
	}
	if got := s.query("SELECT uniqExact(id, occurred_at), uniqExactIf(id, has(subject_keys, 'user:u_1')) FROM request_events FORMAT TSV"); got != "2\t1" {
		t.Errorf("got rows %q, want the two that are nobody's erased", got)
	}
	if report := s.verify(func(*verify.Options) {}); !report.OK() {
		t.Errorf("verify found %+v", report.Findings)
	}
}

func TestHeldOutlivesItsPeriod(t *testing.T) { onBoth(t, 1, heldOutlivesItsPeriod) }

// What comes when its period of thirty days is over is stored where a hold was placed before
// that: on time it would be there. It stays until the release, whatever becomes of the hour
// until a sweep, and the account of moves has it.
func heldOutlivesItsPeriod(t *testing.T, s *stack) {
	const day = 24 * time.Hour
	rules := tiers(t)
	noHash := func(string) []string { return nil }
	known := func(o *Options) {
		o.Known = retention.New(rules, retention.Source{Promises: rules.Stored(), Holds: []event.Hold{
			{Subjects: []string{"user:u_1"}, PlacedAt: time.Now().Add(-40 * day)}, {Subjects: []string{"user:u_2"}, PlacedAt: time.Now().Add(-5 * day)},
		}}, noHash)
	}
	s.refuseMarked()
	s.publish(s.topics[event.Request], 0, 0,
		olderEvent(1, 35*day, ""),                               // on time it would have been there when the hold was placed
		olderEvent(2, 40*day, ""),                               // it would have been gone
		olderEvent(3, 35*day, ""),                               // nobody holds it
		olderEvent(51, 80*day, ""),                              // of u_1, and gone
		olderEvent(101, 30*day-time.Minute, ""),                 // of u_1, over in a minute
		olderEvent(52, time.Hour, ""),                           // of u_2: a sweep has time enough
		olderEvent(151, 35*day, `,"service.name":"`+marked+`"`), // of u_1, and ClickHouse refuses it
	)
	for _, group := range []string{"first", "second"} { // the second reads everything again
		s.group = group
		if group == "second" {
			s.query("TRUNCATE TABLE ingest_ledger")
		}
		r := s.start(known)
		eventually(t, "all offsets in the ledger", s.done(s.topics[event.Request], 7))
		r.stop()
		if got := s.query("SELECT sum(stored), sum(expired), sum(dead) FROM ingest_ledger FORMAT TSV"); got != "3\t3\t1" {
			t.Errorf("%s: got outcomes %q, want 3 stored, 3 expired, one dead", group, got)
		}
	}
	held := fmt.Sprintf("e-1\t%d\ne-101\t%[1]d\ne-52\t0", never)
	const rows = "SELECT DISTINCT id, expires_override FROM request_events ORDER BY id FORMAT TSV"
	if got := s.query(rows); got != held {
		t.Errorf("got %q, want %q", got, held)
	}
	clean := func(when string) {
		t.Helper()
		if r := s.verify(both(everything, after(2*time.Hour))); !r.OK() {
			t.Errorf("%s: verify found %q", when, found(r))
		}
	}
	clean("held")
	s.query("SYSTEM START MERGES request_events")
	s.query("OPTIMIZE TABLE request_events FINAL")
	if got := s.query(rows); got != held {
		t.Errorf("merged: got %q, want %q", got, held)
	}
	sweeper := retention.NewSweeper(retention.Options{Storage: &swept{s.store, rules, 99}, Policy: rules, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if res, err := sweeper.Sweep(t.Context(), nil); err != nil || res.Moved != 2 { // the tables have no hold
		t.Fatalf("got %+v, %v", res, err)
	}
	clean("released")
	s.query("OPTIMIZE TABLE request_events FINAL")
	if got := s.query("SELECT DISTINCT id FROM request_events WHERE expires_at > now() AND id != 'e-101'"); got != "e-52" {
		t.Errorf("released: got %q, want the row whose period is not over", got)
	}
	clean("gone")
}

// An ingester dies when it has stored a held row that came late and before it has entered
// it: the next one enters it. Where the row is gone after that, it is missed.
func TestHeldIsEnteredAfterAKill(t *testing.T) {
	s := newStack(t, 1)
	rules := tiers(t)
	s.publish(topics[event.Request], 0, 0, olderEvent(1, 35*24*time.Hour, ""))
	known := func(o *Options) {
		o.Known = retention.New(rules, retention.Source{Promises: rules.Stored(), Holds: []event.Hold{{Subjects: []string{"user:u_1"}}}}, func(string) []string { return nil })
	}
	stored := make(chan struct{})
	first := s.start(func(o *Options) {
		known(o)
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if err := f.storage.Insert(ctx, b, token); err != nil {
				return err
			}
			close(stored)
			<-ctx.Done()
			return ctx.Err()
		}
		o.Storage, o.StopTimeout = f, 100*time.Millisecond
	})
	<-stored
	first.stop()
	if got := s.query("SELECT (SELECT count() FROM request_events), (SELECT count() FROM retention_moves)"); got != "1\t0" {
		t.Fatalf("got %q rows and moves, want the row alone", got)
	}
	second := s.start(known)
	eventually(t, "all offsets in the ledger", s.done(topics[event.Request], 1))
	second.stop()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("verify found %q", got)
	}
	s.vanish("src_offset = 0")
	if got := found(s.verify(everything)); !slices.Equal(got, []string{"missing lethe.request/0 0-0"}) {
		t.Errorf("gone: got %q", got)
	}
}
