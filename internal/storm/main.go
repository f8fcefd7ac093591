// Command storm runs the whole route through kills: Apache Kafka, the embedded
// ClickHouse, two ingesters and a publisher, each a process of its own, and a
// seeded plan of faults that kills, stops, freezes and restarts each of them.
// When it is over, a checker reads the publisher's journal, Kafka, the ledger
// and every page of the API, and decides: every acknowledged event is stored
// exactly once as queries see it, or is accounted for.
//
//	go run ./internal/storm                        five minutes, a seed of its own
//	go run ./internal/storm -duration 30m -seed 7
//
// It needs the programs of `make build` in bin/, and Apache Kafka of
// `make fetch-kafka`. Peaks of memory are known on Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
)

// options are what the flags say.
type options struct {
	duration time.Duration
	seed     uint64
	rate     int
	kills    int
	bin      string
}

func main() {
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

func start() error {
	var o options
	flag.DurationVar(&o.duration, "duration", 5*time.Minute, "how long faults are made")
	flag.Uint64Var(&o.seed, "seed", 0, "what the faults and the events are made from; 0 takes one at random")
	flag.IntVar(&o.rate, "rate", 500, "events per second, about")
	flag.IntVar(&o.kills, "kills", 1, "fail with fewer kills than these")
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	broker := flag.String("publish", "", "be the publisher, to this broker (the storm starts itself so)")
	journal := flag.String("journal", "", "with -publish: the file of what was sent and acknowledged")
	begin := flag.Int64("begin", 0, "with -publish: begin of the storm, in milliseconds since 1970")
	flag.Parse()
	if o.duration < 30*time.Second || o.rate < 1 {
		return errors.New("want a -duration of at least 30s and a -rate of at least 1")
	}
	if *broker != "" {
		return bePublisher(*broker, *journal, generator{o.seed, time.UnixMilli(*begin).UTC()}, o.rate)
	}
	for o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	var err error
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "lethe-storm-")
	if err != nil {
		return err
	}
	if err := run(ctx, o, dir); err != nil {
		return fmt.Errorf("%w\nseed %d; logs, journal and data are in %s", err, o.seed, dir)
	}
	return os.RemoveAll(dir)
}

// run is the whole: a start in calm, the storm, the calm after it, the verdict.
func run(ctx context.Context, o options, dir string) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := generator{o.seed, time.Now().UTC().Truncate(time.Millisecond)}
	faults := plan(o.seed, o.duration)
	fmt.Printf("seed %d: %d faults in %s\n", o.seed, len(faults), o.duration)

	s, err := prepare(ctx, o, dir, g, cancel)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.keepOutput()
			if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
				err = errors.Join(cause, err)
			}
		}
		s.end()
	}()
	for _, p := range s.processes {
		if p.name != kafka && p.name != querying {
			if err := p.begin(ctx); err != nil {
				return err
			}
		}
	}
	r := newReporter(s)
	if err := r.awaitAccounted(ctx); err != nil {
		return err
	}
	if err := r.blow(ctx, faults); err != nil {
		return err
	}
	fmt.Println("the storm is over; waiting until everything is accounted for")
	if err := s.process(publishing).end(); err != nil {
		return err
	}
	took, err := r.awaitCaughtUp(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("caught up after %s\n", took.Round(time.Second))
	verdict, err := s.judge(ctx, g)
	if err != nil {
		return err
	}
	for i := len(s.processes) - 1; i >= 0; i-- {
		if p := s.processes[i]; p.name != publishing {
			if err := p.end(); err != nil {
				return err
			}
		}
	}
	return r.report(o, verdict)
}
