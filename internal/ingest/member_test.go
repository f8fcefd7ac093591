package ingest

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// Somebody is a member of two organizations and is removed from one: what they did there
// ends, and nothing else. An event that does not say from which is counted.
func TestAMemberIsRemovedFromOneOrganization(t *testing.T) {
	text, err := os.ReadFile("../../schemas/policies/bstrapr.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("bstrapr", bytes.ReplaceAll(text, []byte("from: account.deleted, key: user"), []byte("from: member.removed, key: member")))
	if err != nil {
		t.Fatal(err)
	}
	s := newStack(t, 1)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: s.dsn, Policy: p}); err != nil {
		t.Fatal(err)
	}
	in := func(organization, event string) string {
		return strings.Replace(event, `"organization.id":"org_1"`, organization, 1)
	}
	const one, two, none = `"organization.id":"org_1"`, `"organization.id":"org_2"`, `"workspace.id":"w_1"`
	removed := auditEvent("a-5", "member.removed", 24*time.Hour, `,"target.type":"member","target.id":"u_9"`)
	s.publish(s.topics[event.Audit], 0, 0,
		in(one, auditEvent("a-1", "account.updated", 48*time.Hour, "")),
		in(two, auditEvent("a-2", "account.updated", 48*time.Hour, "")),
		in(none, auditEvent("a-3", "account.updated", 48*time.Hour, "")),
		in(none, strings.Replace(removed, "a-5", "a-4", 1)),
		removed, removed,
	)
	noHash := func(string) []string { return nil }
	r := s.start(func(o *Options) {
		o.Policy, o.PolicyVersion = p, p.Version
		o.Known = retention.New(p, retention.Source{Promises: p.Stored()}, noHash)
	})
	eventually(t, "all offsets in the ledger", s.done(s.topics[event.Audit], 6))
	r.stop()
	if got := s.query("SELECT DISTINCT subject, action FROM anchors FORMAT TSV"); got != "member:org_1/user:u_9\tmember.removed" {
		t.Errorf("got the facts %q", got)
	}
	if got := r.metric("unnamed_facts_total"); got != 1 {
		t.Errorf("counted %v events that name nobody, want the one without an organization", got)
	}
	sweeper := retention.NewSweeper(retention.Options{Storage: &swept{s.store, p, 99}, Policy: p, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if res, err := sweeper.Sweep(t.Context(), nil); err != nil || res.Moved != 1 {
		t.Fatalf("got %+v, %v", res, err)
	}
	want := "a-1\taccount@90d-after-member.removed\t89\na-2\taccount@90d-after-member.removed\t0\na-3\taccount/without@2y\t0"
	const left = "intDiv(expires_override - toUnixTimestamp(occurred_at), 86400)"
	if got := s.query("SELECT id, retention_class, if(expires_override > 0, %s - 2, 0) FROM audit_events WHERE event_action = 'account.updated' ORDER BY id FORMAT TSV", left); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
