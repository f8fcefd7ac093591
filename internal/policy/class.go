package policy

import (
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

// StoredClass is one retention class as rows carry it: the policy's class, the
// tier or the words "without" where they decide, and the promise. The promise
// is part of the key, so a row stored under an older file still says what was
// promised for it, and the same promise has the same key for ever.
type StoredClass struct {
	Key   string // such as "request/pro@30d" or "account@90d-after-account.deleted"
	Class string // the class in the policy file
	Tier  string // a tier, "without", of copies "anonymised" or "anonymised-again", or ""
	Kinds event.KindSet

	// Period is what the TTL adds to retained_from. It is the sentinel while
	// the class waits for its anchor.
	Period Period
	// Promised is the Period of the key. Period, After and AtLeast are shorter where
	// a later policy file shortened them.
	Promised Period
	Bucket   Unit

	Keep string // the promise in words: "2y", or "within 30d"
	From string // what Keep counts from: "event", or the action of an anchor

	Anchor  string // the action that starts or cuts short the period; "" where there is none
	KeyedBy string // what Anchor is about, such as "user"; a "member" is one in an organization
	After   Period // how long after the anchor; zero where there is none
	Within  bool   // After is a deadline for the last byte, not a promise to keep
	AtLeast Period // a statute keeps the row so long from RetainedFrom; zero where there is none

	Section  string // the section of the published text; "" where it is silent
	Operator string // the operator's value that fills or reads the text; "" where there is none
	Erasable bool   // false: a statute keeps the rows of an erased person
	Reason   string // the statute, where Erasable is false

	// Downgrade is what a row hangs on when a plan is changed for one with a shorter
	// period, such as "organization"; "": the change leaves stored rows alone.
	Downgrade string

	// Of a class that a later file shortened: that policy's version, and since when.
	ShortenedBy string
	ShortenedAt time.Time
}

// SplitKey takes a stored class key apart: "request/pro@30d" is the class
// "request", the tier "pro" and the promise "30d".
func SplitKey(key string) (class, tier, promise string) {
	class, promise, _ = strings.Cut(key, "@")
	class, tier, _ = strings.Cut(class, "/")
	return class, tier, promise
}

// bearer is what an anchored row hangs on.
type bearer uint8

const (
	noBearer bearer = iota
	onUser
	onMember
	onOrganization
	onWorkspace
	onProject
	onDeployment
)

var bearers = map[string]bearer{
	"user": onUser, "member": onMember, "organization": onOrganization, "workspace": onWorkspace,
	"project": onProject, "deployment": onDeployment,
}

var bearerNames = [...]string{
	onUser: "user", onMember: "member", onOrganization: "organization", onWorkspace: "workspace", onProject: "project", onDeployment: "deployment",
}

// String returns the word of the policy file.
func (b bearer) String() string { return bearerNames[b] }

// person reports whether it is the people of a row that it hangs on.
func (b bearer) person() bool { return b == onUser || b == onMember }

// OnPeople reports whether rows of the class hang on people, everywhere or as members of
// their organization.
func (s *StoredClass) OnPeople() bool { return bearers[s.KeyedBy].person() }

// column returns what a row says that it belongs to.
func (b bearer) column(row *event.Row) string {
	switch b {
	case onOrganization:
		return row.Text[event.TOrganization]
	case onWorkspace:
		return row.Text[event.TWorkspace]
	case onProject:
		return row.Text[event.TProject]
	case onDeployment:
		return row.Text[event.TDeployment]
	}
	return ""
}

// targetsPerson reports whether a target of this type is a person.
func targetsPerson(kind string) bool { return kind == "user" || kind == "account" || kind == "member" }

// carried reports whether the event names what an anchor could later be about.
func (b bearer) carried(e *event.Event) bool {
	switch b {
	case onUser:
		return aboutAccount(e)
	case onMember:
		return aboutAccount(e) && e.Text[event.OrganizationID] != ""
	case onOrganization:
		return e.Text[event.OrganizationID] != ""
	case onWorkspace:
		return e.Text[event.WorkspaceID] != ""
	case onProject:
		return e.Text[event.ProjectID] != ""
	case onDeployment:
		return e.Text[event.DeploymentID] != ""
	}
	return false
}

// aboutAccount reports whether the stored row will have an account among its
// people: the same attributes that become "user:" subject keys.
func aboutAccount(e *event.Event) bool {
	if isAccount(e.Text[event.UserID]) || isAccount(e.Text[event.OnBehalfOf]) {
		return true
	}
	if targetsPerson(e.Text[event.TargetType]) && isAccount(e.Text[event.TargetID]) {
		return true
	}
	for _, owner := range e.Owners {
		if isAccount(owner) {
			return true
		}
	}
	return false
}

// isAccount reports whether an id can be found again when its account is
// deleted. An e-mail in its place is stored as a keyed hash and cannot.
func isAccount(id string) bool { return id != "" && strings.IndexByte(id, '@') < 0 }

// class is one class of the file.
type class struct {
	name string
	at   *yaml.Node

	within bool
	keep   Period
	tiers  []tier // with keep by tier: then keep is unused
	from   string // "event" or an anchor
	bearer bearer
	keyed  string

	without         *Period
	withoutOperator string

	sooner    *sooner
	atLeast   *statute
	downgrade bearer // what tiers hang on where a shorter one applies to stored rows

	operator string
	erasable bool
	reason   string

	kinds event.KindSet // where a rule chooses it

	// What Decide picks from.
	plain, none variants
	unlisted    error
}

// tier is one plan with its own period.
type tier struct {
	name   string
	period Period
	stored variants
}

// sooner ends a row before its period is over, within a time after an anchor.
type sooner struct {
	within Period
	from   string
	bearer bearer
	keyed  string
}

// statute keeps a row at least so long, whatever the class promises.
type statute struct {
	keep     Period
	operator string
}

// variants are a stored class for rows that hang on nothing, and for rows that
// an anchor may end sooner; the two are the same where there is no such anchor.
type variants struct{ free, anchored *StoredClass }

func (c *class) anchoredOnly() bool { return c.from != fromEvent }

const fromEvent = "event"

// choose returns the stored class of an event, or an error that wraps ErrUnclassified.
func (c *class) choose(e *event.Event) (*StoredClass, error) {
	v := c.plain
	switch {
	case c.tiers != nil:
		name := e.Text[event.PlanTier]
		v = variants{}
		if name == "" {
			v = c.none
		}
		for i := range c.tiers {
			if c.tiers[i].name == name {
				v = c.tiers[i].stored
				break
			}
		}
		if v.free == nil {
			return nil, c.unlisted
		}
	case c.anchoredOnly():
		if !c.bearer.carried(e) {
			v = c.none
		}
	}
	if c.sooner != nil && c.sooner.bearer.carried(e) {
		return v.anchored, nil
	}
	return v.free, nil
}

// store makes the stored classes of a class, once its rules are known. With copies
// its rows can lose one of their people and stay.
func (c *class) store(section func(path string) string, copies bool) []StoredClass {
	base := StoredClass{
		Class: c.name, Kinds: c.kinds, From: fromEvent, Keep: c.keep.String(), Period: c.keep,
		Operator: c.operator, Erasable: c.erasable, Reason: c.reason, Section: section("classes." + c.name),
	}
	var out []StoredClass
	add := func(s StoredClass, promise string) variants {
		s.Key = s.Class
		if s.Tier != "" {
			s.Key += "/" + s.Tier
		}
		s.Key += "@" + promise
		s.Promised, s.Bucket = s.Period, s.Period.Unit()
		v := variants{free: &s, anchored: &s}
		out = append(out, s)
		if c.sooner != nil {
			a := s
			a.Anchor, a.KeyedBy, a.After, a.Within = c.sooner.from, c.sooner.keyed, c.sooner.within, true
			a.Keep += ", or within " + c.sooner.within.String() + " of " + c.sooner.from
			a.Key += "-or-within-" + c.sooner.within.String() + "-of-" + c.sooner.from
			out = append(out, a)
			v.anchored = &a
		}
		return v
	}
	for i := range c.tiers {
		t := &c.tiers[i]
		s := base
		s.Downgrade = c.downgrade.String()
		s.Tier, s.Period, s.Keep = t.name, t.period, t.period.String()
		t.stored = add(s, s.Keep)
	}
	switch {
	case c.tiers != nil:
	case c.anchoredOnly():
		s := base
		s.From, s.Anchor, s.KeyedBy, s.Period = c.from, c.from, c.keyed, Period{Sentinel: true}
		s.After, s.Within = c.keep, c.within
		promise := s.Keep + "-after-" + c.from
		if c.within {
			promise = "within-" + s.Keep + "-of-" + c.from
			s.Keep = "within " + s.Keep
		}
		if c.atLeast != nil {
			promise += "-but-" + c.atLeast.keep.String()
			s.Keep += ", but not before " + c.atLeast.keep.String() + " from the event"
			s.AtLeast = c.atLeast.keep
		}
		c.plain = add(s, promise)
		if copies && c.within && c.bearer.person() {
			for _, key := range event.Copies(c.plain.free.Key) {
				s := *c.plain.free
				s.Key = key
				_, s.Tier, _ = SplitKey(key)
				out = append(out, s)
			}
		}
	default:
		c.plain = add(base, base.Keep)
	}
	if c.without != nil {
		s := base
		s.Tier, s.Period, s.Keep = "without", *c.without, c.without.String()
		s.Operator, s.Section = c.withoutOperator, section("classes."+c.name+".without")
		c.none = add(s, s.Keep)
	}
	return out
}
