package verify

import (
	"cmp"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// takeMoved keeps what the moves say of a bucket, and names what can be in no cell of it.
func (c *check) takeMoved(g *reading, b ledger.Days, moved []ledger.Moved) {
	for _, m := range moved {
		if m.Term != ledger.Own {
			c.report.Moves += m.Rows
		}
		if !c.placed(b, &m.Found) {
			c.misplaced(b, &m.Found, "moves")
			continue
		}
		p := c.part(g, key{m.Era, m.Partition})
		p.moved = append(p.moved, m)
	}
	for _, p := range g.parts {
		slices.SortFunc(p.moved, func(a, b ledger.Moved) int { return cmp.Compare(a.First, b.First) })
	}
}

// move takes out of an entry's cells what was moved, and expects it where it was
// moved to.
func (c *check) move(s *share, moved []ledger.Moved) {
	at, _ := slices.BinarySearchFunc(moved, s.First, func(m ledger.Moved, o int64) int { return cmp.Compare(m.First, o) })
	for ; at < len(moved) && moved[at].First <= s.Last; at++ {
		m := &moved[at]
		own, k := keyOf(m.Cell), termOf(&m.Found)
		s.due[own] = s.due[own] || c.age(own) == overdue
		if k == own && m.Copied == 0 {
			continue
		}
		w := s.want[own] // below zero it agrees with nothing
		s.want[own] = amount{w.rows - (m.Rows - m.Copied), w.digest - m.Taken}
		w = s.want[k]
		s.want[k] = amount{w.rows + m.Rows, w.digest + m.Digest}
		s.due[k] = s.due[k] || m.Overdue > 0
	}
}

// spot is a cell between two bounds.
type spot struct {
	cellKey
	bound int64
}

// touched returns the spots that rows were moved from. Only a look at each row tells
// which ones are late there, and since when: one may have come back to its class's
// own expiry today.
func (p *part) touched() map[spot]bool {
	spots := make(map[spot]bool)
	for _, m := range p.moved {
		spots[spot{keyOf(m.Cell), m.Bound}] = true
	}
	return spots
}

// fate is what the moves of a delivery leave possible.
type fate struct {
	carries []uint32  // overrides
	first   time.Time // until then it is there
}

// fate reads the steps of a move. The last one that is done has put the row where it
// is; one that is not, or came after, may have or not.
func (c *check) fate(m *ledger.Move) fate {
	k := keyOf(m.Cell)
	last := len(m.Steps) - 1
	for last >= 0 && !m.Steps[last].Done {
		last--
	}
	var f fate
	if last >= 0 {
		f.carries = append(f.carries, m.Steps[last].To)
	}
	for _, s := range m.Steps[last+1:] {
		f.carries = append(f.carries, s.From, s.To)
	}
	for i, o := range f.carries {
		if first, _ := c.expiry(k, o); i == 0 || first.Before(f.first) {
			f.first = first
		}
	}
	if last >= 0 {
		// Where it expired before it was moved, it may have gone at the same time.
		s := m.Steps[last]
		if first, _ := c.expiry(k, s.From); !first.After(s.At) && first.Before(f.first) {
			f.first = first
		}
	}
	return f
}

// perhaps reports whether a move is of a copy that no sweep is known to have made.
func perhaps(m *ledger.Move) bool {
	return m.Copied && !slices.ContainsFunc(m.Steps, func(s ledger.Step) bool { return s.Done })
}

// tardy reports whether a moved row that carries the override is past its expiry and
// the grace. The grace begins when it was moved, where that was later.
func (c *check) tardy(m *ledger.Move, override uint32) bool {
	_, end := c.expiry(keyOf(m.Cell), override)
	for _, s := range m.Steps {
		if s.To == override && s.At.After(end) {
			end = s.At
		}
	}
	return !c.began.Before(end.Add(c.o.Grace))
}
