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

// Four 16-bit counters share a word, so that one addition per byte counts what
// could make an address or an e-mail.
const (
	dots    = 1       // full stops after a digit
	hyphens = 1 << 16 // hyphens after a digit
	colons  = 1 << 32
	marks   = 1 << 48 // % and @

	countMask = 1<<16 - 1
)

var (
	weight = [256]uint64{'.': dots, '-': hyphens, ':': colons, '%': marks, '@': marks}
	// after says which counters the byte before lets count.
	after = func() (t [256]uint64) {
		for c := range t {
			t[c] = countMask<<32 | countMask<<48
			if class[c]&isDigit != 0 {
				t[c] = ^uint64(0)
			}
		}
		return t
	}()
)

// suspicious reports whether s can hold an address or an e-mail at all. Most
// text cannot, and this is all it costs.
func suspicious(s string) bool {
	if len(s) > countMask {
		return true // a counter could overflow
	}
	n, allowed := uint64(0), after[0]
	for i := range len(s) {
		n += weight[s[i]] & allowed
		allowed = after[s[i]]
	}
	return n>>48 > 0 || n&countMask >= 3 || n>>16&countMask >= 3 || n>>32&countMask >= 2
}
