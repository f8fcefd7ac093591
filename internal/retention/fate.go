package retention

import (
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// Cause is what decided a row's fate.
type Cause string

// The causes, the weakest first.
const (
	ByPeriod Cause = "period"
	ByAnchor Cause = "anchor"
	// ByIdentity is of rows whose place a copy takes, without one of their people, and
	// Anonymised of those copies.
	ByIdentity Cause = "identity"
	Anonymised Cause = "anonymised"
	ByPlan     Cause = "plan"
	ByErasure  Cause = "erasure"
	ByStatute  Cause = "statute" // an erased person's row that a law keeps
	ByHold     Cause = "hold"
)

// Fate is what becomes of one row.
type Fate struct {
	// Override is what the row must carry as expires_override, seconds since 1970;
	// 0 leaves it to the class's own period.
	Override uint32
	// Expires is the same as an instant: from then on nobody sees the row, and its
	// bytes go.
	Expires time.Time
	// Readable is until when those may see it who are no officers. It is Expires
	// but for a held row, which stays beyond its time for officers alone.
	Readable time.Time
	// Hidden rows are for officers only, at any time.
	Hidden bool
	// Erased rows are for nobody, even while a hold or their removal takes its time.
	Erased bool
	// Held rows stay, Since the first hold that stands was placed.
	Held  bool
	Since time.Time
	// Leaving are those of the row's people who go from it, sooner than the row or with it.
	Leaving []Leaving
	Cause   Cause
}

// Leaving is somebody whose identity goes from a row.
type Leaving struct {
	Key string // as the row carries it, such as "user:u_42"
	// At is from when on officers do not see it either and it goes irreversibly.
	// Others do not see it at any time.
	At time.Time
}

// Without returns the subject keys of those whom a reader may not see in the row at
// an instant. What an officer may not see has to go.
func (f Fate) Without(now time.Time, officer bool) (people []string) {
	for _, l := range f.Leaving {
		if !officer || !f.Held && !l.At.After(now) {
			people = append(people, l.Key)
		}
	}
	return people
}

// last returns when the row goes, or where it stays the last who leaves it.
func (f Fate) last() time.Time {
	if len(f.Leaving) == 0 || f.Cause == ByStatute {
		return f.Expires
	}
	return slices.MaxFunc(f.Leaving, func(a, b Leaving) int { return a.At.Compare(b.At) }).At
}

// Goes reports whether a row, or one of its people, has to be gone at an instant.
func (f Fate) Goes(now time.Time) bool {
	return f.Erased || !f.Expires.After(now) || len(f.Without(now, true)) > 0
}

// HeldBefore reports whether a hold that stands was placed before an instant: what would
// have ended then is still there.
func (f Fate) HeldBefore(end time.Time) bool { return f.Held && f.Since.Before(end) }

// Visible reports whether a reader may see the row at an instant.
func (f Fate) Visible(now time.Time, officer bool) bool {
	switch {
	case f.Erased && !f.Held:
		return false
	case officer:
		return now.Before(f.Expires)
	}
	return !f.Hidden && !f.Erased && now.Before(f.Readable)
}

// Fate decides what becomes of a row. Of the row it reads the class, the instant
// it is retained from, when it came, its people, and what it belongs to.
func (f *Facts) Fate(r *event.Row) Fate {
	p := f.promises[r.Retention]
	if p == nil { // like the TTL: a short period would be a guess that destroys
		p = &policy.StoredClass{Period: policy.Period{Sentinel: true}, Erasable: true}
	}
	own := p.Period.End(r.RetainedFrom)
	fate := Fate{Expires: own, Cause: ByPeriod}
	sooner := func(at time.Time, why Cause) {
		if at.Before(fate.Expires) {
			fate.Expires, fate.Cause = at, why
		}
	}
	least := time.Time{} // a statute's
	if p.AtLeast != (policy.Period{}) {
		least = p.AtLeast.End(r.RetainedFrom)
	}
	gone, why := erasedAt, ByErasure // what was erased
	if !p.Erasable {
		if gone, why = least, ByStatute; least.IsZero() {
			gone = own
		}
	}
	shared := f.shared(p, r)
	erased := f.mayBeErased(r) && f.isErased(r, erasable(r, shared))
	if shared {
		erased = f.members(p, r, least, gone, &fate) || erased
	} else if end, ok := f.anchored(p, r); ok {
		fate.Hidden = p.Within
		sooner(later(end, least), ByAnchor)
	}
	if end, ok := f.downgraded(p, r); ok {
		sooner(end, ByPlan)
	}
	if erased {
		sooner(gone, why)
		fate.Erased, fate.Hidden, fate.Cause = p.Erasable, fate.Hidden || !p.Erasable, why
	}
	fate.Readable = fate.Expires
	if fate.Since, fate.Held = f.heldSince(r); fate.Held {
		fate.Expires, fate.Cause = policy.Sentinel, ByHold
	}
	if !fate.Expires.Equal(own) {
		fate.Override = uint32(fate.Expires.Unix())
	}
	return fate
}

// erasedAt is the expiry of erased rows that no law keeps.
var erasedAt = time.Unix(event.ErasedOverride, 0).UTC()

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// anchored returns when the anchor of a row's class ends it, if the anchor has
// happened to what the row hangs on.
func (f *Facts) anchored(p *policy.StoredClass, r *event.Row) (end time.Time, ok bool) {
	if p.Anchor == "" || len(f.facts) == 0 {
		return end, false
	}
	subjects := r.SubjectKeys // what must be gone with any of its people goes with the first
	if !p.OnPeople() || !p.Within {
		subjects = []string{hangsOn(p.KeyedBy, r)}
	}
	for _, subject := range subjects {
		if at, is := f.ends(p, subject, r); is && (!ok || at.Before(end)) {
			end, ok = at, true
		}
	}
	return end, ok
}

// account returns the one account that a row is about, the most specific first:
// whom it was done to, whose thing it was done to, for whom, and by whom.
func account(r *event.Row) string {
	is := func(id string) bool { return id != "" && slices.Contains(r.SubjectKeys, "user:"+id) }
	switch r.Text[event.TTargetType] {
	case "user", "account", "member":
		if id := r.Text[event.TTargetID]; is(id) {
			return "user:" + id
		}
	}
	for _, id := range r.Owners {
		if is(id) {
			return "user:" + id
		}
	}
	for _, t := range [...]event.Text{event.TOnBehalfOf, event.TUserID} {
		if id := r.Text[t]; is(id) {
			return "user:" + id
		}
	}
	return ""
}

// ends walks the history of a subject of the row, of a member that in the row's
// organization. A deletion begins the period and later ones change nothing; a
// restoration before the period is over clears it; one after it opens another life, and
// what was kept from the life before stays over.
func (f *Facts) ends(p *policy.StoredClass, subject string, r *event.Row) (end time.Time, ok bool) {
	if p.KeyedBy == "member" {
		subject = event.Member(r.Text[event.TOrganization], subject)
	}
	for _, x := range f.of(subject) {
		at := x.OccurredAt.Truncate(time.Second)
		switch clears := policy.Clears(x.Action, p.Anchor); {
		case policy.Begins(x.Action, p.Anchor) && !ok:
			end, ok = p.After.End(at), true
			if p.Within {
				end = end.Add(-f.policy.Grace)
			}
		case clears && ok:
			if !at.Before(end) && r.RetainedFrom.Before(at) {
				return end, true
			}
			ok = false
		}
	}
	return end, ok
}

// downgraded returns when a row ends under the shortest plan that came after it. A
// longer one gives nothing back.
func (f *Facts) downgraded(p *policy.StoredClass, r *event.Row) (end time.Time, ok bool) {
	if p.Downgrade == "" || p.Tier == "without" || len(f.facts) == 0 {
		return end, false
	}
	for _, x := range f.of(hangsOn(p.Downgrade, r)) {
		period, listed := f.tiers[tier{p.Class, x.Tier}]
		if x.Action != "plan.changed" || !listed || x.OccurredAt.Before(r.RetainedFrom) {
			continue
		}
		if at := period.End(r.RetainedFrom); !ok || at.Before(end) {
			end, ok = at, true
		}
	}
	return end, ok
}

// hangsOn returns the one subject that a row hangs on by a key.
func hangsOn(key string, r *event.Row) string {
	switch key {
	case "organization":
		return "organization:" + r.Text[event.TOrganization]
	case "workspace":
		return "workspace:" + r.Text[event.TWorkspace]
	case "project":
		return "project:" + r.Text[event.TProject]
	case "deployment":
		return "deployment:" + r.Text[event.TDeployment]
	}
	return account(r)
}

// mayBeErased is false for almost all events on arrival: no hash is computed for them.
func (f *Facts) mayBeErased(r *event.Row) bool { return !r.Came().After(f.latest) }

// erasable are the keys by which a row is erased as a whole; the people of a shared row
// leave it one by one.
func erasable(r *event.Row, shared bool) []string {
	if shared {
		return places(nil, r)
	}
	return Keys(nil, r)
}

// isErased reports whether one of the keys, which are the row's, was erased since.
func (f *Facts) isErased(r *event.Row, keys []string) bool {
	for _, k := range keys {
		for _, h := range f.hash(k) {
			if until, ok := f.erased[h]; ok && !r.Came().After(until) {
				return true
			}
		}
	}
	return false
}

// heldSince returns when the first of the holds that stand on a row was placed.
func (f *Facts) heldSince(r *event.Row) (since time.Time, held bool) {
	if len(f.held) == 0 && len(f.heldHash) == 0 {
		return since, false
	}
	found := func(of map[string]time.Time, k string) {
		if at, ok := of[k]; ok && (!held || at.Before(since)) {
			since, held = at, true
		}
	}
	var buf [16]string
	for _, k := range Keys(buf[:0], r) {
		found(f.held, k)
		if len(f.heldHash) > 0 {
			for _, h := range f.hash(k) {
				found(f.heldHash, h)
			}
		}
	}
	return since, held
}
