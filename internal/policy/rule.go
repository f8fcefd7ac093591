package policy

import (
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

// rule chooses a class for the events that meet all of its conditions.
type rule struct {
	at     *yaml.Node
	number int // in the order of the file, from 1
	class  *class
	kinds  event.KindSet
	named  bool // the kinds are written down
	conds  []cond
	has    []event.Attr // at least one is present
	lacks  []event.Attr // none is present
}

// cond asks that an attribute is present and matches one of the patterns.
type cond struct {
	attr     event.Attr
	patterns []pattern
	first    [4]uint64 // the bytes a match can begin with: most values fail here
}

func newCond(a event.Attr, patterns []pattern) cond {
	c := cond{attr: a, patterns: patterns}
	for _, p := range patterns {
		if p.text == "" {
			c.first = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
			break
		}
		c.first[p.text[0]>>6] |= 1 << (p.text[0] & 63)
	}
	return c
}

// pattern is a text, or with a * at its end every text that begins so.
type pattern struct {
	text string
	open bool
}

func newPattern(s string) pattern {
	text, open := strings.CutSuffix(s, "*")
	return pattern{text, open}
}

func (p pattern) matches(s string) bool {
	return s == p.text || p.open && strings.HasPrefix(s, p.text)
}

// covers reports whether p matches all that q matches.
func (p pattern) covers(q pattern) bool {
	if q.open {
		return p.open && strings.HasPrefix(q.text, p.text)
	}
	return p.matches(q.text)
}

func (c *cond) matches(e *event.Event) bool {
	s := e.Text[c.attr]
	if s == "" || c.first[s[0]>>6]&(1<<(s[0]&63)) == 0 {
		return false
	}
	for i := range c.patterns {
		if c.patterns[i].matches(s) {
			return true
		}
	}
	return false
}

// matches reports whether an event of one of the rule's kinds meets the conditions.
func (r *rule) matches(e *event.Event) bool {
	for i := range r.conds {
		if !r.conds[i].matches(e) {
			return false
		}
	}
	for _, a := range r.lacks {
		if present(e, a) {
			return false
		}
	}
	for _, a := range r.has {
		if present(e, a) {
			return true
		}
	}
	return len(r.has) == 0
}

func present(e *event.Event, a event.Attr) bool {
	switch a {
	case event.TargetOwner:
		return len(e.Owners) > 0
	case event.Metadata:
		return len(e.Metadata) > 0
	}
	return e.Text[a] != "" || e.Has&(1<<a) != 0
}

// maxAtoms bounds the work of one proof that a rule is not shadowed.
const maxAtoms = 256

// reachable reports whether some event of kind k can come as far as r, past the
// rules before it. Where the proof would be long it answers yes.
func (r *rule) reachable(k event.Kind, before []*rule) bool {
	n := 1
	for _, c := range r.conds {
		n *= len(c.patterns)
		if n > maxAtoms {
			return true
		}
	}
	atom := rule{conds: make([]cond, len(r.conds)), has: r.has, lacks: r.lacks}
	for i := range n {
		for j, c := range r.conds {
			at := i % len(c.patterns)
			i /= len(c.patterns)
			atom.conds[j] = cond{attr: c.attr, patterns: c.patterns[at : at+1]}
		}
		if !slices.ContainsFunc(before, func(b *rule) bool { return b.kinds.Has(k) && b.covers(k, &atom) }) {
			return true
		}
	}
	return false
}

// covers reports whether b matches every event of kind k that q matches.
func (b *rule) covers(k event.Kind, q *rule) bool {
	for _, c := range b.conds {
		i := slices.IndexFunc(q.conds, func(d cond) bool { return d.attr == c.attr })
		if i < 0 {
			return false
		}
		for _, p := range q.conds[i].patterns {
			if !slices.ContainsFunc(c.patterns, func(o pattern) bool { return o.covers(p) }) {
				return false
			}
		}
	}
	for _, a := range b.lacks {
		if event.Attributes[a].Kinds.Has(k) && !slices.Contains(q.lacks, a) {
			return false
		}
	}
	if len(b.has) == 0 {
		return true
	}
	inHas := func(a event.Attr) bool { return slices.Contains(b.has, a) || !event.Attributes[a].Kinds.Has(k) }
	if len(q.has) > 0 && !slices.ContainsFunc(q.has, func(a event.Attr) bool { return !inHas(a) }) {
		return true
	}
	return slices.ContainsFunc(q.conds, func(c cond) bool { return slices.Contains(b.has, c.attr) })
}

// rules reads the list of rules and links each to its class.
func (l *loader) rules(n *yaml.Node) []*rule {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		l.fail(n, "rules: want a list")
		return nil
	}
	const maxRules = 256
	if len(n.Content) > maxRules {
		l.fail(n, "rules: more than %d", maxRules)
		return nil
	}
	var rules []*rule
	for _, c := range n.Content {
		r := l.rule(c)
		if r == nil {
			continue
		}
		r.number = len(rules) + 1
		l.shadows(r, rules)
		if r.class != nil {
			r.class.kinds |= r.kinds
		}
		rules = append(rules, r)
	}
	return rules
}

// shadows takes from a rule the kinds that the rules before it leave nothing of.
// For a rule that names its kinds that is an error, for one that is left nothing too.
func (l *loader) shadows(r *rule, before []*rule) {
	for _, k := range event.Kinds {
		if !r.kinds.Has(k) || r.reachable(k, before) {
			continue
		}
		r.kinds &^= 1 << k
		if r.named || r.kinds == 0 {
			l.fail(r.at, "rules: can never match: the rules before it take every such %s event", k)
		}
	}
}

func (l *loader) rule(n *yaml.Node) *rule {
	o := l.object(n, "rules")
	r := &rule{at: n}
	if name := l.text(o.need("class"), "rules: class"); name != "" {
		if r.class = l.classes[name]; r.class == nil {
			l.fail(o.get("class"), "rules: there is no class %q", name)
		}
	}
	when := o.need("when")
	o.done()
	if when == nil {
		return nil
	}
	before := len(l.errs)
	l.when(r, when)
	if len(l.errs) > before {
		return nil
	}
	return r
}

// when reads the conditions of a rule and works out the kinds it can match.
func (l *loader) when(r *rule, n *yaml.Node) {
	o := l.object(n, "rules: when")
	if len(o.keys) == 0 {
		l.fail(n, "rules: when: names no condition")
	}
	asked := event.KindSet(0)
	for _, word := range l.words(o.get("kind"), "rules: kind") {
		k, ok := event.ParseKind(word)
		if !ok {
			l.fail(o.get("kind"), "rules: kind: %q is none of request, audit, security", word)
		}
		asked |= 1 << k
	}
	r.has = l.attrs(o.get("has"), "rules: has")
	r.lacks = l.attrs(o.get("lacks"), "rules: lacks")
	for _, key := range o.keys {
		if o.asked[key.Value] {
			continue
		}
		a, ok := attrNamed(key.Value)
		if !ok {
			continue // done reports it
		}
		value := o.get(key.Value)
		l.cond(r, key, a, l.words(value, "rules: "+key.Value))
	}
	o.done()
	for _, a := range r.has {
		if slices.Contains(r.lacks, a) {
			l.fail(n, "rules: can never match: %s cannot be both there and absent", event.Attributes[a].Name)
		}
	}
	r.kinds = event.AllKinds
	if r.named = asked != 0; r.named {
		r.kinds = asked
	}
	for _, k := range event.Kinds {
		if !r.kinds.Has(k) {
			continue
		}
		if name := r.foreign(k); name != "" {
			r.kinds &^= 1 << k
			if r.named {
				l.fail(n, "rules: can never match a %s event: it has no %s", k, name)
			}
		}
	}
	if r.kinds == 0 && !r.named {
		l.fail(n, "rules: can never match: no kind of event has all of these attributes")
	}
}

// foreign names an attribute that the rule needs and events of kind k lack.
func (r *rule) foreign(k event.Kind) string {
	for _, c := range r.conds {
		if d := event.Attributes[c.attr]; !d.Kinds.Has(k) {
			return d.Name
		}
	}
	known := func(a event.Attr) bool { return event.Attributes[a].Kinds.Has(k) }
	if len(r.has) > 0 && !slices.ContainsFunc(r.has, known) {
		return event.Attributes[r.has[0]].Name
	}
	return ""
}

func (l *loader) cond(r *rule, key *yaml.Node, a event.Attr, words []string) {
	d := event.Attributes[a]
	if d.Type != event.String || d.Tag == event.Direct || d.Tag == event.Content {
		l.fail(key, "rules: %s cannot be compared; has and lacks ask whether it is there", d.Name)
		return
	}
	if slices.Contains(r.lacks, a) {
		l.fail(key, "rules: can never match: %s cannot be both there and absent", d.Name)
	}
	var patterns []pattern
	for _, w := range words {
		p := newPattern(w)
		if strings.Contains(p.text, "*") {
			l.fail(key, "rules: %s: %q: a * can stand at the end only", d.Name, w)
		}
		if d.Enum != nil && !slices.ContainsFunc(d.Enum, p.matches) {
			l.fail(key, "rules: %s: can never match: it is never %q", d.Name, w)
		}
		if slices.ContainsFunc(patterns, func(o pattern) bool { return o.covers(p) }) {
			l.fail(key, "rules: %s: %q can never match: the list has it already", d.Name, w)
		}
		patterns = append(patterns, p)
	}
	r.conds = append(r.conds, newCond(a, patterns))
}

// attrs reads a list of attribute names.
func (l *loader) attrs(n *yaml.Node, path string) []event.Attr {
	var attrs []event.Attr
	for _, w := range l.words(n, path) {
		a, ok := attrNamed(w)
		if !ok {
			l.fail(n, "%s: there is no attribute %q", path, w)
		}
		attrs = append(attrs, a)
	}
	return attrs
}

// attrNamed finds an attribute that any kind of event can have.
func attrNamed(name string) (event.Attr, bool) {
	for _, k := range event.Kinds {
		if a, ok := event.Lookup(k, name); ok {
			return a, true
		}
	}
	return 0, false
}
