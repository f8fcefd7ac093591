package redact

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// toASCII maps a domain as a browser would before it looks it up.
var toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule())

// normalizeEmail brings the spellings of one mailbox to one form: trimmed,
// without "mailto:" or a display name, lower-cased, the domain IDNA-mapped. What
// is no e-mail comes back trimmed and lower-cased; it is hashed all the same.
func normalizeEmail(raw string) string {
	s := strings.TrimSpace(raw)
	if i := strings.LastIndexByte(s, '<'); i >= 0 && strings.HasSuffix(s, ">") {
		s = strings.TrimSpace(s[i+1 : len(s)-1])
	}
	if len(s) > 7 && strings.EqualFold(s[:7], "mailto:") {
		s = s[7:]
	}
	s = strings.ToLower(s)
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	domain := strings.TrimSuffix(s[at+1:], ".")
	if isASCII(s) {
		return s[:at+1+len(domain)]
	}
	if mapped, err := toASCII.ToASCII(domain); err == nil {
		domain = mapped
	}
	return norm.NFC.String(s[:at]) + "@" + domain
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// wholeEmail reports whether a value is one e-mail and nothing else.
func wholeEmail(s string) bool {
	s = strings.TrimSpace(s)
	at := strings.IndexByte(s, '@')
	if at < 1 {
		return false
	}
	v := view{text: []byte(s)}
	from, to, ok := v.emailAt(at, 0)
	return ok && from == 0 && to == len(s)
}

// emailAt finds the e-mail around the @ at position at; nothing before floor
// belongs to it.
func (v *view) emailAt(at, floor int) (from, to int, ok bool) {
	s := v.text
	from = at
	if from > floor && s[from-1] == '"' { // "a quoted name"@example.com
		for q := from - 2; q >= floor && from-q < 66; q-- {
			if s[q] == '"' {
				from = q
				break
			}
		}
	}
	if from == at {
		for from > floor && class[s[from-1]]&isLocal != 0 {
			from--
		}
	}
	if from == at {
		return 0, 0, false
	}
	to = at + 1
	if to < len(s) && s[to] == '[' { // a literal: user@[192.0.2.1]
		for end := to + 1; end < len(s) && end-to < 64; end++ {
			if s[end] == ']' {
				return from, end + 1, true
			}
		}
		return 0, 0, false
	}
	last, dots := to, 0 // where the last label starts
	for to < len(s) && class[s[to]]&isDomain != 0 {
		if s[to] == '.' {
			if to+1 == len(s) || class[s[to+1]]&isDomain == 0 || s[to+1] == '.' {
				break // the full stop of a sentence
			}
			last, dots = to+1, dots+1
		}
		to++
	}
	switch {
	case dots == 0 || last == at+1:
		return 0, 0, false
	case class[s[last]]&isDigit != 0: // user@192.0.2.1; a version otherwise
		return from, to, dots == 3
	}
	return from, to, to-last >= 2
}
