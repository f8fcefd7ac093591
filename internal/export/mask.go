package export

import (
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// AccessPrefix begins the event.action of the query service's own consultation records.
const AccessPrefix = "lethe.access."

// Mask says to whom a row is shown. The zero Mask shows everything as stored,
// which is for investigators and officers; a mask made for a person's keys
// shows that person nothing of anybody else.
type Mask struct{ keys []string }

// MaskFor returns the mask for the person with these subject keys.
func MaskFor(keys []string) Mask { return Mask{keys: slices.Clone(keys)} }

// view is a row as a mask shows it.
type view struct {
	*event.Row
	// hidden says that the trace ids are somebody else's: a fixed-size id has
	// no room for the word that stands for a hidden value.
	hidden bool
	// masked says that at least one value was hidden.
	masked bool
}

// mine reports whether an id is the person's. An id that was an e-mail is
// stored as a whole subject key, "email:<key id>:<hash>".
func (m Mask) mine(prefix, id string) bool {
	if id == "" {
		return false
	}
	if strings.HasPrefix(id, "email:") {
		prefix = ""
	}
	for _, k := range m.keys {
		if len(k) == len(prefix)+len(id) && strings.HasPrefix(k, prefix) && k[len(prefix):] == id {
			return true
		}
	}
	return false
}

// actor reports whether the person did what the row tells.
func (m Mask) actor(r *event.Row) bool {
	return m.mine("user:", r.Text[event.TUserID]) || m.mine("device:", r.Text[event.TDeviceID]) ||
		m.mine("email:", r.Text[event.TUserEmail]) || m.mine("session:", r.Text[event.TSessionID])
}

// personal lists the values of target.type whose target.id is a person.
var personal = []string{"user", "account", "member"}

// view returns the row as the mask shows it. The row itself is not changed.
//
// Where the person is not the actor, everything that tells about the actor and
// everything somebody wrote is hidden. Other people's ids are hidden even where
// the person is the actor.
func (m Mask) view(r *event.Row) view {
	if m.keys == nil {
		return view{Row: r}
	}
	shown := *r
	v := view{Row: &shown}
	actor := m.actor(r)
	for t := range shown.Text {
		if shown.Text[t] != "" && m.hides(r, event.Text(t), actor) {
			shown.Text[t] = Masked
			v.masked = true
		}
	}
	if owners := m.owners(r); len(owners) != len(r.Owners) || slices.Contains(owners, Masked) {
		shown.Owners = owners
		v.masked = true
	}
	if actor {
		return v
	}
	v.hidden = true
	v.masked = v.masked || r.TraceID != [16]byte{} || r.SpanID != [8]byte{}
	if len(r.Metadata) > 0 {
		shown.Metadata = foreignMetadata(r)
		v.masked = true
	}
	return v
}

// hides decides one string field of a row.
func (m Mask) hides(r *event.Row, t event.Text, actor bool) bool {
	switch t {
	case event.TUserID, event.TDeviceID, event.TUserEmail, event.TSessionID:
		return !actor
	case event.TOnBehalfOf:
		return !m.mine("user:", r.Text[t])
	case event.TTargetID:
		// What belongs to the person is the person's, whoever touched it.
		return otherPerson(m, r) || !actor && !m.owns(r)
	case event.TTargetName:
		return !actor || otherPerson(m, r)
	}
	switch event.Texts[t].Tag {
	case event.Direct, event.Pseudonym, event.Quasi, event.Content:
		return !actor
	}
	return false
}

// otherPerson reports whether the row's target is a person, but not this one.
func otherPerson(m Mask, r *event.Row) bool {
	return slices.Contains(personal, r.Text[event.TTargetType]) && !m.mine("user:", r.Text[event.TTargetID])
}

// owns reports whether the row's target belongs to the person.
func (m Mask) owns(r *event.Row) bool {
	return m.mine("user:", r.Text[event.TTargetID]) || slices.ContainsFunc(r.Owners, func(o string) bool { return m.mine("user:", o) })
}

// owners returns the owners that are the person, and one word for all others.
func (m Mask) owners(r *event.Row) []string {
	prefix := "user:"
	if strings.HasPrefix(r.Text[event.TAction], AccessPrefix) {
		prefix = "" // consultation records name whole subject keys
	}
	var own []string
	others := false
	for _, o := range r.Owners {
		if m.mine(prefix, o) || prefix == "" && m.mine("user:", o) {
			own = append(own, o)
		} else {
			others = true
		}
	}
	if others {
		own = append(own, Masked)
	}
	return own
}

// foreignMetadata is what a person sees of metadata that somebody else
// published: of a consultation why and in which role, else nothing.
func foreignMetadata(r *event.Row) []event.Pair {
	if !strings.HasPrefix(r.Text[event.TAction], AccessPrefix) {
		return []event.Pair{{Key: Masked, Value: Masked}}
	}
	var kept []event.Pair
	for _, p := range r.Metadata {
		if p.Key == "purpose" || p.Key == "role" {
			kept = append(kept, p)
		}
	}
	return kept
}
