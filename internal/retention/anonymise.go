package retention

import (
	"context"
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// maxShared is how many rows one sweep takes people out of, batchCopies how many of
// them are in memory whole at a time.
const (
	maxShared   = 50_000
	batchCopies = 500
)

// anonymise puts copies without those who leave in the place of rows. The copies are
// entered, stored and read back before the originals are entered to go; where it ends in between,
// the next sweep does all of it again, and readers take those who leave out of what
// they find, so that both look the same.
func (s *Sweeper) anonymise(ctx context.Context, sweep event.Sweep, facts *Facts, kind event.Kind, rows []*event.Row) error {
	now := s.o.Now()
	var copies []*event.Row
	var arrivals []event.Move
	for row, err := range s.o.Storage.Rows(ctx, kind, rows) {
		if err != nil {
			return err
		}
		if people := facts.Fate(row).Without(now, true); len(people) > 0 {
			facts.Strip(row, people)
			row.ExpiresOverride = facts.Fate(row).Override
			arrivals = append(arrivals, event.Move{Row: row, To: row.ExpiresOverride, Cause: string(Anonymised)})
			copies = append(copies, row)
		}
	}
	if err := s.o.Storage.WriteMoves(ctx, sweep, arrivals); err != nil {
		return err
	}
	if err := s.o.Storage.WriteCopies(ctx, sweep, copies); err != nil {
		return err
	}
	moves := make([]event.Move, len(rows))
	for i, row := range rows {
		moves[i] = event.Move{Row: row, To: facts.Fate(row).leaves(), Cause: string(ByIdentity)}
	}
	return s.o.Storage.WriteMoves(ctx, sweep, moves)
}

// Strip takes people out of a row and makes it the copy that takes the place of the
// whole one.
func (*Facts) Strip(r *event.Row, people []string) {
	Strip(r, people)
	r.Retention = event.Anonymised(r.Retention)
	r.ExpiresOverride = 0
}

// leaves returns the expiry of a row that a copy takes the place of: when the first had
// to go, so that the past is where it is for as long as nobody comes back.
func (f Fate) leaves() uint32 {
	first := f.Leaving[0].At
	for _, l := range f.Leaving {
		if l.At.Before(first) {
			first = l.At
		}
	}
	return uint32(first.Unix())
}

// deliveryOf names a delivery as it would be under a class.
func deliveryOf(r *event.Row, class string) string {
	return strings.Join([]string{class, r.Topic, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10), r.Source, r.ID}, "\x00")
}
