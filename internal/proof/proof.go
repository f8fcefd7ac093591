// Package proof holds what the policy file promises against what is measured, and says
// of each sentence of the published text whether it is kept: what it says, what binds
// it, what ClickHouse and Kafka do, how many rows are where they should not be, and how
// much of that cannot be seen from inside.
//
// It changes nothing, moves no row and knows no SQL. What it needs of storage, Kafka and
// the verification of the ledger it states in small interfaces and plain types.
//
// The route: measure → faults → a verdict for every sentence → a report for a person,
// or a signed document for an auditor.
package proof

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// tables tells what is stored, and how.
type tables interface {
	MeasureTables(ctx context.Context) ([]measured.Table, error)
	MeasureClasses(ctx context.Context, scope measured.Scope) ([]measured.Class, error)
	// Formatted returns an expression as the system tables print it, Expiries what
	// one of theirs says of rows of these classes.
	Formatted(ctx context.Context, expression string) (string, error)
	Expiries(ctx context.Context, expression string, classes []string, from time.Time) (map[string]time.Time, error)
	// MeasureOverdue counts the rows of one of our own tables that its TTL should have removed.
	MeasureOverdue(ctx context.Context, table, ttl string, due time.Time) (uint64, error)
	Groups(ctx context.Context, kind event.Kind, compared, present []event.Attr, version string, limit int) ([]measured.Group, error)
}

// account tells what was stored, moved, anchored and erased.
type account interface {
	Accounted(ctx context.Context) ([]ledger.Cell, error)
	MeasureOverrides(ctx context.Context, settled time.Time) ([]measured.Overrides, error)
	MeasureMoves(ctx context.Context, now time.Time, grace time.Duration) ([]measured.Moves, error)
	MeasureAnchors(ctx context.Context) ([]measured.Anchors, error)
	MeasureErasures(ctx context.Context, now time.Time) (measured.Erasures, error)
	// MeasureEnded counts, by table, the rows that must have been moved and were not.
	MeasureEnded(ctx context.Context, e measured.Ended) (map[string]uint64, error)
}

// Topic is how long Kafka keeps what was published, next to what the policy allows.
type Topic struct {
	Name    string
	Kinds   event.KindSet
	Under   time.Duration // no record may reach this age
	Promise string        // which promise says so
	Missing bool          // it does not exist yet
	Worst   time.Duration // the age at which a record is gone for certain
	Ends    bool          // false: there is no such age
	Exceeds string        // why it may keep a record for too long; "": it may not
}

// Verification is what a run of the verification of the ledger found.
type Verification struct {
	At       time.Time
	Rows     uint64 // read
	Believed uint64 // not read again, because their parts are what they were
	Findings []Finding
}

// Finding is one contradiction between the ledger and what is stored.
type Finding struct {
	Kind    string // "missing" and "digest" are rows that vanished early
	Classes string // the stored classes it is about, separated by ", "; may be empty
	Text    string
}

// Options are what a Prover needs. All are required but those that say so.
type Options struct {
	Policy  *policy.Policy
	Tables  tables
	Account account
	// Registered are all the classes that any policy file has ever stored.
	Registered func(ctx context.Context) ([]policy.StoredClass, error)
	// Shortened says of classes that a later policy file has shortened from when that
	// holds: their rows have the grace from then on. Optional: none was.
	Shortened func(ctx context.Context) (map[string]time.Time, error)
	// Topics reads the settings of the topics. Optional: nothing is known of them then.
	Topics func(ctx context.Context) ([]Topic, error)
	// MergeTimeout is the setting merge_with_ttl_timeout that the tables must have, in seconds.
	MergeTimeout int
	// Now is the clock; optional, time.Now.
	Now func() time.Time
}

// Prover makes reports. It may be used by any number of goroutines.
type Prover struct{ o Options }

// New checks the options. It asks nobody anything.
func New(o Options) (*Prover, error) {
	if o.Policy == nil || o.Tables == nil || o.Account == nil || o.Registered == nil || o.MergeTimeout <= 0 {
		return nil, errors.New("new prover: Policy, Tables, Account, Registered and MergeTimeout are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Prover{o}, nil
}

// Ask says how much a report is made of.
type Ask struct {
	// Verified is what the verification of the ledger found; nil: it has not run, and
	// the report says so.
	Verified *Verification
	// Cheap leaves out what reads more of every row than its expiry: the rules and the
	// account of moves.
	Cheap bool
	// Signed are the lines of the mapping that a person has signed off; nil: nobody
	// was asked to.
	Signed []Mapping
}

// settling is how long a move that was planned may take to be carried out.
const settling = time.Hour

// maxGroups bounds what is read to find the rules that rows match.
const maxGroups = 100_000

// facts are all that was measured.
type facts struct {
	now        time.Time
	registered map[string]policy.StoredClass
	since      map[string]time.Time // of a class that was shortened, from when on that holds
	expires    string               // the expression that the tables must have, in ClickHouse's form
	tables     []measured.Table
	expiries   map[string]map[string]time.Time // table → class → expiry of a row of now
	classes    []measured.Class
	cells      []ledger.Cell
	moves      []measured.Moves
	anchors    []measured.Anchors
	erasures   measured.Erasures
	overrides  []measured.Overrides
	ended      map[string]map[string]uint64 // class → table → rows that must have been moved
	overdue    map[string]uint64            // by table of our own
	groups     []measured.Group
	topics     []Topic
	noTopics   string // why nothing is known of the topics; "": it is known
}

// Prove measures and judges. An error says that it could not measure; what is wrong
// is in the report.
func (p *Prover) Prove(ctx context.Context, ask Ask) (*Report, error) {
	f, err := p.measure(ctx, ask.Cheap)
	if err != nil {
		return nil, fmt.Errorf("prove the policy: %w", err)
	}
	return p.judge(f, ask), nil
}

func (p *Prover) measure(ctx context.Context, cheap bool) (*facts, error) {
	o := &p.o
	f := &facts{
		now: o.Now().UTC().Truncate(time.Second), registered: map[string]policy.StoredClass{}, expiries: map[string]map[string]time.Time{},
		ended: map[string]map[string]uint64{}, overdue: map[string]uint64{},
	}
	registered, err := o.Registered(ctx)
	if err != nil {
		return nil, err
	}
	scope := measured.Scope{Expires: policy.ExpiresExpr(registered), Now: f.now, Grace: o.Policy.Grace, Ahead: policy.MaxAhead, Daily: []string{}}
	if scope.Since, err = p.shortened(ctx); err != nil {
		return nil, err
	}
	f.since = scope.Since
	keys := make([]string, 0, len(registered))
	for _, c := range registered {
		f.registered[c.Key] = c
		keys = append(keys, c.Key)
		if c.Promised.Unit() == policy.Day { // whatever shortened it since
			scope.Daily = append(scope.Daily, c.Key)
		}
	}
	if f.expires, err = o.Tables.Formatted(ctx, scope.Expires); err != nil {
		return nil, err
	}
	if f.tables, err = o.Tables.MeasureTables(ctx); err != nil {
		return nil, err
	}
	for _, t := range f.tables {
		if own := ownOf(t.Name); own != nil && own.ttl != "" {
			if f.overdue[t.Name], err = o.Tables.MeasureOverdue(ctx, t.Name, own.ttl, f.now.Add(-p.patience())); err != nil {
				return nil, err
			}
		}
		if _, ok := kindOf(t.Name); !ok || t.TTL == "" {
			continue
		}
		// An expression that somebody has put there may not even be about classes.
		if f.expiries[t.Name], err = o.Tables.Expiries(ctx, t.TTL, keys, f.now); err != nil && ctx.Err() != nil {
			return nil, err
		}
	}
	if f.classes, err = o.Tables.MeasureClasses(ctx, scope); err != nil {
		return nil, err
	}
	if f.cells, err = o.Account.Accounted(ctx); err != nil {
		return nil, err
	}
	if f.moves, err = o.Account.MeasureMoves(ctx, f.now, o.Policy.Grace); err != nil {
		return nil, err
	}
	if f.anchors, err = o.Account.MeasureAnchors(ctx); err != nil {
		return nil, err
	}
	if f.erasures, err = o.Account.MeasureErasures(ctx, f.now); err != nil {
		return nil, err
	}
	p.readTopics(ctx, f)
	if cheap {
		return f, nil
	}
	if f.overrides, err = o.Account.MeasureOverrides(ctx, f.now.Add(-settling)); err != nil {
		return nil, err
	}
	for _, c := range registered {
		if e, begun := p.endedBy(f, c); begun {
			if f.ended[c.Key], err = o.Account.MeasureEnded(ctx, e); err != nil {
				return nil, err
			}
		}
	}
	for _, k := range event.Kinds {
		compared, present := o.Policy.Asked(k)
		groups, err := o.Tables.Groups(ctx, k, compared, present, o.Policy.Version, maxGroups)
		if err != nil {
			return nil, err
		}
		f.groups = append(f.groups, groups...)
	}
	return f, nil
}

// patience is how long a table of our own may keep what its TTL removes: ClickHouse
// merges for the TTL of these every few hours.
func (p *Prover) patience() time.Duration { return max(p.o.Policy.Grace, 24*time.Hour) }

// endedBy says which rows of a class an anchor has ended; false where none has come.
func (p *Prover) endedBy(f *facts, c policy.StoredClass) (measured.Ended, bool) {
	e := measured.Ended{Retention: c.Key, KeyedBy: c.KeyedBy, After: c.After, AtLeast: c.AtLeast, Due: f.now, Settled: f.now.Add(-p.o.Policy.Grace), Begins: []string{}, Clears: []string{}}
	if !c.Within {
		e.Due = e.Settled // its last byte has the grace
	}
	for _, a := range f.anchors {
		switch {
		case c.Anchor == "":
		case policy.Begins(a.Action, c.Anchor):
			e.Begins = append(e.Begins, a.Action)
		case policy.Clears(a.Action, c.Anchor):
			e.Clears = append(e.Clears, a.Action)
		}
	}
	return e, len(e.Begins) > 0
}

func (p *Prover) shortened(ctx context.Context) (map[string]time.Time, error) {
	if p.o.Shortened == nil {
		return map[string]time.Time{}, nil
	}
	return p.o.Shortened(ctx)
}

// readTopics makes of brokers that do not answer something that is not known: the
// rest of the proof does not need them.
func (p *Prover) readTopics(ctx context.Context, f *facts) {
	if p.o.Topics == nil {
		f.noTopics = "nobody looks at the topics here"
		return
	}
	topics, err := p.o.Topics(ctx)
	if err != nil {
		f.noTopics = err.Error()
		return
	}
	f.topics = topics
}

// kindOf returns the kind of events that a table stores.
func kindOf(table string) (event.Kind, bool) {
	for _, k := range event.Kinds {
		if k.Table() == table {
			return k, true
		}
	}
	return 0, false
}
