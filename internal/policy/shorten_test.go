package policy

import (
	"cmp"
	"strings"
	"testing"
)

// old makes a registered class from its key, with the anchor "account.deleted" of a
// user unless another is given.
func old(key string, p, after Period, within bool, keyed ...string) StoredClass {
	s := StoredClass{Key: key, Period: p, Promised: p, After: after, Within: within}
	if after != (Period{}) {
		s.Anchor, s.KeyedBy = "account.deleted", "user"
	}
	if len(keyed) > 0 {
		s.KeyedBy = keyed[0]
	}
	return Registered(s)
}

func days(n int) Period { return Period{Days: n} }

// The small policy promises bill@7y, acct@within-30d-of-account.deleted, plan/free@14d,
// plan/pro@30d and plan/without@20d. Each case is what an older file promised.
func TestShortenings(t *testing.T) {
	open, year := Period{Sentinel: true}, Period{Months: 12}
	for _, c := range []struct {
		name string
		old  StoredClass
		want string // "" where the older promise stays as it is
		how  Comparison
	}{
		{"longer from the event", old("bill@8y", Period{Months: 96}, Period{}, false), "7y", Shorter},
		{"shorter from the event", old("bill@6y", Period{Months: 72}, Period{}, false), "", Longer},
		{"days that a year may or may not have", old("plan/pro@1m", Period{Months: 1}, Period{}, false), "", Different},
		{"days that months surely have", old("plan/pro@2m", Period{Months: 2}, Period{}, false), "30d", Shorter},
		{"tier", old("plan/free@15d", days(15), Period{}, false), "14d", Shorter},
		{"without", old("plan/without@1y", year, Period{}, false), "20d", Shorter},
		{"tier that is gone", old("plan/gold@90d", days(90), Period{}, false), "", Same},
		{"no tier before", old("plan@90d", days(90), Period{}, false), "", Same},
		{"class that is gone", old("usage@2y", Period{Months: 24}, Period{}, false), "", Same},
		{"longer within", old("acct@within-60d-of-account.deleted", open, days(60), true), "within 30d of account.deleted", Shorter},
		{"shorter within", old("acct@within-7d-of-account.deleted", open, days(7), true), "", Longer},
		{"keep becomes within", old("acct@90d-after-account.deleted", open, days(90), false), "within 30d of account.deleted", Shorter},
		{"keep becomes within of the same time", old("acct@30d-after-account.deleted", open, days(30), false), "within 30d of account.deleted", Shorter},
		{"keep that ends before the new within", old("acct@7d-after-account.deleted", open, days(7), false), "", Different},
		{"another key", old("acct@within-60d-of-account.deleted", open, days(60), true, "organization"), "", Different},
		{"from the event before", old("acct@1y", year, Period{}, false), "", Different},
		{"from an anchor before", old("bill@90d-after-account.deleted", open, days(90), false), "", Different},
		{"registered without its anchor", old("acct@within-60d-of-account.deleted", open, Period{}, false), "", Different},
		{"the file has it", old("bill@7y", Period{Months: 84}, Period{}, false), "", Same},
	} {
		p := smallWith(t)
		got := ""
		for _, s := range p.Shortenings([]StoredClass{c.old}) {
			got += s.New.Promise()
			if s.Old != c.old || s.New.Key != c.old.Key || s.New.Promised != c.old.Promised || s.New.Bucket != c.old.Bucket {
				t.Errorf("%s: got %+v", c.name, s)
			}
			if again := p.Shortenings([]StoredClass{s.New}); len(again) > 0 {
				t.Errorf("%s: shortened a second time: %v", c.name, again)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if n, ok := successor(c.old, p.Stored()); ok && n.Compare(c.old) != c.how {
			t.Errorf("%s: %s against %s is %s, want %s", c.name, n.Promise(), c.old.Promise(), n.Compare(c.old), c.how)
		}
	}
}

// A part that is shorter is shortened, the longer one beside it is not.
func TestShorteningByParts(t *testing.T) {
	const file = "from: event, operator: by_plan"
	p := smallWith(t, file, "from: event, sooner: {within: 9d, from: account.deleted, key: user}, operator: by_plan", "storage_regions]}", "storage_regions, classes.plan.sooner]}")
	for _, c := range []struct {
		old  StoredClass
		want string
	}{
		{old("plan/pro@60d-or-within-5d-of-account.deleted", days(60), days(5), true), "30d, or within 5d of account.deleted"},
		{old("plan/pro@20d-or-within-12d-of-account.deleted", days(20), days(12), true), "20d, or within 9d of account.deleted"},
		{old("plan/pro@60d", days(60), Period{}, false), "30d"}, // what hung on nothing goes on so
	} {
		got := p.Shortenings([]StoredClass{c.old})
		if len(got) != 1 || got[0].New.Promise() != c.want {
			t.Errorf("%s: got %v, want %s", c.old.Key, got, c.want)
		}
		if n, ok := successor(c.old, p.Stored()); ok && c.old.Anchor != "" && n.Compare(c.old) != Different {
			t.Errorf("%s: got %s, want neither shorter nor longer", c.old.Key, n.Compare(c.old))
		}
	}
}

// A statute may end earlier than it did, and is never dropped or made longer.
func TestShorteningOfStatute(t *testing.T) {
	with := func(least Period) StoredClass {
		return StoredClass{Class: "b", Period: Period{Sentinel: true}, Anchor: "account.deleted", KeyedBy: "user", After: days(30), Within: true, AtLeast: least}
	}
	five, seven := Period{Months: 60}, Period{Months: 84}
	for _, c := range []struct{ old, now, want Period }{{seven, five, five}, {five, seven, five}, {seven, Period{}, seven}, {Period{}, seven, Period{}}} {
		if got := with(c.old).shortened(with(c.now)).AtLeast; got != c.want {
			t.Errorf("%s then %s: got %s, want %s", c.old, c.now, got, c.want)
		}
	}
}

func TestKnown(t *testing.T) {
	p := smallWith(t)
	shortened := old("bill@7y", Period{Months: 84}, Period{}, false)
	shortened.Period, shortened.ShortenedBy = Period{Months: 12}, "v2"
	var got []string
	for _, c := range p.Known([]StoredClass{old("bill@8y", Period{Months: 96}, Period{}, false), shortened}) {
		got = append(got, c.Key+"="+c.Period.String())
	}
	want := "plan/free@14d=14d plan/pro@30d=30d plan/without@20d=20d acct@within-30d-of-account.deleted=open acct/without@1y=1y bill@7y=1y acc@2y=2y bill@8y=8y"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

// The view retention_promises takes the shortest by 31 days a month, months first. It MUST agree with
// NotOver, by which the files are compared.
func TestViewAgreesWithNotOver(t *testing.T) {
	var all []Period
	for n := 1; n <= MaxMonths; n++ {
		all = append(all, Period{Months: n}, Period{Days: n}, Period{Days: 28 * n}, Period{Days: 30 * n}, Period{Days: 31 * n})
	}
	before := func(p, q Period) bool {
		return cmp.Or(cmp.Compare(31*p.Months+p.Days, 31*q.Months+q.Days), cmp.Compare(p.Days, q.Days)) < 0
	}
	for _, p := range all {
		for _, q := range all {
			if p != q && p.NotOver(q) && !before(p, q) {
				t.Fatalf("%s never ends after %s, and the view takes the other", p, q)
			}
		}
	}
}
