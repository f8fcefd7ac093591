package codec

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// The scanner reads d.b from an index and returns the index behind what it
// read, or -1 after noting in d.broken why the record is refused.

// fatal refuses the record as a whole.
func (d *Decoder) fatal(r Reason) int {
	if d.broken == "" {
		d.broken = r
	}
	return -1
}

// space returns the index of the first byte that is not white space.
func (d *Decoder) space(i int) int {
	b := d.b
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// member reads a key and its colon. i is behind the opening brace (first) or
// behind a value. With more, at is the first byte of the value; without, it is
// the index behind the closing brace, or -1.
func (d *Decoder) member(i int, first bool) (key string, at int, more bool) {
	b := d.b
	if !first && i+1 < len(b) && b[i] == ',' && b[i+1] == '"' {
		i++ // the usual case, without space
	} else {
		if i = d.space(i); i >= len(b) {
			return "", d.fatal(NotJSON), false
		}
		if b[i] == '}' {
			return "", i + 1, false
		}
		if !first {
			if b[i] != ',' {
				return "", d.fatal(NotJSON), false
			}
			i = d.space(i + 1)
		}
		if i >= len(b) || b[i] != '"' {
			return "", d.fatal(NotJSON), false
		}
	}
	if key, i = d.str(i); i < 0 {
		return "", i, false
	}
	if i = d.space(i); i >= len(b) || b[i] != ':' {
		return "", d.fatal(NotJSON), false
	}
	if i = d.space(i + 1); i >= len(b) {
		return "", d.fatal(NotJSON), false
	}
	return key, i, true
}

// str reads the string whose quote is at i.
func (d *Decoder) str(i int) (string, int) {
	j := plainEnd(d.b, i+1)
	if j < len(d.b) {
		switch d.b[j] {
		case '"':
			return d.s[i+1 : j], j + 1
		case '\\':
			return d.escaped(i+1, j)
		}
	}
	return "", d.fatal(NotJSON) // it does not end, or has a control character
}

// plainEnd returns the index of the first quote, backslash or control
// character from i on, eight bytes at a time.
func plainEnd(b []byte, i int) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for rest := b[i:]; len(rest) >= 8; rest = rest[8:] {
		w := binary.LittleEndian.Uint64(rest)
		// A byte's high bit is set where it matches; &^ w takes out the bytes
		// above ASCII. A borrow can only spoil bytes behind the first match.
		m := (((w ^ low*'"') - low) | ((w ^ low*'\\') - low) | (w - low*' ')) &^ w & high
		if m != 0 {
			return len(b) - len(rest) + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// escaped reads a string from start whose first backslash is at j. All
// unescaped strings of a record share one piece of memory.
func (d *Decoder) escaped(start, j int) (string, int) {
	u := &d.unescaped
	if u.Cap() == 0 {
		u.Grow(len(d.b) - start) // unescaped text is never longer than escaped
	}
	from := u.Len()
	for {
		u.WriteString(d.s[start:j])
		if j >= len(d.b) || d.b[j] < ' ' {
			return "", d.fatal(NotJSON)
		}
		if d.b[j] == '"' {
			return u.String()[from:], j + 1
		}
		r, n := d.escape(j)
		if n == 0 {
			return "", d.fatal(NotJSON)
		}
		u.WriteRune(r)
		start = j + n
		j = plainEnd(d.b, start)
	}
}

// escape reads the escape at i and returns its length, 0 if it is none. Half a
// surrogate pair becomes U+FFFD, as browsers and encoding/json read it.
func (d *Decoder) escape(i int) (rune, int) {
	if i+1 >= len(d.b) {
		return 0, 0
	}
	switch c := d.b[i+1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r := d.unit(i)
	if r < 0 {
		return 0, 0
	}
	if utf16.IsSurrogate(r) {
		if pair := utf16.DecodeRune(r, d.unit(i+6)); pair != utf8.RuneError {
			return pair, 12
		}
		return utf8.RuneError, 6
	}
	return r, 6
}

// unit reads \uXXXX at i; -1 if it is something else.
func (d *Decoder) unit(i int) rune {
	if i+6 > len(d.b) || d.b[i] != '\\' || d.b[i+1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range d.b[i+2 : i+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number returns the index behind the number at i.
func (d *Decoder) number(i int) int {
	b := d.b
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && '1' <= b[i] && b[i] <= '9':
		i = d.digits(i)
	default:
		return d.fatal(NotJSON)
	}
	if i < len(b) && b[i] == '.' {
		from := i + 1
		if i = d.digits(from); i == from {
			return d.fatal(NotJSON)
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from := i
		if i = d.digits(from); i == from {
			return d.fatal(NotJSON)
		}
	}
	return i
}

func (d *Decoder) digits(i int) int {
	for i < len(d.b) && '0' <= d.b[i] && d.b[i] <= '9' {
		i++
	}
	return i
}

// word reads true, false or null.
func (d *Decoder) word(i int, word string) int {
	if len(d.b)-i < len(word) || d.s[i:i+len(word)] != word {
		return d.fatal(NotJSON)
	}
	return i + len(word)
}

// skip reads a value that is not kept, as strictly as one that is. depth counts
// the objects and arrays around it. With count, names inside it that are
// refused are counted.
func (d *Decoder) skip(i, depth int, count bool) int {
	if i >= len(d.b) {
		return d.fatal(NotJSON)
	}
	switch c := d.b[i]; c {
	case '"':
		_, i = d.str(i)
		return i
	case 't':
		return d.word(i, "true")
	case 'f':
		return d.word(i, "false")
	case 'n':
		return d.word(i, "null")
	case '{', '[':
		if depth >= MaxDepth {
			return d.fatal(TooDeep)
		}
		if c == '[' {
			return d.skipArray(i+1, depth+1, count)
		}
		return d.skipObject(i+1, depth+1, count)
	default:
		return d.number(i)
	}
}

func (d *Decoder) skipObject(i, depth int, count bool) int {
	keys := &d.seen[depth]
	keys.reset()
	for first := true; ; first = false {
		key, at, more := d.member(i, first)
		if !more {
			return at
		}
		if !keys.add(key) {
			return d.fatal(DuplicateKey)
		}
		if count && d.refused(key) {
			d.e.Refused++
		}
		if i = d.skip(at, depth, count); i < 0 {
			return i
		}
	}
}

func (d *Decoder) skipArray(i, depth int, count bool) int {
	for first := true; ; first = false {
		at, more := d.element(i, first)
		if !more {
			return at
		}
		if i = d.skip(at, depth, count); i < 0 {
			return i
		}
	}
}

// element finds the next element of an array, as member does for objects.
func (d *Decoder) element(i int, first bool) (at int, more bool) {
	if i = d.space(i); i >= len(d.b) {
		return d.fatal(NotJSON), false
	}
	if d.b[i] == ']' {
		return i + 1, false
	}
	if !first {
		if d.b[i] != ',' {
			return d.fatal(NotJSON), false
		}
		if i = d.space(i + 1); i >= len(d.b) {
			return d.fatal(NotJSON), false
		}
	}
	return i, true
}

// keySet finds duplicate keys of one object. A few are compared one by one;
// many go to a map, whose hash a publisher cannot predict.
type keySet struct {
	few  []string
	many map[string]struct{}
}

const fewKeys = 16

func (k *keySet) reset() {
	k.few = k.few[:0]
	k.many = nil
}

// add returns false if the key is there already.
func (k *keySet) add(key string) bool {
	if k.many != nil {
		n := len(k.many)
		k.many[key] = struct{}{}
		return len(k.many) > n
	}
	for _, other := range k.few {
		if other == key {
			return false
		}
	}
	k.few = append(k.few, key)
	if len(k.few) == fewKeys {
		k.many = make(map[string]struct{}, 2*fewKeys)
		for _, other := range k.few {
			k.many[other] = struct{}{}
		}
	}
	return true
}
