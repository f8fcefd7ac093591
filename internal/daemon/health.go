package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// State says whether a part of the service does its work.
type State uint8

// The states, from good to bad.
const (
	// Ready: it works.
	Ready State = iota
	// Paused: it waits for something that will come back, such as a database
	// that restarts, and goes on by itself.
	Paused
	// Broken: it needs a person.
	Broken
)

var stateNames = [...]string{"ready", "paused", "broken"}

// String returns ready, paused or broken.
func (s State) String() string { return stateNames[s] }

// Trouble returns the state of a part whose last try ended with err: Broken
// where the error says NeedsPerson, such as a refused login, else Paused. A
// broken part may be tried again all the same: what is wrong may be mended on the
// other side.
func Trouble(err error) State {
	var needs interface{ NeedsPerson() bool }
	if errors.As(err, &needs) && needs.NeedsPerson() {
		return Broken
	}
	return Paused
}

// Health holds the state of every part. The zero value is not usable; a Daemon
// has one.
type Health struct {
	log *slog.Logger

	mu    sync.Mutex
	parts map[string]report
}

type report struct {
	state State
	why   string
}

var stateDesc = prometheus.NewDesc("lethe_part_state",
	"State of a part of the service: 0 ready, 1 paused (goes on by itself), 2 broken (needs a person).", []string{"part"}, nil)

func newHealth(log *slog.Logger, parts []string) *Health {
	h := &Health{log: log, parts: make(map[string]report, len(parts))}
	for _, p := range parts {
		h.parts[p] = report{Paused, "starting"}
	}
	return h
}

// Report sets the state of a part; why is one sentence for the operator, and
// MUST NOT hold an address of a client, a person or a payload. A change of
// state is logged.
func (h *Health) Report(part string, s State, why string) {
	h.mu.Lock()
	before, known := h.parts[part]
	h.parts[part] = report{s, why}
	h.mu.Unlock()
	if known && before.state == s {
		return
	}
	level := [...]slog.Level{Ready: slog.LevelInfo, Paused: slog.LevelWarn, Broken: slog.LevelError}[s]
	h.log.Log(context.Background(), level, "state changed", "part", part, "state", s.String(), "why", why) // a report has no context
}

// State returns the worst state of all parts, and one line per part in
// alphabetical order.
func (h *Health) State() (State, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	worst := Ready
	lines := make([]string, 0, len(h.parts))
	for name, r := range h.parts {
		worst = max(worst, r.state)
		line := fmt.Sprintf("%s: %s", name, r.state)
		if r.why != "" {
			line += ": " + r.why
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return worst, strings.Join(lines, "\n")
}

// Describe implements prometheus.Collector.
func (h *Health) Describe(ch chan<- *prometheus.Desc) { ch <- stateDesc }

// Collect implements prometheus.Collector.
func (h *Health) Collect(ch chan<- prometheus.Metric) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, r := range h.parts {
		ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, float64(r.state), name)
	}
}
