package verify

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// cellKey names a cell, or what was moved out of it.
type cellKey struct {
	table, class string
	day          int32
	term         ledger.Term
}

func keyOf(c ledger.Cell) cellKey { return cellKey{c.Table, c.Retention, c.Day, ledger.Own} }

func termOf(f *ledger.Found) cellKey {
	k := keyOf(f.Cell)
	k.term = f.Term
	return k
}

func (k cellKey) date() string { return date(k.day).Format(time.DateOnly) }

type amount struct{ rows, digest uint64 }

// age says what may be left of a cell.
type age int

const (
	whole   age = iota // nothing of it can have expired
	partly             // some of it may be gone
	overdue            // all of it must be gone
)

func (c *check) age(k cellKey) age {
	first, last := c.expiry(k, 0)
	switch {
	case k.term == ledger.Past:
		return partly
	case k.term == ledger.Future || c.ended.Before(first):
		return whole
	case c.began.Before(last.Add(c.o.Grace)):
		return partly
	}
	return overdue
}

// expiry returns the first and the last instant at which a row of the cell may
// expire that carries the override.
func (c *check) expiry(k cellKey, override uint32) (first, last time.Time) {
	if override > 0 {
		at := time.Unix(int64(override), 0)
		return at, at
	}
	p, from := c.o.Period(k.class), date(k.day)
	first, last = p.End(from), p.End(from.Add(day-time.Second))
	if c.o.Since != nil { // a shortened period: nothing was due before it was one
		if since := c.o.Since(k.class); since.After(last) {
			last = since
		}
	}
	return first, last
}

// part is what a group has of one partition.
type part struct {
	ledger.Partition
	key
	entries []ledger.Entry
	found   []ledger.Found
	moved   []ledger.Moved
}

// reading is a group while it is compared.
type reading struct {
	*group
	parts map[key]*part
}

func (g *reading) holds(k cellKey) bool {
	return k.table == g.Table && k.class == g.Retention && k.day >= g.First && k.day < g.End
}

// group reads the entries and the rows of a group of buckets and compares them.
func (c *check) group(ctx context.Context, of *group) error {
	g := &reading{of, make(map[key]*part)}
	for e, err := range c.o.Ledger.Entries(ctx, &g.Days) {
		if err != nil {
			return err
		}
		if era, ok := c.numbers[life{e.Cluster, e.Topic, e.Epoch}]; ok {
			p := c.part(g, key{era, e.Partition.Partition})
			p.entries = append(p.entries, e)
		}
	}
	for _, b := range g.buckets {
		found, err := c.o.Rows.Find(ctx, b, g.Days, c.view, false)
		if err != nil {
			return err
		}
		c.odd(b, found)
		c.take(g, b, found)
		// After the rows: a move is entered before it changes any.
		moved, err := c.o.Moves.Moved(ctx, b, g.Days, c.view)
		if err != nil {
			return err
		}
		c.takeMoved(g, b, moved)
		repeats, err := c.o.Rows.Repeats(ctx, b)
		if err != nil {
			return err
		}
		c.report.Repeats += repeats
		c.report.Buckets++
	}
	c.ended = c.o.Now()
	if err := c.deliveries(ctx, g); err != nil {
		return err
	}
	for _, k := range sorted(g.parts, func(a, b key) int { return cmp.Or(cmp.Compare(a.era, b.era), cmp.Compare(a.partition, b.partition)) }) {
		if err := c.cells(ctx, g, g.parts[k]); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) part(g *reading, k key) *part {
	p := g.parts[k]
	if p == nil {
		p = &part{Partition: c.partition(k), key: k}
		g.parts[k] = p
	}
	return p
}

// odd counts what was found in a bucket, and names what can be in no cell of it.
func (c *check) odd(b ledger.Days, found []ledger.Found) {
	for _, f := range found {
		c.report.Rows += f.Rows
		if f.Term != ledger.Own {
			c.report.Moved += f.Rows
		}
		if !c.placed(b, &f) {
			c.misplaced(b, &f, "rows")
		}
	}
}

// placed reports whether what was found in a bucket can be in a cell of it.
func (c *check) placed(b ledger.Days, f *ledger.Found) bool {
	return f.Era >= 0 && f.Era < len(c.view.Eras) && f.Day >= b.First && f.Day < b.End
}

func (c *check) misplaced(b ledger.Days, f *ledger.Found, what string) {
	var x *Finding
	if f.Era < 0 || f.Era >= len(c.view.Eras) {
		x = c.find("unknown", ledger.Partition{Partition: f.Partition}, f.First, f.Last, "%d %s in %s of a topic that the ledger does not know", f.Rows, what, f.Table)
	} else {
		x = c.find("unexpected", c.partition(key{f.Era, f.Partition}), f.First, f.Last, "%d %s are in the bucket of %s, which is not that of their day", f.Rows, what, date(b.First).Format(time.DateOnly))
	}
	x.Class, x.Day = f.Retention, keyOf(f.Cell).date()
	c.doubtful[ledger.Bucket{Table: b.Table, Retention: b.Retention, First: b.First}] = true
}

// take keeps what was found in the cells of a bucket.
func (c *check) take(g *reading, b ledger.Days, found []ledger.Found) {
	for _, f := range found {
		if c.placed(b, &f) {
			p := c.part(g, key{f.Era, f.Partition})
			p.found = append(p.found, f)
		}
	}
	for _, p := range g.parts {
		slices.SortFunc(p.found, func(a, b ledger.Found) int { return cmp.Compare(a.First, b.First) })
	}
}

// doubt keeps the bucket of a cell from being stamped.
func (c *check) doubt(k cellKey) { c.doubtful[c.bucketOf(k.table, k.class, k.day)] = true }

// share is what one entry should have in a group, and what is there.
type share struct {
	*ledger.Entry
	want, got map[cellKey]amount
	shared    bool             // with other entries, whose rows come on top
	due       map[cellKey]bool // of what is there some must be gone and some need not: counts cannot tell
}

// each calls f with every entry.
func (c *check) each(g *reading, p *part, f func(s *share) error) error {
	reach := int64(-1 << 62) // the last offset of the entries before
	for i := range p.entries {
		e := &p.entries[i]
		if i > 0 && e.First == p.entries[i-1].First && e.Last == p.entries[i-1].Last && slices.Equal(e.Cells, p.entries[i-1].Cells) {
			continue // the same again
		}
		s := share{Entry: e, want: make(map[cellKey]amount), got: make(map[cellKey]amount), due: make(map[cellKey]bool)}
		s.shared = e.First <= reach || i+1 < len(p.entries) && p.entries[i+1].First <= e.Last
		reach = max(reach, e.Last)
		for _, cell := range e.Cells {
			if g.holds(keyOf(cell)) {
				s.want[keyOf(cell)] = amount{cell.Rows, cell.Digest}
			}
		}
		c.move(&s, p.moved)
		at, _ := slices.BinarySearchFunc(p.found, e.First, func(f ledger.Found, o int64) int { return cmp.Compare(f.First, o) })
		for ; at < len(p.found) && p.found[at].First <= e.Last; at++ {
			f := &p.found[at]
			a := s.got[termOf(f)]
			s.got[termOf(f)] = amount{a.rows + f.Rows, a.digest + f.Digest}
		}
		if err := f(&s); err != nil {
			return err
		}
	}
	return nil
}

// deliveries counts the buckets again that have rows too many, each delivery
// once: repeats that ClickHouse has not merged yet hide nothing then.
func (c *check) deliveries(ctx context.Context, g *reading) error {
	crowded := make(map[int32]bool) // by the first day
	for _, p := range g.parts {
		_ = c.each(g, p, func(s *share) error {
			for k, a := range s.got {
				if a.rows > s.want[k].rows {
					crowded[c.bucketOf(k.table, k.class, k.day).First] = true
				}
			}
			return nil
		})
	}
	for _, b := range g.buckets {
		if !crowded[b.First] {
			continue
		}
		for _, p := range g.parts {
			p.found = slices.DeleteFunc(p.found, func(f ledger.Found) bool { return f.Day >= b.First && f.Day < b.End })
		}
		found, err := c.o.Rows.Find(ctx, b, g.Days, c.view, true)
		if err != nil {
			return err
		}
		c.take(g, b, found)
	}
	return nil
}

// cells compares the rows of every entry of a partition with its cells.
func (c *check) cells(ctx context.Context, g *reading, p *part) error {
	c.late(p)
	c.strangers(p)
	return c.each(g, p, func(s *share) error {
		if c.agree(s) {
			return nil
		}
		return c.examine(ctx, p, s)
	})
}

// late names the rows that outlived their expiry and the grace, where none was moved.
func (c *check) late(p *part) {
	offsets, rows, touched := make(map[cellKey][]ledger.Range), make(map[cellKey]uint64), p.touched()
	for _, f := range p.found {
		if k := termOf(&f); c.age(k) == overdue && !touched[spot{k, f.Bound}] {
			offsets[k] = append(offsets[k], ledger.Range{First: f.First, Last: f.Last})
			rows[k] += f.Rows
		}
	}
	for _, k := range sorted(offsets, compareCells) {
		c.name(p.Partition, "late", k, offsets[k], "%d rows are past their expiry and the grace", rows[k])
	}
}

// stranger is rows, or moves of rows, that no entry of a group speaks of.
type stranger struct {
	ledger.Found
	what string
}

// strangers finds them.
func (c *check) strangers(p *part) {
	known := p.reach()
	for _, f := range p.found {
		if !known(f.First) {
			c.stranger(p, stranger{f, "rows"})
		}
	}
	known = p.reach()
	for _, m := range p.moved {
		if !known(m.First) {
			c.stranger(p, stranger{m.Found, "moves"})
		}
	}
}

// reach returns a function that tells whether an entry speaks of an offset, and
// MUST be asked in their order.
func (p *part) reach() func(offset int64) bool {
	i, reach := 0, int64(-1<<62)
	return func(offset int64) bool {
		for ; i < len(p.entries) && p.entries[i].First <= offset; i++ {
			reach = max(reach, p.entries[i].Last)
		}
		return offset <= reach
	}
}

func (c *check) stranger(p *part, s stranger) {
	if a := c.accounts[p.key]; a != nil && a.covers(s.First) {
		c.name(p.Partition, "unexpected", keyOf(s.Cell), []ledger.Range{{First: s.First, Last: s.Last}},
			"%d %s are there of a class and day in which the ledger has none", s.Rows, s.what)
		return
	}
	c.beyond = append(c.beyond, s)
	c.doubt(keyOf(s.Cell))
}

// unaccounted looks at what the whole ledger does not speak of.
func (c *check) unaccounted() {
	for _, s := range c.beyond {
		p, end := c.partition(key{s.Era, s.Partition}), int64(0)
		if a := c.accounts[key{s.Era, s.Partition}]; a != nil {
			end = a.Next
		}
		b, ok := c.bounds[kafkaID(p)]
		if s.First >= end && c.newest[p.Topic] == s.Era && ok && s.Last < b.End {
			if s.what == "rows" {
				c.report.InFlight += s.Rows
			}
			continue
		}
		c.name(p, "unaccounted", keyOf(s.Cell), []ledger.Range{{First: s.First, Last: s.Last}}, "%d %s in %s that no entry of the ledger speaks of", s.Rows, s.what, s.Table)
	}
}

// agree reports that the counts leave nothing to be looked at more closely.
func (c *check) agree(s *share) bool {
	for k, w := range s.want {
		g := s.got[k]
		if a := c.age(k); a == whole && g != w || a == partly && g.rows > w.rows || s.due[k] && g.rows > 0 {
			return false
		}
	}
	for k := range s.got {
		if _, ok := s.want[k]; !ok {
			return false
		}
	}
	return true
}

// name makes one finding per range of offsets.
func (c *check) name(p ledger.Partition, kind string, k cellKey, offsets []ledger.Range, format string, args ...any) {
	c.doubt(k)
	for _, r := range ledger.Unite(offsets) {
		x := c.find(kind, p, r.First, r.Last, format, args...)
		x.Class, x.Day = k.class, k.date()
	}
}

func compareCells(a, b cellKey) int {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.class, b.class), cmp.Compare(a.day, b.day))
}

// sorted returns the keys in order.
func sorted[K comparable, V any](m map[K]V, order func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, order)
	return keys
}
