package retention

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

func load(t testing.TB, name string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func noHash(string) []string { return nil }

// marked is a keyed hash that a test can read.
func marked(subject string) []string { return []string{"hash of " + subject} }

var start = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

func hour(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }

// row is an event of a user, of a class.
func row(class, user string, at time.Time) *event.Row {
	r := new(event.Row)
	r.Kind, r.Retention, r.OccurredAt, r.RetainedFrom = event.Audit, class, at, at.Truncate(time.Second)
	r.SubjectKeys, r.Text[event.TUserID] = []string{"user:" + user}, user
	return r
}

// What a sentence says, walked through hour by hour: while the account is there its
// rows stay; n days after it was deleted they go; if it is restored before, they stay;
// if it is restored afterwards, what was kept before is gone and new rows stay.
func model(events map[int]string, last, born, days int, within bool, grace time.Duration) (expires time.Time, ok bool) {
	deleted, over := false, false
	for h := 0; h <= last; h++ {
		if deleted && !hour(h).Before(expires) {
			over = true
		}
		switch events[h] {
		case "account.deleted":
			if !deleted {
				deleted, over = true, false
				expires = hour(h).AddDate(0, 0, days)
				if within {
					expires = expires.Add(-grace)
				}
			}
		case "account.restored":
			if over && born < h {
				return expires, true
			}
			deleted, over = false, false
		}
	}
	return expires, deleted
}

func TestAnchorsInAnyOrderGiveWhatTheSentenceSays(t *testing.T) {
	bstrapr, infratrace := load(t, "bstrapr"), load(t, "infratrace")
	rapid.Check(t, func(t *rapid.T) {
		const hours = 24 * 400
		p, class, days, within := bstrapr, "account@90d-after-account.deleted", 90, false
		if rapid.Bool().Draw(t, "within") {
			p, class, days, within = infratrace, "request@within-30d-of-account.deleted", 30, true
		}
		events := make(map[int]string)
		var facts []event.Fact
		for h, action := range rapid.MapOfN(rapid.IntRange(1, hours-1), rapid.SampledFrom([]string{"account.deleted", "account.restored"}), 0, 8).Draw(t, "events") {
			events[h] = action
			f := event.Fact{Subject: "user:u", Action: action, OccurredAt: hour(h)}
			for range rapid.IntRange(1, 2).Draw(t, "deliveries") {
				facts = append(facts, f)
			}
			facts = append(facts, event.Fact{Subject: "user:other", Action: "account.deleted", OccurredAt: hour(0)})
		}
		facts = rapid.Permutation(facts).Draw(t, "order")
		born := rapid.IntRange(0, hours).Draw(t, "born")
		fate := New(p, Source{Promises: p.Stored(), Facts: facts}, noHash).Fate(row(class, "u", hour(born)))
		want, ok := model(events, hours, born, days, within, p.Grace)
		if !ok {
			want = policy.Sentinel
		}
		if !fate.Expires.Equal(want) || fate.Hidden != (ok && within) {
			t.Fatalf("got %s hidden %v, want %s, anchored %v", fate.Expires, fate.Hidden, want, ok)
		}
	})
}

// Every combination of what can be said of a row, against the order of the rules:
// hold, statute, erasure, period.
func TestWhatDecides(t *testing.T) {
	at := start
	anchor, after := at.AddDate(0, 1, 0), at.AddDate(0, 4, 0)
	for _, class := range []struct {
		name     string
		promise  policy.StoredClass
		erasable bool
		statute  bool
		own      time.Time
		anchored time.Time // with the anchor
	}{
		{"counts from the event", policy.StoredClass{Period: policy.Period{Months: 24}, Erasable: true}, true, false, at.AddDate(2, 0, -1), at.AddDate(2, 0, -1)},
		{"billing", policy.StoredClass{Period: policy.Period{Months: 84}}, false, false, at.AddDate(7, 0, -1), at.AddDate(7, 0, -1)},
		{"after the account", policy.StoredClass{Period: policy.Period{Sentinel: true}, Anchor: "account.deleted", KeyedBy: "user", After: policy.Period{Months: 3}, Erasable: true}, true, false, policy.Sentinel, after},
		{"within, but a statute", policy.StoredClass{Period: policy.Period{Sentinel: true}, Anchor: "account.deleted", KeyedBy: "user", After: policy.Period{Months: 3}, Within: true, AtLeast: policy.Period{Months: 84}}, false, true, policy.Sentinel, at.AddDate(7, 0, -1)},
	} {
		for bits := range 8 {
			held, erased, anchored := bits&1 > 0, bits&2 > 0, bits&4 > 0
			t.Run(fmt.Sprintf("%s/held=%v,erased=%v,anchored=%v", class.name, held, erased, anchored), func(t *testing.T) {
				p := class.promise
				p.Key = "c"
				s := Source{Promises: []policy.StoredClass{p}}
				if held {
					s.Holds = []event.Hold{{Subjects: []string{"email:k1:00", "user:u"}}}
				}
				if erased {
					s.Erasures = []event.Erasure{{Hashes: marked("user:u"), Until: at.AddDate(0, 0, 1)}}
				}
				if anchored {
					s.Facts = []event.Fact{{Subject: "user:u", Action: "account.deleted", OccurredAt: anchor}}
				}
				got := New(load(t, "bstrapr"), s, marked).Fate(row("c", "u", at))

				want := Fate{Expires: class.own, Cause: ByPeriod}
				if anchored && class.promise.Anchor != "" {
					want.Expires, want.Cause = class.anchored, ByAnchor
				}
				want.Hidden = anchored && class.promise.Within
				if erased && class.erasable {
					want.Expires, want.Cause, want.Erased = time.Unix(1, 0), ByErasure, true
				}
				if erased && !class.erasable { // the law's time, and nobody's but the officer's
					want.Cause, want.Hidden = ByStatute, true
					if class.statute {
						want.Expires = at.AddDate(7, 0, -1)
					}
				}
				want.Readable = want.Expires
				if held {
					want.Expires, want.Cause, want.Held = policy.Sentinel, ByHold, true
				}
				if !got.Expires.Equal(want.Expires) || !got.Readable.Equal(want.Readable) || got.Cause != want.Cause || got.Hidden != want.Hidden || got.Erased != want.Erased || got.Held != want.Held {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				switch {
				case got.Expires.Equal(class.own) != (got.Override == 0):
					t.Errorf("override %d for an expiry %s, the class's own is %s", got.Override, got.Expires, class.own)
				case got.Override != 0 && int64(got.Override) != got.Expires.Unix():
					t.Errorf("override %d, expires %s", got.Override, got.Expires)
				}
			})
		}
	}
}

func TestErasureEndsWithItsInstant(t *testing.T) {
	p := load(t, "bstrapr")
	until := hour(100)
	f := New(p, Source{Promises: p.Stored(), Erasures: []event.Erasure{
		{Hashes: marked("user:u"), Until: until}, {Hashes: marked("workspace:w"), Until: hour(50)}, {Hashes: marked("log:d/build_log"), Until: until},
	}}, marked)
	at := func(n time.Duration, change func(*event.Row)) *event.Row {
		r := row("usage@2y", "u", until.Add(n))
		if change != nil {
			change(r)
		}
		return r
	}
	for name, c := range map[string]struct {
		row    *event.Row
		erased bool
	}{
		"before":                        {at(-time.Hour, nil), true},
		"at the instant":                {at(0, nil), true},
		"after: a person who came back": {at(time.Millisecond, nil), false},
		"somebody else":                 {at(-time.Hour, func(r *event.Row) { r.SubjectKeys = []string{"user:v"} }), false},
		"a device of that name":         {at(-time.Hour, func(r *event.Row) { r.SubjectKeys = []string{"device:u"} }), false},
		"in the workspace, too late":    {at(-time.Hour, func(r *event.Row) { r.SubjectKeys, r.Text[event.TWorkspace] = nil, "w" }), false},
		"in the workspace":              {at(-60*time.Hour, func(r *event.Row) { r.SubjectKeys, r.Text[event.TWorkspace] = nil, "w" }), true},
		"in the log": {at(0, func(r *event.Row) {
			r.SubjectKeys, r.Text[event.TDeployment], r.Text[event.TDataCategory] = nil, "d", "build_log"
		}), true},
		"in another log": {at(0, func(r *event.Row) {
			r.SubjectKeys, r.Text[event.TDeployment], r.Text[event.TDataCategory] = nil, "d", "job_log"
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			fate := f.Fate(c.row)
			if fate.Erased != c.erased {
				t.Errorf("got %v, want %v", fate.Erased, c.erased)
			}
			if fate.Visible(c.row.OccurredAt, true) == c.erased {
				t.Error("an officer sees it if and only if it was erased")
			}
		})
	}
}

// An account that is not the one a row is about ends nothing that is kept, and
// everything that must be gone.
func TestWhoARowHangsOn(t *testing.T) {
	staff := func(class string) *event.Row {
		r := row(class, "staff", hour(0))
		r.SubjectKeys = append(r.SubjectKeys, "user:customer")
		r.Text[event.TTargetType], r.Text[event.TTargetID] = "user", "customer"
		return r
	}
	for _, c := range []struct {
		policy, class, deleted string
		moved                  bool
	}{
		{"bstrapr", "account@90d-after-account.deleted", "staff", false},
		{"bstrapr", "account@90d-after-account.deleted", "customer", true},
		{"infratrace", "audit@within-30d-of-account.deleted", "staff", false}, // only they leave it
		{"infratrace", "audit@within-30d-of-account.deleted", "customer", false},
		{"infratrace", "audit@within-30d-of-account.deleted", "nobody", false},
		// Who is deleted has asked for it, told or not.
		{"daestro", "audit@within-7d-of-account.deletion_requested", "customer", true},
	} {
		p := load(t, c.policy)
		f := New(p, Source{Promises: p.Stored(), Facts: []event.Fact{{Subject: "user:" + c.deleted, Action: "account.deleted", OccurredAt: hour(1)}}}, noHash)
		if got := f.Fate(staff(c.class)).Cause == ByAnchor; got != c.moved {
			t.Errorf("%s, %s is deleted: got %v, want %v", c.policy, c.deleted, got, c.moved)
		}
	}
}

// A shorter plan ends old rows earlier, a longer one gives nothing back, and a plan
// says nothing of rows that came after it.
func TestPlans(t *testing.T) {
	p := load(t, "itskode")
	stored := func(plan string) policy.StoredClass {
		for _, c := range p.Stored() {
			if c.Class == "request" && c.Tier == plan {
				return c
			}
		}
		t.Fatalf("no tier %s", plan)
		return policy.StoredClass{}
	}
	if stored("pro").Downgrade != "organization" {
		t.Fatal("the policy file does not shorten old rows any more: choose another for this test")
	}
	born := hour(0)
	r := row(stored("enterprise").Key, "u", born)
	r.Kind, r.Text[event.TOrganization] = event.Request, "o"
	change := func(day int, plan string) event.Fact {
		return event.Fact{Subject: "organization:o", Action: "plan.changed", Tier: plan, OccurredAt: born.AddDate(0, 0, day)}
	}
	for name, c := range map[string]struct {
		facts []event.Fact
		days  int
	}{
		"no change":                     {nil, 90},
		"down":                          {[]event.Fact{change(3, "pro")}, 30},
		"down twice":                    {[]event.Fact{change(5, "free"), change(3, "pro")}, 14},
		"down and up again":             {[]event.Fact{change(3, "free"), change(4, "enterprise")}, 14},
		"before the row":                {[]event.Fact{change(-1, "free")}, 90},
		"to a plan that is not listed":  {[]event.Fact{change(3, "gold")}, 90},
		"of another organization":       {[]event.Fact{{Subject: "organization:p", Action: "plan.changed", Tier: "free", OccurredAt: hour(1)}}, 90},
		"to the plan that it has":       {[]event.Fact{change(3, "enterprise")}, 90},
		"the plan is not said any more": {[]event.Fact{change(3, "")}, 90},
	} {
		t.Run(name, func(t *testing.T) {
			fate := New(p, Source{Promises: p.Stored(), Facts: c.facts}, noHash).Fate(r)
			if want := born.AddDate(0, 0, c.days); !fate.Expires.Equal(want) {
				t.Errorf("got %s, want %s", fate.Expires, want)
			}
		})
	}
}

// A row that was over before its hold was placed is not what the hold is about, and of
// several holds the first that stands counts.
func TestHeldBefore(t *testing.T) {
	end := hour(1000)
	placed := func(n int, subject string, released bool) event.Hold {
		h := event.Hold{PlacedAt: hour(n)}
		if strings.HasPrefix(subject, "hash") {
			h.Hashes = []string{subject}
		} else {
			h.Subjects = []string{subject}
		}
		if released {
			h.ReleasedAt = hour(n + 1)
		}
		return h
	}
	for name, c := range map[string]struct {
		holds []event.Hold
		want  bool
	}{
		"none":                          {nil, false},
		"before":                        {[]event.Hold{placed(999, "user:u", false)}, true},
		"at the end":                    {[]event.Hold{placed(1000, "user:u", false)}, false},
		"after":                         {[]event.Hold{placed(1001, "user:u", false)}, false},
		"of somebody else":              {[]event.Hold{placed(10, "user:v", false)}, false},
		"released":                      {[]event.Hold{placed(10, "user:u", true)}, false},
		"another one after":             {[]event.Hold{placed(10, "user:u", false), placed(1001, "user:u", false)}, true},
		"another one after, told first": {[]event.Hold{placed(1001, "user:u", false), placed(10, "user:u", false)}, true},
		"of another subject":            {[]event.Hold{placed(1001, "user:u", false), placed(10, "workspace:w", false)}, true},
		"by a hash":                     {[]event.Hold{placed(1001, "user:u", false), placed(10, "hash of user:u", false)}, true},
		"by a hash, after":              {[]event.Hold{placed(1001, "hash of user:u", false)}, false},
	} {
		r := row("usage@2y", "u", hour(0))
		r.Text[event.TWorkspace] = "w"
		p := load(t, "bstrapr")
		if got := New(p, Source{Promises: p.Stored(), Holds: c.holds}, marked).Fate(r).HeldBefore(end); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// A year after an account is gone its name is forgotten, and what somebody does to it
// then must not wait for its deletion for ever.
func TestWhatIsForgottenIsKnownByItsHash(t *testing.T) {
	p := load(t, "infratrace")
	const class = "support@within-30d-of-account.deleted"
	deleted := event.Fact{Subject: "user:u", Action: "account.deleted", OccurredAt: hour(0), ReceivedAt: hour(1)}
	kept := New(p, Source{Promises: p.Stored()}, marked).Remember(deleted)
	if len(kept) != 2 || kept[0].Subject != "user:u" || kept[1].Subject == "user:u" {
		t.Fatalf("got %+v, want the fact and the same by a hash", kept)
	}
	if named, hashed := kept[0].ForgetAt, kept[1].ForgetAt; named.Before(hour(0).AddDate(0, 0, 30)) || hashed.Before(hour(0).AddDate(10, 0, 0)) {
		t.Errorf("the name is forgotten at %s and the hash at %s", named, hashed)
	}
	late := row(class, "u", hour(0).AddDate(1, 0, 0))
	later := New(p, Source{Promises: p.Stored(), Facts: kept[1:]}, marked)
	if fate := later.Fate(late); !fate.Expires.Before(late.OccurredAt) {
		t.Errorf("got %s, want it over on arrival", fate.Expires)
	}
	if fate := later.Fate(row(class, "v", late.OccurredAt)); !fate.Expires.Equal(policy.Sentinel) {
		t.Errorf("somebody else: got %s", fate.Expires)
	}
	back := event.Fact{Subject: "user:u", Action: "account.created", OccurredAt: hour(0).AddDate(0, 11, 0)}
	if fate := New(p, Source{Promises: p.Stored(), Facts: append(kept[1:], later.Remember(back)[1])}, marked).Fate(late); !fate.Expires.Equal(policy.Sentinel) {
		t.Errorf("an account of that name since: got %s", fate.Expires)
	}
}

// Who came back is not deleted once the return is forgotten: a deletion that is heard of
// after it is forgotten first, by name and by hash.
func TestAReturnIsForgottenLast(t *testing.T) {
	for _, name := range []string{"bstrapr", "infratrace", "daestro"} {
		p := load(t, name)
		f := New(p, Source{Promises: p.Stored()}, marked)
		deleted := f.Remember(event.Fact{Subject: "user:u", Action: "account.deleted", OccurredAt: hour(0), ReceivedAt: hour(24 * 200)})
		back := f.Remember(event.Fact{Subject: "user:u", Action: "account.restored", OccurredAt: hour(1), ReceivedAt: hour(1)})
		for i := range deleted {
			if !back[i].ForgetAt.After(deleted[i].ForgetAt.AddDate(0, 2, 0)) {
				t.Errorf("%s: %s is forgotten at %s, the deletion at %s", name, back[i].Subject, back[i].ForgetAt, deleted[i].ForgetAt)
			}
		}
	}
}
