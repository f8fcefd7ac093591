// Package verify proves the ledger: that it accounts for every offset without a
// gap or a contradiction, and that the rows and the dead letters it speaks of
// are there. It compares; what it compares comes from storage and Kafka through
// small interfaces.
//
// All entries of the ledger are read in every run, one after another. Rows are
// read by bucket, and a bucket that was right is stamped with what it held: as
// long as neither its parts nor the ledger's word on it change, a run that is not
// full takes it on the word of the stamp. The stamps are all that it writes.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// Ledger is the account.
type Ledger interface {
	LedgerSpans(ctx context.Context) ([]ledger.Span, error)
	// Entries are in order of partition and offset: all without their cells, or
	// those that have a cell in the days.
	Entries(ctx context.Context, days *ledger.Days) iter.Seq2[ledger.Entry, error]
	Sums(ctx context.Context) ([]ledger.Sum, error)
}

// Moves are the account of the expiries that were moved after their rows were stored.
type Moves interface {
	Sweeps(ctx context.Context) (ledger.Sweeps, error)
	// MoveSums are of buckets, and change when a move falls due.
	MoveSums(ctx context.Context, due time.Time) ([]ledger.Sum, error)
	Moved(ctx context.Context, bucket, days ledger.Days, v ledger.View) ([]ledger.Moved, error)
	Moves(ctx context.Context, buckets []ledger.Bucket, v ledger.View, era int, partition int32, r ledger.Range) iter.Seq2[ledger.Move, error]
}

// Rows are what the accounts speak of.
type Rows interface {
	Contents(ctx context.Context) ([]ledger.Content, error)
	// Find counts a bucket's rows between the bounds of the entries that have a
	// cell in the days, or its deliveries.
	Find(ctx context.Context, bucket, days ledger.Days, v ledger.View, deliveries bool) ([]ledger.Found, error)
	Repeats(ctx context.Context, bucket ledger.Days) (uint64, error)
	Deliveries(ctx context.Context, buckets []ledger.Bucket, eras []ledger.Era, era int, partition int32, r ledger.Range) iter.Seq2[ledger.Delivery, error]
}

// Stamps remember which buckets were right.
type Stamps interface {
	Stamps(ctx context.Context) ([]ledger.Stamp, error)
	WriteStamps(ctx context.Context, stamps []ledger.Stamp) error
}

// Kafka is where everything came from. Epochs of its partitions are 0.
type Kafka interface {
	Cluster() string
	Committed(ctx context.Context) (map[ledger.Partition]int64, error)
	Bounds(ctx context.Context) (map[ledger.Partition]ledger.Bounds, error)
	Letters(ctx context.Context) (ledger.Letters, error)
}

// Period is how long a class is kept.
type Period interface {
	// End is when what is retained from an instant expires.
	End(from time.Time) time.Time
	// Bucket is the first day of the bucket that holds it.
	Bucket(from time.Time) int32
}

// Options are what a run needs. All are required but Full, Seed, Since and Grace.
type Options struct {
	Ledger Ledger
	Moves  Moves
	Rows   Rows
	Stamps Stamps
	Kafka  Kafka
	Period func(class string) Period
	// Since is when a class's period came into force: what was past it before has the
	// grace from then on. nil or zero: it always was in force.
	Since func(class string) time.Time
	Grace time.Duration // longest time between an expiry and the row's removal
	Now   func() time.Time
	Full  bool   // take no stamp's word
	Seed  uint64 // chooses which stamps are not believed
}

// Finding is one contradiction. First > Last: it is about no offsets.
type Finding struct {
	Kind        string
	Partition   ledger.Partition
	First, Last int64
	Class, Day  string
	Text        string
}

// Account is one partition of a report.
type Account struct {
	ledger.Partition
	First, Next int64 // what the ledger spans
	Committed   int64 // −1: nothing, or not the newest epoch
	End         int64 // Kafka's; −1: not in Kafka, or not the newest epoch
	Counts      [ledger.NumOutcomes]uint64
}

// Report is what a run read and what it found.
type Report struct {
	Accounts []Account
	Findings []Finding
	Full     bool
	Seed     uint64
	Entries  int
	Buckets  int    // read
	Sampled  int    // of them, although a stamp spoke for them
	Rows     uint64 // in them
	Repeats  uint64 // of Rows: those whose event is there already
	Moved    uint64 // of Rows: those that have another expiry than their class's
	Moves    uint64 // deliveries in the buckets read that were moved to another expiry, there or gone
	InFlight uint64 // of Rows: those whose entry was not written yet
	Waiting  uint64 // offsets that Kafka has and nobody has consumed yet
	Letters  int    // read
	Taken    uint64 // dead letters that the dead topic's retention has taken
	Believed struct {
		Buckets int
		Rows    uint64
		Since   time.Time // the oldest stamp
	}
	Took time.Duration
}

// OK reports that nothing was found.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// check is one run.
type check struct {
	o            Options
	report       Report
	began, ended time.Time // ended: what had not expired by then was there to be read
	view         ledger.View
	numbers      map[life]int   // of eras
	newest       map[string]int // era by topic, of Kafka's cluster
	accounts     map[key]*account
	committed    map[ledger.Partition]int64
	bounds       map[ledger.Partition]ledger.Bounds
	examined     map[examined]bool
	beyond       []stranger             // behind the ledger's end
	doubtful     map[ledger.Bucket]bool // not to be stamped
}

// life names an era.
type life struct {
	cluster, topic string
	epoch          uint32
}

// key names a partition of an era.
type key struct {
	era       int
	partition int32
}

// Run reads and compares. An error says that it could not read; what is wrong
// is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	began := o.Now()
	c := &check{
		o: o, began: began, ended: began, report: Report{Full: o.Full, Seed: o.Seed},
		view:    ledger.View{Now: began, Due: began.Add(-o.Grace)},
		numbers: make(map[life]int), newest: make(map[string]int), accounts: make(map[key]*account),
		examined: make(map[examined]bool), doubtful: make(map[ledger.Bucket]bool),
	}
	// In this order a running ingester makes no findings: it writes the rows, then
	// the letters, then the ledger, then commits; read backwards.
	var err error
	if c.committed, err = o.Kafka.Committed(ctx); err != nil {
		return nil, err
	}
	before, err := c.states(ctx)
	if err != nil {
		return nil, err
	}
	// A move is believed where its sweep was done before any row was read; where it
	// was not, the row may be on either side of it.
	if c.view.Sweeps, err = o.Moves.Sweeps(ctx); err != nil {
		return nil, err
	}
	if err := c.account(ctx); err != nil {
		return nil, err
	}
	read, err := c.choose(ctx, before)
	if err != nil {
		return nil, err
	}
	for _, g := range c.groups(before, read) {
		if err := c.group(ctx, g); err != nil {
			return nil, err
		}
	}
	if c.bounds, err = o.Kafka.Bounds(ctx); err != nil {
		return nil, err
	}
	c.positions()
	c.unaccounted()
	if err := c.stamp(ctx, read); err != nil {
		return nil, err
	}
	c.finish()
	return &c.report, nil
}

func (c *check) finish() {
	for k, a := range c.accounts {
		if c.newest[a.Topic] == k.era && a.Cluster == c.o.Kafka.Cluster() {
			if at, ok := c.committed[kafkaID(a.Partition)]; ok {
				a.Committed = at
			}
			if b, ok := c.bounds[kafkaID(a.Partition)]; ok {
				a.End = b.End
			}
		}
		c.report.Accounts = append(c.report.Accounts, a.Account)
	}
	slices.SortFunc(c.report.Accounts, func(a, b Account) int { return compare(a.Partition, b.Partition) })
	slices.SortStableFunc(c.report.Findings, func(a, b Finding) int {
		return cmp.Or(compare(a.Partition, b.Partition), cmp.Compare(a.First, b.First))
	})
	c.report.Took = c.o.Now().Sub(c.began)
}

func compare(a, b ledger.Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Partition, b.Partition))
}

func (c *check) find(kind string, p ledger.Partition, first, last int64, format string, args ...any) *Finding {
	c.report.Findings = append(c.report.Findings, Finding{Kind: kind, Partition: p, First: first, Last: last, Text: fmt.Sprintf(format, args...)})
	return &c.report.Findings[len(c.report.Findings)-1]
}

// partition names a partition of an era.
func (c *check) partition(k key) ledger.Partition {
	e := c.view.Eras[k.era]
	return ledger.Partition{Cluster: e.Cluster, Topic: e.Topic, Epoch: e.Epoch, Partition: k.partition}
}

func kafkaID(p ledger.Partition) ledger.Partition {
	p.Epoch = 0
	return p
}
