package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/publish"
)

// status tells the operator what works, what waits, and what needs a person.
type status struct {
	health health

	mu      sync.Mutex
	waiting map[string]map[string]trouble // part → cause
	stopped map[place]string              // partition → sentence
}

// trouble is what a part is tried again for.
type trouble struct {
	state daemon.State
	why   string // a sentence
}

// place names a partition in sentences and as a key.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

func newStatus(h health) *status {
	return &status{health: h, waiting: make(map[string]map[string]trouble), stopped: make(map[place]string)}
}

// pause says that a part is being waited for; resume with the same cause ends it.
func (s *status) pause(part, cause, why string) { s.wait(part, cause, trouble{daemon.Paused, why}) }

func (s *status) wait(part, cause string, t trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[part] == nil {
		s.waiting[part] = make(map[string]trouble)
	}
	s.waiting[part][cause] = t
	s.report(part)
}

func (s *status) resume(part, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[part] == nil {
		s.waiting[part] = make(map[string]trouble)
		s.report(part)
	}
	if _, ok := s.waiting[part][cause]; ok {
		delete(s.waiting[part], cause)
		s.report(part)
	}
}

// afresh forgets what a part was waited for: whoever waits from now on says so.
func (s *status) afresh(part string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.waiting[part])
	s.report(part)
}

func (s *status) report(part string) {
	worst := daemon.Ready
	var lines []string
	for _, t := range s.waiting[part] {
		worst = max(worst, t.state)
		lines = append(lines, t.why)
	}
	slices.Sort(lines)
	s.health.Report(part, worst, strings.Join(lines, "; "))
}

// stop says that a partition is not read until a person has acted.
func (s *status) stop(p place, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped[p] = why
	s.reportStopped()
}

// isStopped reports whether the partition was stopped before.
func (s *status) isStopped(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.stopped[p]
	return ok
}

// whyStopped says why a partition was stopped; "": it was not.
func (s *status) whyStopped(p place) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped[p]
}

// assigned forgets stopped partitions that another member now has.
func (s *status) assigned(ours map[place]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.stopped, func(p place, _ string) bool { return !ours[p] })
	s.reportStopped()
}

func (s *status) reportStopped() {
	if len(s.stopped) == 0 {
		s.health.Report(partPartitions, daemon.Ready, "")
		return
	}
	var lines []string
	for p, why := range s.stopped {
		lines = append(lines, p.String()+" is stopped: "+why)
	}
	slices.Sort(lines)
	s.health.Report(partPartitions, daemon.Broken, strings.Join(lines, "; "))
}

// permanent reports whether another try cannot help.
func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// retry calls f until it succeeds, fails for good, or ctx is done. Between the
// calls it waits longer and longer, and the part is reported as paused, or as
// broken where only a person can make another try succeed. While a call has no
// answer for longer than Patience it is reported as paused as well.
func (i *Ingester) retry(ctx context.Context, part, what string, f func(context.Context) error) error {
	wait := i.o.RetryMin
	for {
		err := i.patiently(ctx, part, what, f)
		if err == nil {
			i.status.resume(part, what)
			return nil
		}
		if ctx.Err() != nil {
			i.status.resume(part, what)
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		if permanent(err) || errors.Is(err, errFenced) {
			i.status.resume(part, what)
			return fmt.Errorf("%s: %w", what, err)
		}
		i.failed(part, what, what, wait, err)
		if !sleep(ctx, wait/2+rand.N(wait/2+1)) {
			i.status.resume(part, what)
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		wait = min(2*wait, i.o.RetryMax)
	}
}

// failed tells of a failure after which a part is tried again.
func (i *Ingester) failed(part, cause, what string, wait time.Duration, err error) {
	t := trouble{daemon.Paused, fmt.Sprintf("could not %s; trying again", what)}
	level := slog.LevelWarn
	if part == partKafka {
		err = publish.Diagnose(err)
	}
	var known *publish.Problem
	if t.state = daemon.Trouble(err); t.state == daemon.Broken || part == partClickHouse || errors.As(err, &known) {
		// Only these errors are known to have a text that may be shown.
		t.why = fmt.Sprintf("could not %s: %v; trying again", what, err)
	}
	if t.state == daemon.Broken {
		level = slog.LevelError
	}
	i.metrics.retries.WithLabelValues(part).Inc()
	i.log.Log(context.Background(), level, "trying again", "what", what, "wait", wait, "error", err)
	i.status.wait(part, cause, t)
}

// patiently calls f and reports the part as paused when it takes too long.
func (i *Ingester) patiently(ctx context.Context, part, what string, f func(context.Context) error) error {
	reported := make(chan struct{})
	late := time.AfterFunc(i.o.Patience, func() {
		defer close(reported)
		i.status.pause(part, what, fmt.Sprintf("still waiting to %s: no answer for more than %v", what, i.o.Patience))
	})
	err := f(ctx)
	if !late.Stop() {
		<-reported // so that what is reported next stays
	}
	return err
}

// sleep waits and reports whether the time passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
