package ledger

import (
	"cmp"
	"slices"
)

// Range is a range of offsets, both ends included.
type Range struct{ First, Last int64 }

// Unite returns the offsets of all ranges as the fewest ranges that hold them,
// in order. Overlapping and adjacent ranges become one: a batch that was
// delivered twice is counted once. It sorts its argument in place.
func Unite(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	var united []Range
	for _, r := range ranges {
		if r.Last < r.First {
			continue
		}
		// first − 1 instead of last + 1: the last offset may be the largest integer.
		if n := len(united); n > 0 && r.First-1 <= united[n-1].Last {
			united[n-1].Last = max(united[n-1].Last, r.Last)
			continue
		}
		united = append(united, r)
	}
	return united
}

// Next returns the offset after the contiguous start of united ranges: the one
// from which a partition has to be read. ok is false when there are no ranges.
func Next(united []Range) (next int64, ok bool) {
	if len(united) == 0 {
		return 0, false
	}
	return united[0].Last + 1, true
}

// Between returns the ranges that lie between united ranges: offsets that no
// entry accounts for although later ones are accounted for.
func Between(united []Range) []Range {
	var gaps []Range
	for i := 1; i < len(united); i++ {
		gaps = append(gaps, Range{united[i-1].Last + 1, united[i].First - 1})
	}
	return gaps
}

// Part is how many rows of one cell an entry counts.
type Part struct {
	Range
	Rows uint64
}

// Least returns how many rows of one cell the entries of a partition have stored, each
// row once: the most that entries without an offset in common come to. That is exact
// where each ingester began at the end of an entry, as they do; otherwise, since an
// entry does not say of an offset which cell it is in, there may have been more. It
// sorts its argument in place.
func Least(parts []Part) uint64 {
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Compare(a.Last, b.Last) })
	most := make([]uint64, len(parts)+1) // that the first ones come to
	for i, p := range parts {
		before, _ := slices.BinarySearchFunc(parts[:i], p.First, func(a Part, first int64) int { return cmp.Compare(a.Last, first) })
		most[i+1] = max(most[i], most[before]+p.Rows)
	}
	return most[len(parts)]
}
