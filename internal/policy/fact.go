package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

// action is what an audit event of that name does to periods.
type action struct {
	keys   []string // what a class that counts from it can hang on; nil: it starts no period
	clears []string // the anchors that it takes back
}

const planChanged = "plan.changed"

// actions are all that moves a period. The list is closed because a misspelled
// anchor would keep rows for ever.
var actions = map[string]action{
	"account.deletion_requested": {keys: []string{"user", "organization"}},
	"account.deleted":            {keys: []string{"user", "organization"}},
	"account.restored":           {clears: []string{"account.deletion_requested", "account.deleted"}},
	"account.created":            {clears: []string{"account.deletion_requested", "account.deleted"}},
	"member.removed":             {keys: []string{"member"}},
	"member.restored":            {clears: []string{"member.removed"}},
	"member.added":               {clears: []string{"member.removed"}},
	"workspace.deleted":          {keys: []string{"workspace", "organization"}},
	"workspace.restored":         {clears: []string{"workspace.deleted"}},
	"workspace.created":          {clears: []string{"workspace.deleted"}},
	"project.deleted":            {keys: []string{"project"}},
	"project.restored":           {clears: []string{"project.deleted"}},
	"project.created":            {clears: []string{"project.deleted"}},
	"deployment.deleted":         {keys: []string{"deployment"}},
	"deployment.restored":        {clears: []string{"deployment.deleted"}},
	"deployment.created":         {clears: []string{"deployment.deleted"}},
	planChanged:                  {},
}

// Begins reports whether an action begins the periods of an anchor. An account that is
// deleted was meant to be, whether a request was told or not. Both are names as
// Fact.Action has them.
func Begins(action, anchor string) bool {
	return action == anchor || action == "account.deleted" && anchor == "account.deletion_requested"
}

// Clears reports whether an action takes an earlier anchor of the same subject
// back. Both are names as Fact.Action has them.
func Clears(action, anchor string) bool { return slices.Contains(actions[action].clears, anchor) }

func anchorNames() []string {
	var names []string
	for name, a := range actions {
		if a.keys != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Fact is what one audit event says about the periods of one subject. Its action has
// its own name, whatever the policy file calls it.
type Fact = event.Fact

// fact is what an action says and what it is about.
type fact struct {
	action string
	family string   // what is before the dot: account, member, workspace, …
	about  []bearer // in a file whose classes hang on them
}

// Fact returns what a redacted row says about periods: one fact per subject. ok
// is false for all but the audit events whose action moves a period; with ok and no
// facts the event does not say whom it is about, or says it by an e-mail, which is
// stored under a key that changes and by which no row can be found for ever.
func (p *Policy) Fact(row *event.Row) (facts []Fact, ok bool) {
	if row.Kind != event.Audit {
		return nil, false
	}
	known, ok := p.facts[row.Text[event.TAction]]
	if !ok {
		return nil, false
	}
	f := Fact{Action: known.action, OccurredAt: row.OccurredAt, Source: row.Source, ID: row.ID, ReceivedAt: row.ReceivedAt}
	if f.OccurredAt.Sub(row.RetainedFrom) > time.Second {
		f.OccurredAt = row.RetainedFrom
	}
	if known.action == planChanged {
		// The new value is the more exact: a service may put the plan of the
		// moment on every event, and that is still the old one.
		if f.Tier = row.Text[event.TPlanTier]; p.tiers[row.Text[event.TChangeNew]] {
			f.Tier = row.Text[event.TChangeNew]
		}
	}
	for _, b := range known.about {
		if known.family == "account" {
			b = accountOf(row.Text[event.TTargetType], b)
		}
		if f.Subject = known.subject(b, row); f.Subject != "" && !scrubbed(f.Subject) {
			facts = append(facts, f)
		}
	}
	return facts, true
}

// subject returns the b that the fact is about, as rows hang on it, or "".
func (f *fact) subject(b bearer, row *event.Row) string {
	id, organization := f.place(b, row), row.Text[event.TOrganization]
	if b.person() {
		id = f.person(row)
	}
	switch {
	case id == "", b == onMember && organization == "":
		return ""
	case b == onMember:
		return event.Member(organization, "user:"+id)
	}
	return b.String() + ":" + id
}

// scrubbed reports whether something was taken out of an id, and a mark of redact
// put in. What is left of it is the same for many.
func scrubbed(id string) bool {
	return strings.Contains(id, "[ip:") || strings.Contains(id, "[email]") || strings.Contains(id, "[scrubbed]")
}

// accountOf returns what an account is: what the target is said to be, or what
// the file takes it for.
func accountOf(kind string, b bearer) bearer {
	switch kind {
	case "organization":
		return onOrganization
	case "user", "member":
		return onUser
	}
	return b
}

// person returns the user that the fact is about, or "". In doubt it is nobody: a
// wrong one would end the periods of somebody else.
func (f *fact) person(row *event.Row) string {
	kind, id := row.Text[event.TTargetType], row.Text[event.TTargetID]
	switch {
	case id == "", f.family == "plan" && !targetsPerson(kind):
		id = f.self(row)
	case bearers[kind] != noBearer && !targetsPerson(kind):
		return "" // the target is said to be something else
	case id == "email:"+row.Text[event.TUserEmail]:
		id = row.Text[event.TUserID] // the account that has this e-mail
	}
	if strings.HasPrefix(id, "email:") && slices.Contains(row.SubjectKeys, id) {
		return ""
	}
	return id
}

// self returns the user who acted, where the act can be about nobody else.
func (f *fact) self(row *event.Row) string {
	kind := row.Text[event.TActorType]
	if f.family == "member" || kind != "" && kind != "user" || row.Text[event.TOnBehalfOf] != "" {
		return "" // somebody removed a member; staff closed an account
	}
	return row.Text[event.TUserID]
}

// place returns the b that the fact is about, or "": the target, unless that is
// said to be something else or carries the name of its own and not of its
// organization; then it is what the event says it happened in.
func (f *fact) place(b bearer, row *event.Row) string {
	kind, target, column := row.Text[event.TTargetType], row.Text[event.TTargetID], b.column(row)
	named := kind == "" || kind == f.family
	if f.family == "plan" || f.family == "workspace" && b != onWorkspace {
		named = named && column == ""
	}
	switch {
	case target != "" && (named || kind == b.String()):
		return target
	case column != "":
		return column
	case bearers[kind] == noBearer && !targetsPerson(kind):
		return target // a word of the service's own, such as "team"
	}
	return ""
}

// facts reads the names that the services give to the actions, and works out what
// each is about in this file.
func (l *loader) facts(p *Policy, n *yaml.Node) {
	p.facts, p.tiers = make(map[string]fact, len(actions)), map[string]bool{}
	hangs := map[string][]bearer{} // by family
	for _, c := range l.order {
		for _, t := range c.tiers {
			p.tiers[t.name] = true
		}
		hang := func(from string, b bearer) {
			family, _, _ := strings.Cut(from, ".")
			hangs[family] = append(hangs[family], b)
		}
		hang(c.from, c.bearer)
		if c.downgrade != noBearer {
			hang(planChanged, c.downgrade)
		}
		if c.sooner != nil {
			hang(c.sooner.from, c.sooner.bearer)
		}
	}
	for name := range actions {
		family, _, _ := strings.Cut(name, ".")
		p.facts[name] = fact{action: name, family: family, about: about(family, hangs[family])}
	}
	if n == nil {
		return
	}
	o := l.object(n, "anchors")
	for _, key := range o.keys {
		if _, ok := actions[key.Value]; !ok {
			continue // done reports it
		}
		for _, word := range l.words(o.get(key.Value), o.sub(key.Value)) {
			switch _, taken := p.facts[word]; {
			case strings.ContainsAny(word, "* "):
				l.fail(key, "%s: %q is no action: want one whole name", o.sub(key.Value), word)
			case taken:
				l.fail(key, "%s: %q has a meaning already", o.sub(key.Value), word)
			default:
				p.facts[word] = p.facts[key.Value]
			}
		}
	}
	o.done()
}

// about returns what the actions of a family are about where classes hang on these.
func about(family string, hangs []bearer) []bearer {
	switch organization := slices.Contains(hangs, onOrganization); {
	case family == "account" && organization && !slices.Contains(hangs, onUser):
		return []bearer{onOrganization} // an account is a customer here, not a person
	case family == "account":
		return []bearer{onUser}
	case family == "workspace" && organization:
		return []bearer{onWorkspace, onOrganization}
	case family == "plan" && len(hangs) > 0:
		slices.Sort(hangs)
		return slices.Compact(hangs)
	case family == "plan":
		return []bearer{onOrganization}
	}
	return []bearer{bearers[family]}
}
