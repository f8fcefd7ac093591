// Package verify proves the ledger: that it accounts for every offset without a
// gap or a contradiction, and that the rows and the dead letters it speaks of
// are there. It compares; what it compares comes from storage and Kafka through
// two small interfaces. It changes nothing.
package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// Storage is where the rows are.
type Storage interface {
	LedgerEntries(ctx context.Context) ([]ledger.Entry, error)
	// Rows gives the rows of every bucket, counted between the entries' bounds,
	// and the repeats among them. It returns how many buckets it read.
	Rows(ctx context.Context, eras []ledger.Era, found func(ledger.Found)) (buckets int, repeats uint64, err error)
	Deliveries(ctx context.Context, eras []ledger.Era, era int, partition int32, r ledger.Range) ([]ledger.Delivery, error)
}

// Kafka is where they came from. Epochs of its partitions are 0.
type Kafka interface {
	Cluster() string
	Committed(ctx context.Context) (map[ledger.Partition]int64, error)
	Bounds(ctx context.Context) (map[ledger.Partition]ledger.Bounds, error)
	Letters(ctx context.Context) (ledger.Letters, error)
}

// Options are what a run needs. All are required but Grace.
type Options struct {
	Storage Storage
	Kafka   Kafka
	// Expiry is when a row of a class expires that is retained from an instant.
	Expiry func(class string, from time.Time) time.Time
	Grace  time.Duration // longest time between an expiry and the row's removal
	Now    func() time.Time
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
	Entries  int
	Buckets  int
	Rows     uint64
	Repeats  uint64 // rows − distinct (source, id, time)
	InFlight uint64 // rows whose entry was not written yet
	Letters  int    // read
	Taken    uint64 // dead letters that the dead topic's retention has taken
	Took     time.Duration
}

// OK reports that nothing was found.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// check is one run.
type check struct {
	o            Options
	report       Report
	began, ended time.Time
	eras         []ledger.Era
	parts        []*part
	index        map[key]*part
	newest       map[string]int // era by topic, of Kafka's cluster
	bounds       map[ledger.Partition]ledger.Bounds
}

type key struct {
	era       int
	partition int32
}

// part is one partition in one era.
type part struct {
	ledger.Partition
	key
	entries []ledger.Entry
	united  []ledger.Range
	found   []ledger.Found
}

// Run reads everything and compares it. An error says that it could not read;
// what is wrong is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	c := &check{o: o, began: o.Now(), index: make(map[key]*part), newest: make(map[string]int)}
	// In this order a running ingester makes no findings: it writes the rows, then
	// the letters, then the ledger, then commits; read backwards.
	committed, err := o.Kafka.Committed(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := o.Storage.LedgerEntries(ctx)
	if err != nil {
		return nil, err
	}
	letters, err := o.Kafka.Letters(ctx)
	if err != nil {
		return nil, err
	}
	c.arrange(entries)
	if len(c.eras) > 0 {
		c.report.Buckets, c.report.Repeats, err = o.Storage.Rows(ctx, c.eras, c.take)
		if err != nil {
			return nil, err
		}
	}
	if c.bounds, err = o.Kafka.Bounds(ctx); err != nil {
		return nil, err
	}
	c.ended = o.Now()
	c.report.Letters = letters.Read
	c.positions(committed)
	for _, p := range c.parts {
		c.account(p, committed)
		c.letters(p, letters)
		c.unaccounted(p)
		if err := c.cells(ctx, p); err != nil {
			return nil, err
		}
	}
	c.report.Took = o.Now().Sub(c.began)
	slices.SortStableFunc(c.report.Findings, func(a, b Finding) int {
		return cmp.Or(compare(a.Partition, b.Partition), cmp.Compare(a.First, b.First))
	})
	return &c.report, nil
}

func compare(a, b ledger.Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Partition, b.Partition))
}

func (c *check) find(kind string, p ledger.Partition, first, last int64, format string, args ...any) *Finding {
	c.report.Findings = append(c.report.Findings, Finding{Kind: kind, Partition: p, First: first, Last: last, Text: fmt.Sprintf(format, args...)})
	return &c.report.Findings[len(c.report.Findings)-1]
}

// arrange sorts the entries into eras and partitions.
func (c *check) arrange(entries []ledger.Entry) {
	c.report.Entries = len(entries)
	type id struct {
		cluster, topic string
		epoch          uint32
	}
	type span struct{ first, last time.Time }
	spans := make(map[id]span)
	for i := range entries {
		e := &entries[i]
		k := id{e.Cluster, e.Topic, e.Epoch}
		s, ok := spans[k]
		if !ok || e.ReceivedAt.Before(s.first) {
			s.first = e.ReceivedAt
		}
		if e.ReceivedAt.After(s.last) {
			s.last = e.ReceivedAt
		}
		spans[k] = s
	}
	for k := range spans {
		c.eras = append(c.eras, ledger.Era{Cluster: k.cluster, Topic: k.topic, Epoch: k.epoch})
	}
	at := func(e ledger.Era) span { return spans[id{e.Cluster, e.Topic, e.Epoch}] }
	slices.SortFunc(c.eras, func(a, b ledger.Era) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), at(a).first.Compare(at(b).first), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Epoch, b.Epoch))
	})
	numbers := make(map[id]int)
	for i := range c.eras {
		e := &c.eras[i]
		numbers[id{e.Cluster, e.Topic, e.Epoch}] = i
		e.From = time.Unix(0, 0)
		if i > 0 && c.eras[i-1].Topic == e.Topic {
			// A row may be a little older than its entry: halfway between the two eras.
			before := at(c.eras[i-1]).last
			e.From = before.Add(at(*e).first.Sub(before) / 2)
		}
		if e.Cluster == c.o.Kafka.Cluster() {
			if n, ok := c.newest[e.Topic]; !ok || c.eras[n].Epoch < e.Epoch {
				c.newest[e.Topic] = i
			}
		}
	}
	for _, e := range entries {
		p := c.part(numbers[id{e.Cluster, e.Topic, e.Epoch}], e.Partition.Partition)
		p.entries = append(p.entries, e)
	}
	for _, p := range c.parts {
		slices.SortStableFunc(p.entries, func(a, b ledger.Entry) int {
			return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
		})
		var ranges []ledger.Range
		for _, e := range p.entries {
			ranges = append(ranges, ledger.Range{First: e.First, Last: e.Last})
		}
		p.united = ledger.Unite(ranges)
	}
	slices.SortFunc(c.parts, func(a, b *part) int { return compare(a.Partition, b.Partition) })
}

func (c *check) part(era int, partition int32) *part {
	k := key{era, partition}
	p := c.index[k]
	if p == nil {
		e := c.eras[era]
		p = &part{Partition: ledger.Partition{Cluster: e.Cluster, Topic: e.Topic, Epoch: e.Epoch, Partition: partition}, key: k}
		c.index[k] = p
		c.parts = append(c.parts, p)
	}
	return p
}

// take keeps what storage found.
func (c *check) take(f ledger.Found) {
	c.report.Rows += f.Rows
	if f.Era < 0 || f.Era >= len(c.eras) {
		c.find("unknown", ledger.Partition{Partition: f.Partition}, f.First, f.Last, "%d rows in %s of a topic that the ledger does not know", f.Rows, f.Table)
		return
	}
	p := c.part(f.Era, f.Partition)
	p.found = append(p.found, f)
}

// end is the offset after the last that any entry of the partition accounts for.
func (p *part) end() int64 {
	if n := len(p.united); n > 0 {
		return p.united[n-1].Last + 1
	}
	if len(p.entries) > 0 {
		return p.entries[0].First // a new epoch without an offset yet
	}
	return 0
}

// positions compares committed ≤ the ledger's end ≤ the high watermark.
func (c *check) positions(committed map[ledger.Partition]int64) {
	for id, at := range committed {
		b := c.bounds[id]
		end, p := b.Start, id
		if era, ok := c.newest[id.Topic]; ok {
			p.Epoch = c.eras[era].Epoch
			if known := c.index[key{era, id.Partition}]; known != nil {
				end = max(end, known.end())
			}
		}
		if at > end {
			c.find("position", p, end, at-1, "the group committed offset %d but the ledger ends at %d", at, end)
		}
	}
	for _, p := range c.parts {
		if era, ok := c.newest[p.Topic]; !ok || era != p.era {
			continue
		}
		b, ok := c.bounds[kafkaID(p.Partition)]
		switch {
		case !ok:
			c.find("position", p.Partition, 0, -1, "the ledger ends at %d but Kafka has no such partition", p.end())
		case p.end() > b.End:
			c.find("position", p.Partition, b.End, p.end()-1, "the ledger ends at %d but the partition at %d", p.end(), b.End)
		}
	}
}

func kafkaID(p ledger.Partition) ledger.Partition {
	p.Epoch = 0
	return p
}

// account sums the outcomes, each offset once, and finds gaps, conflicts and losses.
func (c *check) account(p *part, committed map[ledger.Partition]int64) {
	a := Account{Partition: p.Partition, Next: p.end(), First: p.end(), Committed: -1, End: -1}
	if len(p.entries) > 0 {
		a.First = p.entries[0].First
	}
	if c.newest[p.Topic] == p.era && p.Cluster == c.o.Kafka.Cluster() {
		if at, ok := committed[kafkaID(p.Partition)]; ok {
			a.Committed = at
		}
		if b, ok := c.bounds[kafkaID(p.Partition)]; ok {
			a.End = b.End
		}
	}
	for _, gap := range ledger.Between(p.united) {
		c.find("gap", p.Partition, gap.First, gap.Last, "no entry of the ledger accounts for these offsets")
	}
	next, longest := a.First, -1
	for i := range p.entries {
		e := &p.entries[i]
		if sum(e) != uint64(e.Last-e.First+1) {
			c.find("entry", p.Partition, e.First, e.Last, "the outcomes of the entry do not add up: %d of %d offsets", sum(e), e.Last-e.First+1)
		}
		if longest >= 0 {
			c.conflicts(p, &p.entries[longest], e)
		}
		for _, r := range runs(e) {
			if r.First = max(r.First, next); r.First > r.Last {
				continue
			}
			a.Counts[r.Outcome] += uint64(r.Last - r.First + 1)
			if r.Outcome == ledger.Lost {
				c.find("lost", p.Partition, r.First, r.Last, "the topic's retention took these offsets before they were read")
			}
		}
		next = max(next, e.Last+1)
		if longest < 0 || e.Last >= p.entries[longest].Last {
			longest = i
		}
	}
	c.report.Accounts = append(c.report.Accounts, a)
}

func sum(e *ledger.Entry) (n uint64) {
	for _, k := range e.Counts {
		n += k
	}
	return n
}

// runs returns the outcomes of all offsets of an entry in order.
func runs(e *ledger.Entry) []ledger.Run {
	var all []ledger.Run
	at := e.First
	for _, r := range e.Other {
		if at < r.First {
			all = append(all, ledger.Run{First: at, Last: r.First - 1, Outcome: ledger.Stored})
		}
		all = append(all, r)
		at = r.Last + 1
	}
	if at <= e.Last {
		all = append(all, ledger.Run{First: at, Last: e.Last, Outcome: ledger.Stored})
	}
	return all
}

// conflicts compares two deliveries of the same offsets.
func (c *check) conflicts(p *part, a, b *ledger.Entry) {
	if b.First > a.Last {
		return
	}
	for _, x := range runs(a) {
		for _, y := range runs(b) {
			first, last := max(x.First, y.First), min(x.Last, y.Last)
			if first <= last && x.Outcome != y.Outcome {
				c.find("conflict", p.Partition, first, last, "%s in entry %d-%d (policy %s), %s in entry %d-%d (policy %s); a later policy or expiry may explain it",
					x.Outcome, a.First, a.Last, a.PolicyVersion, y.Outcome, b.First, b.Last, b.PolicyVersion)
			}
		}
	}
}

// letters looks for the dead letters of a partition.
func (c *check) letters(p *part, l ledger.Letters) {
	for i := range p.entries {
		e := &p.entries[i]
		for _, r := range e.Other {
			if r.Outcome != ledger.Dead {
				continue
			}
			var absent []ledger.Range
			for o := r.First; o <= r.Last; o++ {
				if !l.Offsets[p.Partition][o] {
					absent = append(absent, ledger.Range{First: o, Last: o})
				}
			}
			for _, a := range ledger.Unite(absent) {
				if !l.Since.IsZero() && e.ReceivedAt.Before(l.Since) {
					c.report.Taken += uint64(a.Last - a.First + 1)
					continue
				}
				c.find("letter", p.Partition, a.First, a.Last, "the dead letters of these offsets are not in the dead topic, which has dropped nothing that young").Day = e.ReceivedAt.Format(time.DateTime)
			}
		}
	}
}
