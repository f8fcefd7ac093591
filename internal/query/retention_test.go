package query

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

func TestRetention(t *testing.T) {
	d := open(t, func(o *Options) { o.Now = func() time.Time { return now.Add(10 * 24 * time.Hour) } })
	free := row(event.Request, "free", "u_1", "org_1", time.Hour)
	free.Text[event.TPlanTier] = "free"
	account := row(event.Audit, "account", "u_1", "org_1", 2*time.Hour)
	account.Text[event.TDataCategory] = "account"
	d.insert(
		row(event.Audit, "usage", "u_1", "org_1", 3*time.Hour), row(event.Security, "usage", "u_1", "org_1", time.Hour),
		free, row(event.Request, "pro", "u_1", "org_1", 2*time.Hour), row(event.Request, "gone", "u_1", "org_1", 25*24*time.Hour), account,
	)
	a := d.get("auditor", "/v1/retention")
	var got struct {
		Policy, Version string
		Classes         []map[string]any
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	if got.Policy != "sample" || got.Version != d.policy.Version {
		t.Errorf("got policy %q %q", got.Policy, got.Version)
	}
	classes := map[string]map[string]any{}
	var names []string
	for _, c := range got.Classes {
		names = append(names, c["class"].(string))
		classes[c["class"].(string)] = c
		if ttl, ok := c["ttl"].(string); !ok || !strings.Contains(ttl, "retention_class") {
			t.Errorf("%s: ttl: got %v, want the live expression", c["class"], c["ttl"])
		}
	}
	if want := []string{"usage", "request", "account", "access_record"}; !slices.Equal(names, want) {
		t.Fatalf("classes: got %q, want %q", names, want)
	}
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	tests := []struct {
		class, field string
		want         any
	}{
		{"usage", "keep", "2y"}, {"usage", "from", "event"}, {"usage", "section", "6"}, {"usage", "rows", 2.0},
		{"usage", "oldest", at(now.Add(-3 * time.Hour))}, {"usage", "newest", at(now.Add(-time.Hour))},
		{"usage", "next_expiry", at(policy.Period{Months: 24}.End(now.Add(-3 * time.Hour)))}, {"usage", "past_expiry", 0.0}, {"usage", "variants", nil},
		{"request", "keep", "14d free, 30d pro, 14d without"}, {"request", "rows", 3.0}, {"request", "past_expiry", 1.0},
		{"request", "next_expiry", at(now.Add(14*24*time.Hour - time.Hour))},
		{"account", "keep", "90d, 2y without"}, {"account", "from", "account.deleted"}, {"account", "rows", 1.0}, {"account", "next_expiry", nil},
		{"access_record", "rows", 0.0}, {"access_record", "oldest", nil}, {"access_record", "section", nil},
	}
	for _, tt := range tests {
		if got := classes[tt.class][tt.field]; got != tt.want {
			t.Errorf("%s %s: got %v, want %v", tt.class, tt.field, got, tt.want)
		}
	}
	if v, _ := classes["request"]["variants"].([]any); len(v) != 3 {
		t.Errorf("request: got %d variants, want free, pro and without", len(v))
	}
}

// TestReportOfOldPromises shows that rows of a promise that the policy file no
// longer makes are still reported, each row once.
func TestReportOfOldPromises(t *testing.T) {
	p, err := policy.Load("testdata/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	facts := []event.ClassFacts{
		{Table: "audit_events", Retention: "usage@2y", Rows: 1, Oldest: now},
		{Table: "audit_events", Retention: "usage@1y", Rows: 10, Oldest: now.Add(-time.Hour), PastExpiry: 2},
		{Table: "security_events", Retention: "usage@1y", Rows: 100, Newest: now},
		{Table: "audit_events", Retention: "support@3y", Rows: 1000},
		{Table: "security_events", Retention: "support@3y", Rows: 10000},
	}
	got := report(p, facts, map[string]string{"audit_events": "TTL-A", "security_events": "TTL-S"})
	var sum uint64
	for _, c := range got.Classes {
		sum += c.Rows
	}
	if sum != 11111 {
		t.Errorf("rows of all classes: got %d, want 11111", sum)
	}
	usage := got.Classes[0]
	if usage.Rows != 111 || usage.PastExpiry != 2 || len(usage.Variants) != 2 || usage.Variants[1].Stored != "usage@1y" || usage.Variants[1].Rows != 110 {
		t.Errorf("usage: got %+v", usage)
	}
	if usage.TTL == nil || *usage.TTL != "audit_events: TTL-A; security_events: TTL-S" {
		t.Errorf("different expressions: got %v", usage.TTL)
	}
	if last := got.Classes[len(got.Classes)-1]; last.Class != "support@3y" || last.Keep != "3y" || last.Rows != 11000 {
		t.Errorf("a class that is gone: got %+v", last)
	}
}

// TestEarliest holds the horizon to the policy's own arithmetic: the second is
// the first whose period is not over.
func TestEarliest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p := policy.Period{Days: 1 + random.IntN(400)}
		if random.IntN(2) == 0 {
			p = policy.Period{Months: 1 + random.IntN(90)}
		}
		at := firstInstant.Add(10*366*24*time.Hour + time.Duration(random.IntN(30*365*24*3600))*time.Second)
		first := earliest(p, at)
		if !p.End(first).After(at) || p.End(first.Add(-time.Second)).After(at) {
			t.Errorf("%s at %s: got %s, whose end is %s", p, at, first, p.End(first))
		}
	}
	if got := earliest(policy.Period{Sentinel: true}, now); !got.IsZero() {
		t.Errorf("without an end: got %s, want none", got)
	}
}
