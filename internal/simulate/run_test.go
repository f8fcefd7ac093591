//go:build simulation

package main

import (
	"testing"
	"time"
)

// TestSimulation is the short run: all five policies, few lives, six checkpoints.
func TestSimulation(t *testing.T) {
	began := time.Now()
	found, err := simulate(t.Context(), options{seed: 1, accounts: 8, busy: 1, checkpoints: 6}, t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if err := report(t.Output(), found); err != nil {
		t.Error(err)
	}
	t.Log("took", time.Since(began))
}
