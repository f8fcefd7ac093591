package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// examined names an entry that was examined.
type examined struct {
	key
	ledger.Range
	generation int32
	received   int64
}

// stored reports whether the entry says that the offset is.
func stored(e *ledger.Entry, offset int64) bool {
	return e.First <= offset && offset <= e.Last &&
		!slices.ContainsFunc(e.Other, func(r ledger.Run) bool { return r.First <= offset && offset <= r.Last })
}

// delivery names one.
type delivery struct {
	cellKey
	offset int64
	digest uint64
}

func compareDeliveries(a, b delivery) int {
	return cmp.Or(cmp.Compare(a.offset, b.offset), compareCells(a.cellKey, b.cellKey), cmp.Compare(a.digest, b.digest))
}

func nameOf(d *ledger.Delivery) delivery { return delivery{keyOf(d.Cell), d.Offset, d.Digest} }

// examine reads the deliveries of an entry one by one, in all its cells, with what
// their moves say of them.
func (c *check) examine(ctx context.Context, p *part, s *share) error {
	e, r := s.Entry, ledger.Range{First: s.First, Last: s.Last}
	id := examined{p.key, r, e.Generation, e.ReceivedAt.UnixMilli()}
	if c.examined[id] {
		return nil // for another group
	}
	c.examined[id] = true
	want := make(map[cellKey]amount)
	buckets := make(map[ledger.Bucket]bool)
	for _, cell := range e.Cells {
		want[keyOf(cell)] = amount{cell.Rows, cell.Digest}
		buckets[c.bucketOf(cell.Table, cell.Retention, cell.Day)] = true
		for _, copies := range event.Copies(cell.Retention) {
			buckets[c.bucketOf(cell.Table, copies, cell.Day)] = true
		}
	}
	for _, m := range []map[cellKey]amount{s.want, s.got} {
		for k := range m {
			buckets[c.bucketOf(k.table, k.class, k.day)] = true
		}
	}
	read := sorted(buckets, compareBuckets)
	var rows []ledger.Delivery
	for d, err := range c.o.Rows.Deliveries(ctx, read, c.view.Eras, p.era, p.partition, r) {
		if err != nil {
			return err
		}
		rows = append(rows, d)
	}
	c.ended = c.o.Now()
	moves := make(map[delivery]*ledger.Move)
	for m, err := range c.o.Moves.Moves(ctx, read, c.view, p.era, p.partition, r) {
		if err != nil {
			return err
		}
		moves[nameOf(&m.Delivery)] = &m
	}
	c.judge(p, s, want, rows, moves)
	return nil
}

// judge compares the deliveries of an entry, and the moves of them, with its cells.
func (c *check) judge(p *part, s *share, want map[cellKey]amount, rows []ledger.Delivery, moves map[delivery]*ledger.Move) {
	e := s.Entry
	before := len(c.report.Findings)
	got, seen := make(map[cellKey]amount), make(map[delivery]bool)
	touched := make(map[cellKey]bool) // and so left out by late
	for id := range moves {
		touched[id.cellKey] = true
	}
	offsets := make(map[cellKey][]ledger.Range)
	digests := make(map[int64]uint64)
	var present, twice, strangers, unknown []ledger.Range
	moved, late := make(map[cellKey][]ledger.Range), make(map[cellKey][]ledger.Range)
	differs := func(d *ledger.Delivery) bool {
		other, ok := digests[d.Offset]
		digests[d.Offset] = d.Digest
		return ok && other != d.Digest
	}
	for i := range rows {
		d := &rows[i]
		k, one := keyOf(d.Cell), ledger.Range{First: d.Offset, Last: d.Offset}
		m := moves[nameOf(d)]
		switch {
		case m == nil && d.Override != 0, m != nil && !slices.Contains(c.fate(m).carries, d.Override):
			moved[k] = append(moved[k], one)
		case m != nil && c.tardy(m, d.Override), m == nil && touched[k] && c.age(k) == overdue:
			late[k] = append(late[k], one)
		}
		if seen[nameOf(d)] {
			continue // a repeat with another expiry
		}
		seen[nameOf(d)] = true
		if differs(d) {
			twice = append(twice, one)
		}
		if !p.stored(e, d.Offset) && !p.evicted(e, m) {
			strangers = append(strangers, one)
		}
		present = append(present, one)
		if m == nil {
			a := got[k]
			got[k] = amount{a.rows + 1, a.digest + d.Digest}
			offsets[k] = append(offsets[k], one)
		}
	}
	vanished := make(map[cellKey][]ledger.Range)
	for _, id := range sorted(moves, compareDeliveries) {
		m := moves[id]
		one := ledger.Range{First: id.offset, Last: id.offset}
		w, has := want[id.cellKey]
		switch {
		case p.evicted(e, m):
			continue
		case !p.stored(e, id.offset), !s.shared && !m.Copied && (!has || w.rows == 0):
			unknown = append(unknown, one)
			continue
		case m.Copied: // in no cell
			if perhaps(m) && !seen[id] {
				continue
			}
		case has && stored(e, id.offset):
			want[id.cellKey] = amount{w.rows - 1, w.digest - id.digest}
		}
		if !seen[id] && differs(&m.Delivery) {
			twice = append(twice, one)
		}
		if !seen[id] && c.fate(m).first.After(c.ended) {
			vanished[id.cellKey] = append(vanished[id.cellKey], one)
		}
		present = append(present, one)
	}
	for _, x := range []struct {
		offsets []ledger.Range
		text    string
	}{
		{twice, "two different events are stored or were moved under each of these offsets"},
		{strangers, "rows are stored although the ledger says that they were not"},
		{unknown, "moves are of rows that the ledger does not have"},
	} {
		for _, r := range ledger.Unite(x.offsets) {
			c.find("unexpected", p.Partition, r.First, r.Last, "%s", x.text)
		}
	}
	named := len(c.report.Findings) > before // rows too many have their explanation
	c.names(p, "moved", moved, "the expiry of these rows is not where the moves have it")
	c.names(p, "late", late, "these rows are past their expiry and the grace")
	c.names(p, "missing", vanished, fmt.Sprintf("rows of entry %d-%d, received %s, are not there; their expiry was moved, and is not over",
		e.First, e.Last, e.ReceivedAt.UTC().Format(time.DateTime)))
	c.compare(p, e, want, got, offsets, absent(e, present), s.shared, named)
	if len(c.report.Findings) > before {
		for _, m := range []map[cellKey]amount{want, s.want, s.got} {
			for k := range m {
				c.doubt(k)
			}
		}
	}
}

// stored reports whether the entry or another one of the partition says that the offset is.
func (p *part) stored(e *ledger.Entry, offset int64) bool {
	return stored(e, offset) || slices.ContainsFunc(p.entries, func(x ledger.Entry) bool { return stored(&x, offset) })
}

// evicted reports whether a row was erased that should not have been stored: an
// ingester that was held up wrote it, and a sweep found it.
func (p *part) evicted(e *ledger.Entry, m *ledger.Move) bool {
	if m == nil || m.Steps[len(m.Steps)-1].To != event.ErasedOverride {
		return false
	}
	suppressed := func(x ledger.Entry) bool {
		return slices.ContainsFunc(x.Other, func(r ledger.Run) bool {
			return r.Outcome == ledger.Suppressed && r.First <= m.Offset && m.Offset <= r.Last
		})
	}
	return !p.stored(e, m.Offset) && (suppressed(*e) || slices.ContainsFunc(p.entries, suppressed))
}

// names makes findings of the offsets of several cells.
func (c *check) names(p *part, kind string, offsets map[cellKey][]ledger.Range, text string) {
	for _, k := range sorted(offsets, compareCells) {
		c.name(p.Partition, kind, k, offsets[k], "%s", text)
	}
}

// compare names what the deliveries of an entry leave over or lack.
func (c *check) compare(p *part, e *ledger.Entry, want, got map[cellKey]amount, offsets map[cellKey][]ledger.Range, absent []ledger.Range, shared, named bool) {
	short := make(map[cellKey]uint64)
	expired := false
	for _, k := range sorted(want, compareCells) {
		w, g := want[k], got[k]
		switch a := c.age(k); {
		case a != whole:
			expired = expired || g.rows < w.rows
			if a == partly && g.rows > w.rows && !shared && !named {
				c.name(p.Partition, "unexpected", k, offsets[k], "%d rows at most were expected, %d are there", w.rows, g.rows)
			}
		case g.rows < w.rows:
			short[k] = w.rows - g.rows
		case g.rows > w.rows && !shared && !named:
			c.name(p.Partition, "unexpected", k, offsets[k], "%d rows were stored, %d are there", w.rows, g.rows)
		case g.rows == w.rows && g.digest != w.digest && !named:
			x := c.find("digest", p.Partition, e.First, e.Last, "%d rows are there but they are not those of the ledger: digest %016x instead of %016x", g.rows, g.digest, w.digest)
			x.Class, x.Day = k.class, k.date()
		}
	}
	for _, k := range sorted(got, compareCells) {
		if _, ok := want[k]; !ok && !shared && !named {
			c.name(p.Partition, "unexpected", k, offsets[k], "%d rows are there of a class and day in which the ledger has none", got[k].rows)
		}
	}
	if shared { // rows of other deliveries stand in cells of this one: only the offsets tell
		switch {
		case len(absent) == 0:
			return
		case len(short) == 0 && !expired:
			for k := range want {
				short[k] = 0
			}
		}
	}
	if len(short) > 0 {
		c.missing(p, e, absent, short, expired)
	}
}

// absent returns the offsets that are stored, says the entry, and are not there.
func absent(e *ledger.Entry, present []ledger.Range) []ledger.Range {
	for _, r := range e.Other {
		present = append(present, ledger.Range{First: r.First, Last: r.Last})
	}
	present = append(present, ledger.Range{First: e.First - 1, Last: e.First - 1}, ledger.Range{First: e.Last + 1, Last: e.Last + 1})
	return ledger.Between(ledger.Unite(present))
}

// missing names the offsets of an entry that are not there. Which of them is of
// which cell cannot be known where more than one is short.
func (c *check) missing(p *part, e *ledger.Entry, absent []ledger.Range, short map[cellKey]uint64, expired bool) {
	var classes, days []string
	total := uint64(0)
	for _, k := range sorted(short, compareCells) {
		classes, days = append(classes, k.class), append(days, k.date())
		total += short[k]
	}
	class, day := strings.Join(slices.Compact(classes), ", "), strings.Join(slices.Compact(days), ", ")
	if total == 0 {
		for _, r := range absent {
			total += uint64(r.Last - r.First + 1)
		}
	}
	text := "%d rows of entry %d-%d, received %s, are not there"
	if expired {
		text += "; some of these offsets have expired instead"
	}
	if len(absent) == 0 { // their offsets are taken by other rows
		absent = []ledger.Range{{First: e.First, Last: e.Last}}
	}
	for _, r := range absent {
		x := c.find("missing", p.Partition, r.First, r.Last, text, total, e.First, e.Last, e.ReceivedAt.UTC().Format(time.DateTime))
		x.Class, x.Day = class, day
	}
}
