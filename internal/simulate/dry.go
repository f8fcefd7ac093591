package main

import (
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/retention"
)

// dryRow is a row in a run without an engine.
type dryRow struct {
	*watched
	row  *event.Row // nil: not stored
	gone bool
	done bool // gone, as it must be
}

// dryRun simulates one policy without an engine: sweeps and TTLs act at once. It is
// for faults, of which a run with an engine would take too long to try all.
func dryRun(name string, w *world, f fault) (*tally, error) {
	s, err := newSystem(name, f)
	if err != nil {
		return nil, err
	}
	o := newOracle(name)
	t := &tally{policy: name}
	var rows []*dryRow
	for _, seg := range w.segments(12 * years) {
		if err := takeFacts(s, o, w, seg); err != nil {
			return nil, err
		}
		for _, h := range seg.arrivals {
			row, err := s.row(h)
			if err != nil {
				return nil, err
			}
			if row != nil && !s.arrives(row) {
				row = nil
			}
			rows = append(rows, &dryRow{watched: o.watch(h), row: row})
			t.rows++
		}
		at := seg.midnights()
		for _, r := range rows {
			if !r.done {
				r.look(s, o, t, seg, at)
			}
		}
		if f.name != "" && (f.late && t.late > 0 || !f.late && t.early > 0) {
			break // seen
		}
	}
	return t, nil
}

// takeFacts tells the oracle and the system what becomes known at the begin of a segment.
func takeFacts(s *system, o *oracle, w *world, seg *segment) error {
	for _, h := range seg.arrivals {
		if h.fact && h.arrives.Equal(seg.from) {
			o.learn(h)
			row, err := s.row(h)
			if err != nil {
				return err
			}
			if row != nil {
				s.learn(row)
			}
		}
	}
	o.requests = w.made(seg.from)
	s.ask(o.requests, seg.from)
	s.know(seg.from)
	return nil
}

// made returns the requests made by an instant.
func (w *world) made(now time.Time) []request {
	n := 0
	for n < len(w.requests) && !w.requests[n].at.After(now) {
		n++
	}
	return w.requests[:n]
}

// look compares a row at the instants of a segment.
func (r *dryRow) look(s *system, o *oracle, t *tally, seg *segment, midnights []time.Time) {
	b := o.bounds(r.watched, seg.from)
	var fate retention.Fate
	var expires time.Time
	if r.row != nil {
		fate = s.fate(r.row)
		expires = s.expires(r.row, fate.Override)
	}
	for _, at := range b.instants(seg, midnights) {
		if r.arrives.After(at) {
			continue
		}
		seen := r.unseen()
		if r.gone = r.gone || !at.Before(expires); !r.gone {
			if s.strip(r.row, fate, at) {
				fate = s.fate(r.row)
				expires = s.expires(r.row, fate.Override)
			}
			seen.see(r.watched, r.row, fate, at, true)
		}
		v := t.judge(r.watched, b, at, seen, true)
		if r.done = v.bytes == mustNot && r.gone; r.done {
			return
		}
	}
}
