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

// count adds what the bytes of s weigh, where allowed counts at the first of
// them; it returns the sum and what counts at the next one.
func count[T string | []byte](s T, n, allowed uint64) (uint64, uint64) {
	for i := range len(s) {
		w := weight[s[i]]
		n += w & allowed
		allowed = uint64(int64(w)>>63) | always
	}
	return n, allowed
}

// suspicious reports whether s can hold an address or an e-mail at all. Most
// text cannot, and this is all it costs.
func suspicious(s string) bool {
	if len(s) > countMask {
		return true // a counter could overflow
	}
	whole, n, allowed := s, uint64(0), uint64(always)
	for ; len(s) >= 8; s = s[8:] {
		word := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		if weightless(word) {
			allowed = uint64(int64(weight[s[7]])>>63) | always
			continue
		}
		n, allowed = count(s[:8], n, allowed)
	}
	n, _ = count(s, n, allowed)
	return heavy(n) || n>>16&countMask >= 3 && hyphenQuad(whole)
}

// weightless reports, for eight bytes at once, that none of them counts: all are
// above the full stop, and none is a colon or an at sign. It may miss some.
func weightless(word uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	colon, at := word^':'*ones, word^'@'*ones
	return (word|(word-'/'*ones)|(colon-ones)|(at-ones))&tops == 0
}

// heavy reports whether what was counted is enough for an address or an e-mail,
// hyphens aside.
func heavy(n uint64) bool {
	return n&countMask >= 3 || n>>32&countMask >= 2 || n>>48&countMask > 0
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
