package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// cellKey names a cell.
type cellKey struct {
	table, class string
	day          int32
}

func keyOf(c ledger.Cell) cellKey { return cellKey{c.Table, c.Retention, c.Day} }

type amount struct{ rows, digest uint64 }

// age says what may be left of a cell.
type age int

const (
	whole   age = iota // nothing of it can have expired
	partly             // some of it may be gone
	overdue            // all of it must be gone
)

func (c *check) age(k cellKey) age {
	from := time.Unix(int64(k.day)*86400, 0).UTC()
	switch {
	case c.ended.Before(c.o.Expiry(k.class, from)):
		return whole
	case c.began.Before(c.o.Expiry(k.class, from.Add(86399*time.Second)).Add(c.o.Grace)):
		return partly
	}
	return overdue
}

// cells compares the rows of every entry with its cells.
func (c *check) cells(ctx context.Context, p *part) error {
	slices.SortFunc(p.found, func(a, b ledger.Found) int { return cmp.Compare(a.First, b.First) })
	reach := int64(-1 << 62) // the last offset of the entries before
	for i := range p.entries {
		e := &p.entries[i]
		if i > 0 && e.First == p.entries[i-1].First && e.Last == p.entries[i-1].Last && slices.Equal(e.Cells, p.entries[i-1].Cells) {
			continue // the same again
		}
		shared := e.First <= reach || i+1 < len(p.entries) && p.entries[i+1].First <= e.Last
		reach = max(reach, e.Last)
		want, got := make(map[cellKey]amount), make(map[cellKey]amount)
		for _, cell := range e.Cells {
			want[keyOf(cell)] = amount{cell.Rows, cell.Digest}
		}
		at, _ := slices.BinarySearchFunc(p.found, e.First, func(f ledger.Found, o int64) int { return cmp.Compare(f.First, o) })
		for ; at < len(p.found) && p.found[at].First <= e.Last; at++ {
			f := &p.found[at]
			a := got[keyOf(f.Cell)]
			got[keyOf(f.Cell)] = amount{a.rows + f.Rows, a.digest + f.Digest}
		}
		if c.agree(want, got, shared) {
			continue
		}
		if err := c.examine(ctx, p, e, want, shared); err != nil {
			return err
		}
	}
	return nil
}

// agree reports that the counts leave nothing to be looked at more closely.
// Where deliveries overlap (shared), the rows of the others come on top.
func (c *check) agree(want, got map[cellKey]amount, shared bool) bool {
	for k, w := range want {
		g := got[k]
		switch c.age(k) {
		case whole:
			if g != w && (!shared || g.rows <= w.rows) {
				return false
			}
		case partly:
			if g.rows > w.rows && !shared {
				return false
			}
		case overdue:
			if g.rows > 0 {
				return false
			}
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok && !shared {
			return false
		}
	}
	return true
}

// examine reads the deliveries of an entry one by one.
func (c *check) examine(ctx context.Context, p *part, e *ledger.Entry, want map[cellKey]amount, shared bool) error {
	all, err := c.o.Storage.Deliveries(ctx, c.eras, p.era, p.Partition.Partition, ledger.Range{First: e.First, Last: e.Last})
	if err != nil {
		return err
	}
	got := make(map[cellKey]amount)
	digests := make(map[int64]uint64)
	var present, twice, strangers []ledger.Range
	offsets := make(map[cellKey][]ledger.Range)
	for _, d := range all {
		k, one := keyOf(d.Cell), ledger.Range{First: d.Offset, Last: d.Offset}
		a := got[k]
		got[k] = amount{a.rows + 1, a.digest + d.Digest}
		offsets[k] = append(offsets[k], one)
		if other, ok := digests[d.Offset]; ok && other != d.Digest {
			twice = append(twice, one)
		}
		digests[d.Offset] = d.Digest
		present = append(present, one)
		if !shared && slices.ContainsFunc(e.Other, func(r ledger.Run) bool { return r.First <= d.Offset && d.Offset <= r.Last }) {
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

	short := make(map[cellKey]uint64)
	expired := false
	for _, k := range sorted(want) {
		w, g := want[k], got[k]
		text := ""
		switch a := c.age(k); {
		case a == overdue && g.rows > 0:
			c.name(p, "late", k, offsets[k], "%d rows are past their expiry and the grace", g.rows)
		case a != whole:
			expired = expired || g.rows < w.rows
			if g.rows > w.rows && !shared && !named {
				text = fmt.Sprintf("%d rows at most were expected, %d are there", w.rows, g.rows)
			}
		case g.rows < w.rows:
			short[k] = w.rows - g.rows
		case shared && g.rows > w.rows:
		case g.rows > w.rows && !named:
			text = fmt.Sprintf("%d rows were stored, %d are there", w.rows, g.rows)
		case g.rows == w.rows && g.digest != w.digest && !named:
			x := c.find("digest", p.Partition, e.First, e.Last, "%d rows are there but they are not those of the ledger: digest %016x instead of %016x", g.rows, g.digest, w.digest)
			x.Class, x.Day = k.class, date(k.day)
		}
		if text != "" {
			c.name(p, "unexpected", k, offsets[k], "%s", text)
		}
	}
	for _, k := range sorted(got) {
		if _, ok := want[k]; !ok && !shared && !named {
			c.name(p, "unexpected", k, offsets[k], "%d rows are there of a class and day in which the ledger has none", got[k].rows)
		}
	}
	if len(short) > 0 {
		c.missing(p, e, present, short, expired)
	}
	return nil
}

// name makes one finding per range of offsets.
func (c *check) name(p *part, kind string, k cellKey, offsets []ledger.Range, format string, args ...any) {
	for _, r := range ledger.Unite(offsets) {
		x := c.find(kind, p.Partition, r.First, r.Last, format, args...)
		x.Class, x.Day = k.class, date(k.day)
	}
}

// missing names the offsets of an entry that are stored, says the ledger, and
// are not there. Which of them is of which cell cannot be known where more than one is short.
func (c *check) missing(p *part, e *ledger.Entry, present []ledger.Range, short map[cellKey]uint64, expired bool) {
	for _, r := range e.Other {
		present = append(present, ledger.Range{First: r.First, Last: r.Last})
	}
	present = append(present, ledger.Range{First: e.First - 1, Last: e.First - 1}, ledger.Range{First: e.Last + 1, Last: e.Last + 1})
	absent := ledger.Between(ledger.Unite(present))
	var classes, days []string
	total := uint64(0)
	for _, k := range sorted(short) {
		classes, days = append(classes, k.class), append(days, date(k.day))
		total += short[k]
	}
	class, day := strings.Join(slices.Compact(classes), ", "), strings.Join(slices.Compact(days), ", ")
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

// sorted returns the keys in order.
func sorted[V any](m map[cellKey]V) []cellKey {
	keys := make([]cellKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b cellKey) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.class, b.class), cmp.Compare(a.day, b.day))
	})
	return keys
}

// unaccounted finds rows that no entry speaks of.
func (c *check) unaccounted(p *part) {
	for _, f := range p.found {
		if slices.ContainsFunc(p.united, func(r ledger.Range) bool { return r.First <= f.First && f.First <= r.Last }) {
			continue
		}
		b, ok := c.bounds[kafkaID(p.Partition)]
		if f.First >= p.end() && c.newest[p.Topic] == p.era && ok && f.Last < b.End {
			c.report.InFlight += f.Rows
			continue
		}
		x := c.find("unaccounted", p.Partition, f.First, f.Last, "%d rows in %s that no entry of the ledger speaks of", f.Rows, f.Table)
		x.Class, x.Day = f.Retention, date(f.Day)
	}
}

func date(day int32) string { return time.Unix(int64(day)*86400, 0).UTC().Format(time.DateOnly) }
