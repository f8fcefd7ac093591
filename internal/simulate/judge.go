package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/retention"
)

// segment is a time in which nothing new becomes known: the facts arrive at its
// begin.
type segment struct {
	from, to   time.Time
	arrivals   []*happening // the facts first
	checkpoint bool
}

// segments cuts a world where facts arrive, requests are made, and at the
// checkpoints.
func (w *world) segments(checkpoints int) []*segment {
	cuts := []time.Time{begin}
	for i := range checkpoints {
		months := (i + 1) * 12 * years / checkpoints
		cuts = append(cuts, begin.AddDate(0, months, 0))
	}
	last := cuts[len(cuts)-1]
	for _, h := range w.happenings {
		if h.fact {
			cuts = append(cuts, h.arrives)
		}
	}
	for _, r := range w.requests {
		cuts = append(cuts, r.at)
		if !r.until.IsZero() {
			cuts = append(cuts, r.until)
		}
	}
	slices.SortFunc(cuts, time.Time.Compare)
	cuts = slices.DeleteFunc(slices.CompactFunc(cuts, time.Time.Equal), last.Before)
	var all []*segment
	next := 0
	for i, from := range cuts {
		s := &segment{from: from, to: from.Add(grace), checkpoint: from.Day() == 1 && i > 0}
		if i+1 < len(cuts) {
			s.to = cuts[i+1]
		}
		for ; next < len(w.happenings) && w.happenings[next].arrives.Before(s.to); next++ {
			s.arrivals = append(s.arrivals, w.happenings[next])
		}
		all = append(all, s)
	}
	return all
}

// midnights are the days of a segment, with its begin and its last second.
func (s *segment) midnights() []time.Time {
	at := []time.Time{s.from}
	for d := s.from.Truncate(day).Add(day); d.Before(s.to); d = d.Add(day) {
		at = append(at, d)
	}
	return append(at, s.to.Add(-time.Second))
}

// sight is what was seen of one event, or of one person in it, at one instant: by
// readers, by the expiry that its rows carry, and on disk.
type sight struct {
	reader, officer, unexpired, bytes bool

	twice   bool    // more than one row of it can be read
	members []sight // of each of the row's members
}

func (w *watched) unseen() sight { return sight{members: make([]sight, len(w.members))} }

// see adds one row on disk, that has or has not expired at an instant.
func (s *sight) see(w *watched, row *event.Row, f retention.Fate, at time.Time, unexpired bool) {
	s.bytes, s.unexpired = true, s.unexpired || unexpired
	var reader, officer *event.Row
	if unexpired {
		reader, officer = shown(row, f, at, false), shown(row, f, at, true)
	}
	s.twice = s.twice || s.officer && officer != nil
	s.reader, s.officer = s.reader || reader != nil, s.officer || officer != nil
	for i, m := range w.members {
		p, of := &s.members[i], m.people[0]
		p.bytes = p.bytes || names(row, of)
		p.reader, p.officer = p.reader || names(reader, of), p.officer || names(officer, of)
		p.unexpired = p.officer
	}
}

// names reports whether a row says of a person who that is.
func names(r *event.Row, person string) bool {
	return r != nil && (slices.Contains(r.SubjectKeys, "user:"+person) || slices.Contains(r.Owners, person) ||
		r.Text[event.TUserID] == person || r.Text[event.TOnBehalfOf] == person || r.Text[event.TTargetID] == person ||
		slices.ContainsFunc(r.Metadata, func(p event.Pair) bool { return strings.HasPrefix(p.Value, person+" ") }))
}

// tally is what a run has found.
type tally struct {
	policy   string
	rows     int
	rowDays  int // a row on a day, of which the sentences say something
	early    int // rows that were missing when they had to be there, or there to be read
	late     int // rows that were there when they must not be
	examples []string

	checkpoints int
	searched    int           // rows that are gone, and were looked for in the bytes on disk
	people      int           // the same of people who left rows that stay
	controls    int           // what was looked for and must be found
	shared      bool          // there are rows that people can leave
	maxLate     time.Duration // from the end of a promise to the last byte, by the engine's clock
}

const maxExamples = 5

// judge holds what was seen of a row and its members against the verdicts, of which it
// returns the row's. Bytes are compared where said: between two checkpoints an engine may
// still be about to remove them.
func (t *tally) judge(w *watched, b bounds, now time.Time, s sight, bytes bool) verdict {
	v := w.judge(b, now)
	if v != (verdict{}) && now.Equal(now.Truncate(day)) {
		t.rowDays++
	}
	t.compare(w, "the row", now, v, s, bytes)
	if s.twice {
		t.late++
		t.example(w, now, "late: the row is there twice")
	}
	for i, m := range w.members {
		t.compare(m, m.people[0]+" in the row", now, m.judge(b.members[i], now), s.members[i], bytes)
	}
	return v
}

func (t *tally) compare(w *watched, who string, now time.Time, v verdict, s sight, bytes bool) {
	check := func(what string, c claim, got bool) {
		switch {
		case c == must && !got:
			t.early++
			t.example(w, now, "early: "+what+" is not there")
		case c == mustNot && got:
			t.late++
			t.example(w, now, "late: "+what+" is still there")
		}
	}
	check(who+" for investigators", v.reader, s.reader)
	check(who+" for officers", v.officer, s.officer)
	check("the expiry of "+who, v.officer, s.unexpired)
	if bytes || v.bytes == must {
		check("the bytes of "+who, v.bytes, s.bytes)
	}
}

func (t *tally) example(w *watched, now time.Time, what string) {
	t.note("%s: row %d (%s %s, %s, tier %q) of %s, at %s",
		what, w.number, w.kind, w.action, w.topic(), w.tier, w.at.Format(time.RFC3339), now.Format(time.RFC3339))
}

// note keeps the first few faults for the report.
func (t *tally) note(format string, args ...any) {
	if len(t.examples) < maxExamples {
		t.examples = append(t.examples, fmt.Sprintf(format, args...))
	}
}
