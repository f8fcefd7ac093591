package main

import (
	"fmt"
	"slices"
	"time"
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

// sight is what was seen of one row at one instant: by readers, by the expiry
// that it carries, and on disk.
type sight struct{ reader, officer, unexpired, bytes bool }

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
	maxLate     time.Duration // from the end of a promise to the last byte, by the engine's clock
}

const maxExamples = 5

// compare holds what was seen against the verdict. Bytes are compared where said:
// between two checkpoints an engine may still be about to remove them.
func (t *tally) compare(w *watched, now time.Time, v verdict, s sight, bytes bool) {
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
	check("the row for investigators", v.reader, s.reader)
	check("the row for officers", v.officer, s.officer)
	check("its expiry", v.officer, s.unexpired)
	if bytes || v.bytes == must {
		check("its bytes", v.bytes, s.bytes)
	}
	if v != (verdict{}) && now.Equal(now.Truncate(day)) {
		t.rowDays++
	}
}

func (t *tally) example(w *watched, now time.Time, what string) {
	if len(t.examples) < maxExamples {
		t.examples = append(t.examples, fmt.Sprintf("%s: row %d (%s %s, %s, tier %q) of %s, at %s",
			what, w.number, w.kind, w.action, w.topic(), w.tier, w.at.Format(time.RFC3339), now.Format(time.RFC3339)))
	}
}
