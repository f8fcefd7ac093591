package redact

import "net/netip"

// unhex is the value of a hexadecimal digit.
var unhex = func() (t [256]byte) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c - '0'
	}
	for c := byte('a'); c <= 'f'; c++ {
		t[c], t[c-'a'+'A'] = c-'a'+10, c-'a'+10
	}
	return t
}()

// groups is an IPv6 literal while it is read.
type groups struct {
	value [8]uint16
	n     int
	gap   int  // how many groups stand before the ::, or -1
	digit bool // a decimal digit was seen
	quad  bool // it ends in a dotted quad
	long  bool // the first group has more than four digits
	first int  // digits of the first group
	end   int
}

// v6 looks for an IPv6 literal that starts at i.
func (v *view) v6(i, done int) (literal, bool) {
	g, ok := v.groups(i)
	if !ok || !g.complete() {
		return literal{}, false
	}
	t := v.text
	if !g.certain() {
		// Code is full of a::b: what little looks like an address must stand alone.
		word := func(i int) bool { return i >= done && i < len(t) && (isAlnum(t[i]) || t[i] == '_') }
		if g.long || word(i-1) || word(g.end) || g.n == 1 && g.gap == 1 {
			return literal{}, false
		}
	}
	end := g.end
	if g.n == 8 && end+1 < len(t) && t[end] == ':' && class[t[end+1]]&isHex != 0 { // a port, or one group too many
		for end++; end < len(t) && class[t[end]]&isHex != 0; end++ {
		}
	}
	return v.wrapped(literal{i, end, g.addr()}, done), true
}

// groups reads as many groups as belong together.
func (v *view) groups(i int) (g groups, ok bool) {
	t := v.text
	g.gap = -1
	if t[i] == ':' {
		if i+1 >= len(t) || t[i+1] != ':' {
			return g, false
		}
		g.gap = 0
		i += 2
	}
	g.end = i
	for g.n < 8 {
		start, value := i, uint16(0)
		for i < len(t) && class[t[i]]&isHex != 0 {
			// Of a group that is too long the last four digits count if it is
			// the first, the first four otherwise: text may be attached there.
			if i-start < 4 || g.n == 0 && g.gap < 0 {
				value = value<<4 | uint16(unhex[t[i]])
			}
			g.digit = g.digit || class[t[i]]&isDigit != 0
			i++
		}
		if i == start {
			return g, true
		}
		if i < len(t) && t[i] == '.' && (g.gap >= 0 && g.n <= 6 || g.n == 6) {
			if q, end, ok := quad(t, start); ok {
				g.value[g.n], g.value[g.n+1] = uint16(q[0])<<8|uint16(q[1]), uint16(q[2])<<8|uint16(q[3])
				g.n, g.quad, g.end = g.n+2, true, end
				return g, true
			}
		}
		if g.n == 0 {
			g.first, g.long = i-start, i-start > 4 && g.gap < 0
		}
		tooLong := i-start > 4 && (g.n != 0 || g.gap >= 0)
		g.value[g.n] = value
		g.n, g.end = g.n+1, i
		if tooLong || i+1 >= len(t) || t[i] != ':' {
			return g, true
		}
		switch {
		case t[i+1] == ':' && g.gap < 0 && g.n < 8:
			g.gap = g.n
			i += 2
			g.end = i
		case class[t[i+1]]&isHex != 0:
			i++
		default:
			return g, true
		}
	}
	return g, true
}

// complete reports whether the groups make an address: eight of them, or fewer
// with a ::.
func (g *groups) complete() bool {
	if g.n == 0 || g.gap < 0 && g.n < 8 {
		return false
	}
	return g.digit || g.n >= 3
}

// certain reports whether this is an address even with letters attached.
func (g *groups) certain() bool {
	if g.quad || g.n >= 3 {
		return true
	}
	top := g.value[0]
	return g.gap != 0 && g.first >= 4 && (top>>12 == 2 || top>>12 == 3 || top>>8 >= 0xfc)
}

func (g *groups) addr() netip.Addr {
	var b [16]byte
	for i, x := range g.value[:g.n] {
		at := i
		if g.gap >= 0 && i >= g.gap {
			at = 8 - g.n + i
		}
		b[2*at], b[2*at+1] = byte(x>>8), byte(x)
	}
	return netip.AddrFrom16(b).Unmap()
}

// quad reads a dotted quad at i, whatever is attached to it.
func quad(t []byte, i int) (q [4]byte, end int, ok bool) {
	for k := range q {
		start, value := i, 0
		for i < len(t) && i-start < 3 && class[t[i]]&isDigit != 0 {
			value = value*10 + int(t[i]-'0')
			i++
		}
		if i == start || value > 255 {
			return q, 0, false
		}
		q[k] = byte(value)
		if k < 3 {
			if i >= len(t) || t[i] != '.' {
				return q, 0, false
			}
			i++
		}
	}
	return q, i, true
}
