package main

import (
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// span is a length of time as the policies say it. It is added by an arithmetic of
// its own, so that a mistake in the program's is not repeated here.
type span struct{ years, days int }

func (s span) after(t time.Time) time.Time {
	if s.years > 0 {
		last := time.Date(t.Year()+s.years, t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day() // the day before the next month
		t = time.Date(t.Year()+s.years, t.Month(), min(t.Day(), last), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	}
	return t.Add(time.Duration(s.days) * day)
}

func (s span) is() bool { return s != span{} }

// grace is the longest time between the end of a promise to keep and the last
// byte, in all five policy files.
const grace = day

// promise is what a policy's sentences say of one event.
type promise struct {
	keep    span   // from the event on
	plan    bool   // keep is the plan's, and a smaller plan later on is a shorter time
	anchor  string // what begins, or cuts short, a period
	after   span   // from the anchor on
	within  bool   // after is by when all must be gone, and not until when it is kept
	atLeast span   // a law wants it so long, from the event on
	law     bool   // a law wants it: an erasure does not take it
	shared  bool   // of several people the identity of each goes when it must, and the rest with the last of them
}

// topic is what an event is, in the words of the policies.
func (h *happening) topic() string {
	action := func(words ...string) bool {
		for _, w := range words {
			if h.kind == event.Audit && strings.HasPrefix(h.action, w) {
				return true
			}
		}
		return false
	}
	category := func(word string) bool { return h.kind == event.Audit && h.category == word }
	switch {
	case action("lethe.access."):
		return "consultation"
	case action("billing.") || category("billing"):
		return "billing"
	case action("support.") || category("support"):
		return "support"
	case category("account"), action("account."):
		return "account"
	case action("job."):
		return "job"
	case strings.HasSuffix(h.category, "_log"):
		return "log"
	case action("workspace.created", "workspace.configured", "workspace.deleted"):
		return "workspace"
	case action("device."):
		return "thing"
	}
	return h.kind.String()
}

// byPlan is what the operators of the two policies with plans chose.
func byPlan(tier string, without int) (span, bool) {
	switch tier {
	case "free":
		return span{days: 14}, true
	case "pro":
		return span{days: 30}, true
	case "enterprise":
		return span{days: 90}, true
	case "":
		return span{days: without}, true
	}
	return span{}, false
}

// promises says, for each policy, what its sentences and its operator promise of
// an event. false: it must not be stored at all.
var promises = map[string]func(h *happening) (promise, bool){
	"bstrapr":    bstrapr,
	"infratrace": infratrace,
	"daestro":    daestro,
	"abstra":     abstra,
	"itskode":    itskode,
}

func bstrapr(h *happening) (promise, bool) {
	switch h.topic() {
	case "billing":
		return promise{keep: span{years: 7}, law: true}, true
	case "support":
		return promise{keep: span{years: 3}}, true
	case "account":
		if len(h.people()) > 0 {
			return promise{anchor: "account.deleted", after: span{days: 90}}, true
		}
	case "workspace":
		if h.workspace != "" {
			return promise{anchor: "workspace.deleted", after: span{years: 1}}, true
		}
	}
	return promise{keep: span{years: 2}}, true
}

func infratrace(h *happening) (promise, bool) {
	topic := h.topic()
	if topic == "consultation" {
		return promise{keep: span{years: 2}}, true
	}
	p := promise{anchor: "account.deleted", after: span{days: 30}, within: true, shared: true}
	if topic == "billing" {
		p.atLeast, p.law = span{years: 7}, true
	}
	if len(h.people()) > 0 {
		return p, true
	}
	switch topic {
	case "billing":
		return promise{keep: span{years: 7}, law: true}, true
	case "request", "security", "log":
		return promise{keep: span{days: 90}}, true
	}
	return promise{keep: span{years: 1}}, true
}

func daestro(h *happening) (promise, bool) {
	topic, mine := h.topic(), len(h.people()) > 0
	p := promise{anchor: "account.deletion_requested", after: span{days: 7}, within: true}
	switch topic {
	case "consultation":
		return promise{keep: span{years: 2}}, true
	case "job", "log":
		period, listed := byPlan(h.tier, 14)
		if !mine {
			p = promise{}
		}
		p.keep, p.plan = period, h.tier != ""
		return p, listed
	}
	switch {
	case mine:
		return p, true
	case topic == "request" || topic == "security":
		return promise{keep: span{days: 90}}, true
	}
	return promise{keep: span{years: 1}}, true
}

func abstra(h *happening) (promise, bool) {
	switch h.topic() {
	case "billing":
		return promise{keep: span{years: 7}, law: true}, true
	case "support", "consultation":
		return promise{keep: span{years: 2}}, true
	case "account":
		if len(h.people()) > 0 {
			return promise{anchor: "account.deleted", after: span{days: 90}}, true
		}
	case "workspace":
		if h.workspace != "" {
			return promise{anchor: "workspace.deleted", after: span{days: 90}}, true
		}
	case "log":
		return promise{keep: span{days: 30}}, true
	case "request":
		return promise{keep: span{days: 90}}, true
	}
	return promise{keep: span{years: 1}}, true
}

func itskode(h *happening) (promise, bool) {
	switch topic := h.topic(); topic {
	case "billing":
		return promise{keep: span{years: 7}, law: true}, true
	case "support", "consultation":
		return promise{keep: span{years: 2}}, true
	case "account", "workspace":
		if h.workspace != "" {
			return promise{anchor: "workspace.deleted", after: span{days: 180}}, true
		}
		return promise{keep: span{days: 90}}, true
	case "request", "log":
		period, listed := byPlan(h.tier, 30)
		return promise{keep: period, plan: h.tier != ""}, listed
	case "security":
		return promise{keep: span{days: 90}}, true
	}
	if h.traced {
		return promise{keep: span{days: 90}}, true
	}
	return promise{keep: span{years: 1}}, true
}

// erasedWithin is by when what a person asked to erase must be gone.
func erasedWithin(policy string) span {
	if policy == "daestro" {
		return span{days: 7}
	}
	return span{days: 30}
}
