package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// action is what is done to a process.
type action int

const (
	kill   action = iota // SIGKILL, and a start after a while
	stop                 // SIGTERM, its end, and a start after a while
	freeze               // SIGSTOP for longer than the session, then SIGCONT

	numActions = 3
)

var actionNames = [numActions]string{"kill", "stop", "freeze"}

func (a action) String() string { return actionNames[a] }

// fault is one action. The process is started or continued after lasts.
type fault struct {
	at      time.Duration // since the begin
	process string
	action  action
	lasts   time.Duration
}

// The processes of a run.
const (
	kafka      = "kafka"
	clickhouse = "clickhouse"
	ingest1    = "ingest-1"
	ingest2    = "ingest-2"
	publishing = "publisher"
	querying   = "query" // takes no part in the storm
)

// targets has each process as often as its share in the faults.
var targets = []string{ingest1, ingest1, ingest1, ingest2, ingest2, ingest2, publishing, publishing, kafka, clickhouse}

const (
	sessionTimeout = 6 * time.Second
	// respite is what a process has at least, from its return to its next fault.
	respite    = 4 * time.Second
	mostOutage = 10 * time.Minute // of ClickHouse, once in a run
)

// plan makes the faults of a run, in the order of their time: a seed gives the
// same plan every time. Every fault is over by the end.
func plan(seed uint64, duration time.Duration) []fault {
	r := rand.New(rand.NewPCG(seed, 0))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(r.Int64N(int64(to-from))) }
	free := make(map[string]time.Duration) // since when a process can have the next fault

	outage := fault{process: clickhouse, action: kill, lasts: min(duration/3, mostOutage)}
	outage.at = between(duration/6, duration/2)
	faults := []fault{outage}

	pause := min(max(duration/20, 3*time.Second), 8*time.Second)
	for at := between(0, pause); at < duration; at += between(pause/2, pause*3/2) {
		f := fault{at: at, process: targets[r.IntN(len(targets))], action: [...]action{kill, kill, stop, freeze}[r.IntN(4)]}
		switch {
		case f.action == freeze:
			f.lasts = sessionTimeout + between(time.Second, 4*time.Second)
		case r.IntN(2) == 0:
			f.lasts = between(0, 8*time.Second)
		}
		over := f.at + f.lasts
		clash := f.process == clickhouse && f.at < outage.at+outage.lasts+respite && outage.at < over+respite
		if clash || f.at < free[f.process] || over > duration-time.Second {
			continue
		}
		free[f.process] = over + respite
		faults = append(faults, f)
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return int(a.at - b.at) })
	return faults
}
