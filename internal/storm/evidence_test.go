package main

import (
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// sound is the evidence of a thousand events where nothing is wrong: the last ten
// were not acknowledged, and the last five did not come.
func sound() *evidence {
	g := generator{seed: 1, begin: time.Now().UTC().Truncate(time.Millisecond)}
	e := newEvidence(g, account{sent: []ledger.Range{{First: 0, Last: 999}}, acked: []ledger.Range{{First: 0, Last: 989}}})
	for n := range int64(995) {
		want, at := g.event(n), placed(n)
		e.delivered(n, at)
		entry := ledger.Entry{Partition: ledger.Partition{Topic: at.topic}, First: n, Last: n}
		if want.outcome != ledger.Stored {
			entry.Other = []ledger.Run{{First: n, Last: n, Outcome: want.outcome}}
		}
		e.account(&entry)
		switch want.outcome {
		case ledger.Dead:
			e.letters[at]++
		case ledger.Stored:
			e.see(seen(g, n))
		}
	}
	return e
}

func placed(n int64) coordinate { return coordinate{place{topic: "t"}, n} }

func seen(g generator, n int64) sighting {
	want := g.event(n)
	s := sighting{Kind: want.kind.String(), ID: idOf(n), Source: source, Time: want.time}
	s.Data.User = want.user
	return s
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	// first returns the first event of that outcome.
	first := func(o ledger.Outcome) (n int64) {
		for e := sound(); e.event(n).outcome != o; n++ {
		}
		return n
	}
	stored, dead, expired := first(ledger.Stored), first(ledger.Dead), first(ledger.Expired)
	at := func(n int64) string { return idOf(n) + " at " + placed(n).String() }
	for name, c := range map[string]struct {
		spoil func(e *evidence)
		want  []string
	}{
		"nothing":                {func(*evidence) {}, nil},
		"lost":                   {func(e *evidence) { e.sightings[stored] = 0 }, []string{"lost: " + idOf(stored)}},
		"seen twice":             {func(e *evidence) { e.see(seen(e.generator, stored)) }, []string{"doubled: " + idOf(stored)}},
		"seen but dead":          {func(e *evidence) { e.see(seen(e.generator, dead)) }, []string{"stored but dead: " + idOf(dead)}},
		"seen but expired":       {func(e *evidence) { e.see(seen(e.generator, expired)) }, []string{"stored but expired: " + idOf(expired)}},
		"seen but not delivered": {func(e *evidence) { e.see(seen(e.generator, 997)) }, []string{"stored but not in Kafka: storm-997"}},
		"seen but not sent":      {func(e *evidence) { e.see(seen(e.generator, 1000)) }, []string{"stored but never sent: storm-1000"}},
		"delivered but not sent": {func(e *evidence) { e.delivered(1000, placed(1000)) }, []string{"in Kafka but never sent: t/0@1000"}},
		"not delivered": {func(e *evidence) {
			e.deliveries[stored], e.sightings[stored] = nil, 0
		}, []string{"acknowledged but not in Kafka: " + idOf(stored)}},
		"not accounted for": {func(e *evidence) { delete(e.outcomes, placed(stored)) }, []string{"not in the ledger: " + at(stored)}},
		"another outcome": {func(e *evidence) { e.outcomes[placed(expired)] = ledger.Lost },
			[]string{"the ledger says lost, want expired: " + at(expired)}},
		"two outcomes": {func(e *evidence) {
			e.account(&ledger.Entry{Partition: ledger.Partition{Topic: "t"}, First: dead, Last: dead})
		}, []string{"the ledger says stored, want dead: " + at(dead), "two outcomes in the ledger: " + placed(dead).String()}},
		"no letter":       {func(e *evidence) { delete(e.letters, placed(dead)) }, []string{"no dead letter: " + at(dead)}},
		"a letter more":   {func(e *evidence) { e.letters[placed(stored)]++ }, []string{"a dead letter of an event that is not dead: " + placed(stored).String()}},
		"a letter twice":  {func(e *evidence) { e.letters[placed(dead)]++ }, nil},
		"delivered twice": {func(e *evidence) { e.delivered(stored, placed(stored)) }, nil},
		"another time": {func(e *evidence) {
			s := seen(e.generator, stored)
			s.Time = s.Time.Add(time.Millisecond)
			e.sightings[stored] = 0
			e.see(s)
		}, []string{"stored but not as it was sent: " + idOf(stored)}},
		"an address": {func(e *evidence) { e.leaks([]byte(`"from ` + textNet + `7"`)) }, []string{"an address was not redacted: one of 198.51.100.0/24"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := sound()
			c.spoil(e)
			_, findings := e.check()
			var got []string
			for _, f := range findings {
				got = append(got, f.String())
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
