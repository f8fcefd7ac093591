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
	place := request{at: at("2020-06-10 00:00"), erase: true, subjects: []string{"workspace:w"}}
	all, officers, gone := verdict{must, must, must}, verdict{mustNot, must, must}, verdict{mustNot, mustNot, mustNot}
	for _, c := range []struct {
		name      string
		facts     []*happening
		requests  []request
		now       string
		row, u, v verdict
	}{
		{"nobody goes", nil, nil, "2027-05-01 00:00", all, all, all},
		{"one goes", []*happening{u}, nil, "2020-06-01 12:00", all, officers, all},
		{"one may be gone", []*happening{u}, nil, "2020-06-30 12:00", all, verdict{mustNot, may, may}, all},
		{"one is gone", []*happening{u}, nil, "2020-07-01 12:00", all, gone, all},
		{"both go", []*happening{u, v}, nil, "2020-06-20 12:00", officers, officers, officers},
		{"the row waits for the last", []*happening{u, v}, nil, "2020-07-01 12:00", officers, gone, officers},
		{"and goes with them", []*happening{u, v}, nil, "2020-07-20 12:00", gone, gone, gone},
		{"one is erased", nil, []request{erase}, "2020-06-10 00:00", all, verdict{mustNot, mustNot, may}, all},
		{"one was erased", nil, []request{erase}, "2020-07-10 00:00", all, gone, all},
		{"one is erased and one goes", []*happening{v}, []request{erase}, "2020-07-10 00:00", officers, gone, officers},
		{"the place is erased", nil, []request{place}, "2020-07-10 00:00", gone, gone, gone},
		{"a hold on one holds all", []*happening{u}, []request{hold}, "2020-08-01 00:00", all, officers, all},
	} {
		o := newOracle("infratrace")
		for _, f := range c.facts {
			o.learn(f)
		}
		o.requests = c.requests
		w := o.watch(&happening{at: at("2020-05-01 00:00"), arrives: at("2020-05-01 00:00"), kind: event.Audit, action: "file.read", actor: "u", owner: "v", workspace: "w"})
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
