package retention

import (
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// shared reports whether a row stays when one of its people goes: it has several
// accounts, and the policy takes only the identity of one.
func (f *Facts) shared(p *policy.StoredClass, r *event.Row) bool {
	if f.policy.SharedRows != "identity" || !p.OnPeople() || !p.Within || f.promises[event.Anonymised(p.Key)] == nil {
		return false
	}
	accounts := 0
	for _, k := range r.SubjectKeys {
		if isAccount(k) {
			accounts++
		}
	}
	return accounts > 1
}

func isAccount(key string) bool { return strings.HasPrefix(key, "user:") }

// members says who leaves a shared row: deleted people at the instant at which a row of
// theirs alone would end, since until then they may come back, and erased ones when what is
// erased goes. The row ends with the last of its accounts. It reports whether all were erased.
func (f *Facts) members(p *policy.StoredClass, r *event.Row, least, gone time.Time, fate *Fate) bool {
	erased := func(k string) bool { return f.mayBeErased(r) && f.isErased(r, []string{k}) }
	acted := slices.ContainsFunc(r.SubjectKeys, func(k string) bool { return ofActor(r, k) && erased(k) })
	var last time.Time
	stays, all := false, true
	for _, k := range r.SubjectKeys {
		var at time.Time
		deleted, erased := false, acted && ofActor(r, k) || erased(k)
		if isAccount(k) {
			at, deleted = f.ends(p, k, r)
			at = later(at, least)
		}
		if erased && (!deleted || gone.Before(at)) {
			at = gone
		}
		if erased || deleted {
			fate.Leaving = append(fate.Leaving, Leaving{k, at})
		}
		if isAccount(k) {
			last, stays, all = later(last, at), stays || !erased && !deleted, all && erased
		}
	}
	if !stays {
		fate.Hidden, fate.Expires, fate.Cause = true, last, ByAnchor
	}
	return all
}
