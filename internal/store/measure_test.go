package store

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// TestGroupsKnowEveryAttribute asks of every attribute whether it is there: of a row
// that has all of them, and of one that has none.
func TestGroupsKnowEveryAttribute(t *testing.T) {
	s := open(t)
	for _, kind := range event.Kinds {
		bare, full := newRow(kind, usage, "bare", now), newRow(kind, "billing@7y", "full", now)
		for i, f := range event.Texts {
			if f.Kinds.Has(kind) {
				full.Text[i] = "v"
			}
		}
		for i, f := range event.Numbers {
			if f.Kinds.Has(kind) {
				full.Number[i] = 1
			}
		}
		full.Owners, full.TraceID, full.SpanID = []string{"o"}, [16]byte{1}, [8]byte{1}
		full.Metadata = []event.Pair{{Key: "k", Value: "v"}}
		insert(t, s, bare, full)
		var all []event.Attr
		for a := range event.Attr(event.NumAttrs) {
			if event.Attributes[a].Kinds.Has(kind) {
				all = append(all, a)
			}
		}
		groups, err := s.Groups(t.Context(), kind, []event.Attr{event.PlanTier}, all, bare.PolicyVersion, 10)
		if err != nil || len(groups) != 2 {
			t.Fatalf("%s: got %+v, %v", kind, groups, err)
		}
		for _, g := range groups {
			want, tier := "", ""
			if g.Retention == "billing@7y" {
				want, tier = "x", "v"
			}
			if !g.Current || g.Rows != 1 || !slices.Equal(g.Compared, []string{tier}) {
				t.Errorf("%s: got %+v", kind, g)
			}
			for i, a := range all {
				if g.Present[i] != want {
					t.Errorf("%s of a %s row of %s: got %q, want %q", event.Attributes[a].Name, kind, g.Retention, g.Present[i], want)
				}
			}
		}
		if _, err := s.Groups(t.Context(), kind, nil, nil, "", 1); err == nil {
			t.Errorf("%s: more groups than the limit: got no error", kind)
		}
	}
}

// TestAnEMailIsNoAccount: a keyed e-mail in the place of a user id is there, and is none.
func TestAnEMailIsNoAccount(t *testing.T) {
	s := open(t)
	for i, owners := range [][]string{{"email:k1:aa"}, {"email:k1:aa", "u_1"}} {
		r := newRow(event.Audit, usage, strconv.Itoa(i), now)
		r.Text[event.TOnBehalfOf], r.Text[event.TUserID] = "email:k1:aa", "u_1"
		r.Owners = owners
		insert(t, s, r)
	}
	groups, err := s.Groups(t.Context(), event.Audit, nil, []event.Attr{event.UserID, event.OnBehalfOf, event.TargetOwner}, "", 10)
	if err != nil || len(groups) != 2 {
		t.Fatalf("got %+v, %v", groups, err)
	}
	for i, want := range [][]string{{"x", "@", "@"}, {"x", "@", "x"}} {
		if !slices.Equal(groups[i].Present, want) || groups[i].Current {
			t.Errorf("got %+v, want %v", groups[i], want)
		}
	}
}

// TestMeasuredFromBothSides looks at a class a second before and at its end, and at the
// end of the grace.
func TestMeasuredFromBothSides(t *testing.T) {
	s := open(t)
	insert(t, s, newRow(event.Security, pro, "a", now))
	end := now.Truncate(time.Second).Add(30 * 24 * time.Hour)
	expires := policy.ExpiresExpr([]policy.StoredClass{{Key: pro, Period: policy.Period{Days: 30}}})
	for _, c := range []struct {
		at              time.Time
		past, pastGrace uint64
		overdue         time.Time
	}{
		{end.Add(-time.Second), 0, 0, time.Time{}}, {end, 1, 0, end}, {end.Add(time.Hour - time.Second), 1, 0, end}, {end.Add(time.Hour), 1, 1, end},
	} {
		got, err := s.MeasureClasses(t.Context(), measured.Scope{Expires: expires, Now: c.at, Grace: time.Hour, Ahead: time.Minute, Daily: []string{}})
		if err != nil || len(got) != 1 {
			t.Fatalf("got %+v, %v", got, err)
		}
		if m := got[0]; m.Past != c.past || m.PastGrace != c.pastGrace || !m.Overdue.Equal(c.overdue) || m.Rows != 1 || m.Misdated != 0 || m.Misplaced != 0 {
			t.Errorf("at %s: got %+v", c.at, m)
		}
	}
	got, err := s.MeasureClasses(t.Context(), measured.Scope{Expires: expires, Now: end, Grace: time.Hour, Ahead: time.Minute, Daily: []string{pro}})
	if err != nil || got[0].Misplaced != 1 && now.Day() != 1 {
		t.Errorf("a row in the bucket of its month, of a class of days: got %+v, %v", got, err)
	}
}
