package main

import (
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
)

// TestEventsAreWhatTheySay holds every event against the rooms that decide
// about it: what the checker wants must be what the ingester does.
func TestEventsAreWhatTheySay(t *testing.T) {
	p, err := policy.Load("../../" + policyFile)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	g := generator{seed: 1, begin: now}
	decoder := codec.NewDecoder()
	var outcomes [ledger.NumOutcomes]int
	classes := make(map[string]bool)
	for n := range int64(3000) {
		want := g.event(n)
		m := want.message()
		var headers []codec.Header
		for _, h := range m.Headers {
			headers = append(headers, codec.Header(h))
		}
		outcomes[want.outcome]++
		var e event.Event
		got := ledger.Dead
		if err := decoder.Decode(want.kind, m.Value, headers, &e); err == nil {
			if d, err := p.Decide(&e, now); err == nil {
				if got = ledger.Stored; d.Expired {
					got = ledger.Expired
				}
				classes[d.Retention] = true
			}
		}
		if got != want.outcome {
			t.Errorf("event %d is %s, want %s: %s", n, got, want.outcome, m.Value)
		}
		if again := g.event(n); string(again.message().Value) != string(m.Value) {
			t.Errorf("event %d is another the second time", n)
		}
		if number, ok := numberOf(idOf(n)); !ok || number != n {
			t.Errorf("the id of event %d is read as %d", n, number)
		}
	}
	for _, o := range []ledger.Outcome{ledger.Stored, ledger.Dead, ledger.Expired} {
		if outcomes[o] < 20 {
			t.Errorf("%d events are %s, want some", outcomes[o], o)
		}
	}
	if len(classes) < 8 {
		t.Errorf("the events are of %d classes, want at least 8", len(classes))
	}
}
