package codec

import (
	"bytes"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// nameTable finds attributes by name several times faster than a map: a hash of
// the length and three letters, and open addressing in a table mostly empty.
type nameTable [256]struct {
	name string
	attr event.Attr
}

// attributes holds every name of event.Attributes.
var attributes = newNameTable()

func newNameTable() *nameTable {
	t := new(nameTable)
	for a, def := range event.Attributes {
		i := hash(def.Name)
		for t[i].name != "" {
			i++
		}
		t[i].name, t[i].attr = def.Name, event.Attr(a)
	}
	return t
}

// hash of a name that is not empty; as a uint8 it wraps around the table.
func hash(name string) uint8 {
	n := len(name)
	h := uint32(n)<<24 | uint32(name[0])<<16 | uint32(name[n/2])<<8 | uint32(name[n-1])
	return uint8(h * 0x9e3779b1 >> 24)
}

func (t *nameTable) find(name string) (event.Attr, bool) {
	if name == "" {
		return 0, false
	}
	for i := hash(name); t[i].name != ""; i++ {
		if t[i].name == name {
			return t[i].attr, true
		}
	}
	return 0, false
}

// The names that are dropped wherever they appear, compared without case and
// separators, because publishers, headers and extension attributes spell them
// differently: client.ip, client_ip, clientIp, clientip.
var (
	refusedNames = map[string]bool{
		"urlfull": true, "urlquery": true, "clientip": true, "sourceip": true, "networkpeeraddress": true,
		"xforwardedfor": true, "authorization": true, "cookie": true,
		"exceptiontype": true, "exceptionmessage": true, "exceptionstacktrace": true, "exceptionescaped": true,
		"city": true, "cityname": true, "postalcode": true, "postcode": true, "zipcode": true,
		"latitude": true, "longitude": true, "coordinates": true,
	}
	refusedParts = []string{
		"password", "secret", "token", "geohash", "geolocation", "geolocality", "geocity", "geopostal",
		"geolat", "geolon", "geolng", "geopoint", "geocoord", "geosubdivision",
	}
)

// refused reports whether an attribute of that name is never kept. Publishers
// repeat the same few names, so the answers are remembered, within a bound.
func (d *Decoder) refused(name string) bool {
	const maxNames, maxName = 1024, 64
	if r, ok := d.names[name]; ok {
		return r
	}
	r := d.matchRefused(name)
	if len(name) <= maxName {
		if d.names == nil || len(d.names) == maxNames {
			d.names = make(map[string]bool)
		}
		d.names[strings.Clone(name)] = r // the name is a part of the whole record
	}
	return r
}

func (d *Decoder) matchRefused(name string) bool {
	// In d.name: the name in lower case with dots, a dot around it, then the
	// same without dots.
	b := d.name[:0]
	b = append(b, '.')
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			b = append(b, c+('a'-'A'))
		case c == '-' || c == '_' || c == '/' || c == ' ':
			b = append(b, '.')
		default:
			b = append(b, c)
		}
	}
	b = append(b, '.')
	dotted := len(b)
	for _, c := range b[:dotted] {
		if c != '.' {
			b = append(b, c)
		}
	}
	d.name = b
	words, letters := b[:dotted], b[dotted:]

	if refusedNames[string(letters)] ||
		bytes.HasPrefix(words, []byte(".exception.")) ||
		bytes.HasPrefix(letters, []byte("httprequestheader")) ||
		bytes.HasSuffix(letters, []byte("bodycontent")) {
		return true
	}
	for _, part := range refusedParts {
		if bytes.Contains(letters, []byte(part)) {
			return true
		}
	}
	// A geo attribute that does not name a country or a continent is finer.
	return bytes.Contains(words, []byte(".geo.")) &&
		!bytes.Contains(words, []byte(".country.")) && !bytes.Contains(words, []byte(".continent."))
}
