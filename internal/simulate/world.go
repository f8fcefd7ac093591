package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// begin and years are the simulated time. It has two leap days.
var begin = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

const years = 8

// happening is something that happened and was published as one event. The
// oracle reads it; the system under test reads the event that is made of it.
type happening struct {
	number  int64
	at      time.Time // whole seconds
	arrives time.Time // at the ingester
	kind    event.Kind
	action  string

	actor, behalf, owner, person string // accounts; person: whom it was done to
	org, workspace, deployment   string
	category, tier               string
	traced                       bool // carries an address and a trace
	fact                         bool // it moves periods
}

// people are the accounts that it is about.
func (h *happening) people() (all []string) {
	for _, p := range []string{h.person, h.owner, h.behalf, h.actor} {
		if p != "" && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// subjects are all that an erasure or a hold can name it by.
func (h *happening) subjects() (all []string) {
	for _, p := range h.people() {
		all = append(all, "user:"+p)
	}
	if h.org != "" {
		all = append(all, "organization:"+h.org)
	}
	if h.workspace != "" {
		all = append(all, "workspace:"+h.workspace)
	}
	if h.deployment != "" {
		all = append(all, "deployment:"+h.deployment)
	}
	return all
}

// request is what people ask the operator for: an erasure, or a hold and its release.
type request struct {
	id       string
	at       time.Time
	until    time.Time // of a hold: its release; zero: it stays
	erase    bool
	subjects []string
}

// world is everything that happens in a run.
type world struct {
	happenings []*happening // in the order of arrival
	requests   []request
}

// maker makes a world from a seed.
type maker struct {
	*rand.Rand
	w    *world
	plan map[string][]change // of each organization, in order of time
	busy int                 // so many months of a year have events; those have the same distance
}

type change struct {
	at   time.Time
	tier string
}

const day = 24 * time.Hour

// newWorld makes the lives of a number of accounts: the same seed, the same world.
// Facts become known between the third and the twenty-fourth of a month, so that
// each first is free for a checkpoint.
func newWorld(seed uint64, accounts, busy int) *world {
	m := &maker{busy: busy, Rand: rand.New(rand.NewPCG(seed, 5)), w: new(world), plan: make(map[string][]change)}
	orgs := max(2, accounts/6)
	for i := range orgs {
		m.organization(fmt.Sprintf("org_%d", i), i)
	}
	for i := range accounts {
		m.account(fmt.Sprintf("u_%d", i), fmt.Sprintf("org_%d", i%orgs), i)
	}
	for range accounts * years { // nobody's: visitors, machines, failed logins
		h := m.add(m.season(m.instant(begin, end())), event.Kind(m.IntN(3)), pick(m.Rand, "login", "crawl", "job.finished", "billing.paid", "workspace.configured", "lethe.access.read"))
		m.vary(h)
	}
	for year := begin.Year(); year < begin.Year()+years; year += 4 { // leap days
		for i := range 6 {
			at := time.Date(year, time.February, 29, 3*i, 0, 0, 0, time.UTC)
			h := m.add(at, event.Kind(i%3), pick(m.Rand, "login", "support.opened", "file.read"))
			h.actor, h.org = fmt.Sprintf("u_%d", 8*accounts), "org_0" // of one that stays
		}
	}
	m.w.sort()
	return m.w
}

func end() time.Time { return begin.AddDate(years, 0, 0) }

func (w *world) sort() {
	slices.SortStableFunc(w.happenings, func(a, b *happening) int { return a.arrives.Compare(b.arrives) })
	slices.SortStableFunc(w.requests, func(a, b request) int { return a.at.Compare(b.at) })
	for i, h := range w.happenings {
		h.number = int64(i)
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// instant is a second between two instants.
func (m *maker) instant(from, to time.Time) time.Time {
	return from.Add(time.Duration(m.Int64N(int64(to.Sub(from)/time.Second))) * time.Second)
}

// calm moves an instant into the days of a month in which stories begin, so that
// what follows a few days later stays clear of the next checkpoint.
func calm(t time.Time) time.Time {
	switch d := t.Day(); {
	case d < 3:
		return t.AddDate(0, 0, 3-d)
	case d > 20:
		return t.AddDate(0, 0, 20-d)
	}
	return t
}

// season moves an instant back to a month that has events: the fewer there are, the
// fewer partitions, of which each sweep of an engine costs.
func (m *maker) season(t time.Time) time.Time {
	months := 12 / m.busy
	first := time.Date(t.Year(), (t.Month()-1)/time.Month(months)*time.Month(months)+1, 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.Add(time.Duration(min(t.Day(), last)-1)*day + t.Sub(t.Truncate(day)))
}

// add makes an event that arrives within a second.
func (m *maker) add(at time.Time, kind event.Kind, action string) *happening {
	h := &happening{at: at, arrives: at, kind: kind, action: action}
	m.w.happenings = append(m.w.happenings, h)
	return h
}

// fact makes an audit event that moves periods.
func (m *maker) fact(at time.Time, action, person, org, workspace string) *happening {
	h := m.add(at, event.Audit, action)
	h.person, h.org, h.workspace, h.fact = person, org, workspace, true
	return h
}

// vary gives an event what rules look at, and some a delay.
func (m *maker) vary(h *happening) {
	if h.kind != event.Audit && m.IntN(4) == 0 {
		h.category = pick(m.Rand, "build_log", "container_log", "job_log")
	}
	if h.kind == event.Audit && m.IntN(12) == 0 {
		h.category = pick(m.Rand, "billing", "support", "account")
	}
	h.traced = m.IntN(2) == 0
	switch m.IntN(20) {
	case 0:
		h.arrives = h.at.Add(time.Duration(m.IntN(40*24)) * time.Hour)
	case 1: // its clock is ahead
		h.arrives = h.at.Add(-3 * time.Hour)
	}
	if h.arrives.After(end()) || h.arrives.Before(begin) {
		h.arrives = h.at
	}
}

// organization changes its plan now and then; some of its workspaces go.
func (m *maker) organization(org string, i int) {
	tiers := []string{"free", "pro", "enterprise"}
	now := tiers[m.IntN(3)]
	m.plan[org] = []change{{begin, now}}
	for at := m.instant(begin, begin.AddDate(2, 0, 0)); at.Before(end().AddDate(0, -1, 0)); at = at.AddDate(1, m.IntN(20), 0) {
		if now = tiers[(slices.Index(tiers, now)+1+m.IntN(2))%3]; m.IntN(8) == 0 {
			now = "gold" // no policy lists it
		}
		h := m.fact(calm(at), "plan.changed", "", org, "")
		h.tier = now
		m.plan[org] = append(m.plan[org], change{h.at, now})
	}
	w := workspaceOf(org, 0)
	d := m.fact(calm(m.instant(begin.AddDate(1, 0, 0), begin.AddDate(6, 0, 0))), "workspace.deleted", "", org, w)
	if i%2 == 0 {
		m.fact(calm(d.at.AddDate(0, 0, 20)), "workspace.restored", "", org, w)
	}
}

func workspaceOf(org string, i int) string { return fmt.Sprintf("w_%s_%d", org, i) }

func (m *maker) tierAt(org string, at time.Time) (tier string) {
	for _, c := range m.plan[org] {
		if !c.at.After(at) {
			tier = c.tier
		}
	}
	return tier
}

// account is one life: someone comes, acts, leaves or stays.
func (m *maker) account(user, org string, i int) {
	joins := calm(m.instant(begin, begin.AddDate(4, 0, 0)))
	leaves := calm(m.instant(joins.AddDate(0, 3, 0), end().AddDate(0, -3, 0)))
	m.fact(joins, "account.created", user, org, "")
	stops := leaves
	switch i % 8 {
	case 0: // asks, and the account goes two days later
		m.fact(leaves, "account.deletion_requested", user, org, "")
		m.fact(leaves.Add(2*day), "account.deleted", user, org, "")
	case 1: // goes, told twice and late
		h := m.fact(leaves, "account.deleted", user, org, "")
		again := *h
		again.arrives = h.at.Add(3 * day)
		m.w.happenings = append(m.w.happenings, &again)
		h.arrives = h.at.Add(2 * day)
	case 2: // goes and is restored
		m.fact(leaves, "account.deletion_requested", user, org, "")
		m.fact(leaves.Add(time.Hour), "account.deleted", user, org, "")
		m.fact(leaves.Add(4*day), "account.restored", user, org, "")
		stops = end()
	case 3: // goes and is restored, and the deletion is heard of last
		h := m.fact(leaves, "account.deleted", user, org, "")
		m.fact(h.at.Add(2*day), "account.restored", user, org, "")
		h.arrives = h.at.Add(3 * day)
		stops = end()
	case 4: // goes and comes back as somebody new, when all is over
		h := m.fact(leaves, "account.deleted", user, org, "")
		m.fact(h.at.AddDate(0, 7, 0), "account.restored", user, org, "")
		m.act(user, org, h.at.AddDate(0, 7, 2), end())
	case 5: // asks to be erased, and stays
		m.w.requests = append(m.w.requests, request{id: "erase-" + user, at: leaves, erase: true, subjects: []string{"user:" + user}})
		stops = end()
	case 6: // is held across an erasure and a deletion, and released
		hold := request{id: "hold-" + user, at: calm(leaves.Add(-40 * day)), until: calm(leaves.AddDate(1, 0, 0)), subjects: []string{"user:" + user}}
		m.w.requests = append(m.w.requests, hold)
		m.late(user, org, hold.at.Add(-10*day), hold.at.Add(90*day)) // over when it comes, and not yet when the hold was placed
		m.late(user, org, hold.at.Add(-95*day), hold.at.Add(5*day))  // over by then
		if i%16 == 6 {
			m.w.requests = append(m.w.requests, request{id: "erase-" + user, at: leaves, erase: true, subjects: []string{"user:" + user}})
		}
		m.fact(leaves.Add(time.Hour), "account.deleted", user, org, "")
	case 7: // stays; one of its deployments is erased
		m.w.requests = append(m.w.requests, request{id: "erase-d-" + user, at: leaves, erase: true, subjects: []string{"deployment:d_" + user}})
		stops = end()
	}
	m.act(user, org, joins, stops.Add(4*day)) // stragglers come after the end
}

// late makes an event that comes when some periods are over.
func (m *maker) late(user, org string, at, arrives time.Time) {
	if at.Before(begin) {
		return
	}
	h := m.add(at, event.Request, "login")
	h.arrives, h.actor, h.org = arrives, user, org
}

// act makes what an account does, about once in three weeks.
func (m *maker) act(user, org string, from, to time.Time) {
	for at := from; ; {
		at = at.Add(time.Duration(m.IntN(42*24*3600)) * time.Second)
		if !at.Before(to) || !at.Before(end()) {
			return
		}
		kind := pick(m.Rand, event.Request, event.Audit, event.Audit, event.Security)
		h := m.add(m.season(at), kind, pick(m.Rand, "login", "file.read", "billing.paid", "support.opened", "account.updated", "job.started",
			"workspace.configured", "device.added", "lethe.access.read"))
		h.actor, h.org, h.tier = user, org, m.tierAt(org, h.at)
		if m.IntN(2) == 0 {
			h.workspace = workspaceOf(org, m.IntN(2))
		}
		if m.IntN(4) == 0 {
			h.deployment = "d_" + user
		}
		if kind == event.Audit { // an administrator does something to somebody, or for, or to what is theirs
			other := fmt.Sprintf("u_%d", m.IntN(8))
			switch m.IntN(12) {
			case 0, 1:
				h.person = other
			case 2, 3:
				h.owner = other
			case 4:
				h.behalf = other
			}
		}
		m.vary(h)
	}
}
