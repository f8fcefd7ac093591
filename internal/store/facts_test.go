package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func TestClassFacts(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	day := 24 * time.Hour
	old := newRow(event.Audit, usage, "old", now.Add(-100*day))
	moved := newRow(event.Audit, usage, "moved", now.Add(-50*day))
	moved.ExpiresOverride = uint32(now.Add(10 * day).Unix())
	waiting := newRow(event.Audit, account, "waiting", now.Add(-3*day))
	unknown := newRow(event.Security, "invented@1d", "unknown", now.Add(-3*day))
	insert(t, s, old, moved, waiting, unknown)

	got, err := s.ClassFacts(ctx, now.Add(20*day))
	if err != nil {
		t.Fatal(err)
	}
	want := []event.ClassFacts{
		{Table: "audit_events", Retention: account, Rows: 1, Oldest: waiting.OccurredAt, Newest: waiting.OccurredAt},
		{Table: "audit_events", Retention: usage, Rows: 2, Oldest: old.OccurredAt, Newest: moved.OccurredAt, NextExpiry: old.RetainedFrom.AddDate(2, 0, 0), PastExpiry: 1},
		{Table: "security_events", Retention: "invented@1d", Rows: 1, Oldest: unknown.OccurredAt, Newest: unknown.OccurredAt},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestUnreadableAtItsEnd looks from both sides of the second at which a row expires.
func TestUnreadableAtItsEnd(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	r := newRow(event.Security, pro, "r", now)
	r.SubjectKeys = []string{"user:u_1"}
	insert(t, s, r)
	end := r.RetainedFrom.Add(30 * 24 * time.Hour)
	for _, c := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"second before", end.Add(-time.Second), 1},
		{"millisecond before", end.Add(-time.Millisecond), 1},
		{"at its end", end, 0},
		{"after", end.Add(time.Second), 0},
		{"in the far future", end.AddDate(500, 0, 0), 0},
	} {
		f := event.Filter{From: now.Add(-time.Hour), To: now.Add(time.Hour), Now: c.now}
		page, err := s.Events(ctx, f, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) != c.want {
			t.Errorf("%s: page: got %d rows, want %d", c.name, len(page), c.want)
		}
		n := 0
		for _, err := range s.SubjectRows(ctx, []string{"user:u_1"}, c.now) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != c.want {
			t.Errorf("%s: subject: got %d rows, want %d", c.name, n, c.want)
		}
		past, err := s.PastExpiry(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(past[event.Security]); got != 1-c.want {
			t.Errorf("%s: past expiry: got %d, want %d", c.name, got, 1-c.want)
		}
	}
}

func TestTTL(t *testing.T) {
	s := open(t)
	live, err := s.TTL(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range event.Kinds {
		if ttl := live[kind.Table()]; !strings.HasPrefix(ttl, "if(expires_override > 0, ") || !strings.Contains(ttl, "'usage@2y'") || strings.Contains(ttl, "SETTINGS") {
			t.Errorf("%s: got %q", kind.Table(), ttl)
		}
	}
	if err := s.conn.Exec(context.Background(), "ALTER TABLE audit_events REMOVE TTL"); err != nil {
		t.Fatal(err)
	}
	if live, err = s.TTL(context.Background()); err != nil || live["audit_events"] != "" {
		t.Errorf("removed: got %q and %v, want none", live["audit_events"], err)
	}
}
