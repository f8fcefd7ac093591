package query

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
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

func (s *shelf) SubjectRows(context.Context, []string, time.Time, func(*event.Row) bool) iter.Seq2[*event.Row, error] {
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

func (s *shelf) Withheld(context.Context, event.Filter, []string) (n [event.NumKinds]event.Withheld, err error) {
	return n, nil
}

func (s *shelf) Concealed(context.Context, event.Filter, []string, func(*event.Row) bool) (n [event.NumKinds]uint64, err error) {
	return n, nil
}

// The shelf knows of no request.
func (s *shelf) Erasures(context.Context) ([]event.Erasure, error)         { return nil, s.err }
func (s *shelf) WriteErasure(context.Context, event.Erasure) error         { return s.err }
func (s *shelf) ErasureSubjects(context.Context, string) ([]string, error) { return nil, s.err }
func (s *shelf) Holds(context.Context) ([]event.Hold, error)               { return nil, s.err }
func (s *shelf) WriteHold(context.Context, event.Hold) error               { return s.err }
func (s *shelf) WriteErasureSubjects(context.Context, string, []string, time.Time) error {
	return s.err
}

func (s *shelf) Candidates(context.Context, event.Kind, []string) iter.Seq2[*event.Row, error] {
	return func(func(*event.Row, error) bool) {}
}

// Facts says that nothing has happened.
func (s *shelf) Facts(context.Context) (*retention.Facts, error) {
	return retention.New(&policy.Policy{}, retention.Source{}, nil), s.err
}

func (s *shelf) Horizon(context.Context) (ledger.Horizon, error) { return ledger.Horizon{}, nil }

func (s *shelf) ClassFacts(context.Context, time.Time) ([]event.ClassFacts, error) { return nil, s.err }

func (s *shelf) TTL(context.Context) (map[string]string, error) { return nil, s.err }

// bare returns a desk without a database.
func bare(t *testing.T, change func(*Options)) *desk {
	t.Helper()
	d := &desk{}
	o := d.options(t)
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
