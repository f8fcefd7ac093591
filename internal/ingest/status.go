package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
)

// status tells the operator what works, what waits, and what needs a person.
type status struct {
	health health

	mu      sync.Mutex
	waiting map[string]map[string]string // part → cause → sentence
	stopped map[place]string             // partition → sentence
}

// place names a partition in sentences and as a key.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

func newStatus(h health) *status {
	return &status{health: h, waiting: make(map[string]map[string]string), stopped: make(map[place]string)}
}

// pause says that a part is being waited for; resume with the same cause ends it.
func (s *status) pause(part, cause, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[part] == nil {
		s.waiting[part] = make(map[string]string)
	}
	s.waiting[part][cause] = why
	s.report(part)
}

func (s *status) resume(part, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[part] == nil {
		s.waiting[part] = make(map[string]string)
		s.report(part)
	}
	if _, ok := s.waiting[part][cause]; ok {
		delete(s.waiting[part], cause)
		s.report(part)
	}
}

func (s *status) report(part string) {
	if len(s.waiting[part]) == 0 {
		s.health.Report(part, daemon.Ready, "")
		return
	}
	s.health.Report(part, daemon.Paused, strings.Join(slices.Sorted(maps.Values(s.waiting[part])), "; "))
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
// calls it waits longer and longer, and the part is reported as paused.
func (i *Ingester) retry(ctx context.Context, part, what string, f func(context.Context) error) error {
	wait := i.o.RetryMin
	for {
		err := f(ctx)
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
		i.metrics.retries.WithLabelValues(part).Inc()
		i.log.Warn("trying again", "what", what, "wait", wait, "error", err)
		i.status.pause(part, what, fmt.Sprintf("could not %s; trying again", what))
		if !sleep(ctx, wait/2+rand.N(wait/2+1)) {
			i.status.resume(part, what)
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		wait = min(2*wait, i.o.RetryMax)
	}
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
