package main

import (
	"io"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		span span
		from string
		want string
	}{
		{span{years: 2}, "2020-02-29 10:30", "2022-02-28 10:30"},
		{span{years: 4}, "2020-02-29 10:30", "2024-02-29 10:30"},
		{span{years: 1}, "2023-02-28 00:00", "2024-02-28 00:00"},
		{span{years: 7}, "2020-12-31 23:59", "2027-12-31 23:59"},
		{span{days: 30}, "2020-02-01 08:00", "2020-03-02 08:00"},
	} {
		if got := c.span.after(at(c.from)); !got.Equal(at(c.want)) {
			t.Errorf("%+v after %s: got %s, want %s", c.span, c.from, got, c.want)
		}
	}
}

// TestVerdicts reads some sentences by hand, for one account of which an event of
// the first of May is kept.
func TestVerdicts(t *testing.T) {
	fact := func(when, action string) *happening {
		return &happening{at: at(when), arrives: at(when), kind: event.Audit, action: action, person: "u"}
	}
	erase := request{at: at("2020-06-10 00:00"), erase: true, subjects: []string{"user:u"}}
	hold := request{at: at("2020-06-05 00:00"), until: at("2021-01-01 00:00"), subjects: []string{"user:u"}}
	gone := verdict{mustNot, mustNot, mustNot}
	for _, c := range []struct {
		name, policy, action string
		facts                []*happening
		requests             []request
		now                  string
		want                 verdict
	}{
		{"active for years", "infratrace", "file.read", nil, nil, "2027-05-01 00:00", verdict{must, must, must}},
		{"hidden once deleted", "infratrace", "file.read", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-06-01 12:00", verdict{mustNot, must, must}},
		{"there until a day before its deadline", "infratrace", "file.read", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-06-30 11:59", verdict{mustNot, must, must}},
		{"may go on its last day", "infratrace", "file.read", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-06-30 12:00", verdict{mustNot, may, may}},
		{"gone at its deadline", "infratrace", "file.read", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-07-01 12:00", gone},
		{"restored", "infratrace", "file.read", []*happening{fact("2020-06-01 12:00", "account.deleted"), fact("2020-06-20 12:00", "account.restored")}, nil, "2020-07-01 12:00", verdict{must, must, must}},
		{"gone seven days after the request", "daestro", "file.read", []*happening{fact("2020-06-01 12:00", "account.deletion_requested"), fact("2020-06-03 12:00", "account.deleted")}, nil, "2020-06-08 12:00", gone},
		{"a law keeps it", "infratrace", "billing.paid", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2027-04-30 23:59", verdict{mustNot, must, must}},
		{"until the law's end", "infratrace", "billing.paid", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2027-05-02 00:00", gone},
		{"ninety days longer", "bstrapr", "account.updated", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-08-30 11:59", verdict{must, must, must}},
		{"and not a minute more", "bstrapr", "account.updated", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-08-30 12:00", verdict{mustNot, mustNot, may}},
		{"the grace is over", "bstrapr", "account.updated", []*happening{fact("2020-06-01 12:00", "account.deleted")}, nil, "2020-08-31 12:00", gone},
		{"erased", "abstra", "file.read", nil, []request{erase}, "2020-06-10 00:00", verdict{mustNot, mustNot, may}},
		{"erased a month ago", "abstra", "file.read", nil, []request{erase}, "2020-07-10 00:00", gone},
		{"held beyond its time", "infratrace", "file.read", []*happening{fact("2020-06-06 00:00", "account.deleted")}, []request{hold, erase}, "2020-12-31 00:00", verdict{mustNot, must, must}},
		{"released", "infratrace", "file.read", []*happening{fact("2020-06-06 00:00", "account.deleted")}, []request{hold, erase}, "2021-01-02 00:00", gone},
	} {
		o := newOracle(c.policy)
		for _, f := range c.facts {
			o.learn(f)
		}
		o.requests = c.requests
		w := o.watch(&happening{at: at("2020-05-01 00:00"), arrives: at("2020-05-01 00:00"), kind: event.Audit, action: c.action, actor: "u", workspace: "w", traced: false})
		if got := w.judge(o.bounds(w, at(c.now)), at(c.now)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestLate reads by hand what comes when its ninety days are over: held rows survive.
func TestLate(t *testing.T) {
	held := func(from, until string) []request {
		return []request{{at: at(from), until: at(until), subjects: []string{"user:u"}}}
	}
	gone := verdict{mustNot, mustNot, mustNot}
	for _, c := range []struct {
		name     string
		requests []request
		now      string
		want     verdict
	}{
		{"over when it comes", nil, "2020-08-10 00:00", gone},
		{"held before it was over", held("2020-06-05 00:00", "2021-01-01 00:00"), "2020-08-10 00:00", verdict{mustNot, must, must}},
		{"and to the end", held("2020-06-05 00:00", "2021-01-01 00:00"), "2020-12-31 23:59", verdict{mustNot, must, must}},
		{"released", held("2020-06-05 00:00", "2021-01-01 00:00"), "2021-01-02 00:00", gone},
		{"released before it comes", held("2020-06-05 00:00", "2020-08-05 00:00"), "2020-08-10 00:00", gone},
		{"held when it was over", held("2020-08-01 00:00", "2021-01-01 00:00"), "2020-08-10 00:00", gone},
	} {
		o := newOracle("abstra")
		o.requests = c.requests
		w := o.watch(&happening{at: at("2020-05-01 00:00"), arrives: at("2020-08-10 00:00"), kind: event.Request, action: "login", actor: "u"})
		if got := w.judge(o.bounds(w, at(c.now)), at(c.now)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestReport: a run that has seen too little is no proof.
func TestReport(t *testing.T) {
	good := tally{policy: "p", rows: 1, rowDays: 1, checkpoints: 1, searched: 1, controls: 1, shared: true, people: 1}
	for name, spoil := range map[string]func(*tally){
		"early": func(t *tally) { t.early = 1 }, "late": func(t *tally) { t.late = 1 }, "no days": func(t *tally) { t.rowDays = 0 },
		"no checkpoint": func(t *tally) { t.checkpoints = 0 }, "no bytes": func(t *tally) { t.searched = 0 }, "no people": func(t *tally) { t.people = 0 }, "no control": func(t *tally) { t.controls = 0 },
	} {
		bad := good
		spoil(&bad)
		if err := report(io.Discard, []*tally{&good, &bad}); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	if err := report(io.Discard, []*tally{&good}); err != nil {
		t.Error(err)
	}
}
