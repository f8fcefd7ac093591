package replay

import (
	"cmp"
	"slices"
)

// Count says what became of the letters of one reason and publisher. What could
// not be replayed is in one of the columns after the first.
type Count struct {
	Reason, Publisher string
	Replayed          int64
	// Gone letters have no payload, and the topic has their record no longer; or
	// they are redacted and without a seal.
	Gone int64
	// TooLarge records are larger than a message may be.
	TooLarge int64
	// Foreign letters come from a topic that is not one of the events' topics.
	Foreign int64
	// Unreadable messages of the dead topic are no letters.
	Unreadable int64
}

// Left is the number of letters that could not be replayed.
func (c Count) Left() int64 { return c.Gone + c.TooLarge + c.Foreign + c.Unreadable }

// Result is what a run did: the counts by reason and publisher, and their sum.
type Result struct {
	Counts []Count
	Sum    Count
}

// maxCells bounds the table: publishers name themselves.
const maxCells = 1000

// others is the publisher of what came when the table was full.
const others = "(others)"

type cell struct{ reason, publisher string }

type outcome uint8

const (
	replayed outcome = iota
	gone
	tooLarge
	foreign
	unreadable
)

type tally map[cell]*Count

func (t tally) add(c cell, o outcome) {
	n := t[c]
	if n == nil && len(t) >= maxCells {
		c.publisher = others
		n = t[c]
	}
	if n == nil {
		n = &Count{Reason: c.reason, Publisher: c.publisher}
		t[c] = n
	}
	switch o {
	case replayed:
		n.Replayed++
	case gone:
		n.Gone++
	case tooLarge:
		n.TooLarge++
	case foreign:
		n.Foreign++
	case unreadable:
		n.Unreadable++
	}
}

func (t tally) result() Result {
	var r Result
	for _, n := range t {
		r.Counts = append(r.Counts, *n)
		r.Sum.Replayed += n.Replayed
		r.Sum.Gone += n.Gone
		r.Sum.TooLarge += n.TooLarge
		r.Sum.Foreign += n.Foreign
		r.Sum.Unreadable += n.Unreadable
	}
	slices.SortFunc(r.Counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Publisher, b.Publisher))
	})
	return r
}
