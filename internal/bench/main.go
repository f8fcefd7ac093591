// Command bench measures the whole route of an event, from Kafka to a row that
// can be queried, and beside it the loop a first version would be. Both read
// the same topic of the same broker into the same engine; what is compared is
// the CPU time (user and system) that each one's own process takes.
//
//	go run ./internal/bench            three runs over a million events
//	go run ./internal/bench -check     the same, and fails below the limits
//
// It needs the programs of `make build` in bin/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

const (
	topic      = "lethe.request"
	partitions = 4

	// The limits that -check holds. The ratio is to the naive loop of the same run: 2.0 to
	// 2.3 on two cores, the lower the more others use them.
	leastRatio = 1.8
	mostRSS    = 256 << 20 // bytes
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	events := flag.Int("events", 1_000_000, "events to publish and read")
	runs := flag.Int("runs", 3, "runs of each; the medians are compared")
	check := flag.Bool("check", false, "fail when the ratio or the memory is beyond its limit")
	bin := flag.String("bin", "bin", "folder of the built programs")
	asNaive := flag.Bool("naive", false, "be the naive loop (the benchmark starts itself so)")
	broker := flag.String("broker", "", "with -naive and -publish-only: the broker")
	dsn := flag.String("dsn", "", "with -naive: database to write to")
	only := flag.Bool("publish-only", false, "publish the events to -broker and end, to look at the ingester by hand")
	flag.Parse()
	if *only {
		_, err := publish(ctx, *broker, *events)
		return err
	}
	if *asNaive {
		return naive(ctx, *broker, *dsn, *events)
	}

	dir, err := os.MkdirTemp("", "lethe-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	absolute, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	stack, err := startStack(ctx, absolute, dir)
	if err != nil {
		return err
	}
	defer stack.stop()

	fmt.Printf("publishing %d events to %s\n", *events, topic)
	bytes, err := publish(ctx, stack.kafka, *events)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	fmt.Printf("published, %.0f bytes each\n", float64(bytes)/float64(*events))

	var lethe, loop []measure
	for i := range *runs {
		m, err := stack.ingest(ctx, i, *events)
		if err != nil {
			return fmt.Errorf("ingester, run %d: %w", i+1, err)
		}
		lethe = append(lethe, m)
		fmt.Printf("run %d: ingester %s\n", i+1, m)
		m, err = stack.naive(ctx, i, *events)
		if err != nil {
			return fmt.Errorf("naive loop, run %d: %w", i+1, err)
		}
		loop = append(loop, m)
		fmt.Printf("run %d: naive    %s\n", i+1, m)
	}
	return report(lethe, loop, *events, *check)
}

// measure is what one run of one process took.
type measure struct {
	wall, cpu time.Duration
	peak      uint64 // resident bytes
	events    int
}

func (m measure) perSecond() float64    { return float64(m.events) / m.wall.Seconds() }
func (m measure) perCPUSecond() float64 { return float64(m.events) / m.cpu.Seconds() }

func (m measure) String() string {
	return fmt.Sprintf("%.0f events/s, %.0f events per CPU-second, %d MiB peak", m.perSecond(), m.perCPUSecond(), m.peak>>20)
}

func report(lethe, loop []measure, events int, check bool) error {
	ratios := make([]float64, len(lethe))
	peak := uint64(0)
	for i := range lethe {
		ratios[i] = lethe[i].perCPUSecond() / loop[i].perCPUSecond()
		peak = max(peak, lethe[i].peak)
	}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "median of %d runs, %d events\tingester\tnaive loop\tratio\t\n", len(lethe), events)
	row := func(name string, f func(measure) float64) {
		a, b := median(lethe, f), median(loop, f)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t\n", name, a, b, a/b)
	}
	row("events per second", measure.perSecond)
	row("events per CPU-second", measure.perCPUSecond)
	row("peak resident MiB", func(m measure) float64 { return float64(m.peak) / (1 << 20) })
	if err := w.Flush(); err != nil {
		return err
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	fmt.Printf("\nmedian of the runs' own ratios: %.2f\n", ratio)
	if !check {
		return nil
	}
	var errs []error
	if ratio < leastRatio {
		errs = append(errs, fmt.Errorf("events per CPU-second are %.2f times the naive loop's, want at least %.1f", ratio, leastRatio))
	}
	if peak > mostRSS {
		errs = append(errs, fmt.Errorf("peak resident memory is %d MiB, want at most %d", peak>>20, mostRSS>>20))
	}
	return errors.Join(errs...)
}

func median(ms []measure, f func(measure) float64) float64 {
	values := make([]float64, 0, len(ms))
	for _, m := range ms {
		values = append(values, f(m))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
