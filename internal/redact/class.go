package redact

// The classes of a byte, as the scrubber sees them.
const (
	isDigit  uint8 = 1 << iota
	isHex          // digits included
	isLetter       // ASCII
	isLocal        // may stand before the @ of an e-mail
	isDomain       // may stand after it
)

var class = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = isDigit | isHex | isLocal | isDomain
		case c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			t[c] = isHex | isLetter | isLocal | isDomain
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			t[c] = isLetter | isLocal | isDomain
		case c >= 0x80:
			t[c] = isLocal | isDomain
		}
	}
	// Of RFC 5322's atext without what separates in URLs, templates and the
	// ids of identity providers: / = ? & | { } `
	for _, c := range "!#$%'*+-.^_~" {
		t[c] |= isLocal
	}
	for _, c := range "-._" {
		t[c] |= isDomain
	}
	return t
}()

func isAlnum(c byte) bool { return class[c]&(isDigit|isLetter) != 0 }

// Counters share a word, so that one addition per byte counts what could make
// an address or an e-mail.
const (
	dots    = 1       // full stops after a digit
	hyphens = 1 << 16 // hyphens after a digit
	colons  = 1 << 32
	marks   = 1 << 48 // % and @
	digit   = 1 << 63 // no counter: set for digits

	countMask = 1<<15 - 1
	always    = colons*countMask | marks*countMask // what counts after any byte
)

var weight = func() (t [256]uint64) {
	t['.'], t['-'], t[':'], t['%'], t['@'] = dots, hyphens, colons, marks, marks
	for c := '0'; c <= '9'; c++ {
		t[c] = digit
	}
	return t
}()

// suspicious reports whether s can hold an address or an e-mail at all. Most
// text cannot, and this is all it costs.
func suspicious[T string | []byte](s T) bool {
	if len(s) > countMask {
		return true // a counter could overflow
	}
	n, allowed := uint64(0), uint64(always)
	for i := range len(s) {
		w := weight[s[i]]
		n += w & allowed
		allowed = uint64(int64(w)>>63) | always
	}
	if n&countMask >= 3 || n>>32&countMask >= 2 || n>>48&countMask > 0 {
		return true
	}
	return n>>16&countMask >= 3 && hyphenQuad(s)
}

// hyphenQuad reports whether s holds four short numbers joined by hyphens, which
// an id made of hexadecimal groups seldom does.
func hyphenQuad[T string | []byte](s T) bool {
	numbers, digits := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case class[c]&isDigit != 0:
			if digits++; numbers == 3 && digits == 1 {
				return true
			}
		case c == '-' && digits >= 1 && digits <= 3:
			numbers, digits = numbers+1, 0
		default:
			numbers, digits = 0, 0
		}
	}
	return false
}
