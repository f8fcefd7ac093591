package ingest

import (
	"fmt"
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
