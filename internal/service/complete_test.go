package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// TestWhatIsKnownOfCompletenessStays walks through what Kafka and the ledger can answer.
func TestWhatIsKnownOfCompletenessStays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	d, err := daemon.New(daemon.Options{Log: log, StopTimeout: time.Second, Parts: []string{partComplete}})
	if err != nil {
		t.Fatal(err)
	}
	var behind []ledger.Partition
	var failure error
	c := &completeness{health: d.Health(), log: log, behind: func(context.Context) ([]ledger.Partition, error) { return behind, failure }}
	away, lacks := errors.New("no broker answers"), []ledger.Partition{{Topic: "lethe.audit", Partition: 3}}
	for _, step := range []struct {
		name     string
		behind   []ledger.Partition
		failure  error
		complete bool
		state    daemon.State
		why      string
	}{
		{"Kafka was never there", nil, away, false, daemon.Paused, "no event is shown: no broker answers"},
		{"there is no group, or all is there", nil, nil, true, daemon.Ready, ""},
		{"Kafka goes away", nil, away, true, daemon.Ready, ""},
		{"a backup is restored", lacks, nil, false, daemon.Broken, "lethe.audit/3 among them"},
		{"Kafka goes away meanwhile", nil, away, false, daemon.Broken, "lethe.audit/3 among them"},
		{"the ingesters have caught up", nil, nil, true, daemon.Ready, ""},
	} {
		behind, failure = step.behind, step.failure
		c.look(t.Context())
		state, why := d.Health().State()
		if c.complete.Load() != step.complete || state != step.state || !strings.Contains(why, step.why) {
			t.Errorf("%s: got complete %t, %s, %q", step.name, c.complete.Load(), state, why)
		}
	}
}
