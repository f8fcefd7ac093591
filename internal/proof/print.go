package proof

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report for a person. It holds classes, counts and our own words,
// no row and no sentence of the published text.
func (r *Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "policy %s, version %s, at %s UTC; grace %s, backups up to %s old\n", r.Policy.Name, r.Policy.Version, stamp(r.At), r.Policy.Grace, r.Policy.BackupAge)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nVERDICT\tSECTION\tSENTENCE")
	for i := range r.Sentences {
		s := &r.Sentences[i]
		fmt.Fprintf(t, "%s\t%s\t%s: %s\n", s.Verdict, s.Section, s.About, s.Why)
		for j := range s.Binds {
			fmt.Fprintf(t, "\t\t  %s\n", s.Binds[j].words())
		}
	}
	fmt.Fprintln(t, "\nVERDICT\tVALUE OF THE OPERATOR\tREVIEW\tOWNER\tBASIS")
	for i := range r.Operator {
		o := &r.Operator[i]
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s: %s%s\n", o.Verdict, o.Name, o.Value, o.Review, o.Owner, o.Basis, o.Why, o.words())
	}
	fmt.Fprintln(t, "\nTABLE\tSTORED CLASS\tTTL IN FORCE\tROWS\tOLDEST\tNEXT EXPIRY\tMOVED\tWAITING\tPAST EXPIRY\tPAST GRACE\tREACHED LIMIT")
	for i := range r.Classes {
		c := &r.Classes[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", c.Table, c.Stored, c.TTL, c.Rows, day(c.Oldest), day(c.Next), c.Moved, c.Waiting, c.Past, c.PastGrace, c.Reached)
	}
	if !r.Partly {
		r.printRules(t)
	}
	fmt.Fprintln(t, "\nTOPIC\tWORST AGE\tMUST BE UNDER\tBECAUSE OF\t")
	if r.NoTopics != "" {
		fmt.Fprintf(t, "unknown: %s\n", r.NoTopics)
	}
	for _, k := range r.Topics {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", k.Name, k.Worst, k.Under, k.Promise, k.Says)
	}
	fmt.Fprintln(t, "\nTABLE\tROWS\tOLDEST\tTTL\tPERSONAL DATA\tKEPT\t")
	for i := range r.Tables {
		x := &r.Tables[i]
		ttl := orNone(x.TTL)
		if _, ok := kindOf(x.Name); ok {
			ttl = "by class, above"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", x.Name, x.Rows, day(x.Oldest), ttl, x.Holds, x.Kept, x.Says)
	}
	if len(r.Faults) > 0 {
		fmt.Fprintln(t, "\nFAULT\tWHAT")
	}
	for _, f := range r.Faults {
		fmt.Fprintf(t, "%s\t%s\n", f.Kind, f.Text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nrows that vanished early: %s\n", r.Verified.Says)
	for _, v := range Verdicts {
		fmt.Fprintf(out, "%s %d  ", v, r.Verdicts[v])
	}
	_, err := fmt.Fprintf(out, "\n%s\n", map[string]string{
		green: "green: nothing is broken", broken: "BROKEN: see the faults and the verdicts",
		unsigned: "nothing is broken, and nobody has signed off which class events are stored under: read that list, and then give this document as --signed-off",
	}[r.Result])
	return err
}

func (r *Report) printRules(t io.Writer) {
	fmt.Fprintln(t, "\nRULE\tLINE\tCLASS\tROWS\tWHEN")
	for _, x := range r.Rules {
		fmt.Fprintf(t, "%d\t%d\t%s\t%d\t%s\n", x.Number, x.Line, x.Class, x.Rows, x.When)
	}
	fmt.Fprintln(t, "\nTO BE SIGNED OFF: KIND\tACTION\tSTORED AS\tROWS\tRULE TODAY\t")
	for _, m := range r.Mapping {
		differs := ""
		if m.Differs {
			differs = "today it would be " + orNone(m.Today)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", m.Kind, orDash(m.Action), m.Stored, m.Rows, m.Rule, differs)
	}
}

// words is one line.
func (b *Bound) words() string {
	parts := []string{b.Path}
	if b.Value != "" {
		parts[0] += " " + b.Value
	}
	if b.From != "" {
		parts[0] += " from " + b.From
	}
	parts = append(parts, string(b.Verdict))
	if len(b.TTL) > 0 {
		parts = append(parts, "TTL in force: "+strings.Join(b.TTL, " and "))
	}
	if b.WorstCase != "" {
		parts = append(parts, "worst case "+b.WorstCase)
	}
	if len(b.Operator) > 0 {
		parts = append(parts, "with the operator's "+strings.Join(b.Operator, ", "))
	}
	return strings.Join(parts, "; ") + b.Counts.words()
}

func (n *Counts) words() string {
	if n == nil {
		return ""
	}
	if n.Rows+n.Reached == 0 {
		return "; no rows"
	}
	text := fmt.Sprintf("; %s, oldest %s, %d past expiry, %d past the grace", rows(n.Rows), day(n.Oldest), n.Past, n.PastGrace)
	if n.Vanished != nil {
		text += fmt.Sprintf(", %d findings of rows that vanished early", *n.Vanished)
	}
	return text
}

func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.DateOnly)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
