package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/bytesearch"
)

const (
	sampled     = 25          // of each sort, at each checkpoint
	removeAfter = time.Minute // of real time, for the parts that were replaced
)

// sample is what is looked for in files: what is gone from rows and must be gone from
// the disk, and what must be there.
type sample struct{ rows, people, kept []string }

// sample picks among the rows whose grace has begun by a checkpoint, the people who are
// gone from rows that stay, and what must be kept beyond the grace.
func (r *wet) sample(at time.Time) (s sample) {
	stays := func(b bounds) bool { return b.held || at.Add(grace).Before(b.kept) }
	add := func(to *[]string, what string) {
		if len(*to) < sampled {
			*to = append(*to, what)
		}
	}
	for i := range r.rows {
		w := r.rows[(i*7919+r.tally.checkpoints)%len(r.rows)] // others each time
		b := r.oracle.bounds(w, at)
		switch {
		case !w.stored:
			continue
		case b.due(at):
			add(&s.rows, idOf(w.number))
			continue
		case !w.lost && stays(b):
			add(&s.kept, idOf(w.number))
		}
		whole := !slices.ContainsFunc(w.members, func(m *watched) bool { return m.lost })
		for i, m := range w.members {
			switch mark := markOf(w.number, m.people[0]); {
			case b.members[i].due(at):
				add(&s.people, mark)
			case whole && stays(b.members[i]):
				add(&s.kept, mark)
			}
		}
	}
	return s
}

// bytes looks for a sample on disk, through compression and in parts of any state, in
// the tables of events: what a fact came from is named in anchors while the fact is kept.
// It waits for what is gone until the engine has removed the parts that it replaced.
func (r *wet) bytes(ctx context.Context, at time.Time) error {
	var dirs []string
	if err := r.conn.QueryRow(ctx, "SELECT arrayFlatten(groupArray(data_paths)) FROM system.tables WHERE database = currentDatabase() AND endsWith(name, '_events')").Scan(&dirs); err != nil {
		return fmt.Errorf("%s: search bytes: %w", r.policy.Name, err)
	}
	s := r.sample(at)
	gone := append(slices.Clone(s.rows), s.people...)
	var left, missing []string
	for began := time.Now(); ; time.Sleep(time.Second) {
		found := make(map[string]bool)
		for _, dir := range dirs {
			got, err := bytesearch.Search(dir, append(slices.Clone(gone), s.kept...)...)
			if err != nil {
				return fmt.Errorf("%s: %w", r.policy.Name, err)
			}
			for id := range got.Found {
				found[id] = true
			}
		}
		left = slices.DeleteFunc(slices.Clone(gone), func(id string) bool { return !found[id] })
		missing = slices.DeleteFunc(slices.Clone(s.kept), func(id string) bool { return found[id] })
		if len(left) == 0 || time.Since(began) > removeAfter {
			break
		}
	}
	r.tally.searched += len(s.rows)
	r.tally.people += len(s.people)
	r.tally.controls += len(s.kept)
	r.tally.late += len(left)
	r.tally.early += len(missing)
	for _, id := range left {
		r.tally.note("late: it is gone, but in a file: %s, at %s", id, at.Format(time.DateOnly))
	}
	for _, id := range missing {
		r.tally.note("early: it is in no file: %s, at %s", id, at.Format(time.DateOnly))
	}
	return nil
}
