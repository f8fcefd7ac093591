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
	if f.policy.SharedRows != "identity" || p.KeyedBy != "user" || !p.Within || f.promises[event.Anonymised(p.Key)] == nil {
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

// members says who leaves a shared row: deleted people at the instant at which a
// row of theirs alone would end, since until then they may come back, and erased ones at once. The
// row ends with the last of its accounts.
func (f *Facts) members(p *policy.StoredClass, r *event.Row, least time.Time, fate *Fate) {
	var erased []string
	if p.Erasable && f.mayBeErased(r) {
		for _, k := range r.SubjectKeys {
			if f.isErased(r, []string{k}) {
				erased = append(erased, k)
				fate.Leaving = append(fate.Leaving, Leaving{k, erasedAt})
			}
		}
	}
	acted := false // one of them
	for _, k := range erased {
		acted = acted || ofActor(r, k)
	}
	var end time.Time
	stays, anchored := false, false
	for _, k := range r.SubjectKeys {
		if !isAccount(k) {
			continue
		}
		at, deleted := f.ends(p, k, r.RetainedFrom)
		at = later(at, least)
		switch {
		case slices.Contains(erased, k), acted && ofActor(r, k):
			end = later(end, erasedAt)
		case deleted:
			fate.Leaving = append(fate.Leaving, Leaving{k, at})
			end, anchored = later(end, at), true
		default:
			stays = true
		}
	}
	switch {
	case stays:
	case anchored:
		fate.Hidden, fate.Expires, fate.Cause = true, end, ByAnchor
	default:
		fate.Erased, fate.Expires, fate.Cause = true, end, ByErasure
	}
}
