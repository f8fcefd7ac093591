package verify

import (
	"context"
	"slices"
	"strings"
	"time"

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

// examine reads the deliveries of an entry one by one, in all its cells. Where
// entries overlap (shared), the rows of the others come on top.
func (c *check) examine(ctx context.Context, p *part, e *ledger.Entry, there map[cellKey]amount, shared bool) error {
	r := ledger.Range{First: e.First, Last: e.Last}
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
	}
	for k := range there {
		buckets[c.bucketOf(k.table, k.class, k.day)] = true
	}
	got := make(map[cellKey]amount)
	digests := make(map[int64]uint64)
	var present, twice, strangers []ledger.Range
	offsets := make(map[cellKey][]ledger.Range)
	read := sorted(buckets, compareBuckets)
	for d, err := range c.o.Rows.Deliveries(ctx, read, c.eras, p.era, p.partition, r) {
		if err != nil {
			return err
		}
		k, one := keyOf(d.Cell), ledger.Range{First: d.Offset, Last: d.Offset}
		a := got[k]
		got[k] = amount{a.rows + 1, a.digest + d.Digest}
		offsets[k] = append(offsets[k], one)
		if other, ok := digests[d.Offset]; ok && other != d.Digest {
			twice = append(twice, one)
		}
		digests[d.Offset] = d.Digest
		present = append(present, one)
		if !stored(e, d.Offset) && !slices.ContainsFunc(p.entries, func(x ledger.Entry) bool { return stored(&x, d.Offset) }) {
			strangers = append(strangers, one)
		}
	}
	before := len(c.report.Findings)
	for _, r := range ledger.Unite(twice) {
		c.find("unexpected", p.Partition, r.First, r.Last, "two different events are stored under each of these offsets")
	}
	for _, r := range ledger.Unite(strangers) {
		c.find("unexpected", p.Partition, r.First, r.Last, "rows are stored although the ledger says that they were not")
	}
	named := len(c.report.Findings) > before // rows too many have their explanation
	c.compare(p, e, want, got, offsets, absent(e, present), shared, named)
	if len(c.report.Findings) > before {
		for _, b := range read {
			c.doubtful[b] = true
		}
	}
	return nil
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
