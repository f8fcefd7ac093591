package ledger

import (
	"cmp"
	"slices"
)

// Refuse makes a stored offset dead and takes its row, a cell with Rows 1 and the
// row's digest, out of the entry's cells. What is left is the entry that a Builder
// makes when the offset is dead from the start. False: the entry has no such row.
func (e *Entry) Refuse(offset int64, row Cell) bool {
	cell := slices.IndexFunc(e.Cells, func(c Cell) bool {
		return c.Table == row.Table && c.Retention == row.Retention && c.Day == row.Day
	})
	// The first run that ends behind the offset.
	at, _ := slices.BinarySearchFunc(e.Other, offset, func(r Run, o int64) int { return cmp.Compare(r.Last, o) })
	if cell < 0 || offset < e.First || offset > e.Last || at < len(e.Other) && e.Other[at].First <= offset {
		return false
	}
	c := &e.Cells[cell]
	c.Rows -= row.Rows
	c.Digest -= row.Digest
	if c.Rows == 0 {
		e.Cells = slices.Delete(e.Cells, cell, cell+1)
	}
	e.Counts[Stored]--
	e.Counts[Dead]++

	first, last, from, to := offset, offset, at, at // the runs from…to become one
	if at > 0 && e.Other[at-1].Outcome == Dead && e.Other[at-1].Last == offset-1 {
		first, from = e.Other[at-1].First, at-1
	}
	if at < len(e.Other) && e.Other[at].Outcome == Dead && e.Other[at].First == offset+1 {
		last, to = e.Other[at].Last, at+1
	}
	e.Other = slices.Replace(e.Other, from, to, Run{First: first, Last: last, Outcome: Dead})
	return true
}
