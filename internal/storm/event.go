package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

const (
	source   = "/storm"
	idPrefix = "storm-"
	// numberHeader carries the event's number beside a value that may be no event at all.
	numberHeader = "storm-number"
	// policyFile has tiers, so that a wrong one has no class, and promises that
	// were over for a request of half a year ago.
	policyFile = "schemas/policies/itskode.yaml"
)

// Addresses that stand in events, and nowhere behind the ingester.
const (
	clientNet = "203.0.113."
	textNet   = "198.51.100."
)

// generator makes the events of a run. Each is a function of the seed, the
// run's begin and its number: publisher and checker need tell each other
// numbers only.
type generator struct {
	seed  uint64
	begin time.Time // UTC, whole milliseconds
}

// stormEvent is one event and what must become of it.
type stormEvent struct {
	number  int64
	kind    event.Kind
	time    time.Time
	outcome ledger.Outcome // Stored, Dead or Expired
	user    string
	org     string
	data    map[string]any
	spoiled bool // its value is cut off
}

func idOf(number int64) string { return idPrefix + strconv.FormatInt(number, 10) }

// numberOf returns the number of an event's id.
func numberOf(id string) (int64, bool) {
	digits, ok := strings.CutPrefix(id, idPrefix)
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, ok && err == nil && n >= 0 && idOf(n) == id
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// event returns the event of that number: three kinds, the classes of the
// policy, some late, some over before they arrive, some that are no events.
func (g generator) event(number int64) stormEvent {
	r := rand.New(rand.NewPCG(g.seed, uint64(number)))
	e := stormEvent{
		number: number, kind: pick(r, event.Request, event.Request, event.Audit, event.Security),
		// Two milliseconds apart, the first two hours before the begin: no two share a time.
		time: g.begin.Add(-2*time.Hour + time.Duration(number)*2*time.Millisecond),
		user: fmt.Sprintf("u_%d", r.IntN(500)), org: fmt.Sprintf("org_%d", r.IntN(20)),
	}
	e.data = map[string]any{"user.id": e.user, "organization.id": e.org}
	text := fmt.Sprintf("seen from %s%d today", textNet, r.IntN(256))
	switch e.kind {
	case event.Request:
		e.data["http.request.method"], e.data["http.response.status_code"] = pick(r, "GET", "POST"), pick(r, 200, 404, 500)
		e.data["client.address"] = clientNet + strconv.Itoa(r.IntN(256))
		e.data["url.path"], e.data["plan.tier"] = "/"+text, pick(r, "free", "pro", "enterprise")
		if e.data["plan.tier"] == "pro" && r.IntN(4) == 0 {
			e.data["data.category"] = "build_log"
		}
	case event.Audit:
		e.data["event.action"] = pick(r, "file.read", "file.read", "billing.paid", "support.opened", "account.created")
		e.data["event.outcome"], e.data["target.name"] = "success", text
		if r.IntN(2) == 0 {
			e.data["client.address"] = clientNet + strconv.Itoa(r.IntN(256))
		}
	case event.Security:
		e.data["event.action"], e.data["event.outcome"] = "login", pick(r, "success", "failure")
		e.data["client.address"], e.data["event.reason"] = clientNet+strconv.Itoa(r.IntN(256)), text
	}
	e.decide(r)
	return e
}

// decide makes some events late, expired or unfit.
func (e *stormEvent) decide(r *rand.Rand) {
	switch roll := r.IntN(100); {
	case roll < 3 && e.kind == event.Request:
		e.time, e.outcome = e.time.AddDate(0, 0, -200), ledger.Expired
	case roll < 6:
		e.time = e.time.AddDate(0, 0, -3)
	case roll < 8:
		e.spoiled, e.outcome = true, ledger.Dead
	case roll < 10:
		delete(e.data, "http.request.method")
		delete(e.data, "event.action")
		e.outcome = ledger.Dead
	case roll < 12 && e.kind == event.Request:
		e.data["plan.tier"], e.outcome = "unheard-of", ledger.Dead
	}
}

// message returns the event as it is published.
func (e *stormEvent) message() publish.Message {
	value, _ := json.Marshal(map[string]any{ // texts and numbers always marshal
		"specversion": "1.0", "id": idOf(e.number), "source": source, "type": "storm." + e.kind.String(),
		"time": e.time.Format(time.RFC3339Nano), "data": e.data,
	})
	if e.spoiled {
		value = value[:len(value)/2]
	}
	m := publish.Message{
		Topic: topics[e.kind], Value: value,
		Headers: []publish.Header{{Key: numberHeader, Value: strconv.AppendInt(nil, e.number, 10)}},
	}
	if e.number%2 == 0 { // with and without a key
		m.Key = e.org
	}
	return m
}
