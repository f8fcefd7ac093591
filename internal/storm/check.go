package main

import (
	"bytes"
	"fmt"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// evidence is what was read after a storm. check says what it proves.
type evidence struct {
	generator
	sent, acked []bool // by number

	deliveries [][]coordinate // by number
	letters    map[coordinate]int
	outcomes   map[coordinate]ledger.Outcome
	sightings  []uint16 // by number

	own      int // records and events of the query service itself
	pages    int
	findings []finding // made while reading
}

// finding is one thing that is not as it must be.
type finding struct{ what, about string }

func (f finding) String() string { return f.what + ": " + f.about }

func newEvidence(g generator, a account) *evidence {
	n := a.next()
	return &evidence{
		generator: g, sent: members(a.sent, n), acked: members(a.acked, n),
		deliveries: make([][]coordinate, n), sightings: make([]uint16, n),
		letters: make(map[coordinate]int), outcomes: make(map[coordinate]ledger.Outcome),
	}
}

func (e *evidence) find(what, about string) { e.findings = append(e.findings, finding{what, about}) }

// wasSent reports whether there can be an event of that number.
func (e *evidence) wasSent(number int64) bool {
	return number >= 0 && number < int64(len(e.sent)) && e.sent[number]
}

// delivered notes a record of Kafka.
func (e *evidence) delivered(number int64, at coordinate) {
	if !e.wasSent(number) {
		e.find("in Kafka but never sent", at.String())
		return
	}
	e.deliveries[number] = append(e.deliveries[number], at)
}

// account notes the outcomes of an entry of the ledger.
func (e *evidence) account(entry *ledger.Entry) {
	c := coordinate{place: place{entry.Topic, entry.Partition.Partition}}
	set := func(first, last int64, o ledger.Outcome) {
		for c.offset = first; c.offset <= last; c.offset++ {
			if before, ok := e.outcomes[c]; ok && before != o {
				e.find("two outcomes in the ledger", c.String())
			}
			e.outcomes[c] = o
		}
	}
	next := entry.First
	for _, r := range entry.Other {
		set(next, r.First-1, ledger.Stored)
		set(r.First, r.Last, r.Outcome)
		next = r.Last + 1
	}
	set(next, entry.Last, ledger.Stored)
}

// see notes an event that a query returned.
func (e *evidence) see(s sighting) {
	if s.Source == "/lethe/query" {
		e.own++
		return
	}
	n, ok := numberOf(s.ID)
	if !ok || s.Source != source || !e.wasSent(n) {
		e.find("stored but never sent", s.ID)
		return
	}
	if e.sightings[n]++; e.sightings[n] == 2 {
		e.find("doubled", s.ID)
	}
	want := e.event(n)
	kind, _ := event.ParseKind(s.Kind)
	if kind != want.kind || !s.Time.Equal(want.time) || s.Data.User != want.user {
		e.find("stored but not as it was sent", s.ID)
	}
}

// leaks looks for the events' addresses.
func (e *evidence) leaks(text []byte) {
	for _, net := range []string{clientNet, textNet} {
		if bytes.Contains(text, []byte(net)) {
			e.find("an address was not redacted", "one of "+net+"0/24")
		}
	}
}

// tally is what became of the events.
type tally struct {
	sent, acked, stored, dead, expired int
	again                              int // records of Kafka beyond the first of an event
	letters                            int
	unknown                            int // sent, not acknowledged, and not in Kafka
}

// check decides: every event that was acknowledged has its outcome, an outcome
// is what the event deserves, and what was not acknowledged is there once or not
// at all.
func (e *evidence) check() (tally, []finding) {
	var t tally
	owed := make(map[coordinate]bool, len(e.letters)) // letters that must be
	for i := range e.sent {
		n := int64(i)
		if !e.sent[n] {
			continue
		}
		want, seen, came := e.event(n), e.sightings[n], e.deliveries[n]
		t.sent++
		if e.acked[n] {
			t.acked++
		}
		if len(came) == 0 {
			if e.acked[n] {
				e.find("acknowledged but not in Kafka", idOf(n))
			} else {
				t.unknown++
			}
			if seen > 0 {
				e.find("stored but not in Kafka", idOf(n))
			}
			continue
		}
		t.again += len(came) - 1
		switch want.outcome {
		case ledger.Stored:
			t.stored++
			if seen == 0 {
				e.find("lost", idOf(n))
			}
		case ledger.Dead:
			t.dead++
		case ledger.Expired:
			t.expired++
		}
		if want.outcome != ledger.Stored && seen > 0 {
			e.find("stored but "+want.outcome.String(), idOf(n))
		}
		for _, at := range came {
			e.delivery(&want, at, owed)
		}
	}
	for at, n := range e.letters {
		t.letters += n
		if !owed[at] {
			e.find("a dead letter of an event that is not dead", at.String())
		}
	}
	return t, e.findings
}

// delivery looks at one record of an event.
func (e *evidence) delivery(want *stormEvent, at coordinate, owed map[coordinate]bool) {
	about := fmt.Sprintf("%s at %s", idOf(want.number), at)
	switch got, ok := e.outcomes[at]; {
	case !ok:
		e.find("not in the ledger", about)
	case got != want.outcome:
		e.find("the ledger says "+got.String()+", want "+want.outcome.String(), about)
	}
	if want.outcome == ledger.Dead {
		owed[at] = true
		if e.letters[at] == 0 {
			e.find("no dead letter", about)
		}
	}
}
