package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are what the flags say.
type options struct {
	seed        uint64
	accounts    int
	busy        int // months of a year that have events
	checkpoints int
}

// simulation is one run: a world, an engine, and the five policies on it.
type simulation struct {
	options
	engine   *engine
	policies []*wet
	out      io.Writer // progress
}

// simulate runs eight years on an engine in dir and returns what was found of each policy.
func simulate(ctx context.Context, o options, dir string, out io.Writer) (_ []*tally, err error) {
	w := newWorld(o.seed, o.accounts, o.busy)
	s := &simulation{options: o, out: out}
	if s.engine, err = startEngine(ctx, dir, begin); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.engine.stop()) }()
	var found []*tally
	for _, name := range policies {
		p, err := newWet(ctx, name, w, s.engine)
		if err != nil {
			return nil, err
		}
		defer p.close()
		s.policies = append(s.policies, p)
		found = append(found, p.tally)
	}
	for _, seg := range w.segments(o.checkpoints) {
		if err := s.engine.set(seg.from); err != nil {
			return nil, err
		}
		if err := s.each(ctx, func(ctx context.Context, p *wet) error { return p.step(ctx, seg) }); err != nil {
			return nil, err
		}
		if seg.checkpoint {
			if err := s.checkpoint(ctx, seg.from); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// each does something for all policies at the same time.
func (s *simulation) each(ctx context.Context, do func(context.Context, *wet) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range s.policies {
		g.Go(func() error { return do(ctx, p) })
	}
	return g.Wait()
}

// checkpoint lets the engine execute what is due, hour by hour of its clock, and
// measures how late that is. What is there when the grace is over is late, in parts of
// any state.
func (s *simulation) checkpoint(ctx context.Context, at time.Time) error {
	var left map[*wet][]*watched
	for late := time.Duration(0); late <= grace; late += time.Hour {
		if err := s.engine.set(at.Add(late)); err != nil {
			return err
		}
		patience := 3 * time.Second // of real time
		if late == 0 || late == grace {
			patience = time.Minute // for a busy machine
		}
		for began := time.Now(); ; {
			var err error
			if left, err = s.left(ctx, at); err != nil {
				return err
			}
			if len(left) == 0 || time.Since(began) > patience {
				break
			}
			for p := range left {
				p.tally.maxLate = max(p.tally.maxLate, late+time.Hour)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if len(left) == 0 {
			break
		}
	}
	for _, p := range s.policies {
		p.tally.checkpoints++
		for _, w := range left[p] {
			p.tally.late++
			p.tally.example(w, at.Add(grace), "late: its bytes are still there, past the grace")
		}
	}
	if err := s.engine.set(at.Add(grace)); err != nil {
		return err
	}
	if err := s.each(ctx, func(ctx context.Context, p *wet) error { return p.bytes(ctx, at) }); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s: looked at %d rows and in their files\n", at.Format(time.DateOnly), len(s.policies[0].rows))
	return nil
}

// left returns the rows that are due and on disk, after a nudge to the merges of
// their tables.
func (s *simulation) left(ctx context.Context, at time.Time) (map[*wet][]*watched, error) {
	left := make(map[*wet][]*watched)
	for _, p := range s.policies {
		rows, err := p.overdue(ctx, at)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			continue
		}
		left[p] = rows
		if err := p.nudge(ctx); err != nil {
			return nil, err
		}
	}
	return left, nil
}
