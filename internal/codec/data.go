package codec

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/event"
)

// data reads the attributes; i is behind the brace of the data object, which is
// at that depth. It returns the index behind the closing brace, or -1.
func (d *Decoder) data(i, depth int) int {
	other := &d.seen[depth]
	other.reset()
	for first := true; ; first = false {
		key, at, more := d.member(i, first)
		if !more {
			return at
		}
		i = at
		a, known := attributes.find(key)
		if !known {
			if !other.add(key) {
				return d.fatal(DuplicateKey)
			}
			if i = d.dropped(key, i, depth); i < 0 {
				return i
			}
			continue
		}
		if d.keys&(1<<a) != 0 {
			return d.fatal(DuplicateKey)
		}
		d.keys |= 1 << a
		def := &event.Attributes[a]
		switch {
		case !def.Kinds.Has(d.kind):
			i = d.dropped(key, i, depth)
		case d.b[i] == 'n':
			i = d.word(i, "null") // null is absent
		default:
			i = d.value(a, def, i, depth)
		}
		if i < 0 {
			return i
		}
	}
}

// dropped reads the value of an attribute that is counted and not kept.
func (d *Decoder) dropped(key string, i, depth int) int {
	before := d.e.Refused
	d.drop(key)
	return d.skip(i, depth, d.e.Refused == before) // a refused one is counted once
}

// value reads the value of a known attribute.
func (d *Decoder) value(a event.Attr, def *event.Attribute, i, depth int) int {
	switch c := d.b[i]; {
	case def.Type == event.String && c == '"':
		v, i := d.str(i)
		if i >= 0 && v != "" {
			d.setText(a, def, v)
		}
		return i
	case (def.Type == event.Integer || def.Type == event.Number) && (c == '-' || '0' <= c && c <= '9'):
		end := d.number(i)
		if end >= 0 {
			d.setNumber(a, def, d.s[i:end])
		}
		return end
	case def.Type == event.Boolean && c == 't':
		d.e.SetNum(a, 1)
		return d.word(i, "true")
	case def.Type == event.Boolean && c == 'f':
		d.e.SetNum(a, 0)
		return d.word(i, "false")
	case def.Type == event.Strings && c == '"':
		v, i := d.str(i)
		if i >= 0 {
			d.addOwner(a, def, v)
		}
		return i
	case def.Type == event.Strings && c == '[':
		return d.owners(a, def, i, depth)
	case def.Type == event.Map && c == '{':
		return d.metadata(a, def, i, depth)
	}
	d.fail(WrongType, def.Name)
	return d.skip(i, depth, true)
}

// setText checks and keeps a string attribute. What is not allowed is not kept
// either: the redacted dead letter must not carry it past the rules.
func (d *Decoder) setText(a event.Attr, def *event.Attribute, v string) {
	switch {
	case def.Enum != nil:
		if !slices.Contains(def.Enum, v) {
			d.fail(WrongValue, def.Name)
			return
		}
	case def.Hex > 0:
		if !isHex(v, def.Hex) {
			d.fail(WrongValue, def.Name)
			return
		}
	case def.Max > 0 && len(v) > def.Max:
		switch {
		case def.Tag == event.Content:
			v = cut(v, def.Max)
		case a == event.UserAgent:
			v = v[:runeStart(v, def.Max)] // parsed, never stored
		case a == event.ClientAddress:
			// A chain keeps its whole addresses; half of one would be another one.
			if v = v[:max(0, strings.LastIndexByte(v[:def.Max], ','))]; v == "" {
				return
			}
		default:
			d.fail(AttributeTooLong, def.Name)
			return
		}
	}
	d.e.Set(a, v)
}

func isHex(v string, digits int) bool {
	if len(v) != digits {
		return false
	}
	for i := range len(v) {
		if c := v[i] | 0x20; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

const ellipsis = "…"

// cut shortens text written by a person to limit bytes, the ellipsis included.
// What could be the beginning of an address goes too: the scrubber would not
// know half an address for one.
func cut(v string, limit int) string {
	n := runeStart(v, limit-len(ellipsis))
	for n > 0 && inAddress(v[n-1]) {
		n--
	}
	return v[:n] + ellipsis
}

// runeStart returns the last index up to n where a letter of v begins.
func runeStart(v string, n int) int {
	for n > 0 && !utf8.RuneStart(v[n]) {
		n--
	}
	return n
}

func inAddress(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || strings.IndexByte(".:%[]-_", c) >= 0
}

func (d *Decoder) setNumber(a event.Attr, def *event.Attribute, text string) {
	v, ok := parseNumber(text)
	if !ok || v < 0 || def.Max > 0 && v > float64(def.Max) || def.Type == event.Integer && v != math.Trunc(v) {
		d.fail(WrongValue, def.Name)
		return
	}
	d.e.SetNum(a, v)
}

// parseNumber reads a JSON number; ok is false where it is too large.
func parseNumber(text string) (float64, bool) {
	if len(text) <= 15 {
		n := 0
		for i := range len(text) {
			if c := text[i] - '0'; c <= 9 {
				n = n*10 + int(c)
				continue
			}
			n = -1
			break
		}
		if n >= 0 {
			return float64(n), true
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	return v + 0, err == nil // + 0 makes -0 a 0
}

// addOwner keeps one value of target.owner.id.
func (d *Decoder) addOwner(a event.Attr, def *event.Attribute, v string) {
	if v == "" {
		return
	}
	if len(v) > def.Max || len(d.e.Owners) == event.MaxOwners {
		d.fail(AttributeTooLong, def.Name)
		return
	}
	d.e.Owners = append(d.e.Owners, v)
	d.e.Has |= 1 << a
}

// owners reads a list of ids; the bracket is at i.
func (d *Decoder) owners(a event.Attr, def *event.Attribute, i, depth int) int {
	i++
	for first := true; ; first = false {
		at, more := d.element(i, first)
		if !more {
			return at
		}
		if d.b[at] == '"' {
			var v string
			if v, i = d.str(at); i >= 0 {
				d.addOwner(a, def, v)
			}
		} else {
			d.fail(WrongType, def.Name)
			i = d.skip(at, depth+1, true)
		}
		if i < 0 {
			return i
		}
	}
}

// metadata reads the map; its brace is at i. Refused keys are dropped and
// counted, whatever their values are.
func (d *Decoder) metadata(a event.Attr, def *event.Attribute, i, depth int) int {
	depth++
	keys := &d.seen[depth]
	keys.reset()
	n := 0
	i++
	for first := true; ; first = false {
		key, at, more := d.member(i, first)
		if !more {
			return at
		}
		i = at
		if !keys.add(key) {
			return d.fatal(DuplicateKey)
		}
		n++
		switch {
		case d.refused(key):
			d.e.Refused++
			i = d.skip(i, depth, false)
		case d.b[i] == '"':
			var v string
			if v, i = d.str(i); i >= 0 {
				d.addMetadata(a, def, n, key, v)
			}
		case d.b[i] == 'n':
			i = d.word(i, "null")
		default:
			d.fail(WrongType, def.Name)
			i = d.skip(i, depth, true)
		}
		if i < 0 {
			return i
		}
	}
}

func (d *Decoder) addMetadata(a event.Attr, def *event.Attribute, n int, key, v string) {
	if n > event.MaxMetadata || len(key) > event.MaxMetadataKey {
		d.fail(AttributeTooLong, def.Name)
		return
	}
	if len(v) > event.MaxMetadataValue {
		v = cut(v, event.MaxMetadataValue)
	}
	d.e.Metadata = append(d.e.Metadata, event.Pair{Key: key, Value: v})
	d.e.Has |= 1 << a
}
