package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

const (
	progressEvery = 5 * time.Second
	// catchUpIn is generous: machines are busy.
	catchUpIn = 15 * time.Minute
	// mostMemory is what an ingester may have resident, whatever happens around
	// it: MEMORY_LIMIT is 200 MiB, a wish that the garbage collector works towards.
	mostMemory = 256 << 20
	// shown is how many findings of a kind are printed.
	shown = 20
)

// reporter tells how it goes.
type reporter struct {
	*stack
	began time.Time
}

func newReporter(s *stack) *reporter { return &reporter{stack: s, began: time.Now()} }

func (r *reporter) clock() string {
	d := time.Since(r.began).Round(time.Second)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// line prints where everything stands. It returns how many records the ledger
// accounts for and how many it does not; lag −1 is unknown.
func (r *reporter) line(ctx context.Context) (done, lag int64) {
	ctx, cancel := context.WithTimeout(ctx, progressEvery)
	defer cancel()
	var down []string
	var total [numActions]int
	for _, p := range r.processes {
		state, counts, _ := p.look()
		if state != "" {
			down = append(down, p.name+" "+state)
		} else if r.ready[p.name] != "" {
			p.measure()
		}
		for a, n := range counts {
			total[a] += n
		}
	}
	a, err := readJournal(r.journal())
	if err != nil {
		fmt.Println(err)
	}
	accounted, behind := "?", "?"
	if done, lag, err = r.world.lag(ctx); err != nil {
		lag = -1
	} else {
		accounted, behind = fmt.Sprint(done), fmt.Sprint(lag)
	}
	fmt.Printf("%s  published %d  acknowledged %d  accounted %s  lag %s  kills %d  stops %d  freezes %d  %s\n",
		r.clock(), size(a.sent), size(a.acked), accounted, behind, total[kill], total[stop], total[freeze], strings.Join(down, ", "))
	return done, lag
}

// until prints lines until enough says so.
func (r *reporter) until(ctx context.Context, every time.Duration, what string, enough func(done, lag int64) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpIn, errors.New(what+": not within "+catchUpIn.String()))
	defer cancel()
	for {
		if done, lag := r.line(ctx); enough(done, lag) {
			return nil
		}
		if pause(ctx, every); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func (r *reporter) awaitAccounted(ctx context.Context) error {
	return r.until(ctx, time.Second, "wait for the first event to be accounted for", func(done, _ int64) bool { return done > 0 })
}

func (r *reporter) awaitCaughtUp(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	err := r.until(ctx, 2*time.Second, "wait until everything is accounted for", func(_, lag int64) bool { return lag == 0 })
	return time.Since(began), err
}

// blow makes the faults, each process's own one after the other.
func (r *reporter) blow(ctx context.Context, faults []fault) error {
	r.began = time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var gone sync.WaitGroup
	for _, p := range r.processes {
		gone.Go(func() {
			back := time.Time{} // when it returned from the fault before, which may be late
			for _, f := range faults {
				if f.process != p.name {
					continue
				}
				if pause(ctx, max(time.Until(r.began.Add(f.at)), time.Until(back.Add(respite)))); ctx.Err() != nil {
					return
				}
				fmt.Printf("%s  %s %s for %s\n", r.clock(), f.action, f.process, f.lasts.Round(100*time.Millisecond))
				if err := p.suffer(ctx, f); err != nil {
					cancel(err)
					return
				}
				back = time.Now()
			}
		})
	}
	over := make(chan struct{})
	go func() { gone.Wait(); close(over) }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return context.Cause(ctx)
		case <-tick.C:
			r.line(ctx)
		}
	}
}

// verdict is what the judges say.
type verdict struct {
	tally
	pages, own int
	verified   string
	took       time.Duration
}

// judge reads everything by every route. An error says what is wrong.
func (s *stack) judge(ctx context.Context, g generator) (v verdict, err error) {
	began := time.Now()
	if err := s.process(querying).begin(ctx); err != nil {
		return v, err
	}
	for name := range s.ready {
		if err := s.awaitReady(ctx, name); err != nil {
			return v, err
		}
	}
	a, err := readJournal(s.journal())
	if err != nil {
		return v, err
	}
	e, err := s.world.gather(ctx, s.token, g, a)
	if err != nil {
		return v, err
	}
	t, findings := e.check()
	v = verdict{tally: t, pages: e.pages, own: e.own}
	var errs []error
	count := make(map[string]int)
	for _, f := range findings {
		if count[f.what]++; count[f.what] <= shown {
			errs = append(errs, errors.New(f.String()))
		}
	}
	for what, n := range count {
		errs = append(errs, fmt.Errorf("%d times: %s", n, what))
	}
	if v.verified, err = s.verify(ctx); err != nil {
		errs = append(errs, err)
	}
	v.took = time.Since(began)
	return v, errors.Join(errs...)
}

// verify runs ingest verify --full and returns its last sentences.
func (s *stack) verify(ctx context.Context) (string, error) {
	in, ok := s.process(ingest1).life.(*program)
	if !ok {
		return "", errors.New("verify: the ingester is no program")
	}
	cmd := exec.CommandContext(ctx, in.path, "verify", "--full")
	cmd.Env = append(os.Environ(), in.env...)
	var errout bytes.Buffer
	cmd.Stderr = &errout
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ingest verify --full: %w\n%s%s", err, out, errout.Bytes())
	}
	_, tail, _ := strings.Cut(string(out), "\n\n")
	return strings.TrimSpace(tail), nil
}

// report prints the end of it, and fails where the run was too calm or an
// ingester too large.
func (r *reporter) report(o options, v verdict) error {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "process\tkills\tstops\tfreezes\tpeak MiB\t")
	kills, errs := 0, []error(nil)
	for _, p := range r.processes {
		_, counts, peak := p.look()
		kills += counts[kill]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", p.name, counts[kill], counts[stop], counts[freeze], peak>>20)
		switch ingester := p.name == ingest1 || p.name == ingest2; {
		case ingester && peak == 0:
			errs = append(errs, fmt.Errorf("what %s had resident is not known: there is no /proc", p.name))
		case ingester && peak > mostMemory:
			errs = append(errs, fmt.Errorf("%s had %d MiB resident, want at most %d", p.name, peak>>20, mostMemory>>20))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if kills < o.kills {
		errs = append(errs, fmt.Errorf("%d kills, want at least %d", kills, o.kills))
	}
	fmt.Printf("\n%d events sent, %d acknowledged: %d stored, %d dead letters, %d expired on arrival; %d were never acknowledged and did not come\n",
		v.sent, v.acked, v.stored, v.dead, v.expired, v.unknown)
	fmt.Printf("%d records came again, %d dead letters in all; %d pages read, %d records and events of the query service\n", v.again, v.letters, v.pages, v.own)
	fmt.Printf("%s\nread and checked in %s\n", v.verified, v.took.Round(time.Second))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Printf("PASSED: seed %d, %s, %d kills: nothing lost, nothing doubled\n", o.seed, o.duration, kills)
	return nil
}
