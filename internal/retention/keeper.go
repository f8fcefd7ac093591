package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// Keeper keeps the facts fresh for the ingester, and sweeps: all rows every hour,
// and those of a new hold, erasure or restoration at once. Any number of instances may
// run: what one has done lately the others leave, and of two that begin together only
// the later moves anything.
type Keeper struct {
	o       Options
	book    *Book
	sweeper *Sweeper
	facts   atomic.Pointer[Facts]
	metrics *metrics
	looked  time.Time // at erasures under way
	sought  time.Time // everybody who is known by hashes alone
	swept   *Facts    // those whose restorations are in the tables
}

// NewKeeper registers the metrics and starts nothing.
func NewKeeper(o Options) (*Keeper, error) {
	if o.Every <= 0 {
		o.Every = time.Hour
	}
	if o.Look <= 0 {
		o.Look = 5 * time.Second
	}
	k := &Keeper{o: o, book: NewBook(o.Storage, o.Policy, o.Hash), sweeper: NewSweeper(o)}
	var err error
	k.metrics, err = newMetrics(o.Metrics)
	return k, err
}

// Load reads the facts for the first time. Nothing may be stored before: what was
// erased would come back.
func (k *Keeper) Load(ctx context.Context) error {
	facts, err := k.book.Facts(ctx)
	if err == nil {
		k.facts.Store(facts)
	}
	return err
}

// Recorded returns what the row of an audit event records: see the function of that name.
func (k *Keeper) Recorded(r *event.Row) (*event.Erasure, *event.Hold, error) {
	return Recorded(r, k.o.Hash)
}

// Fate says what becomes of a row by what was known a moment ago. Load MUST have
// succeeded.
func (k *Keeper) Fate(r *event.Row) Fate { return k.facts.Load().Fate(r) }

// Strip is that of the facts known now.
func (k *Keeper) Strip(r *event.Row, people []string) { k.facts.Load().Strip(r, people) }

// Remember is that of the facts known now.
func (k *Keeper) Remember(x event.Fact) []event.Fact { return k.facts.Load().Remember(x) }

// Run looks and sweeps until ctx is done. Errors are logged, counted, and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	wait := k.o.Look
	for sleep(ctx, wait) {
		wait = k.o.Look
		err := k.look(ctx)
		switch {
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, ErrOvertaken):
			k.metrics.sweeps.WithLabelValues("overtaken").Inc()
		default:
			k.metrics.sweeps.WithLabelValues("failed").Inc()
			k.o.Log.Error("the sweep failed and is tried again", "error", err)
			wait = min(time.Minute, 12*k.o.Look)
		}
	}
	return nil
}

// look does what is due.
func (k *Keeper) look(ctx context.Context) error {
	if err := k.Load(ctx); err != nil {
		return err
	}
	full, last, err := k.o.Storage.LastSweeps(ctx)
	if err != nil {
		return err
	}
	k.metrics.last.Set(float64(full.UnixMilli()) / 1000)
	now := k.o.Now()
	erasures, err := k.o.Storage.Erasures(ctx)
	if err != nil {
		return err
	}
	k.metrics.count(erasures, now)
	found, err := k.search(ctx, now)
	if err != nil {
		return err
	}
	if now.Sub(full) >= k.o.Every {
		return k.sweep(ctx, nil)
	}
	urgent, err := k.urgent(ctx, erasures, last)
	if err != nil {
		return err
	}
	if urgent = slices.Concat(urgent, found, k.restored(now)); len(urgent) > 0 {
		return k.sweep(ctx, urgent)
	}
	k.swept = k.facts.Load()
	underway := slices.ContainsFunc(erasures, func(e event.Erasure) bool { return e.State != event.ErasureDone })
	if underway && now.Sub(k.looked) >= 12*k.o.Look {
		k.looked = now
		return k.sweeper.Erasures(ctx)
	}
	return nil
}

// searchEvery is how often everybody is searched who is known by hashes alone: rows
// can have come back with a backup, or with an ingester that was held up.
const searchEvery = 24 * time.Hour

// search returns the subjects that it found. An ingester that starts searches at once:
// it may have been started because of a restore.
func (k *Keeper) search(ctx context.Context, now time.Time) ([]string, error) {
	facts, fresh := k.facts.Load(), now.Sub(k.sought) < searchEvery
	if fresh && len(facts.unswept) == 0 && len(facts.heldHash) == 0 {
		return nil, nil
	}
	found, err := k.sweeper.Search(ctx, fresh)
	if err == nil && !fresh {
		k.sought = now
	}
	return found, err
}

// skew is how far the clocks of those who place holds and of those who sweep may differ.
const skew = time.Minute

// urgent returns the subjects that cannot wait for the next sweep over all: held
// rows may expire before it, and erased ones have a deadline.
func (k *Keeper) urgent(ctx context.Context, erasures []event.Erasure, last time.Time) ([]string, error) {
	var urgent []string
	holds, err := k.o.Storage.Holds(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range holds {
		if h.ReleasedAt.IsZero() && h.UpdatedAt.Add(skew).After(last) {
			urgent = append(urgent, h.Subjects...)
		}
	}
	for _, e := range erasures {
		if e.State == event.ErasureRequested {
			subjects, err := k.o.Storage.ErasureSubjects(ctx, e.ID)
			if err != nil {
				return nil, err
			}
			urgent = append(urgent, subjects...)
		}
	}
	return urgent, nil
}

// restored returns the subjects that were restored since the last sweep that knew of
// them: their rows may be about to end. An ingester that starts takes those of a day.
func (k *Keeper) restored(now time.Time) (subjects []string) {
	facts := k.facts.Load()
	if facts == k.swept {
		return nil
	}
	var known map[string]time.Time
	if k.swept != nil {
		known = k.swept.restored()
	}
	for subject, at := range facts.restored() {
		before, is := known[subject]
		if is && before.Equal(at) || k.swept == nil && now.Sub(at) > 24*time.Hour {
			continue
		}
		subjects = append(subjects, subject)
	}
	return subjects
}

func (k *Keeper) sweep(ctx context.Context, subjects []string) error {
	facts := k.facts.Load()
	for {
		began := k.o.Now()
		res, err := k.sweeper.Sweep(ctx, subjects)
		k.metrics.moved.Add(float64(res.Moved))
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		k.metrics.sweeps.WithLabelValues("done").Inc()
		if res.Moved > 0 {
			k.o.Log.Info("moved expiries", "rows", res.Moved, "looked_at", res.Rows, "all", subjects == nil, "took", k.o.Now().Sub(began).Round(time.Millisecond))
		}
		if !res.More {
			k.swept = facts
			return nil
		}
	}
}

// sleep returns false when ctx is done before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
