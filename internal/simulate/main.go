// Command simulate lives through eight years in minutes, under each of the five
// example policies: accounts and workspaces come, act, change their plan, leave,
// come back, ask to be erased, are held and released. An oracle that knows only the
// policies' sentences says of each row and day whether it must be readable, must
// not be, and when its bytes must be gone. Real parts are judged: the decisions,
// the facts, the sweeps, the reader, the live expression of the expiry, and the TTL
// as the engine executes it, in a process of its own whose clock libfaketime moves.
//
//	go run ./internal/simulate                 96 checkpoints, one a month
//	go run ./internal/simulate -checkpoints 6 -accounts 8 -busy 2
//
// It needs Linux and Debian's package faketime.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
)

// root leads from the working directory to the repository's folder.
var root = ""

// policies are the example policies, by the names of their files.
var policies = []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"}

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func start() error {
	if dir := os.Getenv(engineEnv); dir != "" {
		return beEngine(dir)
	}
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "what the world is made from")
	flag.IntVar(&o.accounts, "accounts", 24, "how many accounts live in it, at least 8")
	flag.IntVar(&o.busy, "busy", 4, "how many months of a year have events, spread over it")
	flag.IntVar(&o.checkpoints, "checkpoints", 12*years, "at how many instants the engine's expiry is looked at, spread over the years")
	flag.Parse()
	if o.accounts < 8 || o.busy < 1 || 12%o.busy != 0 || o.checkpoints < 1 || 12*years%o.checkpoints != 0 {
		return fmt.Errorf("want at least 8 -accounts, -busy that divides a year and -checkpoints that divide %d months", 12*years)
	}
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "lethe-simulate-")
	if err != nil {
		return err
	}
	began := time.Now()
	found, err := simulate(ctx, o, dir, os.Stdout)
	if err != nil {
		return fmt.Errorf("%w\nthe engine's data and log are in %s", err, dir)
	}
	fmt.Printf("seed %d, %d accounts, %d years in %s\n", o.seed, o.accounts, years, time.Since(began).Round(time.Second))
	if err := report(os.Stdout, found); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// report prints what was found, and returns an error when it is not nothing.
func report(out io.Writer, found []*tally) (err error) {
	fmt.Fprintf(out, "%-10s  %6s  %9s  %11s  %6s  %6s  %8s  %5s  %5s  %s\n", "policy", "rows", "row-days", "checkpoints", "bytes", "people", "controls", "early", "late", "latest by")
	for _, t := range found {
		fmt.Fprintf(out, "%-10s  %6d  %9d  %11d  %6d  %6d  %8d  %5d  %5d  %s of %s\n", t.policy, t.rows, t.rowDays, t.checkpoints, t.searched, t.people, t.controls, t.early, t.late, t.maxLate, grace)
		for _, e := range t.examples {
			fmt.Fprintln(out, "  ", e)
		}
		if t.early+t.late > 0 || t.rowDays == 0 || t.checkpoints == 0 || t.searched == 0 || t.controls == 0 || t.shared && t.people == 0 {
			err = errors.New("the sentences are not kept, or too little was seen")
		}
	}
	return err
}
