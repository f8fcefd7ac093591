package retention

import (
	"cmp"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// Strip takes people out of a row, given by their subject keys, and leaves what is
// the others' or nobody's:
//
//   - of the one who acted, all that redaction keeps of them: the ids, the hashes, the
//     country, the agent, the trace, and every text;
//   - of anybody else, their id where it stands, and every text where they are the
//     target, since it is about them;
//   - of both, every text that spells their id.
//
// The organization, workspace, project and deployment stay: they are the team's. What
// is tagged and not named here goes with the one who acted.
func Strip(r *event.Row, people []string) {
	acted := slices.ContainsFunc(people, func(k string) bool { return ofActor(r, k) })
	if acted {
		people = slices.Clone(people)
		for _, k := range r.SubjectKeys {
			if ofActor(r, k) {
				people = append(people, k)
			}
		}
	}
	gone := func(value string) bool {
		return slices.ContainsFunc(people, func(k string) bool { return names(value, k) })
	}
	about := acted || gone(r.Text[event.TTargetID])
	text := func(s string) bool { return about || spells(s, people) }

	r.Owners = slices.DeleteFunc(r.Owners, gone)
	for t, f := range event.Texts {
		clears := acted
		switch t := event.Text(t); {
		case f.Tag == event.None, ofTeam(t):
			continue
		case t == event.TTargetID, t == event.TOnBehalfOf:
			clears = gone(r.Text[t])
		case f.Tag == event.Content:
			clears = text(r.Text[t])
		}
		if clears {
			r.Text[t] = ""
		}
	}
	r.Metadata = slices.DeleteFunc(r.Metadata, func(p event.Pair) bool { return text(p.Key) || text(p.Value) })
	if acted {
		r.TraceID, r.SpanID = [16]byte{}, [8]byte{}
	}
	r.SubjectKeys = slices.DeleteFunc(r.SubjectKeys, func(k string) bool {
		// Keys that no value stands for may be of an e-mail within the id of the one who acted.
		return slices.Contains(people, k) || acted && !backed(r, k)
	})
}

// ofTeam reports whether a field says what the row belongs to.
func ofTeam(t event.Text) bool {
	switch t {
	case event.TOrganization, event.TWorkspace, event.TProject, event.TDeployment:
		return true
	}
	return false
}

// ofActor reports whether a subject key is of the one who acted. Where somebody acts
// through a service that has no id, it is who they act for.
func ofActor(r *event.Row, key string) bool {
	if kind, value, _ := strings.Cut(key, ":"); value != "" {
		switch {
		case kind == "device" && r.Text[event.TDeviceID] == value, kind == "email" && r.Text[event.TUserEmail] == value,
			kind == "session" && r.Text[event.TSessionID] == value:
			return true
		}
	}
	id := cmp.Or(r.Text[event.TUserID], r.Text[event.TOnBehalfOf])
	return names(id, key) || names(r.Text[event.TDeviceID], key)
}

// names reports whether a value that stands for a person stands for the one with the
// subject key: as an id, or as the key itself.
func names(value, key string) bool {
	id, ok := strings.CutPrefix(key, "user:")
	return value != "" && (value == key || ok && value == id)
}

// backed reports whether a subject key still stands for a value of the row.
func backed(r *event.Row, key string) bool {
	return names(r.Text[event.TTargetID], key) || names(r.Text[event.TOnBehalfOf], key) ||
		slices.ContainsFunc(r.Owners, func(o string) bool { return names(o, key) })
}

// spells reports whether the id of one of the people stands in a text, not as a part of
// a longer word.
func spells(s string, people []string) bool {
	return slices.ContainsFunc(people, func(k string) bool {
		_, id, _ := strings.Cut(k, ":")
		for at := 0; id != ""; at++ {
			i := strings.Index(s[at:], id)
			if i < 0 {
				return false
			}
			at += i
			end := at + len(id)
			if (at == 0 || !ofWord(s[at-1])) && (end == len(s) || !ofWord(s[end])) {
				return true
			}
		}
		return false
	})
}

func ofWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
