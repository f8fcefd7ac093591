package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/bytesearch"
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
	return found, s.bytes(ctx)
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
// measures how late that is. What is there when the grace is over is late.
func (s *simulation) checkpoint(ctx context.Context, at time.Time) error {
	var left map[*wet][]*watched
	for late := time.Duration(0); late <= grace; late += time.Hour {
		if err := s.engine.set(at.Add(late)); err != nil {
			return err
		}
		patience := 3 * time.Second
		if late == 0 || late == grace {
			patience = 20 * time.Second // of real time, for a busy machine
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
	fmt.Fprintf(s.out, "%s: %d rows are on time\n", at.Format(time.DateOnly), len(s.policies[0].rows))
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

const (
	sampled     = 25              // rows whose bytes are looked for
	removeAfter = 2 * time.Minute // of real time, for the parts that were replaced
)

// bytes looks for rows on disk through compression, when all is over: of each
// policy some that are gone, in parts of any state, and some that must be there. People
// who are gone from rows that stay are looked for like rows.
func (s *simulation) bytes(ctx context.Context) error {
	at := s.policies[0].now.Add(grace + time.Hour)
	if err := s.engine.set(at); err != nil {
		return err
	}
	return s.each(ctx, func(ctx context.Context, p *wet) error {
		var gone, kept, left, stay []string
		for i := range p.rows {
			w := p.rows[(i*7919)%len(p.rows)]
			b := p.oracle.bounds(w, at)
			switch {
			case w.stored && !b.held && b.over.Before(p.now) && len(gone) < sampled:
				gone = append(gone, idOf(w.number))
			case w.stored && !w.lost && at.Before(b.kept) && len(kept) < sampled:
				kept = append(kept, idOf(w.number))
			}
			whole := !slices.ContainsFunc(w.members, func(m *watched) bool { return m.lost })
			for i, m := range w.members {
				switch mark := markOf(w.number, m.people[0]); {
				case !b.held && b.members[i].over.Before(p.now) && at.Before(b.kept) && len(left) < sampled:
					left = append(left, mark)
				case whole && at.Before(b.members[i].kept) && len(stay) < sampled:
					stay = append(stay, mark)
				}
			}
		}
		if shared := slices.ContainsFunc(p.rows, func(w *watched) bool { return w.members != nil }); shared && (len(left) == 0 || len(stay) == 0) {
			return fmt.Errorf("%s: search bytes: no people to look for", p.policy.Name)
		}
		if err := p.search(ctx, append(gone, left...), append(kept, stay...)); err != nil {
			return fmt.Errorf("%s: %w", p.policy.Name, err)
		}
		p.tally.people = len(left)
		return nil
	})
}

// search waits until none of the rows that are gone is found in the tables of events.
// What a fact came from is named in anchors for as long as the fact is kept.
func (p *wet) search(ctx context.Context, gone, kept []string) error {
	if len(gone) == 0 || len(kept) == 0 {
		return errors.New("search bytes: nothing to look for")
	}
	var dirs []string
	if err := p.conn.QueryRow(ctx, "SELECT arrayFlatten(groupArray(data_paths)) FROM system.tables WHERE database = currentDatabase() AND endsWith(name, '_events')").Scan(&dirs); err != nil {
		return fmt.Errorf("search bytes: %w", err)
	}
	for began := time.Now(); ; time.Sleep(time.Second) {
		if err := p.nudge(ctx); err != nil { // the same scheduler removes parts that were replaced
			return err
		}
		left, there := 0, make(map[string]bool)
		for _, dir := range dirs {
			got, err := bytesearch.Search(dir, append(gone, kept...)...)
			if err != nil {
				return err
			}
			for _, id := range gone {
				left += len(got.Found[id])
			}
			for _, id := range kept {
				there[id] = there[id] || len(got.Found[id]) > 0
			}
		}
		if left > 0 && time.Since(began) < removeAfter {
			continue
		}
		for _, id := range kept {
			if !there[id] {
				p.tally.early++
				p.tally.examples = append(p.tally.examples, "early: "+id+" is in no file")
			}
		}
		if p.tally.searched = len(gone); left > 0 {
			p.tally.late += left
			p.tally.examples = append(p.tally.examples, fmt.Sprintf("late: %d of %d that are gone are still in files", left, len(gone)))
		}
		return nil
	}
}
