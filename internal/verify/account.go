package verify

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// account is what the entries of one partition come to. They are read in order
// and not kept.
type account struct {
	Account
	united  []ledger.Range
	longest ledger.Entry // reaches furthest of those before
}

// account reads the whole ledger: it sums the outcomes, each offset once, and
// finds gaps, conflicts, losses and dead letters that are not there.
func (c *check) account(ctx context.Context) error {
	spans, err := c.o.Ledger.LedgerSpans(ctx)
	if err != nil {
		return err
	}
	c.arrange(spans)
	letters, err := c.o.Kafka.Letters(ctx)
	if err != nil {
		return err
	}
	var absent []ledger.Entry // with the runs of letters that are not there as Other
	for e, err := range c.o.Ledger.Entries(ctx, nil) {
		if err != nil {
			return err
		}
		c.report.Entries++
		era, ok := c.numbers[life{e.Cluster, e.Topic, e.Epoch}]
		if !ok {
			continue // a life that has begun since: its rows are in flight
		}
		k := key{era, e.Partition.Partition}
		a := c.accounts[k]
		if a == nil {
			a = &account{Account: Account{Partition: e.Partition, First: e.First, Next: e.First, Committed: -1, End: -1}}
			c.accounts[k] = a
		}
		c.add(a, &e)
		if e.Other = c.without(&e, letters); len(e.Other) > 0 {
			absent = append(absent, e)
		}
	}
	c.report.Letters = letters.Read
	if len(absent) == 0 {
		return nil
	}
	// An entry is written after its letters: look again, for those of entries that
	// have come meanwhile.
	if letters, err = c.o.Kafka.Letters(ctx); err != nil {
		return err
	}
	for i := range absent {
		for _, r := range c.without(&absent[i], letters) {
			c.find("letter", absent[i].Partition, r.First, r.Last, "the dead letters of these offsets are not in the dead topic, which has dropped nothing that young").Day =
				absent[i].ReceivedAt.Format(time.DateTime)
		}
	}
	return nil
}

// add takes the next entry of a partition into its account.
func (c *check) add(a *account, e *ledger.Entry) {
	if e.Last >= e.First { // else it begins an epoch and has no offset
		if n := len(a.united); n > 0 && e.First-1 <= a.united[n-1].Last {
			a.united[n-1].Last = max(a.united[n-1].Last, e.Last)
		} else {
			if n > 0 {
				c.find("gap", a.Partition, a.united[n-1].Last+1, e.First-1, "no entry of the ledger accounts for these offsets")
			}
			a.united = append(a.united, ledger.Range{First: e.First, Last: e.Last})
		}
	}
	if n := sum(e); n != uint64(e.Last-e.First+1) {
		c.find("entry", a.Partition, e.First, e.Last, "the outcomes of the entry do not add up: %d of %d offsets", n, e.Last-e.First+1)
	}
	c.conflicts(a, &a.longest, e)
	for _, r := range runs(e) {
		if r.First = max(r.First, a.Next); r.First > r.Last {
			continue
		}
		a.Counts[r.Outcome] += uint64(r.Last - r.First + 1)
		if r.Outcome == ledger.Lost {
			c.find("lost", a.Partition, r.First, r.Last, "the topic's retention took these offsets before they were read")
		}
	}
	a.Next = max(a.Next, e.Last+1)
	if a.longest.ReceivedAt.IsZero() || e.Last >= a.longest.Last {
		a.longest = *e
	}
}

// arrange puts the lives of each topic in order of time.
func (c *check) arrange(spans []ledger.Span) {
	slices.SortFunc(spans, func(a, b ledger.Span) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), a.First.Compare(b.First), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Epoch, b.Epoch))
	})
	for i, s := range spans {
		from := time.Unix(0, 0)
		if i > 0 && spans[i-1].Topic == s.Topic {
			// A row may be a little older than its entry: halfway between the two eras.
			before := spans[i-1].Last
			from = before.Add(s.First.Sub(before) / 2)
		}
		c.view.Eras = append(c.view.Eras, ledger.Era{Cluster: s.Cluster, Topic: s.Topic, Epoch: s.Epoch, From: from})
		c.numbers[life{s.Cluster, s.Topic, s.Epoch}] = i
		if s.Cluster == c.o.Kafka.Cluster() {
			if n, ok := c.newest[s.Topic]; !ok || c.view.Eras[n].Epoch < s.Epoch {
				c.newest[s.Topic] = i
			}
		}
	}
}

// covers reports whether some entry accounts for an offset.
func (a *account) covers(offset int64) bool {
	i, found := slices.BinarySearchFunc(a.united, offset, func(r ledger.Range, o int64) int { return cmp.Compare(r.First, o) })
	return found || i > 0 && offset <= a.united[i-1].Last
}

// positions compares committed ≤ the ledger's end ≤ the high watermark.
func (c *check) positions() {
	for id, at := range c.committed {
		if p, end := c.reached(id); at > end {
			c.find("position", p, end, at-1, "the group committed offset %d but the ledger ends at %d", at, end)
		}
	}
	for id, b := range c.bounds {
		if _, end := c.reached(id); end < b.End {
			c.report.Waiting += uint64(b.End - end)
		}
	}
	for k, a := range c.accounts {
		if era, ok := c.newest[a.Topic]; !ok || era != k.era {
			continue
		}
		b, ok := c.bounds[kafkaID(a.Partition)]
		switch {
		case !ok:
			c.find("position", a.Partition, 0, -1, "the ledger ends at %d but Kafka has no such partition", a.Next)
		case a.Next > b.End:
			c.find("position", a.Partition, b.End, a.Next-1, "the ledger ends at %d but the partition at %d", a.Next, b.End)
		}
	}
}

// reached returns a partition of Kafka in its newest epoch, and the offset that the
// ledger has come to in it.
func (c *check) reached(id ledger.Partition) (ledger.Partition, int64) {
	end := c.bounds[id].Start
	if era, ok := c.newest[id.Topic]; ok {
		if a := c.accounts[key{era, id.Partition}]; a != nil {
			end = max(end, a.Next)
		}
		id.Epoch = c.view.Eras[era].Epoch
	}
	return id, end
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
func (c *check) conflicts(p *account, a, b *ledger.Entry) {
	if a.ReceivedAt.IsZero() || b.First > a.Last {
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

// without returns the runs of an entry's dead offsets that have no letter
// although the dead topic has dropped nothing that young.
func (c *check) without(e *ledger.Entry, l ledger.Letters) []ledger.Run {
	var absent []ledger.Run
	for _, r := range e.Other {
		if r.Outcome != ledger.Dead {
			continue
		}
		for o := r.First; o <= r.Last; o++ {
			if l.Offsets[e.Partition][o] {
				continue
			}
			if !l.Since.IsZero() && e.ReceivedAt.Before(l.Since) {
				c.report.Taken++
				continue
			}
			if n := len(absent); n > 0 && absent[n-1].Last == o-1 {
				absent[n-1].Last = o
				continue
			}
			absent = append(absent, ledger.Run{First: o, Last: o, Outcome: ledger.Dead})
		}
	}
	return absent
}
