// Package retention decides when a stored row must go, and moves its expiry there.
//
// A row is stored with its class's own period. What happens later is kept as
// facts: an account was deleted or restored, a plan changed, a person asked to be
// erased, a hold was placed. Fate is the one function that says what a row's class
// and the facts together mean; the sweep, the readers and the ingester all ask it.
//
//	audit events, requests → facts → Fate ← row
//
// It holds no SQL: tables are reached through Storage.
package retention

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// Facts are what is known at one instant. They never change, so any number of
// goroutines may use them.
type Facts struct {
	policy   *policy.Policy
	hash     func(subject string) []string
	promises map[string]*policy.StoredClass
	tiers    map[tier]policy.Period  // of the policy in force
	facts    map[string][]event.Fact // by subject or its hash, in order of time
	hashed   bool                    // there are facts by hash
	erased   map[string]time.Time    // by hash: until when
	latest   time.Time               // of erased
	held     map[string]time.Time    // by subject: since when
	heldHash map[string]time.Time    // of subjects that are not known
	unswept  []string                // ids of erasures
}

// Source is all that Facts are made from.
type Source struct {
	Promises []policy.StoredClass // every class that rows can be stored under, with what holds of it now
	Facts    []event.Fact
	Erasures []event.Erasure
	Holds    []event.Hold
}

// tier names a plan of a class.
type tier struct{ class, plan string }

// New sorts what is known under a policy. hash returns the keyed hashes of a
// subject, under every live key.
func New(p *policy.Policy, s Source, hash func(subject string) []string) *Facts {
	f := &Facts{
		policy: p, hash: hash,
		promises: make(map[string]*policy.StoredClass, len(s.Promises)), tiers: make(map[tier]policy.Period),
		facts:  make(map[string][]event.Fact),
		erased: make(map[string]time.Time), held: make(map[string]time.Time), heldHash: make(map[string]time.Time),
	}
	for i := range s.Promises {
		f.promises[s.Promises[i].Key] = &s.Promises[i]
	}
	for _, c := range p.Stored() {
		f.tiers[tier{c.Class, c.Tier}] = c.Period
	}
	for _, x := range s.Facts {
		f.facts[x.Subject] = append(f.facts[x.Subject], x)
		f.hashed = f.hashed || strings.HasPrefix(x.Subject, hashPrefix)
	}
	for _, list := range f.facts {
		slices.SortFunc(list, inOrder)
	}
	for _, e := range s.Erasures {
		f.erase(e)
		if e.State == event.ErasureRequested {
			f.unswept = append(f.unswept, e.ID)
		}
	}
	for _, h := range s.Holds {
		if h.ReleasedAt.IsZero() {
			first(f.held, h.Subjects, h.PlacedAt)
			first(f.heldHash, unexplained(h.Hashes, h.Subjects, hash), h.PlacedAt)
		}
	}
	return f
}

// first keeps the earliest instant of each key.
func first(of map[string]time.Time, keys []string, at time.Time) {
	for _, k := range keys {
		if was, ok := of[k]; !ok || at.Before(was) {
			of[k] = at
		}
	}
}

func (f *Facts) erase(e event.Erasure) {
	for _, h := range e.Hashes {
		if e.Until.After(f.erased[h]) {
			f.erased[h] = e.Until
		}
	}
	f.latest = later(f.latest, e.Until)
}

// With returns the facts as they will be after one more erasure.
func (f *Facts) With(e event.Erasure) *Facts {
	with := *f
	with.erased = maps.Clone(f.erased)
	with.erase(e)
	return &with
}

// Unswept returns the ids of the erasures whose rows no sweep has moved yet.
func (f *Facts) Unswept() []string { return f.unswept }

// inOrder sorts by time. At one instant a deletion stands before the restoration
// that clears it: in doubt a row stays.
func inOrder(a, b event.Fact) int {
	switch order := a.OccurredAt.Compare(b.OccurredAt); {
	case order != 0:
		return order
	case policy.Clears(b.Action, a.Action):
		return -1
	case policy.Clears(a.Action, b.Action):
		return 1
	}
	return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Tier, b.Tier))
}

// hashPrefix begins the subject of a fact that names nobody.
const hashPrefix = "hash:"

// hashedYears is how long a fact is kept by a hash.
const hashedYears = 10

// returned is how much longer a return is kept than anything else: the deletion that it
// clears may be heard of after it, and must be forgotten before it.
var returned = policy.Period{Months: 12}

// Remember returns what is to be kept of a fact: the fact, until every row is gone that
// it can end and neither a topic nor a backup can bring one back, and the same by the
// keyed hash of its subject, for years: somebody may still act on an account that is long
// gone, and the row would wait for a deletion that nobody tells again.
func (f *Facts) Remember(x event.Fact) []event.Fact {
	at := later(x.OccurredAt, x.ReceivedAt)
	end, longer := at, policy.Period{}
	for _, p := range f.promises {
		clears := policy.Clears(x.Action, p.Anchor)
		if clears {
			longer = returned
		}
		switch {
		case clears, policy.Begins(x.Action, p.Anchor):
			end = later(later(end, p.After.End(at)), p.AtLeast.End(at))
		case p.Downgrade != "":
			end = later(end, p.Period.End(at))
		}
	}
	x.ForgetAt = longer.End(f.policy.BackupAge.End(f.policy.Everywhere.End(end.Add(f.policy.Grace))))
	all := []event.Fact{x}
	if hashes := f.hash(x.Subject); len(hashes) > 0 { // under the writing key: every live one is looked for
		x.Subject, x.ForgetAt = hashPrefix+hashes[0], later(x.ForgetAt, longer.End(at.AddDate(hashedYears, 0, 0)))
		all = append(all, x)
	}
	return all
}

// Lawful returns until when a law can keep a row of what occurred up to an instant, under
// any policy file there was; zero where there is no such law. Who was erased must be known
// so long: their rows would be shown again.
func (f *Facts) Lawful(until time.Time) (end time.Time) {
	for _, p := range f.promises {
		switch {
		case p.Erasable:
		case p.AtLeast != (policy.Period{}):
			end = later(end, p.AtLeast.End(until))
		default:
			end = later(end, p.Period.End(until))
		}
	}
	return end
}

// restored returns the subjects whose deletion was taken back, and when that was last.
func (f *Facts) restored() map[string]time.Time {
	all := make(map[string]time.Time)
	for subject, list := range f.facts {
		if strings.HasPrefix(subject, hashPrefix) {
			continue // the same is there by its name
		}
		var before []string // actions, each once
		for _, x := range list {
			if slices.ContainsFunc(before, func(action string) bool { return policy.Clears(x.Action, action) }) {
				all[subject] = x.OccurredAt
			}
			if !slices.Contains(before, x.Action) {
				before = append(before, x.Action)
			}
		}
	}
	return all
}

// of returns the history of a subject.
func (f *Facts) of(subject string) []event.Fact {
	list := f.facts[subject]
	if list != nil || !f.hashed {
		return list
	}
	for _, h := range f.hash(subject) {
		if list = f.facts[hashPrefix+h]; list != nil {
			return list
		}
	}
	return nil
}

// Recorded returns what the row of an audit event records: see the function of that name.
func (f *Facts) Recorded(r *event.Row) (*event.Erasure, *event.Hold, error) {
	return Recorded(r, f.hash)
}

// Keys returns all that a row can be erased or held by: its people, and the
// organization, workspace, project, deployment and log it belongs to. It appends to dst.
func Keys(dst []string, r *event.Row) []string {
	return places(append(dst, r.SubjectKeys...), r)
}

// places are those of Keys that are no people.
func places(dst []string, r *event.Row) []string {
	for _, k := range [...]struct {
		prefix string
		of     event.Text
	}{
		{"organization:", event.TOrganization}, {"workspace:", event.TWorkspace},
		{"project:", event.TProject}, {"deployment:", event.TDeployment},
	} {
		if id := r.Text[k.of]; id != "" {
			dst = append(dst, k.prefix+id)
		}
	}
	if d, c := r.Text[event.TDeployment], r.Text[event.TDataCategory]; d != "" && c != "" {
		dst = append(dst, "log:"+d+"/"+c)
	}
	return dst
}
