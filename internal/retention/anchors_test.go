package retention

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// anchors are all that a period can count from, what else begins it, and what takes it back.
var anchors = []struct {
	action, key    string
	begins, clears []string
}{
	{"account.deleted", "user", nil, []string{"account.restored", "account.created"}},
	{"account.deletion_requested", "user", []string{"account.deleted"}, []string{"account.restored", "account.created"}},
	{"account.deleted", "organization", nil, []string{"account.restored", "account.created"}},
	{"member.removed", "member", nil, []string{"member.restored", "member.added"}},
	{"workspace.deleted", "workspace", nil, []string{"workspace.restored", "workspace.created"}},
	{"workspace.deleted", "organization", nil, []string{"workspace.restored", "workspace.created"}},
	{"project.deleted", "project", nil, []string{"project.restored", "project.created"}},
	{"deployment.deleted", "deployment", nil, []string{"deployment.restored", "deployment.created"}},
}

// subject is what a fact calls that which a row of these hangs on, of its people the one.
func subject(key, who string) string {
	switch key {
	case "user":
		return "user:" + who
	case "member":
		return event.Member("it", "user:"+who)
	}
	return key + ":it"
}

// of makes a row belong to something of each kind, done by one account to the thing of another.
func of(class string, at time.Time) *event.Row {
	r := row(class, "actor", at)
	r.Owners, r.SubjectKeys = []string{"owner"}, append(r.SubjectKeys, "user:owner")
	r.Text[event.TOrganization], r.Text[event.TWorkspace], r.Text[event.TProject], r.Text[event.TDeployment] = "it", "it", "it", "it"
	return r
}

// TestEveryAnchorInAnyOrder tells, late, twice and in any order, what happened to what a row
// hangs on, and much that is about something else, and walks the sentence through.
func TestEveryAnchorInAnyOrder(t *testing.T) {
	p := load(t, "bstrapr")
	for _, a := range anchors {
		for _, within := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s of the %s, within %v", a.action, a.key, within), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					const hours, days = 24 * 200, 40
					class := policy.StoredClass{Key: "c", Period: policy.Period{Sentinel: true}, Anchor: a.action, KeyedBy: a.key, After: policy.Period{Days: days}, Within: within, Erasable: true}
					begins := append([]string{a.action}, a.begins...)
					born := rapid.IntRange(0, hours).Draw(t, "born")
					var facts []event.Fact
					var want time.Time
					tell := func(subject string) { // and take the first end of all
						events := rapid.MapOfN(rapid.IntRange(1, hours), rapid.SampledFrom(append(slices.Clone(begins), a.clears...)), 0, 6).Draw(t, subject)
						told := make(map[int]string) // as the model has them
						for h, action := range events {
							if told[h] = "account.restored"; slices.Contains(begins, action) {
								told[h] = "account.deleted"
							}
							for range rapid.IntRange(1, 2).Draw(t, "deliveries") {
								facts = append(facts, event.Fact{Subject: subject, Action: action, OccurredAt: hour(h)})
							}
						}
						if end, ok := model(told, hours, born, days, within, p.Grace); ok && (want.IsZero() || end.Before(want)) {
							want = end
						}
					}
					it, other := subject(a.key, "owner"), subject(a.key, "actor")
					tell(it)
					switch {
					case it == other:
					case within: // with the first of its people
						tell(other)
					default: // with whose it is
						facts = append(facts, event.Fact{Subject: other, Action: a.action, OccurredAt: hour(1)})
					}
					for _, b := range anchors { // of the same name, and of the same thing
						facts = append(facts, event.Fact{Subject: "none:it", Action: b.action, OccurredAt: hour(1)})
						if b.action != a.action && !slices.Contains(a.begins, b.action) {
							facts = append(facts, event.Fact{Subject: it, Action: b.action, OccurredAt: hour(1)})
						}
						if b.key != a.key {
							facts = append(facts, event.Fact{Subject: subject(b.key, "owner"), Action: a.action, OccurredAt: hour(1)})
						}
					}
					for _, action := range append(slices.Clone(begins), a.clears...) { // elsewhere
						at := rapid.IntRange(1, hours).Draw(t, "elsewhere")
						facts = append(facts, event.Fact{Subject: event.Member("other", "user:owner"), Action: action, OccurredAt: hour(at)})
					}
					facts = rapid.Permutation(facts).Draw(t, "order")
					fate := New(p, Source{Promises: []policy.StoredClass{class}, Facts: facts}, noHash).Fate(of("c", hour(born)))
					hidden := within && !want.IsZero()
					if want.IsZero() {
						want = policy.Sentinel
					}
					if !fate.Expires.Equal(want) || fate.Hidden != hidden {
						t.Fatalf("got %s hidden %v, want %s hidden %v", fate.Expires, fate.Hidden, want, hidden)
					}
				})
			})
		}
	}
}

// TestADeletionAndARestorationAtOneInstant: in doubt a row stays.
func TestADeletionAndARestorationAtOneInstant(t *testing.T) {
	p := load(t, "bstrapr")
	for _, a := range anchors {
		for _, clears := range a.clears {
			class := policy.StoredClass{Key: "c", Period: policy.Period{Sentinel: true}, Anchor: a.action, KeyedBy: a.key, After: policy.Period{Days: 40}, Erasable: true}
			it := subject(a.key, "owner")
			both := []event.Fact{{Subject: it, Action: clears, OccurredAt: hour(5)}, {Subject: it, Action: a.action, OccurredAt: hour(5)}}
			if fate := New(p, Source{Promises: []policy.StoredClass{class}, Facts: both}, noHash).Fate(of("c", hour(0))); !fate.Expires.Equal(policy.Sentinel) {
				t.Errorf("%s and %s: got %s", a.action, clears, fate.Expires)
			}
		}
	}
}

// Every combination of what can be said of a row that ends by a plan and sooner with its
// account, against the order of the rules: a hold, erasure, and then whatever ends first.
func TestWhatDecidesOfAPlan(t *testing.T) {
	p := load(t, "daestro")
	at := start
	i := slices.IndexFunc(p.Stored(), func(c policy.StoredClass) bool { return c.Class == "jobs" && c.Tier == "enterprise" && c.Anchor != "" })
	if i < 0 {
		t.Fatal("the policy file has no class by plan that ends sooner: choose another for this test")
	}
	class := p.Stored()[i].Key // 90 days, or within 7 of the request
	for bits := range 1 << 5 {
		held, erased, lowered, freed, anchored := bits&1 > 0, bits&2 > 0, bits&4 > 0, bits&8 > 0, bits&16 > 0
		for _, requested := range []int{1, 20, 85} { // before and after the ends by plan
			t.Run(fmt.Sprintf("held=%v,erased=%v,pro=%v,free=%v,requested=%v on day %d", held, erased, lowered, freed, anchored, requested), func(t *testing.T) {
				day := func(n int) time.Time { return at.AddDate(0, 0, n) }
				s := Source{Promises: p.Stored()}
				want := Fate{Expires: day(90), Cause: ByPeriod}
				sooner := func(end time.Time, why Cause) {
					if end.Before(want.Expires) {
						want.Expires, want.Cause = end, why
					}
				}
				if anchored {
					s.Facts = append(s.Facts, event.Fact{Subject: "user:u", Action: "account.deletion_requested", OccurredAt: day(requested)})
					want.Hidden = true
					sooner(day(requested+6), ByAnchor) // seven days, less the grace
				}
				if lowered {
					s.Facts = append(s.Facts, event.Fact{Subject: "organization:o", Action: "plan.changed", Tier: "pro", OccurredAt: day(2)})
					sooner(day(30), ByPlan)
				}
				if freed {
					s.Facts = append(s.Facts, event.Fact{Subject: "organization:o", Action: "plan.changed", Tier: "free", OccurredAt: day(3)})
					sooner(day(14), ByPlan)
				}
				if erased {
					s.Erasures = []event.Erasure{{Hashes: marked("user:u"), Until: day(1)}}
					want.Expires, want.Cause, want.Erased = time.Unix(1, 0), ByErasure, true
				}
				want.Readable = want.Expires
				if held {
					s.Holds = []event.Hold{{Subjects: []string{"organization:o"}}}
					want.Expires, want.Cause, want.Held = policy.Sentinel, ByHold, true
				}
				r := row(class, "u", at)
				r.Text[event.TOrganization] = "o"
				got := New(p, s, marked).Fate(r)
				if !got.Expires.Equal(want.Expires) || !got.Readable.Equal(want.Readable) || got.Cause != want.Cause || got.Hidden != want.Hidden || got.Erased != want.Erased || got.Held != want.Held {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		}
	}
}
