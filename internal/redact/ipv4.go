package redact

import "net/netip"

// maxHost bounds how far a host name is followed, in bytes.
const maxHost = 253

// run is a row of numbers joined by one separator.
type run struct {
	sep   byte // '.', '-', or 0 for a single number
	n     int  // how many numbers
	end   int
	first [5]int // where the first numbers start
	last  int    // where the last number starts
	head  [5]int // the first five values; -1: no octet
	tail  [4]int // the last four
}

// next is where the search goes on after a run that is no address: its last
// number may begin another run with another separator.
func (r *run) next() int {
	if r.n > 1 {
		return r.last
	}
	return r.end
}

func octets(v []int) (netip.Addr, bool) {
	var b [4]byte
	for i := range b {
		if v[i] < 0 {
			return netip.Addr{}, false
		}
		b[i] = byte(v[i])
	}
	return netip.AddrFrom4(b), true
}

// numbers reads the run that starts at i.
func (v *view) numbers(i int) run {
	t := v.text
	r := run{}
	for {
		start, value := i, 0
		for i < len(t) && class[t[i]]&isDigit != 0 {
			if value < 1000 {
				value = value*10 + int(t[i]-'0')
			}
			i++
		}
		if i-start > 3 || value > 255 {
			value = -1
		}
		if r.n >= 4 && r.sep == '.' && i < len(t) && class[t[i]]&isLetter != 0 {
			return r // 1.2.3.4.5star.example: a label that only begins with a digit
		}
		if r.n < len(r.head) {
			r.head[r.n], r.first[r.n] = value, start
		}
		r.tail = [4]int{r.tail[1], r.tail[2], r.tail[3], value}
		r.n, r.end, r.last = r.n+1, i, start
		if i+1 >= len(t) || class[t[i+1]]&isDigit == 0 {
			return r
		}
		switch {
		case r.sep == 0 && (t[i] == '.' || t[i] == '-'):
			r.sep = t[i]
		case r.sep == 0 || t[i] != r.sep:
			return r
		}
		i++
	}
}

// dotted decides whether a run of dotted numbers is an address.
func (v *view) dotted(r *run, done int) (literal, bool) {
	t, from := v.text, r.first[0]
	if r.n < 4 || r.end < len(t) && class[t[r.end]]&isLetter != 0 {
		return literal{}, false
	}
	addr, ok := octets(r.head[:4])
	host, inHost := v.host(r.end)
	letters := v.lettersBefore(from, done)
	switch {
	case letters >= 2 && r.n == 5: // node7.192.0.2.1, but not v1.2.3.4.5
		addr, ok = octets(r.tail[:])
		from, ok = r.first[1], ok && (host || !inHost)
	case letters > 0: // v1.2.3.4
		return literal{}, false
	case r.n == 4:
		ok = ok && (host || !inHost)
	default: // 1.2.3.4.163.example, but not 1.2.3.4.5
		if !ok {
			addr, ok = octets(r.tail[:])
		}
		ok = ok && host
	}
	if !ok {
		return literal{}, false
	}
	return v.wrapped(literal{from, r.end, addr}, done), true
}

// host reports whether a host name goes on at i with a dot, and whether its last
// label begins with anything but a digit, as the label of a version does not.
func (v *view) host(i int) (host, inHost bool) {
	t := v.text
	named := func(i int) bool { return i < len(t) && (isAlnum(t[i]) || t[i] == '-' || t[i] == '_') }
	if i >= len(t) || t[i] != '.' || !named(i+1) {
		return false, false
	}
	label := i + 1
	for j := label; named(j) || j < len(t) && t[j] == '.' && named(j+1); j++ {
		if j-i > maxHost {
			return true, true
		}
		if t[j] == '.' {
			label = j + 1
		}
	}
	return class[t[label]]&isDigit == 0, true
}

// lettersBefore counts the letters attached before i, two at most. The letter of
// an escaped line break or tab is not one.
func (v *view) lettersBefore(i, done int) int {
	t, n := v.text, 0
	for i > done && n < 2 && class[t[i-1]]&isLetter != 0 {
		i--
		n++
	}
	if n == 1 && i > done && t[i-1] == '\\' && (t[i] == 'n' || t[i] == 'r' || t[i] == 't') {
		return 0
	}
	return n
}

// hyphened decides whether a run of numbers joined by hyphens is an address, as
// providers put it into host names: it needs a letter next to it.
func (v *view) hyphened(r *run, done int) (literal, bool) {
	t, from := v.text, r.first[0]
	near := func(i int) bool { return i >= done && i < len(t) && class[t[i]]&isLetter != 0 }
	attached := near(from - 1)
	named := attached || from > done && (t[from-1] == '-' || t[from-1] == '.') && near(from-2) ||
		r.end < len(t) && (t[r.end] == '.' || t[r.end] == '-') && near(r.end+1)
	values := r.head[:4]
	switch {
	case r.n == 5 && attached: // host5-192-0-2-1
		values, from = r.tail[:], r.first[1]
	case r.n != 4 || !named:
		return literal{}, false
	}
	addr, ok := octets(values)
	if !ok {
		return literal{}, false
	}
	return v.wrapped(literal{from, r.end, addr}, done), true
}
