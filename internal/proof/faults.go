package proof

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// The kinds of faults: a closed list, because the metric has them as a label.
const (
	wrongTTL      = "ttl"      // a table's TTL is not the policy's
	wrongAlias    = "alias"    // readers and the TTL do not agree
	wrongSetting  = "setting"  // a setting that decides when the TTL acts
	detached      = "detached" // parts that no TTL reaches
	noTable       = "no_table" // a table is missing
	copied        = "copy"     // a table of people that is none of ours
	wrongPromise  = "promise"  // the register does not say what the policy file does
	unknownClass  = "class"    // rows of a class that was never registered
	late          = "late"     // rows past their expiry and the grace
	misplaced     = "bucket"   // rows in a bucket of another time
	misdated      = "date"     // rows whose period counts from another instant
	unexplained   = "override" // moved rows that no move explains
	unmoved       = "unmoved"  // moves that were not carried out
	topicOutlives = "topic"    // a topic that keeps records for too long
	wrongRule     = "rule"     // rows that the file in force would store otherwise
	unsigned      = "unsigned" // a mapping that nobody has signed off
	unaccounted   = "ledger"   // what the verification of the ledger found
	reviewDue     = "review"   // an operator's value whose review has passed
	erasureLate   = "erasure"  // an erasure past its deadline
)

// Kinds lists the kinds of faults.
var Kinds = []string{
	wrongTTL, wrongAlias, wrongSetting, detached, noTable, copied, wrongPromise, unknownClass, late, misplaced, misdated, unexplained, unmoved,
	topicOutlives, wrongRule, unsigned, unaccounted, reviewDue, erasureLate,
}

// touches reports whether a fault breaks what is promised of these stored classes, in
// these tables. One that names neither speaks of no promise in particular.
func (f *Fault) touches(classes map[string]bool, kinds event.KindSet) bool {
	if k, ok := kindOf(f.Table); f.Table != "" && (!ok || !kinds.Has(k)) {
		return false
	}
	return f.Table != "" && len(f.Classes) == 0 || slices.ContainsFunc(f.Classes, func(c string) bool { return classes[c] })
}

// faults finds everything that is not as it must be, but for what the rules and the
// topics show.
func (p *Prover) faults(f *facts, ask Ask) []Fault {
	var all []Fault
	add := func(kind, table string, classes []string, format string, args ...any) {
		all = append(all, Fault{Kind: kind, Table: table, Classes: classes, Text: fmt.Sprintf(format, args...)})
	}
	for i := range f.tables {
		p.tableFaults(f, &f.tables[i], add)
	}
	for _, k := range event.Kinds {
		if !slices.ContainsFunc(f.tables, func(t measured.Table) bool { return t.Name == k.Table() }) {
			add(noTable, k.Table(), nil, "%s does not exist", k.Table())
		}
	}
	for _, own := range owns {
		if !slices.ContainsFunc(f.tables, func(t measured.Table) bool { return t.Name == own.name }) {
			add(noTable, own.name, nil, "%s does not exist", own.name)
		}
	}
	for _, c := range f.classes {
		one := []string{c.Retention}
		say := func(kind string, n uint64, format string, args ...any) {
			if n > 0 {
				add(kind, c.Table, one, "%s: "+format, append([]any{rows(n) + " of " + c.Retention + " in " + c.Table}, args...)...)
			}
		}
		if _, ok := f.registered[c.Retention]; !ok {
			say(unknownClass, c.Rows, "no policy file has made this promise, so they never expire")
			continue
		}
		say(late, c.PastGrace, "past their expiry and the grace of %s; the first expired at %s", span(p.o.Policy.Grace), stamp(c.Overdue))
		say(misplaced, c.Misplaced, "in a bucket that is not that of their period")
		say(misdated, c.Misdated, "their period counts from another instant than that of their event")
	}
	for _, s := range p.o.Policy.Stored() {
		if r, ok := f.registered[s.Key]; ok && (r.Promise() != s.Promise() || r.KeyedBy != s.KeyedBy) {
			add(wrongPromise, "", []string{s.Key}, "retention_classes and retention_shortenings promise %s of %s, and the policy file %s", r.Promise(), s.Key, s.Promise())
		}
	}
	for _, class := range slices.Sorted(maps.Keys(f.ended)) {
		for _, table := range slices.Sorted(maps.Keys(f.ended[class])) {
			if n := f.ended[class][table]; n > 0 {
				add(unmoved, table, []string{class}, "%s of %s in %s: what they hang on was deleted so long ago that they must be gone, and their expiry was not moved", rows(n), class, table)
			}
		}
	}
	for _, o := range f.overrides {
		one := []string{o.Retention}
		if o.Unexplained > 0 {
			add(unexplained, o.Table, one, "%s of %s in %s: their expiry was moved, and retention_moves does not say so", rows(o.Unexplained), o.Retention, o.Table)
		}
		if o.Unmoved > 0 {
			add(unmoved, o.Table, one, "%s of %s in %s: retention_moves says that their expiry was moved more than %s ago, and it was not", rows(o.Unmoved), o.Retention, o.Table, span(settling))
		}
	}
	for _, o := range p.o.Policy.Operator {
		if f.now.After(o.Review) {
			add(reviewDue, "", nil, "operator.%s was to be reviewed by %s", o.Name, o.Review.Format(time.DateOnly))
		}
	}
	if n := f.erasures.Late; n > 0 {
		add(erasureLate, "", nil, "%d erasures are past their deadline, and their rows may be left in the tables", n)
	}
	if n := f.erasures.NotAllGone; n > 0 {
		add(erasureLate, "", nil, "%d erasures are not done, although nothing may be left anywhere", n)
	}
	if ask.Verified != nil {
		for _, x := range ask.Verified.Findings {
			var classes []string
			if x.Classes != "" {
				classes = strings.Split(x.Classes, ", ")
			}
			add(unaccounted, "", classes, "%s: %s", x.Kind, x.Text)
		}
	}
	return all
}

// tableFaults compares one table with what the policy file and the migrations made.
func (p *Prover) tableFaults(f *facts, t *measured.Table, add func(kind, table string, classes []string, format string, args ...any)) {
	if n := len(t.Detached); n > 0 {
		names := make([]string, 0, n)
		for _, d := range t.Detached {
			names = append(names, d.Name)
		}
		add(detached, t.Name, nil, "%s has %d detached parts, in which nothing expires: %s", t.Name, n, strings.Join(names, ", "))
	}
	own := ownOf(t.Name)
	if _, ok := kindOf(t.Name); !ok && own == nil {
		if t.People {
			add(copied, t.Name, nil, "%s has columns that name people and is none of Lethe's tables: nothing expires in it by the policy", t.Name)
		}
		return
	}
	p.settingFaults(t, add)
	if t.ColumnTTL {
		add(wrongTTL, t.Name, nil, "a column of %s has a TTL of its own, by which its values go before their rows", t.Name)
	}
	if own != nil {
		if own.ttl != t.TTL {
			add(wrongTTL, t.Name, nil, "the TTL of %s is %s and must be %s", t.Name, orNone(t.TTL), orNone(own.ttl))
		}
		if n := f.overdue[t.Name]; n > 0 {
			add(late, t.Name, nil, "%s in %s: past their TTL for more than %s", rows(n), t.Name, span(p.patience()))
		}
		return
	}
	if t.TTL != f.expires {
		add(wrongTTL, t.Name, f.differing(t.Name), "the TTL of %s is not that of the policy file: %s", t.Name, f.difference(t))
	}
	if t.ExpiresAt != t.TTL {
		add(wrongAlias, t.Name, nil, "the column expires_at of %s, by which readers go, is not the table's TTL", t.Name)
	}
}

// settingFaults finds settings that keep expired rows, or the bytes of replaced parts, for
// longer, whether they are the table's own or the server's.
func (p *Prover) settingFaults(t *measured.Table, add func(kind, table string, classes []string, format string, args ...any)) {
	_, events := kindOf(t.Name)
	if got, want := t.Settings[mergeTimeout], strconv.Itoa(p.o.MergeTimeout); events && got != want {
		add(wrongSetting, t.Name, nil, "%s of %s is %s and must be %s: expired rows wait for longer than the grace allows for", mergeTimeout, t.Name, cmp.Or(got, "not set"), want)
	}
	lasts := func(name string, longest time.Duration, why string) {
		if n, err := strconv.ParseInt(t.Settings[name], 10, 64); err == nil && n > int64(longest/time.Second) {
			add(wrongSetting, t.Name, nil, "%s of %s is %d: %s", name, t.Name, n, why)
		}
	}
	if !events {
		lasts(mergeTimeout, p.patience()/2, "what its TTL removes waits for longer than a day")
	}
	lasts("old_parts_lifetime", p.o.Policy.Grace/2, "a part keeps the bytes of what went for so many seconds after it was replaced")
	for _, name := range slices.Sorted(maps.Keys(t.Settings)) {
		if strings.Contains(name, "ttl") && name != mergeTimeout {
			add(wrongSetting, t.Name, nil, "%s of %s is %s, which nobody of us has set", name, t.Name, t.Settings[name])
		}
	}
}

const mergeTimeout = "merge_with_ttl_timeout"

// differing returns the classes that a table's TTL gives another end than their
// promise; nil where it is another expression that ends them alike.
func (f *facts) differing(table string) []string {
	var list []string
	for key, c := range f.registered {
		if at, ok := f.expiries[table][key]; !ok || !at.Equal(c.Period.End(f.now)) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// difference says it in words, for the first few.
func (f *facts) difference(t *measured.Table) string {
	if t.TTL == "" {
		return "it has none, and nothing expires"
	}
	if f.expiries[t.Name] == nil {
		return "it does not go by retention_class"
	}
	list := f.differing(t.Name)
	if len(list) == 0 {
		return "it is another expression, which today ends all classes as they must"
	}
	var parts []string
	for _, key := range list[:min(3, len(list))] {
		c := f.registered[key]
		parts = append(parts, fmt.Sprintf("a row of %s that counts from now expires at %s and must at %s", key, ends(f.expiries[t.Name][key]), ends(c.Period.End(f.now))))
	}
	if n := len(list) - len(parts); n > 0 {
		parts = append(parts, fmt.Sprintf("and so on for %d more", n))
	}
	return strings.Join(parts, "; ")
}

// inForce says what a table's TTL does to a class.
func (f *facts) inForce(table, key string) string {
	at, ok := f.expiries[table][key]
	c, known := f.registered[key]
	switch {
	case !ok && known:
		return "none"
	case !known:
		return "none: the class is unknown, so its rows never expire"
	case !at.Equal(c.Period.End(f.now)):
		return "a row that counts from now expires at " + ends(at)
	case c.Period.Sentinel:
		return "moved expiry, else never"
	}
	return "moved expiry, else " + c.Period.String() + " from retained_from"
}

func ends(at time.Time) string {
	if !at.Before(policy.Sentinel) {
		return "no known time"
	}
	return stamp(at)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func rows(n uint64) string {
	if n == 1 {
		return "1 row"
	}
	return strconv.FormatUint(n, 10) + " rows"
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return strconv.FormatUint(n, 10) + " times"
}

func orNone(s string) string { return cmp.Or(s, "none") }

// span writes a time with days where it has some, as policies do.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	days, rest := d/day, d%day
	switch {
	case days == 0:
		return shortened(rest)
	case rest == 0:
		return strconv.Itoa(int(days)) + "d"
	}
	return strconv.Itoa(int(days)) + "d" + shortened(rest)
}

func shortened(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
