package main

import (
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

// TestSharedRow reads the sentences by hand for a row of u and v, of which u goes first.
func TestSharedRow(t *testing.T) {
	deleted := func(when, who string) *happening {
		return &happening{at: at(when), arrives: at(when), kind: event.Audit, action: "account.deleted", person: who}
	}
	u, v := deleted("2020-06-01 12:00", "u"), deleted("2020-06-20 12:00", "v")
	hold := request{at: at("2020-05-20 00:00"), subjects: []string{"user:v"}}
	erase := request{at: at("2020-06-10 00:00"), erase: true, subjects: []string{"user:u"}}
	both := request{at: at("2020-06-10 00:00"), erase: true, subjects: []string{"user:u", "user:v"}}
	place := request{at: at("2020-06-10 00:00"), erase: true, subjects: []string{"workspace:w"}}
	all, officers, gone := verdict{must, must, must}, verdict{mustNot, must, must}, verdict{mustNot, mustNot, mustNot}
	for _, c := range []struct {
		name      string
		action    string
		facts     []*happening
		requests  []request
		now       string
		row, u, v verdict
	}{
		{"nobody goes", "file.read", nil, nil, "2027-05-01 00:00", all, all, all},
		{"one goes", "file.read", []*happening{u}, nil, "2020-06-01 12:00", all, officers, all},
		{"one may be gone", "file.read", []*happening{u}, nil, "2020-06-30 12:00", all, verdict{mustNot, may, may}, all},
		{"one is gone", "file.read", []*happening{u}, nil, "2020-07-01 12:00", all, gone, all},
		{"both go", "file.read", []*happening{u, v}, nil, "2020-06-20 12:00", officers, officers, officers},
		{"the row waits for the last", "file.read", []*happening{u, v}, nil, "2020-07-01 12:00", officers, gone, officers},
		{"and goes with them", "file.read", []*happening{u, v}, nil, "2020-07-20 12:00", gone, gone, gone},
		{"one is erased", "file.read", nil, []request{erase}, "2020-06-10 00:00", all, verdict{mustNot, mustNot, may}, all},
		{"one was erased", "file.read", nil, []request{erase}, "2020-07-10 00:00", all, gone, all},
		{"one is erased and one goes", "file.read", []*happening{v}, []request{erase}, "2020-07-10 00:00", officers, gone, officers},
		{"the place is erased", "file.read", nil, []request{place}, "2020-07-10 00:00", gone, gone, gone},
		{"a law keeps who is erased, for officers", "billing.paid", nil, []request{erase}, "2027-04-30 23:59", all, officers, all},
		{"until its end", "billing.paid", nil, []request{erase}, "2027-05-02 00:00", all, gone, all},
		{"a law keeps all who are erased", "billing.paid", nil, []request{both}, "2027-04-30 23:59", officers, officers, officers},
		{"and no longer", "billing.paid", nil, []request{both}, "2027-05-02 00:00", gone, gone, gone},
		{"a law keeps who is erased and who goes", "billing.paid", []*happening{v}, []request{erase}, "2027-04-30 23:59", officers, officers, officers},
		{"a law keeps the place", "billing.paid", nil, []request{place}, "2020-07-10 00:00", officers, officers, officers},
		{"a hold on one holds all", "file.read", []*happening{u}, []request{hold}, "2020-08-01 00:00", all, officers, all},
	} {
		o := newOracle("infratrace")
		for _, f := range c.facts {
			o.learn(f)
		}
		o.requests = c.requests
		w := o.watch(&happening{at: at("2020-05-01 00:00"), arrives: at("2020-05-01 00:00"), kind: event.Audit, action: c.action, actor: "u", owner: "v", workspace: "w"})
		b, now := o.bounds(w, at(c.now)), at(c.now)
		got := map[string]verdict{"the row": w.judge(b, now)}
		for i, m := range w.members {
			got[m.people[0]] = m.judge(b.members[i], now)
		}
		for who, want := range map[string]verdict{"the row": c.row, "u": c.u, "v": c.v} {
			if got[who] != want {
				t.Errorf("%s: %s: got %v, want %v", c.name, who, got[who], want)
			}
		}
	}
}

// TestNames: a person is seen wherever a row says who they are.
func TestNames(t *testing.T) {
	rows := map[string]*event.Row{
		"a key":    {SubjectKeys: []string{"user:v", "user:u"}},
		"an owner": {Owners: []string{"u"}},
		"a note":   {Metadata: []event.Pair{{Key: "note", Value: markOf(1, "u")}}},
	}
	for name, field := range map[string]event.Text{"who acted": event.TUserID, "for whom": event.TOnBehalfOf, "to whom": event.TTargetID} {
		r := new(event.Row)
		r.Text[field] = "u"
		rows[name] = r
	}
	for name, r := range rows {
		if !names(r, "u") {
			t.Errorf("%s is not seen", name)
		}
		if names(r, "u_1") {
			t.Errorf("%s is taken for another's", name)
		}
	}
}
