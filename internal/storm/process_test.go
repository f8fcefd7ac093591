package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell is a process that runs a script, and where it is heard of an end that
// nobody asked for.
func shell(t *testing.T, script string) (*process, chan error) {
	t.Helper()
	failed := make(chan error, 1)
	p := &process{name: "shell", failed: func(err error) { failed <- err }, life: &program{
		path: "sh", args: []string{"-c", script}, log: filepath.Join(t.TempDir(), "log"),
	}}
	if err := p.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p, failed
}

// await waits until the processes have written n lines.
func await(t *testing.T, p *process, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		text, err := os.ReadFile(p.life.(*program).log)
		if err == nil && strings.Count(string(text), "\n") >= n {
			return
		}
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			t.Fatalf("%d lines are not there after a minute: %q", n, text)
		}
	}
}

const patient = `trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done`

func TestFaultsEndInAProcessThatRuns(t *testing.T) {
	p, failed := shell(t, patient)
	for n, a := range []action{kill, stop, freeze} {
		await(t, p, n+1)
		if err := p.suffer(t.Context(), fault{action: a, lasts: time.Millisecond}); err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
	if _, counts, _ := p.look(); counts != [numActions]int{1, 1, 1} {
		t.Errorf("counted %v, want one of each", counts)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-failed:
		t.Errorf("ends that were asked for are reported: %v", err)
	default:
	}
}

func TestUnexpectedEndsAreReported(t *testing.T) {
	t.Run("by itself", func(t *testing.T) {
		_, failed := shell(t, "exit 3")
		if err := <-failed; !strings.Contains(err.Error(), "nobody had asked") || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("got %v, want a sentence with the status", err)
		}
	})
	t.Run("another status after a stop", func(t *testing.T) {
		p, _ := shell(t, strings.Replace(patient, "exit 0", "exit 4", 1))
		await(t, p, 1)
		if err := p.suffer(t.Context(), fault{action: stop}); err == nil || !strings.Contains(err.Error(), "exit status 4") {
			t.Errorf("got %v, want the status", err)
		}
	})
}
