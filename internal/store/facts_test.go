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
		for _, err := range s.SubjectRows(ctx, []string{"user:u_1"}, c.now, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != c.want {
			t.Errorf("%s: subject: got %d rows, want %d", c.name, n, c.want)
		}
		past, err := s.Withheld(ctx, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(past[event.Security].PastExpiry); got != 1-c.want {
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

// TestWithheldTellsErasedFromExpired counts erased rows that wait for their removal,
// those whose removal is not even entered, and those that leave unseen.
func TestWithheldTellsErasedFromExpired(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	for _, kind := range event.Kinds {
		if err := s.conn.Exec(ctx, "SYSTEM STOP TTL MERGES "+kind.Table()); err != nil {
			t.Fatal(err)
		}
	}
	row := func(kind event.Kind, id, user string, override uint32) *event.Row {
		r := newRow(kind, usage, id, now.Add(-time.Hour))
		r.SubjectKeys, r.ExpiresOverride = []string{"user:" + user}, override
		r.Offset = int64(len(id))<<8 | int64(id[0])
		return r
	}
	again := row(event.Audit, "erased", "u_1", event.ErasedOverride)
	again.Offset++
	workspace := row(event.Security, "workspace", "u_2", 0)
	workspace.Text[event.TWorkspace] = "w_1"
	insert(t, s,
		row(event.Audit, "erased", "u_1", event.ErasedOverride), again, row(event.Request, "past", "u_1", uint32(now.Add(-time.Minute).Unix())),
		row(event.Security, "leaving", "u_2", uint32(now.Add(time.Hour).Unix())), row(event.Security, "held", "u_2", sentinel),
		row(event.Request, "asked", "u_3", 0), row(event.Request, "kept", "u_3", 0), row(event.Request, "other", "u_4", 0), workspace)
	f := event.Filter{From: now.Add(-2 * time.Hour), To: now, Now: now}
	type counts = [event.NumKinds]event.Withheld
	for _, c := range []struct {
		name    string
		subject string
		leaving []string
		want    counts
	}{
		{"all", "", nil, counts{event.Request: {PastExpiry: 1}, event.Audit: {Erased: 1}}},
		{"with those that leave", "", []string{usage}, counts{event.Request: {PastExpiry: 1}, event.Audit: {Erased: 1}, event.Security: {Erased: 1}}},
		{"another class leaves", "", []string{pro}, counts{event.Request: {PastExpiry: 1}, event.Audit: {Erased: 1}}},
		{"a person", "user:u_2", []string{usage}, counts{event.Security: {Erased: 1}}},
	} {
		f := f
		if c.subject != "" {
			f.Subjects = []string{c.subject}
		}
		if got, err := s.Withheld(ctx, f, c.leaving); err != nil || got != c.want {
			t.Errorf("%s: got %v and %v, want %v", c.name, got, err, c.want)
		}
	}
	got, err := s.Concealed(ctx, f, []string{"user:u_1", "user:u_3", "workspace:w_1"}, func(r *event.Row) bool { return r.ID != "kept" })
	if want := [event.NumKinds]uint64{event.Request: 1, event.Security: 1}; err != nil || got != want {
		t.Errorf("concealed: got %v and %v, want %v", got, err, want)
	}
}
