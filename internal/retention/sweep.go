package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// Storage is where facts and rows are.
type Storage interface {
	// FactsVersion changes whenever one of the next four does.
	FactsVersion(ctx context.Context) (string, error)
	Promises(ctx context.Context) ([]policy.StoredClass, error)
	Facts(ctx context.Context) ([]event.Fact, error)
	Erasures(ctx context.Context) ([]event.Erasure, error)
	Holds(ctx context.Context) ([]event.Hold, error)
	// KeepFacts keeps until an instant the facts that would be forgotten before another.
	KeepFacts(ctx context.Context, before, until time.Time) error
	// KeepErasureSubjects does the same for the identifiers of erasures that have left rows
	// where they are.
	KeepErasureSubjects(ctx context.Context, before, until time.Time) error

	// BeginSweep takes the next number. A sweep with a lower one moves nothing from then on.
	BeginSweep(ctx context.Context, full bool) (event.Sweep, error)
	// LastSweeps returns when the newest sweeps that are done began: one over all rows, and any.
	LastSweeps(ctx context.Context) (full, last time.Time, err error)
	// Candidates are the rows that any fact speaks of and those whose expiry was
	// moved before, or the rows of the subjects. Of a row, all that Fate reads is
	// set, with its expiry, its coordinates and its Bucket.
	Candidates(ctx context.Context, kind event.Kind, subjects []string) iter.Seq2[*event.Row, error]
	// WriteMoves enters what will be moved. Nothing is moved that was not entered.
	WriteMoves(ctx context.Context, s event.Sweep, moves []event.Move) error
	// Rows are the deliveries of these rows, with all that is stored of them. Repeats come too.
	Rows(ctx context.Context, kind event.Kind, of []*event.Row) iter.Seq2[*event.Row, error]
	// WriteCopies stores copies of rows under the class that they name, and returns
	// once they have been read back.
	WriteCopies(ctx context.Context, s event.Sweep, copies []*event.Row) error
	// Move changes the expiries that the sweep has entered for a kind, and returns
	// when that is durable. It does nothing where a later sweep has begun.
	Move(ctx context.Context, s event.Sweep, kind event.Kind) error
	// EndSweep says that all that was entered has been moved. false: a later sweep has begun.
	EndSweep(ctx context.Context, s event.Sweep, moved int) (bool, error)

	WriteErasure(ctx context.Context, e event.Erasure) error
	// ErasureSubjects returns the identifiers of an erasure while they are kept.
	ErasureSubjects(ctx context.Context, erasure string) ([]string, error)
	WriteErasureSubjects(ctx context.Context, erasure string, subjects []string, until time.Time) error
	WriteHold(ctx context.Context, h event.Hold) error
	// Subjects streams all that rows which are not erased can be found by, some of it
	// more than once.
	Subjects(ctx context.Context) iter.Seq2[string, error]
	// Leftover reports whether a part of the events that was replaced before the
	// instant, or one that was detached, is still on disk.
	Leftover(ctx context.Context, before time.Time) (bool, error)
}

// Options are what a Sweeper and a Keeper need.
type Options struct {
	Storage Storage
	Policy  *policy.Policy
	Hash    func(subject string) []string // see New
	// HashOnce is Hash, but remembers nothing: it is asked about every subject there is.
	// nil means Hash.
	HashOnce func(subject string) []string
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  prometheus.Registerer // a Keeper's
	// Every is how often all rows are swept. 0 means an hour.
	Every time.Duration
	// Look is how often the Keeper looks for new facts. 0 means 5 s.
	Look time.Duration
}

// Sweeper moves expiries to where Fate says that they are. Each sweep compares every
// row that a fact speaks of with its fate, so a sweep that failed, a fact that
// came late and a row that came late are all made good by the next one.
type Sweeper struct {
	o        Options
	searched map[string]bool // holds
}

// NewSweeper makes a Sweeper.
func NewSweeper(o Options) *Sweeper {
	if o.HashOnce == nil {
		o.HashOnce = o.Hash
	}
	return &Sweeper{o, make(map[string]bool)}
}

// batchMoves is how many moves are in memory at a time, maxMoves how many one
// mutation gets to know besides shared rows: about 12 bytes of each are in ClickHouse's
// memory while it runs.
const (
	batchMoves = 10_000
	maxMoves   = 500_000
)

// ErrOvertaken says that another sweep began meanwhile: that one does the work.
var ErrOvertaken = errors.New("a later sweep has begun")

// keptAhead is how long before their end facts and identifiers are kept longer, while they
// are needed.
const keptAhead = 30 * 24 * time.Hour

// Result is what a sweep did.
type Result struct {
	Rows  int // looked at
	Moved int
	More  bool // there is more to move than one mutation takes
}

// Sweep runs once, over the rows of the subjects or, with nil, over all.
func (s *Sweeper) Sweep(ctx context.Context, subjects []string) (Result, error) {
	var res Result
	// In this order no fact is older than the number that lets it act.
	sweep, err := s.o.Storage.BeginSweep(ctx, subjects == nil)
	if err != nil {
		return res, fmt.Errorf("begin sweep: %w", err)
	}
	source, err := read(ctx, s.o.Storage)
	if err != nil {
		return res, fmt.Errorf("read facts: %w", err)
	}
	if subjects == nil {
		if err := s.keep(ctx, source); err != nil {
			return res, err
		}
	}
	facts := New(s.o.Policy, source, s.o.Hash)
	for i := range source.Erasures {
		// Counted before they are moved: ClickHouse may remove them right after.
		switch e := &source.Erasures[i]; {
		case e.State == event.ErasureRequested:
			e.ErasedRows, err = s.survey(ctx, e, facts)
		case e.State == event.ErasureDone && e.KeptReason == string(ByHold) && subjects == nil:
			err = s.erasure(ctx, *e, facts) // the hold may be released
		}
		if err != nil {
			return res, fmt.Errorf("erasure %s: %w", source.Erasures[i].ID, err)
		}
	}
	for _, kind := range event.Kinds {
		moved, err := s.kind(ctx, sweep, facts, kind, subjects, &res)
		if err != nil {
			return res, fmt.Errorf("sweep %s: %w", kind.Table(), err)
		}
		res.Moved += moved
	}
	last, err := s.o.Storage.EndSweep(ctx, sweep, res.Moved)
	if err != nil {
		return res, fmt.Errorf("end sweep: %w", err)
	}
	if !last {
		return res, ErrOvertaken
	}
	return res, s.erasures(ctx, source.Erasures, facts)
}

// keep keeps what a row that outlives its end must find again when it is let go.
func (s *Sweeper) keep(ctx context.Context, source Source) error {
	before, until := s.o.Now().Add(keptAhead), s.o.Now().Add(2*keptAhead)
	if slices.ContainsFunc(source.Holds, func(h event.Hold) bool { return h.ReleasedAt.IsZero() }) {
		if err := s.o.Storage.KeepFacts(ctx, before, until); err != nil {
			return fmt.Errorf("keep facts: %w", err)
		}
	}
	if slices.ContainsFunc(source.Erasures, func(e event.Erasure) bool { return e.KeptRows > 0 }) {
		if err := s.o.Storage.KeepErasureSubjects(ctx, before, until); err != nil {
			return fmt.Errorf("keep identifiers of erasures: %w", err)
		}
	}
	return nil
}

func (s *Sweeper) kind(ctx context.Context, sweep event.Sweep, facts *Facts, kind event.Kind, subjects []string, res *Result) (moved int, err error) {
	now := s.o.Now()
	var moves []event.Move
	var shared []*event.Row // that lose one of their people
	leaving := make(map[string]bool)
	more := false
	for row, err := range s.o.Storage.Candidates(ctx, kind, subjects) {
		if err != nil {
			return moved, err
		}
		res.Rows++
		fate := facts.Fate(row)
		if len(fate.Without(now, true)) > 0 && fate.Expires.After(now) {
			switch {
			case facts.over(row, now):
				leaving[deliveryOf(row, row.Retention)] = true
			case len(shared) == maxShared:
				more = true
			default:
				shared = append(shared, row)
			}
			continue
		}
		if fate.Override == row.ExpiresOverride || facts.over(row, now) && !fate.Expires.After(now) {
			continue // where it must be, or on its way out
		}
		if moved+len(moves) == maxMoves {
			more = true
			continue
		}
		moves = append(moves, event.Move{Row: row, To: fate.Override, Cause: string(fate.Cause)})
		if len(moves) == batchMoves {
			if err := s.o.Storage.WriteMoves(ctx, sweep, moves); err != nil {
				return moved, err
			}
			moved += len(moves)
			moves = moves[:0]
		}
	}
	if err := s.o.Storage.WriteMoves(ctx, sweep, moves); err != nil {
		return moved, err
	}
	moved += len(moves)
	// Where the copy before the last is not gone yet, there is no room for one more.
	shared = slices.DeleteFunc(shared, func(r *event.Row) bool { return leaving[deliveryOf(r, event.Anonymised(r.Retention))] })
	// An insert is of one partition: those of one come together.
	slices.SortFunc(shared, func(a, b *event.Row) int {
		return cmp.Or(cmp.Compare(a.Retention, b.Retention), cmp.Compare(a.Bucket, b.Bucket))
	})
	for part := range slices.Chunk(shared, batchCopies) {
		if err := s.anonymise(ctx, sweep, facts, kind, part); err != nil {
			return moved, err
		}
		moved += len(part)
	}
	if moved == 0 {
		return 0, nil
	}
	res.More = res.More || more
	return moved, s.o.Storage.Move(ctx, sweep, kind)
}

// over reports whether the expiry that the row carries has passed.
func (f *Facts) over(r *event.Row, now time.Time) bool {
	if r.ExpiresOverride > 0 {
		return !time.Unix(int64(r.ExpiresOverride), 0).After(now)
	}
	p := f.promises[r.Retention]
	return p != nil && !p.Period.End(r.RetainedFrom).After(now)
}

// Erasures carries every erasure on to its next state: it looks which rows are left.
func (s *Sweeper) Erasures(ctx context.Context) error {
	source, err := read(ctx, s.o.Storage)
	if err != nil {
		return fmt.Errorf("read facts: %w", err)
	}
	return s.erasures(ctx, source.Erasures, New(s.o.Policy, source, s.o.Hash))
}

func (s *Sweeper) erasures(ctx context.Context, all []event.Erasure, facts *Facts) error {
	for _, e := range all {
		if e.State == event.ErasureDone {
			continue
		}
		if err := s.erasure(ctx, e, facts); err != nil {
			return fmt.Errorf("erasure %s: %w", e.ID, err)
		}
	}
	return nil
}

// survey counts the rows of an erasure that are left, and notes those that are kept.
func (s *Sweeper) survey(ctx context.Context, e *event.Erasure, facts *Facts) (left uint64, err error) {
	subjects, err := s.o.Storage.ErasureSubjects(ctx, e.ID)
	if err != nil || len(subjects) == 0 {
		return 0, err
	}
	e.KeptRows, e.KeptReason = 0, ""
	var law time.Time // the end of the last that is kept
	for _, kind := range event.Kinds {
		for row, err := range s.o.Storage.Candidates(ctx, kind, subjects) {
			if err != nil {
				return 0, err
			}
			switch fate := facts.Fate(row); {
			case row.Came().After(e.Until):
			case fate.Held:
				e.KeptRows++
				e.KeptReason = string(ByHold)
				law = policy.Sentinel // until it is released
			case fate.Goes(e.Until):
				left++
			case fate.Cause == ByStatute, len(fate.Leaving) > 0: // the row, or one of its people
				e.KeptRows++
				e.KeptReason = cmp.Or(e.KeptReason, string(ByStatute))
				law = later(law, fate.last())
			}
		}
	}
	// Until nothing can bring back what is kept: forgotten before, it would be for everybody again.
	e.ForgetAt = later(e.ForgetAt, s.o.Policy.Everywhere.End(law).Add(s.o.Policy.Grace))
	if e.ForgetAt.After(policy.Sentinel) {
		e.ForgetAt = policy.Sentinel
	}
	return left, nil
}

func (s *Sweeper) erasure(ctx context.Context, e event.Erasure, facts *Facts) error {
	next := e
	left, err := s.survey(ctx, &next, facts)
	if err != nil {
		return err
	}
	next.ErasedRows = max(e.ErasedRows, left)
	switch {
	case e.State == event.ErasureRequested:
		next.State = event.ErasureMoved
	case left > 0 && e.State != event.ErasureMoved: // a hold was released, or they came late
		next.State, next.ErasedRows = event.ErasureMoved, e.ErasedRows+left
	case left > 0, e.State == event.ErasureDone:
	case e.State == event.ErasureMoved:
		next.State = event.ErasureRemoved
	default:
		leftover, err := s.o.Storage.Leftover(ctx, e.UpdatedAt)
		if err != nil {
			return err
		}
		if !leftover {
			next.State = event.ErasureDone
		}
	}
	if next.State == e.State && next.ErasedRows == e.ErasedRows && next.KeptRows == e.KeptRows && next.KeptReason == e.KeptReason && next.ForgetAt.Equal(e.ForgetAt) {
		return nil
	}
	s.o.Log.Info("erasure", "erasure", e.ID, "state", string(next.State), "erased_rows", next.ErasedRows, "kept_rows", next.KeptRows, "deadline", e.Deadline)
	return s.write(ctx, next)
}

// write makes an erasure the newest of its rows, whatever the clocks say.
func (s *Sweeper) write(ctx context.Context, e event.Erasure) error {
	e.UpdatedAt = later(s.o.Now(), e.UpdatedAt.Add(time.Millisecond))
	return s.o.Storage.WriteErasure(ctx, e)
}
