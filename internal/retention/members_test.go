package retention

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

const team = "audit@within-30d-of-account.deleted"

// shared is a row of infratrace in which a acted on what b owns, and c.
func shared(at time.Time) *event.Row {
	r := row(team, "a", at)
	r.Text[event.TDeviceID], r.Text[event.TReason], r.Text[event.TAction] = "a-phone", "because I say so", "device.updated"
	r.Owners = []string{"b", "c"}
	r.SubjectKeys = append(r.SubjectKeys, "device:a-phone", "user:b", "user:c")
	return r
}

// Who leaves a shared row, when, and when the row goes.
func TestWhoLeavesASharedRow(t *testing.T) {
	p := load(t, "infratrace")
	const day = 24
	deleted := func(who string, h int) event.Fact {
		return event.Fact{Subject: "user:" + who, Action: "account.deleted", OccurredAt: hour(h)}
	}
	back := func(who string, h int) event.Fact {
		return event.Fact{Subject: "user:" + who, Action: "account.restored", OccurredAt: hour(h)}
	}
	due := func(h int) time.Time { return hour(h + 29*day) } // thirty days, less the grace
	erasure := func(subjects ...string) (e event.Erasure) {
		for _, s := range subjects {
			e.Hashes = append(e.Hashes, marked(s)...)
		}
		e.Until = hour(100 * day)
		return e
	}
	type who = map[string]time.Time
	for _, c := range []struct {
		name    string
		facts   []event.Fact
		erased  []string
		leaving who
		expires time.Time // zero: waits
		hidden  bool
		erases  bool
	}{
		{"nobody", nil, nil, who{}, time.Time{}, false, false},
		{"one", []event.Fact{deleted("a", day)}, nil, who{"user:a": due(day)}, time.Time{}, false, false},
		{"one, and came back", []event.Fact{deleted("a", day), back("a", 20*day)}, nil, who{}, time.Time{}, false, false},
		{"one, and came back too late", []event.Fact{deleted("a", day), back("a", 31*day)}, nil, who{"user:a": due(day)}, time.Time{}, false, false},
		{"two", []event.Fact{deleted("a", day), deleted("c", 9*day)}, nil, who{"user:a": due(day), "user:c": due(9 * day)}, time.Time{}, false, false},
		{"all", []event.Fact{deleted("a", day), deleted("c", 9*day), deleted("b", 5*day)}, nil,
			who{"user:a": due(day), "user:b": due(5 * day), "user:c": due(9 * day)}, due(9 * day), true, false},
		{"an erased one", nil, []string{"user:b"}, who{"user:b": erasedAt}, time.Time{}, false, false},
		{"who acted, erased by a device", nil, []string{"device:a-phone"}, who{"user:a": erasedAt, "device:a-phone": erasedAt}, time.Time{}, false, false},
		{"all erased, one by a device", nil, []string{"device:a-phone", "user:b", "user:c"},
			who{"user:a": erasedAt, "device:a-phone": erasedAt, "user:b": erasedAt, "user:c": erasedAt}, erasedAt, true, true},
		{"one erased, the others deleted", []event.Fact{deleted("b", day), deleted("c", 2*day)}, []string{"user:a"},
			who{"user:a": erasedAt, "device:a-phone": erasedAt, "user:b": due(day), "user:c": due(2 * day)}, due(2 * day), true, false},
		{"the team", nil, []string{"workspace:w"}, who{}, erasedAt, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := shared(hour(0))
			r.Text[event.TWorkspace] = "w"
			f := New(p, Source{Promises: p.Stored(), Facts: c.facts, Erasures: []event.Erasure{erasure(c.erased...)}}, marked)
			fate := f.Fate(r)
			leaving := who{}
			for _, l := range fate.Leaving {
				leaving[l.Key] = l.At
			}
			if c.expires.IsZero() {
				c.expires = policy.Sentinel
			}
			if !reflect.DeepEqual(leaving, c.leaving) || !fate.Expires.Equal(c.expires) || fate.Hidden != c.hidden || fate.Erased != c.erases {
				t.Errorf("got %+v", fate)
			}
			for key, at := range c.leaving {
				if got := fate.Without(at.Add(-time.Second), true); slices.Contains(got, key) {
					t.Errorf("an officer does not see %s before %s", key, at)
				}
				if !slices.Contains(fate.Without(at, true), key) || !slices.Contains(fate.Without(hour(0), false), key) {
					t.Errorf("%s is seen", key)
				}
			}
			held := New(p, Source{Promises: p.Stored(), Facts: c.facts, Erasures: []event.Erasure{erasure(c.erased...)}, Holds: []event.Hold{{Subjects: []string{"user:c"}}}}, marked).Fate(r)
			if got := held.Without(policy.Sentinel, true); got != nil || !held.Expires.Equal(policy.Sentinel) {
				t.Errorf("held: %q leave, and it expires at %s", got, held.Expires)
			}
		})
	}
	t.Run("a row that is one's alone goes", func(t *testing.T) {
		r := row(team, "a", hour(0))
		if fate := New(p, Source{Promises: p.Stored(), Facts: []event.Fact{deleted("a", day)}}, marked).Fate(r); fate.Leaving != nil || !fate.Expires.Equal(due(day)) {
			t.Errorf("got %+v", fate)
		}
	})
	t.Run("where the policy takes the row", func(t *testing.T) {
		whole := *p
		whole.SharedRows = "row"
		if fate := New(&whole, Source{Promises: p.Stored(), Facts: []event.Fact{deleted("b", day)}}, marked).Fate(shared(hour(0))); fate.Leaving != nil || !fate.Expires.Equal(due(day)) || !fate.Hidden {
			t.Errorf("got %+v", fate)
		}
	})
}

// Every combination of what can be said of two people of a shared row, of its place and of
// a hold. Each is worked out as if the row were theirs alone.
func TestWhatDecidesOfASharedRow(t *testing.T) {
	at := start
	deleted, due, law := at.AddDate(0, 1, 0), at.AddDate(0, 4, 0).Add(-24*time.Hour), at.AddDate(7, 0, -1)
	within := policy.StoredClass{Key: "c", Period: policy.Period{Sentinel: true}, Anchor: "account.deleted", KeyedBy: "user", After: policy.Period{Months: 3}, Within: true}
	erasable, statute, over, own := within, within, within, within
	erasable.Erasable = true
	statute.AtLeast, over.AtLeast = policy.Period{Months: 84}, policy.Period{Days: 1}
	type end struct{ deleted, erased, both time.Time }
	p := load(t, "infratrace")
	for _, class := range []struct {
		name    string
		promise policy.StoredClass
		end     end // of somebody's row
	}{
		{"erasable", erasable, end{due, erasedAt, erasedAt}},
		{"kept by a law", statute, end{law, law, law}},
		{"kept by a law whose time is over", over, end{due, at.AddDate(0, 0, 1), at.AddDate(0, 0, 1)}},
		{"kept for its own time", own, end{due, policy.Sentinel, due}},
	} {
		for bits := range 64 {
			held, place := bits&1 > 0, bits&2 > 0
			is := map[string]int{"user:a": bits >> 2 & 3, "user:b": bits >> 4} // 1: deleted, 2: erased
			t.Run(fmt.Sprintf("%s/held=%v,place=%v,%v", class.name, held, place, is), func(t *testing.T) {
				copied := class.promise
				copied.Key = event.Anonymised("c")
				s := Source{Promises: []policy.StoredClass{class.promise, copied}}
				e := event.Erasure{Until: at.AddDate(0, 2, 0)}
				want := Fate{Expires: policy.Sentinel, Cause: ByPeriod}
				last, stay, erased := time.Time{}, 0, 0
				for _, who := range []string{"user:a", "user:b"} {
					if is[who]&1 > 0 {
						s.Facts = append(s.Facts, event.Fact{Subject: who, Action: "account.deleted", OccurredAt: deleted})
					}
					if is[who]&2 > 0 {
						e.Hashes = append(e.Hashes, marked(who)...)
						erased++
					}
					if is[who] == 0 {
						stay++
						continue
					}
					leaves := []time.Time{1: class.end.deleted, 2: class.end.erased, 3: class.end.both}[is[who]]
					want.Leaving = append(want.Leaving, Leaving{who, leaves})
					last = later(last, leaves)
				}
				if stay == 0 {
					want.Expires, want.Hidden, want.Cause = last, true, ByAnchor
				}
				if place {
					e.Hashes = append(e.Hashes, marked("workspace:w")...)
				}
				if place || erased == 2 {
					want.Erased, want.Hidden, want.Cause = class.promise.Erasable, want.Hidden || !class.promise.Erasable, ByStatute
					if class.promise.Erasable {
						want.Cause = ByErasure
					}
					if class.end.erased.Before(want.Expires) {
						want.Expires = class.end.erased
					}
				}
				want.Readable = want.Expires
				if held {
					s.Holds = []event.Hold{{Subjects: []string{"user:b"}}}
					want.Expires, want.Cause, want.Held = policy.Sentinel, ByHold, true
				}
				if !want.Expires.Equal(policy.Sentinel) {
					want.Override = uint32(want.Expires.Unix())
				}
				s.Erasures = []event.Erasure{e}
				r := row("c", "a", at)
				r.Owners, r.SubjectKeys, r.Text[event.TWorkspace] = []string{"b"}, append(r.SubjectKeys, "user:b"), "w"
				if got := New(p, s, marked).Fate(r); !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		}
	}
}
