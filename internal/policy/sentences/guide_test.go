package sentences

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// fenced returns what stands in the first fence of a language.
func fenced(t *testing.T, page, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n```"+language+"\n")
	block, _, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		t.Fatalf("the page has no %s", language)
	}
	return block
}

// TestTheGuidesExample loads the policy file of docs/retention.md, and holds it against
// the text that stands beside it.
func TestTheGuidesExample(t *testing.T) {
	data, err := os.ReadFile("../../../docs/retention.md")
	if err != nil {
		t.Fatal(err)
	}
	text, file := fenced(t, string(data), "text"), fenced(t, string(data), "yaml")
	p, err := policy.Parse("quill.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if r := Check(p, text); !r.OK() || r.Timed != 6 || len(r.Entries) != 6 {
		t.Errorf("got %d sentences about time and %v", r.Timed, r.Problems)
	}
	changed := strings.Replace(text, "30 days", "31 days", 1)
	if r := Check(p, changed); r.OK() {
		t.Error("another period on the page is accepted")
	}
	if p, err := policy.Parse("quill.yaml", []byte(strings.Replace(file, "{keep: 30d, from: event}", "{keep: 31d, from: event}", 1))); err != nil || Check(p, text).OK() {
		t.Errorf("another period in the file is accepted: %v", err)
	}
	if _, err := policy.Parse("quill.yaml", []byte(strings.Replace(file, "{value: 59d", "{value: 60d", 1))); err == nil || !strings.Contains(err.Error(), "longer than the 90d promised") {
		t.Errorf("backups of a day more: got %v", err)
	}

	// What the page says of classes.
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		kind         event.Kind
		action, user string
		want         string
	}{
		{event.Request, "", "", "request@30d"},
		{event.Audit, "note.edited", "u_1", "account@90d-after-account.deleted"},
		{event.Audit, "note.edited", "", "account/without@30d"},
		{event.Audit, "invoice.paid", "u_1", "billing@7y"},
		{event.Security, "login", "u_1", "security@1y"},
	} {
		e := &event.Event{Kind: c.kind, Time: now}
		e.Set(event.EventAction, c.action)
		e.Set(event.UserID, c.user)
		if d, err := p.Decide(e, now); err != nil || d.Retention != c.want {
			t.Errorf("%s %s: got %s, %v, want %s", c.kind, c.action, d.Retention, err, c.want)
		}
	}
}
