package proof

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// mapping finds the rule that each stored row matches today. Rows that were stored under
// the file in force and that it would store otherwise are a fault; of those of earlier
// files it is only said.
func (p *Prover) mapping(f *facts, ask Ask) (rules []Rule, lines []Mapping, faults []Fault) {
	for _, r := range p.o.Policy.Rules() {
		rules = append(rules, Rule{Number: r.Number, Line: r.Line, When: r.When, Class: r.Class})
	}
	type key struct {
		kind                  event.Kind
		action, stored, today string
		rule                  int
	}
	counts, wrong := map[key]uint64{}, map[key]uint64{}
	for i := range f.groups {
		g := &f.groups[i]
		rule, today := p.o.Policy.Explain(p.eventOf(g))
		k := key{g.Kind, g.Action, g.Retention, today, rule}
		counts[k] += g.Rows
		if rule > 0 {
			rules[rule-1].Rows += g.Rows
		}
		if g.Current && today != g.Retention {
			wrong[k] += g.Rows
		}
	}
	for k, n := range counts {
		lines = append(lines, Mapping{k.kind.String(), k.action, k.stored, k.rule, k.today, n, k.stored != k.today})
		if w := wrong[k]; w > 0 {
			faults = append(faults, Fault{Kind: wrongRule, Table: k.kind.Table(), Classes: nonEmpty(k.stored, k.today),
				Text: fmt.Sprintf("%s of %s %s were stored as %s under this policy file, which says %s (rule %d)", rows(w), k.kind, cmp.Or(k.action, "events"), k.stored, orNone(k.today), k.rule)})
		}
	}
	order := func(a, b Mapping) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Stored, b.Stored), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Today, b.Today))
	}
	slices.SortFunc(lines, order)
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Text, b.Text) })
	if ask.Signed != nil {
		faults = append(faults, unsignedLines(lines, ask.Signed)...)
	}
	return rules, lines, faults
}

// unsignedLines are those that a person has not seen yet.
func unsignedLines(lines, signed []Mapping) (faults []Fault) {
	for _, m := range lines {
		if slices.ContainsFunc(signed, func(s Mapping) bool { s.Rows, s.Rule = m.Rows, m.Rule; return s == m }) {
			continue
		}
		faults = append(faults, Fault{Kind: unsigned, Text: fmt.Sprintf("nobody has signed off that %s %s is stored as %s", m.Kind, cmp.Or(m.Action, "events"), m.Stored)})
	}
	return faults
}

// eventOf makes an event of which the policy's rules can ask what they asked of those
// that the rows came from. What a user id that was an e-mail has left behind stands
// elsewhere in the row: a rule that asks whether there is a user.id sees none.
func (p *Prover) eventOf(g *measured.Group) *event.Event {
	e := &event.Event{Kind: g.Kind}
	compared, present := p.o.Policy.Asked(g.Kind)
	for i, a := range compared {
		if v := g.Compared[i]; v != "" {
			e.Set(a, v)
		}
	}
	for i, a := range present {
		switch v := g.Present[i]; {
		case v == "":
		case a == event.TargetOwner:
			e.Owners = []string{v}
		case a == event.Metadata:
			e.Metadata = []event.Pair{{Key: v}}
		default:
			e.Set(a, v)
		}
	}
	return e
}

func nonEmpty(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" })
}
