package proof

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// judgement is the report while verdicts are found.
type judgement struct {
	p        *Prover
	f        *facts
	r        *Report
	verified bool
}

// sentence gives the verdict on one sentence: the last of those on what it binds.
func (j *judgement) sentence(s *policy.Sentence) Sentence {
	line := Sentence{Section: s.Section, About: s.About, SHA256: s.SHA256, Line: s.Line, Binds: []Bound{}}
	for _, path := range s.Binds {
		n := len(line.Binds)
		for _, v := range s.Values {
			// Its bounds, the loader of the policy file holds the others to.
			if (v.Path == path || strings.HasPrefix(v.Path, path+".")) && !v.Bound {
				line.Binds = append(line.Binds, j.bound(v))
			}
		}
		if len(line.Binds) == n { // it binds no period, but which one counts, or whether
			line.Binds = append(line.Binds, j.bound(policy.Value{Path: path}))
		}
	}
	if len(line.Binds) == 0 {
		line.Verdict, line.Why = Waived, s.Waived
		return line
	}
	for i, b := range line.Binds {
		if i == 0 || slices.Index(Verdicts, b.Verdict) > slices.Index(Verdicts, line.Verdict) {
			line.Verdict, line.Why = b.Verdict, b.Why
		}
	}
	return line
}

// bound gives the verdict on one value that a sentence binds.
func (j *judgement) bound(v policy.Value) Bound {
	b := Bound{Path: v.Path, Value: j.value(v), From: v.From}
	head, rest, _ := strings.Cut(v.Path, ".")
	switch head {
	case "classes":
		j.class(&b, v, rest)
	case "erasure":
		j.erasure(&b, v, rest)
	case "operator":
		b.Verdict, b.Why = Silent, "an operator's value: see its own line"
		if rest == "backup_max_age" || strings.HasPrefix(rest, "backup_max_age.") {
			b.Verdict, b.Why = Unprovable, j.backups()
		}
	default:
		b.Verdict, b.Why = Unprovable, cmp.Or(unseen[head], "nothing in the tables shows it")
	}
	return b
}

// unseen says why nothing inside can prove what a section of the policy file holds.
var unseen = map[string]string{
	"rights":          "who asked for what, and when the answer went out, happens outside",
	"minors":          "no age is stored: whose data is that of a minor, only people can tell",
	"storage_regions": "the services start only where the countries that the operator declares are allowed; that the machines, the backups and the exports are there cannot be seen from inside",
	"purposes":        "what people use the data for cannot be seen from inside",
	"complaint":       "it says whom people can turn to, and promises no time",
}

func (j *judgement) backups() string {
	return "the age of backups cannot be seen from inside: whoever makes them must show that none is older than " + j.p.o.Policy.BackupAge.String()
}

func (j *judgement) value(v policy.Value) string {
	switch {
	case v.Age > 0:
		return strconv.Itoa(v.Age) + " years of age"
	case v.Period != policy.Period{}:
		return v.Period.String()
	case v.Operator:
		return "left to the operator"
	}
	return ""
}

// erasure gives the verdict on how soon what is erased is gone.
func (j *judgement) erasure(b *Bound, v policy.Value, rest string) {
	e, o := j.f.erasures, j.p.o.Policy
	late := slices.IndexFunc(j.r.Faults, func(f Fault) bool { return f.Kind == erasureLate })
	switch {
	case late >= 0:
		b.Verdict, b.Why = Broken, j.r.Faults[late].Text
	case rest == "everywhere":
		b.Verdict, b.Why = Unprovable, j.backups()
		b.WorstCase = fmt.Sprintf("%s until the tables are clean, and then %s of backups", o.Primary, o.BackupAge)
	case e.Done > 0:
		b.Verdict, b.Why = Enforced, fmt.Sprintf("%d erasures are done, none is past its deadline", e.Done)
	case v.Operator:
		b.Verdict, b.Why = Silent, "the text leaves it open; the operator says "+o.Primary.String()+", and no erasure is done yet"
	default:
		b.Verdict, b.Why = Untested, "no erasure is done yet"
	}
}

// class gives the verdict on the period of a class.
func (j *judgement) class(b *Bound, v policy.Value, rest string) {
	variants := j.variants(rest)
	sooner := strings.Contains(rest, ".sooner")
	keys, kinds, anchor := map[string]bool{}, event.KindSet(0), ""
	for _, s := range variants {
		keys[s.Key] = true
		kinds |= s.Kinds
		if sooner || s.From == s.Anchor { // else it only may end sooner
			anchor = s.Anchor
		}
		if s.Operator != "" && !slices.Contains(b.Operator, s.Operator) {
			b.Operator = append(b.Operator, s.Operator)
		}
	}
	j.older(keys, rest)
	for _, c := range j.r.Classes {
		if keys[c.Stored] && !slices.Contains(b.TTL, c.TTL) {
			b.TTL = append(b.TTL, c.TTL)
		}
	}
	b.Counts = j.counts(keys, sooner)
	b.WorstCase = j.worst(v, rest)
	b.Verdict, b.Why = j.kept(keys, kinds, b.Counts, anchor)
	if b.Verdict != Broken && strings.HasSuffix(rest, ".erasable") {
		b.Verdict, b.Why = Untested, "no erasure has had to leave such rows yet"
		return
	}
	if b.Verdict == Enforced && j.f.noTopics != "" {
		b.Verdict, b.Why = Unprovable, "the tables keep it, but how long the topics keep records is not known: "+j.f.noTopics
	}
	if topic := j.outlived(v.Period, kinds); b.Verdict != Broken && topic != "" {
		b.Verdict, b.Why = Broken, topic
	}
}

// variants are the stored classes that a path below classes is about. What is stored
// without its anchor or tier, an operator's value decides and no sentence.
func (j *judgement) variants(path string) []policy.StoredClass {
	words := strings.Split(path, ".")
	return slices.DeleteFunc(j.p.o.Policy.Stored(), func(s policy.StoredClass) bool {
		switch {
		case s.Class != words[0]:
			return true
		case len(words) > 1 && words[1] == "sooner":
			return s.Anchor == "" || s.Tier == withoutAnchor
		case len(words) > 2 && words[1] == "keep" && words[2] != "bounds":
			return s.Tier != words[2]
		}
		return s.Tier == withoutAnchor
	})
}

const withoutAnchor = "without"

// older adds the promises that earlier policy files made for the class, and what rows
// of it say that no file made.
func (j *judgement) older(keys map[string]bool, path string) {
	name, _, _ := strings.Cut(path, ".")
	for _, c := range j.r.Classes {
		class, tier, _ := policy.SplitKey(c.Stored)
		if !c.Current && class == name && tier != withoutAnchor {
			keys[c.Stored] = true
		}
	}
}

// counts adds up the rows of stored classes. What an anchor ends sooner has reached that
// limit only where it was moved.
func (j *judgement) counts(keys map[string]bool, moved bool) *Counts {
	n := new(Counts)
	for _, c := range j.r.Classes {
		if !keys[c.Stored] {
			continue
		}
		n.Rows += c.Rows
		n.Past += c.Past
		n.PastGrace += c.PastGrace
		if moved {
			n.Reached += j.f.moved(c.Table, c.Stored)
		} else {
			n.Reached += c.Reached
		}
		if c.Oldest != nil && (n.Oldest == nil || c.Oldest.Before(*n.Oldest)) {
			n.Oldest = c.Oldest
		}
	}
	if j.verified {
		vanished := uint64(0)
		for _, f := range j.r.Faults {
			if f.Kind == unaccounted && slices.ContainsFunc(f.Classes, func(c string) bool { return keys[c] }) {
				vanished++
			}
		}
		n.Vanished = &vanished
	}
	return n
}

// kept says whether the periods of stored classes are kept.
func (j *judgement) kept(keys map[string]bool, kinds event.KindSet, n *Counts, anchor string) (Verdict, string) {
	var faults []string
	for i := range j.r.Faults {
		if f := &j.r.Faults[i]; f.touches(keys, kinds) {
			faults = append(faults, f.Text)
		}
	}
	switch len(faults) {
	case 0:
	case 1:
		return Broken, faults[0]
	default:
		return Broken, fmt.Sprintf("%s; and %d more faults", faults[0], len(faults)-1)
	}
	switch {
	case n.Reached > 0:
		return Enforced, rows(n.Reached) + " reached the limit, and none is left beyond it and the grace"
	case anchor != "":
		if come := j.f.begun(anchor); come != "" {
			return Untested, come + "; no row has reached the limit that it sets"
		}
		return Untested, "no " + anchor + " has come yet"
	case n.Rows == 0:
		return Untested, "there is no row yet"
	}
	return Untested, "no row has reached the limit yet"
}

// outlived says which topic of the kinds may keep a record beyond a period; "": none.
func (j *judgement) outlived(period policy.Period, kinds event.KindSet) string {
	if period == (policy.Period{}) {
		return ""
	}
	length := period.End(j.f.now).Sub(j.f.now)
	for _, t := range j.f.topics {
		if t.Exceeds != "" && t.Kinds&kinds != 0 && (!t.Ends || t.Worst >= length) {
			return t.Exceeds
		}
	}
	return ""
}

// worst is the longest that a byte can be anywhere: a backup that was made just
// before the row went keeps it for as long as backups may get old.
func (j *judgement) worst(v policy.Value, rest string) string {
	o := j.p.o.Policy
	if v.Period == (policy.Period{}) {
		return ""
	}
	sum := v.Period.String() + " + " + o.BackupAge.String()
	if v.Period.Months == 0 && o.BackupAge.Months == 0 {
		sum = policy.Period{Days: v.Period.Days + o.BackupAge.Days}.String()
	}
	if strings.HasSuffix(rest, ".within") {
		return sum + " with backups" // its bytes are gone before its end
	}
	return sum + " with backups, and the grace of " + span(o.Grace)
}

// operator gives the verdict on one value that the text leaves open.
func (j *judgement) operator(o *policy.Operator) Operator {
	line := Operator{Name: o.Name, Value: o.Value, Basis: o.Basis, Owner: o.Owner, Review: o.Review.Format(time.DateOnly), Verdict: Silent,
		Why: "the text leaves it open"}
	if o.Name == "backup_max_age" {
		line.Why += "; " + j.backups()
	}
	keys, kinds, anchor := map[string]bool{}, event.KindSet(0), ""
	for _, s := range j.p.o.Policy.Stored() {
		if s.Operator == o.Name {
			keys[s.Key] = true
			kinds |= s.Kinds
			if s.From == s.Anchor {
				anchor = s.Anchor
			}
		}
	}
	if len(keys) > 0 {
		line.Counts = j.counts(keys, false)
		verdict, why := j.kept(keys, kinds, line.Counts, anchor)
		if verdict == Broken {
			line.Verdict = Broken
		}
		line.Why += "; " + string(verdict) + ": " + why
	}
	if j.f.now.After(o.Review) {
		line.Verdict, line.Why = Broken, "it was to be reviewed by "+line.Review
	}
	return line
}
