package redact

import (
	"net/netip"
	"strings"
)

// unknownCountry is the country of what has none: reserved ranges, addresses the
// database does not know, and text that is no address.
const unknownCountry = "ZZ"

// reserved are the ranges that never reach the country database, beyond those
// that netip knows. Public databases hold nonsense for them.
var reserved = func() (p []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20",
	} {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}()

var globalUnicast6 = netip.MustParsePrefix("2000::/3")

// public reports whether an address can belong to a country.
func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is6() && !globalUnicast6.Contains(a) {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// clientCountry returns the country of a client.address.
func (c *countries) client(s string) string {
	if strings.IndexByte(s, ',') < 0 && strings.IndexByte(s, ';') < 0 {
		a, ok := parseHop(s)
		if !ok {
			return unknownCountry
		}
		return c.of(a)
	}
	country, found := unknownCountry, false
	for hop := range strings.SplitSeq(s, ",") {
		a, ok := parseHop(forwardedFor(hop))
		if !ok {
			return unknownCountry // nonsense anywhere makes the whole chain suspect
		}
		if !found && a.IsValid() && public(a) {
			country, found = c.of(a), true
		}
	}
	return country
}

// forwardedFor returns the for= of an element of a Forwarded header, or the
// element itself where it is no such thing.
func forwardedFor(hop string) string {
	for pair := range strings.SplitSeq(hop, ";") {
		if name, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && strings.EqualFold(name, "for") {
			return value
		}
	}
	return hop
}

// parseHop reads one address with its port, brackets, zone and quotes. A proxy
// that writes "unknown" names no address, which is no nonsense either.
func parseHop(s string) (a netip.Addr, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) >= 4 && strings.EqualFold(s[:4], "for=") {
		s = s[4:]
	}
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	if strings.EqualFold(s, "unknown") {
		return netip.Addr{}, true
	}
	if strings.HasPrefix(s, "[") {
		inner, rest, closed := strings.Cut(s[1:], "]")
		if !closed || rest != "" && (rest[0] != ':' || !validPort(rest[1:])) {
			return netip.Addr{}, false
		}
		s = inner
	} else if i := strings.IndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i+1:], ':') < 0 {
		if !validPort(s[i+1:]) {
			return netip.Addr{}, false
		}
		s = s[:i]
	}
	if i := strings.IndexByte(s, '%'); i >= 0 {
		if i+1 == len(s) || strings.IndexByte(s[:i], ':') < 0 {
			return netip.Addr{}, false
		}
		s = s[:i]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func validPort(s string) bool {
	for i := range len(s) {
		if class[s[i]]&isDigit == 0 {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 5
}

// Countries tells the country of an address as two upper-case letters, or "ZZ".
// It is asked for every address of every event, so it has to be quick: a cache
// before a country file in memory costs more than it saves.
type Countries interface {
	Country(netip.Addr) string
}

// countries never lets an address that is not public reach the database.
type countries struct{ db Countries }

// of returns the country of an address; it always has two upper-case letters.
func (c *countries) of(a netip.Addr) string {
	if !a.IsValid() {
		return unknownCountry
	}
	a = a.Unmap().WithZone("")
	if !public(a) {
		return unknownCountry
	}
	s := c.db.Country(a)
	if len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
		return unknownCountry
	}
	return s
}
