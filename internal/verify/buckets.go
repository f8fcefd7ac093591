package verify

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// state is what a bucket holds and what the accounts say of it by now, without a
// row read.
type state struct {
	parts  string
	ledger uint64 // of cells, moves and what is due of them
	rows   uint64
	cells  uint64 // of the ledger
	moves  uint64
}

// nothing stands for the parts of a bucket that has none. It can be right too, and
// be stamped: all its rows may have been moved to the past.
const nothing = "none"

const day = 24 * time.Hour

func date(d int32) time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// bucketOf returns the bucket of a cell.
func (c *check) bucketOf(table, class string, d int32) ledger.Bucket {
	return ledger.Bucket{Table: table, Retention: class, First: c.o.Period(class).Bucket(date(d))}
}

// days returns the days of a bucket.
func (c *check) days(b ledger.Bucket) ledger.Days {
	end := b.First + 1
	for end < b.First+31 && c.o.Period(b.Retention).Bucket(date(end)) == b.First {
		end++
	}
	return ledger.Days{Table: b.Table, Retention: b.Retention, First: b.First, End: end}
}

// states returns every bucket that has parts, cells in the ledger, or moves.
func (c *check) states(ctx context.Context) (map[ledger.Bucket]state, error) {
	sums, err := c.o.Ledger.Sums(ctx)
	if err != nil {
		return nil, err
	}
	contents, err := c.o.Rows.Contents(ctx)
	if err != nil {
		return nil, err
	}
	moves, err := c.o.Moves.MoveSums(ctx, c.view.Due)
	if err != nil {
		return nil, err
	}
	all := make(map[ledger.Bucket]state)
	for _, s := range sums {
		b := c.bucketOf(s.Table, s.Retention, s.Day)
		x := all[b]
		x.ledger += s.Hash
		x.cells += s.Cells
		all[b] = x
	}
	for _, s := range moves {
		b := ledger.Bucket{Table: s.Table, Retention: s.Retention, First: s.Day}
		x := all[b]
		x.ledger += s.Hash
		x.moves += s.Cells
		all[b] = x
	}
	for _, p := range contents {
		x := all[p.Bucket]
		x.parts, x.rows = p.Parts, p.Rows
		all[p.Bucket] = x
	}
	for b, x := range all {
		if x.parts == "" {
			x.parts = nothing
		}
		// A day that falls due changes the word, so that what must be gone is looked for.
		for d, end := b.First, c.days(b).End; d < end && c.age(cellKey{b.Table, b.Retention, d, ledger.Own}) == overdue; d++ {
			x.ledger++
		}
		all[b] = x
	}
	return all, nil
}

// choose decides which buckets are read: all in a full run, else those without
// a stamp that still holds, and a hundredth of the others, one at least.
func (c *check) choose(ctx context.Context, all map[ledger.Bucket]state) (map[ledger.Bucket]state, error) {
	read := make(map[ledger.Bucket]state)
	stamps, err := c.o.Stamps.Stamps(ctx)
	if err != nil {
		return nil, err
	}
	stamped := make(map[ledger.Bucket]ledger.Stamp, len(stamps))
	for _, s := range stamps {
		stamped[s.Bucket] = s
	}
	var held []ledger.Bucket
	for b, x := range all {
		last := cellKey{b.Table, b.Retention, c.days(b).End - 1, ledger.Own}
		s, ok := stamped[b]
		switch {
		case x.parts == nothing && x.moves == 0 && c.age(last) == overdue: // gone, as it must be
		case c.o.Full, !ok || s.Parts != x.parts || s.Ledger != x.ledger:
			read[b] = x
		default:
			held = append(held, b)
		}
	}
	slices.SortFunc(held, func(a, b ledger.Bucket) int { return cmp.Compare(c.lot(a), c.lot(b)) })
	for i, b := range held {
		if i < (len(held)+99)/100 {
			read[b] = all[b]
			c.report.Sampled++
			continue
		}
		believed := &c.report.Believed
		believed.Buckets++
		believed.Rows += all[b].rows
		if at := stamped[b].At; believed.Since.IsZero() || at.Before(believed.Since) {
			believed.Since = at
		}
	}
	return read, nil
}

// lot is a bucket's place in the order in which the seed draws.
func (c *check) lot(b ledger.Bucket) uint64 {
	var h xxhash.Digest
	h.ResetWithSeed(c.o.Seed)
	_, _ = h.WriteString(b.Table + "\x00" + b.Retention + "\x00")
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(b.First)))
	return h.Sum64()
}

// maxCells bounds what is held in memory of the ledger, unless one bucket has more.
const maxCells = 50_000

// group is buckets in a row of one table and class, read together.
type group struct {
	ledger.Days
	buckets []ledger.Days
	cells   uint64
}

// groups joins buckets between which no other lies, so that the ledger is not
// read again for each of them.
func (c *check) groups(all, read map[ledger.Bucket]state) []*group {
	var list []*group
	var g *group // the last of the list, while it may grow
	for _, b := range sorted(all, compareBuckets) {
		x, ok := read[b]
		if !ok {
			g = nil
			continue
		}
		d := c.days(b)
		if g == nil || g.Table != b.Table || g.Retention != b.Retention || g.cells+x.cells > maxCells {
			g = &group{Days: d}
			list = append(list, g)
		}
		g.End = d.End
		g.cells += x.cells
		g.buckets = append(g.buckets, d)
	}
	return list
}

func compareBuckets(a, b ledger.Bucket) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Retention, b.Retention), cmp.Compare(a.First, b.First))
}

// stamp records the buckets that were right and did not change while they were
// read, and takes back the stamps of those that were not right.
func (c *check) stamp(ctx context.Context, read map[ledger.Bucket]state) error {
	if len(read) == 0 {
		return nil
	}
	after, err := c.states(ctx)
	if err != nil {
		return err
	}
	var stamps []ledger.Stamp
	for b, x := range read {
		s := ledger.Stamp{Bucket: b, At: c.began}
		switch {
		case c.doubtful[b]:
		case x != after[b]:
			continue
		default:
			s.Parts, s.Ledger = x.parts, x.ledger
		}
		stamps = append(stamps, s)
	}
	return c.o.Stamps.WriteStamps(ctx, stamps)
}
