package query

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// shelf is a reader without a database, for what handlers do around it: it
// filters nothing, and fails or blocks as told.
type shelf struct {
	rows   []*event.Row
	err    error
	during func() // called while rows are read
}

func (s *shelf) Events(_ context.Context, _ event.Filter, _ *event.Position, limit int) ([]event.Row, error) {
	if s.during != nil {
		s.during()
	}
	var out []event.Row
	for _, r := range s.rows[:min(limit, len(s.rows))] {
		out = append(out, *r)
	}
	return out, s.err
}

func (s *shelf) SubjectRows(context.Context, []string, time.Time) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		for _, r := range s.rows {
			if !yield(r, nil) {
				return
			}
		}
		if s.err != nil {
			yield(nil, s.err)
		}
	}
}

func (s *shelf) PastExpiry(context.Context, event.Filter) ([event.NumKinds]uint64, error) {
	return [event.NumKinds]uint64{}, nil
}

func (s *shelf) Horizon(context.Context) (ledger.Horizon, error) { return ledger.Horizon{}, nil }

func (s *shelf) ClassFacts(context.Context, time.Time) ([]event.ClassFacts, error) { return nil, s.err }

func (s *shelf) TTL(context.Context) (map[string]string, error) { return nil, s.err }

// bare returns a desk without a database.
func bare(t *testing.T, change func(*Options)) *desk {
	t.Helper()
	d := &desk{}
	o := d.options(t)
	o.Rows, o.Facts = &shelf{}, &shelf{}
	if change != nil {
		change(&o)
	}
	d.start(o)
	return d
}

var errBroken = errors.New("broken: u_secret")

// storeError is an error as a store's.
type storeError struct{ large, permanent bool }

func (storeError) Error() string     { return "store failed" }
func (e storeError) TooLarge() bool  { return e.large }
func (e storeError) Permanent() bool { return e.permanent }
