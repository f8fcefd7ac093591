package ingest

import (
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// settled is for how long a deletion must have been carried out before a row is
// refused for it. A restoration may be on its way through another partition: until then the
// row is stored, hidden by the same fact, and the next sweep judges it.
const settled = 7 * 24 * time.Hour

// unswept is how soon a held row has to end that is stored with the expiry of a held one:
// before a sweep moves it there it would be gone.
const unswept = 24 * time.Hour

// outcome says whether a row is stored, and takes those out of it whose identity is to
// be in no row any more. Where facts are not known yet, the next sweep finds the row.
func (w *worker) outcome(row *event.Row, d policy.Decision) ledger.Outcome {
	fate, long := w.o.Known.Fate(row), w.chunk.now.Add(-settled)
	switch {
	case fate.Erased && !fate.Held:
		return ledger.Suppressed
	case d.Expired && !fate.HeldBefore(d.ExpiresAt), !fate.Expires.After(long):
		return ledger.Expired
	case fate.Held && !d.ExpiresAt.After(w.chunk.now.Add(unswept)):
		row.ExpiresOverride = fate.Override
	}
	if people := fate.Without(long, true); len(people) > 0 {
		w.o.Known.Strip(row, people)
	}
	return ledger.Stored
}

// moved enters a row that is stored as if a sweep had moved it. It copies what is the record's.
func moved(row *event.Row) event.Move {
	return event.Move{To: row.ExpiresOverride, Cause: string(retention.ByHold), Row: &event.Row{
		Kind: row.Kind, ID: strings.Clone(row.ID), Source: strings.Clone(row.Source), ReceivedAt: row.ReceivedAt, ExpiresOverride: row.ExpiresOverride,
		Retention: row.Retention, Bucket: row.Bucket, RetainedFrom: row.RetainedFrom, Topic: row.Topic, Partition: row.Partition, Offset: row.Offset,
	}}
}

// remember copies facts, whose strings are the record's.
func (w *worker) remember(facts []event.Fact) {
	for _, f := range facts {
		f.Subject, f.Action, f.Tier = strings.Clone(f.Subject), strings.Clone(f.Action), strings.Clone(f.Tier)
		f.Source, f.ID = strings.Clone(f.Source), strings.Clone(f.ID)
		w.chunk.facts = append(w.chunk.facts, w.o.Known.Remember(f)...)
	}
}

// asked is what an officer asked for: an erasure or a hold.
type asked struct {
	erasure *event.Erasure
	hold    *event.Hold
}

// learn keeps what an event records of an erasure or a hold: a database that came back
// from a backup may not know it.
func (w *worker) learn(p *partition, row *event.Row) {
	e, h, err := w.o.Known.Recorded(row)
	switch {
	case err != nil:
		w.metrics.unlearned.Inc()
		w.log.Error("the record of an erasure or a hold cannot be used: a restored database would not learn it", "partition", p.String(), "offset", row.Offset, "error", err)
	case e != nil && e.ForgetAt.After(w.chunk.now), h != nil && h.ForgetAt.After(w.chunk.now):
		w.chunk.asked = append(w.chunk.asked, asked{e, h})
	}
}
