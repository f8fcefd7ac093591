package proof

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// judge makes the report of what was measured.
func (p *Prover) judge(f *facts, ask Ask) *Report {
	o := p.o.Policy
	r := &Report{
		Format: Format, At: f.now, Partly: ask.Cheap, NoTopics: f.noTopics,
		Policy:   Policy{Name: o.Name, Version: o.Version, TextSHA256: o.TextSHA256, Grace: span(o.Grace), BackupAge: o.BackupAge.String()},
		Verified: verified(ask.Verified),
		Faults:   p.faults(f, ask),
	}
	if !o.Dated.IsZero() {
		r.Policy.TextDated = o.Dated.Format(time.DateOnly)
	}
	var faults []Fault
	if !ask.Cheap {
		r.Rules, r.Mapping, faults = p.mapping(f, ask)
		r.Faults = append(r.Faults, faults...)
	}
	r.Topics, faults = p.topicRows(f)
	r.Faults = append(r.Faults, faults...)
	r.Classes = p.classRows(f)
	r.Tables = p.tableRows(f, r)
	j := &judgement{p: p, f: f, r: r, verified: ask.Verified != nil}
	for i := range o.Sentences {
		r.Sentences = append(r.Sentences, j.sentence(&o.Sentences[i]))
	}
	for i := range o.Operator {
		r.Operator = append(r.Operator, j.operator(&o.Operator[i]))
	}
	r.count(ask.Signed != nil)
	return r
}

func verified(v *Verification) Verified {
	if v == nil {
		return Verified{Says: "not verified here: whether rows vanished early, ingest policy prove says, which reads the ledger and the rows"}
	}
	says := "every offset that was consumed is accounted for, and its row is there or has expired"
	if n := len(v.Findings); n > 0 {
		says = fmt.Sprintf("the ledger and the rows do not agree: %d findings", n)
	}
	return Verified{Ran: true, At: when(v.At), Rows: v.Rows, Believed: v.Believed, Findings: len(v.Findings), Says: says}
}

// topicRows compares the topics with their bounds.
func (p *Prover) topicRows(f *facts) (lines []TopicRow, faults []Fault) {
	for _, t := range f.topics {
		line := TopicRow{Name: t.Name, Worst: "none", Under: span(t.Under), Promise: t.Promise, Says: "as it must be"}
		switch {
		case t.Missing:
			line.Worst, line.Says = "unknown", "it does not exist yet"
		case t.Ends:
			line.Worst = span(t.Worst)
		}
		if t.Exceeds != "" {
			line.Says = t.Exceeds
			faults = append(faults, Fault{Kind: topicOutlives, Topic: t.Name, Text: t.Exceeds})
		}
		lines = append(lines, line)
	}
	return lines, faults
}

// classRows is one line per table and stored class: those of the policy file, in its
// order, then those that only rows of earlier ones have.
func (p *Prover) classRows(f *facts) []Class {
	var lines []Class
	line := func(table, key, promise string, current bool) {
		if slices.ContainsFunc(lines, func(c Class) bool { return c.Table == table && c.Stored == key }) {
			return
		}
		c := Class{Table: table, Stored: key, Promise: promise, Current: current, TTL: f.inForce(table, key), Reached: f.reached(table, key, p.o.Policy.Grace)}
		for _, m := range f.classes {
			if m.Table != table || m.Retention != key {
				continue
			}
			c.Rows, c.Moved, c.Waiting, c.Past, c.PastGrace = m.Rows, m.Moved, m.Waiting, m.Past, m.PastGrace
			c.Oldest, c.Newest, c.Next = when(m.Oldest), when(m.Newest), when(m.NextExpiry)
			if !m.Overdue.IsZero() {
				c.Late = int64(f.now.Sub(m.Overdue) / time.Second)
			}
		}
		lines = append(lines, c)
	}
	for _, s := range p.o.Policy.Stored() {
		for _, k := range event.Kinds {
			if s.Kinds.Has(k) {
				line(k.Table(), s.Key, promised(s), true)
			}
		}
	}
	for _, m := range f.classes {
		_, _, promise := policy.SplitKey(m.Retention)
		line(m.Table, m.Retention, cmp.Or(promise, "none"), false)
	}
	return lines
}

func promised(s policy.StoredClass) string {
	switch {
	case s.From == "event":
		return s.Keep + " from the event"
	case s.Within:
		return s.Keep + " of " + s.From
	}
	return s.Keep + " after " + s.From
}

// reached counts the rows that have come to their end, by the account: those of days
// that are over with the grace, and those whose moved expiry is.
func (f *facts) reached(table, key string, grace time.Duration) (n uint64) {
	if c, ok := f.registered[key]; ok && !c.Period.Sentinel {
		for _, x := range f.cells {
			end := c.Period.End(time.Unix(int64(x.Day+1)*86400-1, 0))
			if f.since[key].After(end) {
				end = f.since[key]
			}
			if x.Table == table && x.Retention == key && !end.Add(grace).After(f.now) {
				n += x.Rows
			}
		}
	}
	return n + f.moved(table, key)
}

// moved counts the rows whose moved expiry is over with the grace.
func (f *facts) moved(table, key string) (n uint64) {
	for _, m := range f.moves {
		if m.Table == table && m.Retention == key {
			n += m.Due
		}
	}
	return n
}

// begun says what has come that begins the periods of an anchor; "": nothing.
func (f *facts) begun(anchor string) string {
	var come []string
	for _, a := range f.anchors {
		if policy.Begins(a.Action, anchor) {
			come = append(come, a.Action+" has come "+times(a.Count))
		}
	}
	return strings.Join(come, ", ")
}
