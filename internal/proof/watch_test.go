package proof

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gauge returns the value of a gauge with one label, or with none.
func gauge(t *testing.T, registry *prometheus.Registry, name, label string) (value float64, ok bool) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

func TestWatchdog(t *testing.T) {
	b := furnished(t)
	prover, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	registry, log := prometheus.NewRegistry(), new(bytes.Buffer)
	w, err := NewWatchdog(WatchdogOptions{Prover: prover, Every: time.Hour, Metrics: registry, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	want := func(when, name, label string, value float64) {
		t.Helper()
		if got, ok := gauge(t, registry, name, label); !ok || got != value {
			t.Errorf("%s: %s %s: got %v (%v), want %v", when, name, label, got, ok, value)
		}
	}
	want("before", "lethe_proof_made_seconds", "", 0)
	want("before", "lethe_retention_grace_seconds", "", 86400)

	// A row an hour past its expiry, within the grace.
	b.sql("SYSTEM STOP TTL MERGES request_events")
	expired := "now() - toIntervalYear(2) - toIntervalHour(1)"
	b.sql(insertAs("request_events", expired+" AS retained_from, "+expired+" AS occurred_at, toStartOfMonth("+expired+") AS bucket", "src_offset = 0"))
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("late", "lethe_proof_sentences", "broken", 0)
	want("late", "lethe_proof_sentences", "enforced", 1)
	want("late", "lethe_proof_faults", wrongTTL, 0)
	want("late", "lethe_retention_late_seconds", "billing@7y", 0)
	want("late", "lethe_proof_made_seconds", "", float64(now.Unix()))
	if got, _ := gauge(t, registry, "lethe_retention_late_seconds", "usage@2y"); got < 3500 || got > 3700 {
		t.Errorf("got %v s, want about an hour", got)
	}

	// It goes, and a TTL is altered.
	b.sql("SYSTEM START TTL MERGES request_events")
	b.sql("DELETE FROM request_events WHERE retained_from < now() - toIntervalYear(1)")
	b.sql("ALTER TABLE audit_events MODIFY TTL retained_from + toIntervalYear(9)")
	if err := w.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("altered", "lethe_retention_late_seconds", "usage@2y", 0)
	want("altered", "lethe_proof_faults", wrongTTL, 1)
	if got, _ := gauge(t, registry, "lethe_proof_sentences", "broken"); got == 0 || !strings.Contains(log.String(), "the TTL of audit_events is not that of the policy file") {
		t.Errorf("got %v broken sentences and the log %s", got, log)
	}
	if _, err := NewWatchdog(WatchdogOptions{Prover: prover, Every: time.Hour, Metrics: registry, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("the metrics are registered twice")
	}

	// It runs until it is told to stop, whatever it finds.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Run(ctx)
}

// TestTheGuideExplainsEverything: what a proof can say, docs/retention.md says what to do about.
func TestTheGuideExplainsEverything(t *testing.T) {
	page, err := os.ReadFile("../../docs/retention.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Kinds {
		if !strings.Contains(string(page), "`"+k+"`") {
			t.Errorf("the page does not explain the fault %s", k)
		}
	}
	for _, v := range Verdicts {
		if !strings.Contains(string(page), "| "+string(v)+" |") {
			t.Errorf("the page does not explain the verdict %s", v)
		}
	}
}
