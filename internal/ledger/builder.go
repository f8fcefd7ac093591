package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Builder makes the entry of one partition from the outcomes of its offsets,
// given in their order and without a gap. The zero Builder is empty.
type Builder struct {
	entry Entry
	open  bool
	cells map[cellKey]int // index into entry.Cells
	last  int             // the cell that grew last: rows of one class and day come together
}

type cellKey struct {
	table, retention string
	day              int32
}

// Reset empties the builder for another entry of the partition. It keeps the
// memory that no Entry refers to.
func (b *Builder) Reset(p Partition) {
	clear(b.cells)
	b.entry, b.open, b.last = Entry{Partition: p}, false, 0
}

// Empty reports whether no offset was added since Reset.
func (b *Builder) Empty() bool { return !b.open }

// Range returns the offsets added since Reset. An empty builder has an empty range.
func (b *Builder) Range() Range {
	if !b.open {
		return Range{First: 0, Last: -1}
	}
	return Range{b.entry.First, b.entry.Last}
}

// Add gives the offsets first to last, both included, their outcome. The first
// call after Reset says where the entry begins; every other one MUST begin
// right after the one before, and is refused with an error where it does not.
func (b *Builder) Add(first, last int64, o Outcome) error {
	switch {
	case last < first:
		return fmt.Errorf("add outcome: offsets %d to %d are no range", first, last)
	case !b.open:
		b.entry.First, b.open = first, true
	case first != b.entry.Last+1:
		return fmt.Errorf("add outcome: offset %d does not follow %d", first, b.entry.Last)
	}
	b.entry.Last = last
	b.entry.Counts[o] += uint64(last-first) + 1
	if o == Stored {
		return nil
	}
	if n := len(b.entry.Other); n > 0 && b.entry.Other[n-1].Outcome == o && b.entry.Other[n-1].Last == first-1 {
		b.entry.Other[n-1].Last = last
		return nil
	}
	b.entry.Other = append(b.entry.Other, Run{First: first, Last: last, Outcome: o})
	return nil
}

// Count adds stored rows to their cell.
func (b *Builder) Count(c Cell) {
	if b.last < len(b.entry.Cells) {
		if l := &b.entry.Cells[b.last]; l.Day == c.Day && l.Table == c.Table && l.Retention == c.Retention {
			l.Rows += c.Rows
			l.Digest += c.Digest
			return
		}
	}
	k := cellKey{c.Table, c.Retention, c.Day}
	i, ok := b.cells[k]
	if !ok {
		if b.cells == nil {
			b.cells = make(map[cellKey]int)
		}
		i = len(b.entry.Cells)
		b.cells[k] = i
		b.entry.Cells = append(b.entry.Cells, Cell{Table: c.Table, Retention: c.Retention, Day: c.Day})
	}
	b.last = i
	b.entry.Cells[i].Rows += c.Rows
	b.entry.Cells[i].Digest += c.Digest
}

// Entry returns the finished entry, its cells in order of table, class and day.
// The builder MUST be reset before it is used again.
func (b *Builder) Entry(generation int32, receivedAt time.Time, policyVersion string) Entry {
	slices.SortFunc(b.entry.Cells, func(x, y Cell) int {
		return cmp.Or(cmp.Compare(x.Table, y.Table), cmp.Compare(x.Retention, y.Retention), cmp.Compare(x.Day, y.Day))
	})
	e := b.entry
	e.Generation, e.ReceivedAt, e.PolicyVersion = generation, receivedAt, policyVersion
	return e
}
