package policy

import (
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

// Rule is one rule of the file as a person reads it.
type Rule struct {
	Number int // in the order of the file, from 1
	Line   int // in the policy file
	Class  string
	When   string // its conditions in words, such as "kind audit; event.action billing.*"
	Kinds  event.KindSet
}

// Rules returns the rules in the order of the file.
func (p *Policy) Rules() []Rule { return append([]Rule(nil), p.listed...) }

// Explain returns the number of the rule that takes an event and the key of the
// stored class that it is given, for a person who asks why. The rule is 0 where none
// matches, and the key is empty where Decide would refuse the event.
func (p *Policy) Explain(e *event.Event) (rule int, key string) {
	rules := p.rules[e.Kind]
	for i := range rules {
		if !rules[i].matches(e) {
			continue
		}
		s, err := rules[i].class.choose(e)
		if err != nil {
			return rules[i].number, ""
		}
		return rules[i].number, s.Key
	}
	return 0, ""
}

// Asked returns what the class of an event of a kind depends on: the attributes
// whose value is compared, and those of which it matters only whether they are there.
func (p *Policy) Asked(k event.Kind) (compared, present []event.Attr) {
	var values, there [event.NumAttrs]bool
	for i := range p.rules[k] {
		r := &p.rules[k][i]
		for _, c := range r.conds {
			values[c.attr] = true
		}
		for _, a := range r.has {
			there[a] = true
		}
		for _, a := range r.lacks {
			there[a] = true
		}
		if r.class.tiers != nil {
			values[event.PlanTier] = true
		}
		bearers := []bearer{r.class.bearer}
		if r.class.sooner != nil {
			bearers = append(bearers, r.class.sooner.bearer)
		}
		for _, b := range bearers {
			for _, a := range b.attributes() {
				there[a] = true
			}
			if b.person() {
				values[event.TargetType] = true // says whether the target is a person
			}
		}
	}
	for a := range event.Attr(event.NumAttrs) {
		switch {
		case !event.Attributes[a].Kinds.Has(k):
		case values[a]:
			compared = append(compared, a)
		case there[a]:
			present = append(present, a)
		}
	}
	return compared, present
}

// attributes are those that carried looks at.
func (b bearer) attributes() []event.Attr {
	switch b {
	case onUser:
		return []event.Attr{event.UserID, event.OnBehalfOf, event.TargetID, event.TargetOwner}
	case onMember:
		return append(onUser.attributes(), event.OrganizationID)
	case onOrganization:
		return []event.Attr{event.OrganizationID}
	case onWorkspace:
		return []event.Attr{event.WorkspaceID}
	case onProject:
		return []event.Attr{event.ProjectID}
	case onDeployment:
		return []event.Attr{event.DeploymentID}
	}
	return nil
}

// list writes the rules down for people.
func list(rules []*rule) []Rule {
	var out []Rule
	for _, r := range rules {
		out = append(out, Rule{Number: r.number, Line: r.at.Line, Class: r.class.name, When: words(resolve(r.at, "when")), Kinds: r.kinds})
	}
	return out
}

// words writes a mapping of words or lists of words in one line.
func words(n *yaml.Node) string {
	var parts []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		value := n.Content[i+1].Value
		for j, c := range n.Content[i+1].Content {
			if j > 0 {
				value += ", "
			}
			value += c.Value
		}
		parts = append(parts, n.Content[i].Value+" "+value)
	}
	return strings.Join(parts, "; ")
}

// String names the rule, such as "rule 3 (line 21)".
func (r Rule) String() string {
	return "rule " + strconv.Itoa(r.Number) + " (line " + strconv.Itoa(r.Line) + ")"
}
