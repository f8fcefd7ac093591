package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

const maxClasses, maxTiers = 64, 16

func (l *loader) readClasses(n *yaml.Node, grace time.Duration) {
	if n == nil {
		return
	}
	o := l.object(n, "classes")
	if len(o.keys) == 0 || len(o.keys) > maxClasses {
		l.fail(n, "classes: want between 1 and %d", maxClasses)
		return
	}
	for _, key := range o.keys {
		if !isName(key.Value) {
			l.fail(key, "classes: %q is no name: want lower-case letters, digits and _", key.Value)
		}
		c := &class{name: key.Value, at: key, erasable: true}
		c.unlisted = fmt.Errorf("%w: class %s lists no such tier", ErrUnclassified, c.name)
		l.class(c, l.object(o.get(key.Value), o.sub(key.Value)), grace)
		l.classes[c.name] = c
		l.order = append(l.order, c)
	}
}

func (l *loader) class(c *class, o *object, grace time.Duration) {
	keep, within := o.get("keep"), o.get("within")
	if (keep == nil) == (within == nil) {
		l.fail(c.at, "%s: want either keep or within", o.path)
	}
	c.within = within != nil
	promise, path := keep, o.sub("keep")
	if c.within {
		promise, path = within, o.sub("within")
	}
	if promise != nil && promise.Kind == yaml.MappingNode && !c.within {
		l.tiers(c, l.object(promise, path))
	} else {
		c.keep = l.period(promise, path)
	}
	c.from = l.text(o.need("from"), o.sub("from"))
	if c.within {
		l.longerThanGrace(within, path, c.keep, grace)
	}
	key, without := o.get("key"), o.get("without")
	switch {
	case c.from == "":
	case c.from == fromEvent && c.within:
		l.fail(within, "%s: within counts from an anchor; from: event goes with keep", o.path)
	case c.from == fromEvent:
		if key != nil {
			l.fail(key, "%s: a class that counts from the event hangs on nothing: remove key", o.path)
		}
		if without != nil {
			l.fail(without, "%s: a class that counts from the event hangs on nothing: remove without", o.path)
		}
	case c.tiers != nil:
		l.fail(o.get("from"), "%s: tiers count from the event; sooner names an anchor that ends them earlier", o.path)
	default:
		c.keyed, c.bearer = l.anchor(o, c.from)
		if without == nil {
			l.fail(c.at, "%s: \"without\" is missing: what hangs on no %s would live for ever", o.path, c.keyed)
			break
		}
		c.without, c.withoutOperator = l.without(without, o.sub("without"))
	}
	if n := o.get("sooner"); n != nil {
		c.sooner = l.sooner(n, o.sub("sooner"), grace)
		if c.from != fromEvent {
			l.fail(n, "%s: only a class that counts from the event can end sooner", o.path)
		}
	}
	l.exceptions(c, o)
	if n := o.get("operator"); n != nil {
		c.operator = l.text(n, o.sub("operator"))
		if e := l.refer(n, o.path, c.operator); e != nil {
			l.agree(n, o.path, c, e)
		}
	} else if promise != nil {
		l.claims = append(l.claims, claim{path: path, at: promise})
	}
	o.done()
}

// exceptions reads what keeps rows although their person was erased.
func (l *loader) exceptions(c *class, o *object) {
	if n := o.get("erasable"); n != nil {
		c.erasable = l.truth(n, o.sub("erasable"))
		c.reason = l.text(o.get("reason"), o.sub("reason"))
		if !c.erasable && c.reason == "" {
			l.fail(n, "%s: \"reason\" is missing: name the statute", o.path)
		}
	} else if n := o.get("reason"); n != nil {
		l.fail(n, "%s: reason goes with erasable: false", o.path)
	}
	n := o.get("statute")
	if n == nil {
		return
	}
	s := l.object(n, o.sub("statute"))
	c.atLeast = &statute{keep: l.period(s.need("keep"), s.sub("keep")), operator: l.text(s.need("operator"), s.sub("operator"))}
	c.erasable, c.reason = false, l.text(s.need("reason"), s.sub("reason"))
	if c.atLeast.operator != "" {
		if e := l.refer(n, s.path, c.atLeast.operator); e != nil {
			l.samePeriod(n, s.path, c.atLeast.keep, e)
		}
	}
	s.done()
	if c.from == fromEvent {
		l.fail(n, "%s: a class that counts from the event says so with erasable: false", o.path)
	}
}

// anchor checks the anchor of a period and what it hangs on.
func (l *loader) anchor(o *object, from string) (keyed string, b bearer) {
	allowed := actions[from].keys
	if allowed == nil {
		l.fail(o.get("from"), "%s: %q starts no period: want event, or one of %s", o.path, from, strings.Join(anchorNames(), ", "))
		return "", noBearer
	}
	key := o.need("key")
	if keyed = l.text(key, o.sub("key")); keyed == "" {
		return "", noBearer
	}
	if !slices.Contains(allowed, keyed) {
		l.fail(key, "%s: %s is not about a %q: want %s", o.path, from, keyed, strings.Join(allowed, " or "))
	}
	return keyed, bearers[keyed]
}

func (l *loader) longerThanGrace(n *yaml.Node, path string, p Period, grace time.Duration) {
	if p != (Period{}) && time.Duration(p.least())*24*time.Hour <= grace {
		l.fail(n, "%s: %s is not longer than the grace, so the bytes cannot be gone in time", path, p)
	}
}

func (l *loader) without(n *yaml.Node, path string) (*Period, string) {
	o := l.object(n, path)
	p := l.period(o.need("keep"), o.sub("keep"))
	name := l.text(o.need("operator"), o.sub("operator"))
	o.done()
	if name != "" {
		if e := l.refer(o.get("operator"), path, name); e != nil {
			l.samePeriod(n, path, p, e)
		}
	}
	return &p, name
}

func (l *loader) sooner(n *yaml.Node, path string, grace time.Duration) *sooner {
	o := l.object(n, path)
	s := &sooner{within: l.period(o.need("within"), o.sub("within")), from: l.text(o.need("from"), o.sub("from"))}
	if at := o.get("within"); at != nil {
		l.longerThanGrace(at, o.sub("within"), s.within, grace)
		l.claims = append(l.claims, claim{path: o.sub("within"), at: at})
	}
	if s.from != "" {
		s.keyed, s.bearer = l.anchor(o, s.from)
	}
	o.done()
	return s
}

// tiers reads a period per plan.
func (l *loader) tiers(c *class, o *object) {
	if by := o.need("by"); by != nil && l.text(by, o.sub("by")) != "plan.tier" {
		l.fail(by, "%s: want by: plan.tier", o.path)
	}
	c.tiers = []tier{}
	bounds, without := o.get("bounds"), o.need("without")
	if without != nil {
		c.without, c.withoutOperator = l.without(without, o.sub("without"))
	}
	if n := o.get("downgrade"); n != nil {
		c.downgrade = l.downgrade(n, o.sub("downgrade"))
	}
	for _, key := range o.keys {
		if o.asked[key.Value] {
			continue
		}
		n := o.get(key.Value)
		if !isTier(key.Value) {
			l.fail(key, "%s: %q is no tier: want letters, digits, _ and -", o.path, key.Value)
		}
		if event.Original(c.name+"/"+key.Value+"@") != c.name+"/"+key.Value+"@" {
			l.fail(key, "%s: %q is what copies of rows are called", o.path, key.Value)
		}
		c.tiers = append(c.tiers, tier{name: key.Value, period: l.period(n, o.sub(key.Value))})
	}
	if len(c.tiers) == 0 || len(c.tiers) > maxTiers {
		l.fail(o.at, "%s: want between 1 and %d tiers", o.path, maxTiers)
	}
	o.done()
	if bounds == nil {
		return
	}
	if bounds.Kind != yaml.SequenceNode || len(bounds.Content) != 2 {
		l.fail(bounds, "%s: bounds: want the shortest and the longest period", o.path)
		return
	}
	low, high := l.period(bounds.Content[0], o.path+".bounds"), l.period(bounds.Content[1], o.path+".bounds")
	if low == (Period{}) || high == (Period{}) {
		return
	}
	if !low.NotOver(high) {
		l.fail(bounds, "%s: bounds: %s is longer than %s", o.path, low, high)
		return
	}
	bounded := func(n *yaml.Node, name string, p Period) {
		if p != (Period{}) && (!low.NotOver(p) || !p.NotOver(high)) {
			l.fail(n, "%s: %s of %s is outside the bounds %s to %s", o.path, p, name, low, high)
		}
	}
	for _, t := range c.tiers {
		bounded(o.get(t.name), t.name, t.period)
	}
	if c.without != nil {
		bounded(without, "without", *c.without)
	}
}

// payers are what a plan can belong to.
var payers = []string{"organization", "workspace", "user"}

// downgrade reads whether a plan with a shorter period applies to stored rows, and
// returns what the plan belongs to; noBearer where they keep their promise.
func (l *loader) downgrade(n *yaml.Node, path string) bearer {
	o := l.object(n, path)
	keyed, rows := l.text(o.need("key"), o.sub("key")), l.text(o.need("old_rows"), o.sub("old_rows"))
	if keyed != "" && !slices.Contains(payers, keyed) {
		l.fail(o.get("key"), "%s: no plan belongs to a %q: want %s", path, keyed, strings.Join(payers, ", "))
	}
	if rows != "" && rows != "shorten" && rows != "keep" {
		l.fail(o.get("old_rows"), "%s: %q is neither shorten nor keep", path, rows)
	}
	if by := o.get("operator"); by == nil {
		l.claims = append(l.claims, claim{path: path, at: n, itself: true})
	} else if e := l.refer(by, path, l.text(by, o.sub("operator"))); e != nil && e.Value != rows {
		l.fail(n, "%s: %s here and %s in operator.%s", path, rows, e.Value, e.Name)
	}
	o.done()
	if rows != "shorten" {
		return noBearer
	}
	return bearers[keyed]
}

// agree checks that the class says what its operator's value says.
func (l *loader) agree(n *yaml.Node, path string, c *class, e *operatorEntry) {
	if c.tiers == nil {
		l.samePeriod(n, path, c.keep, e)
		return
	}
	if e.value == nil || e.value.Kind != yaml.MappingNode {
		l.fail(e.at, "operator.%s: want a value for each tier", e.Name)
		return
	}
	o := l.object(e.value, "operator."+e.Name+".value")
	for _, t := range c.tiers {
		if v := o.need(t.name); v != nil {
			if p := l.period(v, o.sub(t.name)); p != t.period && p != (Period{}) {
				l.fail(v, "operator.%s: %s is %s here and %s in %s", e.Name, t.name, p, t.period, path)
			}
		}
	}
	o.done()
}

func (l *loader) samePeriod(n *yaml.Node, path string, p Period, e *operatorEntry) {
	if e.value == nil || p == (Period{}) {
		return
	}
	if v := l.period(e.value, "operator."+e.Name+".value"); v != p && v != (Period{}) {
		l.fail(n, "%s: %s here and %s in operator.%s", path, p, v, e.Name)
	}
}

// maxPartitions bounds the partitions of one table that are alive at a time.
const maxPartitions = 2000

// anchoredMonths is for how many months a class that waits for its anchor is
// counted: twenty years.
const anchoredMonths = 240

// partitions returns how many partitions the class has at a time.
func (s *StoredClass) partitions(grace time.Duration) int {
	days := s.Period.most() + wholeDays(grace)
	switch {
	case s.Period.Sentinel:
		return anchoredMonths
	case s.Bucket == Day:
		return days + 2
	}
	return days/28 + 2
}

// check makes what Decide works with, and holds the sections to each other.
func (l *loader) check(p *Policy, rules []*rule) {
	for _, c := range l.claims {
		if !l.isBound(c) {
			l.fail(c.at, "%s: no sentence binds it, and no operator's value stands for it", c.path)
		}
	}
	for _, e := range l.operator {
		if !e.used {
			l.fail(e.at, "operator.%s: nothing refers to it", e.Name)
		}
	}
	if len(l.errs) > 0 {
		return
	}
	p.listed = list(rules)
	for _, c := range l.order {
		if c.kinds == 0 {
			l.fail(c.at, "classes.%s: no rule chooses it", c.name)
		}
		p.stored = append(p.stored, c.store(l.section, p.SharedRows == "identity")...)
	}
	for _, k := range event.Kinds {
		n := 0
		for i := range p.stored {
			// Copies are left out: they have a partition where a shared row of the month lost somebody.
			if s := &p.stored[i]; s.Kinds.Has(k) && event.Original(s.Key) == s.Key {
				n += s.partitions(p.Grace)
			}
		}
		if n > maxPartitions {
			l.fail(resolve(l.root, "classes"), "classes: %s would have %d partitions, more than %d: use fewer tiers, classes or longer periods than %dd",
				k.Table(), n, maxPartitions, maxDayUnit)
		}
		for _, r := range rules {
			if r.kinds.Has(k) {
				p.rules[k] = append(p.rules[k], *r)
			}
		}
	}
	l.consultations(p)
}

// consultations checks that the records of who read what have a class.
func (l *loader) consultations(p *Policy) {
	var e event.Event
	e.Reset(event.Audit)
	e.Time = Sentinel
	e.Set(event.EventAction, "lethe.access.")
	if _, err := p.Decide(&e, Sentinel); err != nil {
		l.fail(resolve(l.root, "rules"), "rules: audit events with the action lethe.access.* need a class: they record who read what")
	}
}

// isBound reports whether a sentence stands behind the value of a claim.
func (l *loader) isBound(c claim) bool {
	return slices.ContainsFunc(l.bound, func(b binding) bool { return below(b.path, c.path) || !c.itself && below(c.path, b.path) })
}

// below reports whether path is root or lies below it.
func below(path, root string) bool {
	return path == root || strings.HasPrefix(path, root) && path[len(root)] == '.'
}

// section names the sections whose sentences bind the class at path.
func (l *loader) section(path string) string {
	without := path + ".without"
	var sections []string
	for _, b := range l.bound {
		if below(b.path, path) && !below(b.path, without) && !slices.Contains(sections, b.section) {
			sections = append(sections, b.section)
		}
	}
	slices.SortFunc(sections, cmp.Compare)
	return strings.Join(sections, ", ")
}
