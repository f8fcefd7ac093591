package redact

import (
	"slices"
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// manyOwners is the number from which a set is cheaper than comparing all.
const manyOwners = 16

// addKey adds a subject key that the row does not have yet.
func addKey(row *event.Row, k string) {
	if !slices.Contains(row.SubjectKeys, k) {
		row.SubjectKeys = append(row.SubjectKeys, k)
	}
}

// email returns the stored form of an e-mail and makes it a subject of the row.
func (r *Redactor) email(row *event.Row, v string) string {
	k := r.emailKey(v)
	if k == "" {
		return ""
	}
	addKey(row, k)
	return k[len("email:"):]
}

func (r *Redactor) emailKey(v string) string {
	if v = normalizeEmail(v); v == "" {
		return ""
	}
	return r.hashed(r.emails, v)
}

// person returns the stored form of a pseudonym. Its bearer becomes a subject of
// the row under prefix, unless prefix is empty.
func (r *Redactor) person(row *event.Row, prefix, v string) string {
	stored, isKey := r.pseudonym(row, v)
	switch {
	case stored == "":
	case isKey:
		addKey(row, stored)
	case prefix != "" && stored == v:
		addKey(row, r.arena.join(prefix, v))
	}
	return stored
}

// pseudonym returns the stored form of a pseudonym, and whether that is an
// e-mail's subject key. E-mails inside a longer one become subjects of the row.
func (r *Redactor) pseudonym(row *event.Row, v string) (stored string, isKey bool) {
	if !suspicious(v) {
		return v, false
	}
	if wholeEmail(v) {
		return r.emailKey(v), true
	}
	stored = r.text(v)
	if stored != v {
		r.scrubber.emails(v, func(mail string) { addKey(row, r.emailKey(mail)) })
	}
	return stored, false
}

// user stores user.id. One that is an e-mail is treated as user.email.
func (r *Redactor) user(e *event.Event, row *event.Row, v string) {
	stored := r.person(row, "user:", v)
	if e.Text[event.UserEmail] == "" && stored != v && wholeEmail(v) {
		row.Text[event.TUserEmail] = stored[len("email:"):]
		return
	}
	row.Text[event.TUserID] = stored
}

// targetPrefix returns the prefix of a target that is a person, "" for others.
func targetPrefix(kind string) string {
	switch kind {
	case "user", "account", "member":
		return "user:"
	}
	return ""
}

// ownersOf stores target.owner.id. In a consultation record the values are
// subject keys already; elsewhere they are user ids.
func (r *Redactor) ownersOf(e *event.Event, row *event.Row) {
	consultation := strings.HasPrefix(e.Action(), "lethe.access.")
	many := len(e.Owners) > manyOwners
	if many {
		clear(r.owners)
		for _, k := range row.SubjectKeys {
			r.owners[k] = struct{}{}
		}
	}
	for _, v := range e.Owners {
		stored, isKey := r.pseudonym(row, v)
		if stored == "" {
			continue
		}
		row.Owners = append(row.Owners, stored)
		k := stored
		switch {
		case isKey:
		case stored != v:
			continue
		case consultation && isSubjectKey(v):
		default:
			k = r.arena.join("user:", v)
		}
		if !many {
			addKey(row, k)
		} else if _, seen := r.owners[k]; !seen {
			r.owners[k] = struct{}{}
			row.SubjectKeys = append(row.SubjectKeys, k)
		}
	}
}

// isSubjectKey reports whether v is a full subject key.
func isSubjectKey(v string) bool {
	kind, rest, _ := strings.Cut(v, ":")
	switch kind {
	case "user", "device":
		return rest != ""
	case "email", "session":
		id, hash, _ := strings.Cut(rest, ":")
		if !validKeyID(id) || len(hash) != 2*hashBytes {
			return false
		}
		for i := range len(hash) {
			if class[hash[i]]&isHex == 0 {
				return false
			}
		}
		return true
	}
	return false
}

// metadata stores the scrubbed map. Keys that scrubbing made equal get a number.
func (r *Redactor) metadata(e *event.Event, row *event.Row) {
	for _, p := range e.Metadata {
		k := r.text(p.Key)
		if k != p.Key {
			base := k
			taken := func(q event.Pair) bool { return q.Key == k }
			for n := 2; slices.ContainsFunc(row.Metadata, taken) || slices.ContainsFunc(e.Metadata, taken); n++ {
				k = base + "#" + strconv.Itoa(n)
			}
		}
		row.Metadata = append(row.Metadata, event.Pair{Key: k, Value: r.text(p.Value)})
	}
}

// cutQuery removes the query, the fragment and Java's session parameter.
func cutQuery(s string) string {
	if i := strings.IndexByte(s, '?'); i >= 0 {
		s = s[:i]
	}
	if i := strings.IndexByte(s, '#'); i >= 0 {
		s = s[:i]
	}
	const session = ";jsessionid="
	for from := 0; ; {
		i := strings.IndexByte(s[from:], ';')
		if i < 0 {
			return s
		}
		i += from
		if len(s)-i < len(session) || !strings.EqualFold(s[i:i+len(session)], session) {
			from = i + 1
			continue
		}
		end := len(s)
		if j := strings.IndexAny(s[i+1:], "/;"); j >= 0 {
			end = i + 1 + j
		}
		s, from = s[:i]+s[end:], i
	}
}

// unhexInto decodes a hexadecimal id, and leaves dst zero where it is none.
func unhexInto(dst []byte, s string) {
	if len(s) != 2*len(dst) {
		return
	}
	for i := range dst {
		hi, lo := s[2*i], s[2*i+1]
		if class[hi]&class[lo]&isHex == 0 {
			clear(dst)
			return
		}
		dst[i] = unhex[hi]<<4 | unhex[lo]
	}
}
