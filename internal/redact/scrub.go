package redact

import (
	"bytes"
	"net/netip"
)

const (
	emailMark = "[email]"
	// tooTangled replaces text that still changes after maxRounds passes.
	tooTangled = "[scrubbed]"
	maxRounds  = 8
)

// scrubber takes addresses and e-mails out of text. It belongs to one goroutine.
type scrubber struct {
	country  func(netip.Addr) string
	src, out []byte
	view     view
	decoded  []byte
	pos      []int32
}

// view is text as a reader of URLs sees it: percent-encoding undone.
type view struct {
	text []byte
	pos  []int32 // where each byte, and the end, stands in the source; nil: the same place
}

func (v *view) source(i int) int {
	if v.pos == nil {
		return i
	}
	return int(v.pos[i])
}

// scrub returns the text without addresses and e-mails, valid until the next
// call, and whether it differs from s; unchanged text is not returned.
func (s *scrubber) scrub(text string) ([]byte, bool) {
	if !suspicious(text) {
		return nil, false
	}
	s.src = append(s.src[:0], text...)
	// Replacing one address can free another that was attached to it, so the
	// passes go on until nothing changes. That also makes scrubbing idempotent.
	for round := range maxRounds {
		if !s.pass() {
			return s.src, round > 0
		}
		s.src, s.out = s.out, s.src
		if n, _ := count(s.src, 0, always); len(s.src) <= countMask && !heavy(n) && !hyphenQuad(s.src) {
			return s.src, true
		}
	}
	return append(s.src[:0], tooTangled...), true
}

// pass replaces in s.src what it finds and writes the result to s.out.
func (s *scrubber) pass() bool {
	s.decode()
	v := &s.view
	t := v.text
	s.out = s.out[:0]
	start := isHex // what an address may begin with
	if bytes.Count(t, []byte{':'}) < 2 {
		start = isDigit // it can only be IPv4
	}
	done := 0 // everything before it has been written
	put := func(from, to int, mark string) {
		s.out = append(s.out, s.src[v.source(done):v.source(max(from, done))]...)
		s.out = append(s.out, mark...)
		done = to
	}
	mailFrom, mailTo := v.nextEmail(0)
	for i := 0; i < len(t); {
		if i >= mailFrom {
			if i < mailTo {
				put(mailFrom, mailTo, emailMark)
				i = mailTo
			}
			mailFrom, mailTo = v.nextEmail(mailTo)
			continue
		}
		if class[t[i]]&start == 0 && (t[i] != ':' || start == isDigit) {
			i++
			continue
		}
		found, ok, next := v.addressAt(i, done, start == isHex)
		if !ok {
			i = min(next, max(mailFrom, i+1))
			continue
		}
		put(found.from, found.to, "[ip:")
		s.out = append(append(s.out, s.country(found.addr)...), ']')
		i = found.to
	}
	if done == 0 {
		return false
	}
	s.out = append(s.out, s.src[v.source(done):]...)
	return true
}

// decode makes the view of s.src. A percent sign that was itself encoded, once
// or more (%25.., %2525..), is followed down to the byte it stands for.
func (s *scrubber) decode() {
	src := s.src
	if bytes.IndexByte(src, '%') < 0 {
		s.view = view{text: src}
		return
	}
	s.decoded, s.pos = s.decoded[:0], s.pos[:0]
	for i := 0; i < len(src); {
		c, n := src[i], 1
		if c == '%' {
			c, n = percent(src[i:])
		}
		s.decoded = append(s.decoded, c)
		s.pos = append(s.pos, int32(i))
		i += n
	}
	s.pos = append(s.pos, int32(len(src)))
	s.view = view{text: s.decoded, pos: s.pos}
}

// percent decodes the escape at the start of b and returns its length.
func percent(b []byte) (byte, int) {
	n := 1
	for len(b) >= n+2 && b[n] == '2' && b[n+1] == '5' {
		n += 2
	}
	if len(b) >= n+2 && class[b[n]]&isHex != 0 && class[b[n+1]]&isHex != 0 {
		return unhex[b[n]]<<4 | unhex[b[n+1]], n + 2
	}
	return '%', n
}

// nextEmail returns the next e-mail at or after from, or a place past the end.
func (v *view) nextEmail(from int) (int, int) {
	for at := from; ; at++ {
		n := bytes.IndexByte(v.text[min(at, len(v.text)):], '@')
		if n < 0 {
			return len(v.text), len(v.text)
		}
		at += n
		if a, b, ok := v.emailAt(at, from); ok {
			return a, b
		}
	}
}

// emails calls f for every e-mail in text.
func (s *scrubber) emails(text string, f func(string)) {
	s.src = append(s.src[:0], text...)
	s.decode()
	for from, to := s.view.nextEmail(0); from < to; from, to = s.view.nextEmail(to) {
		f(string(s.view.text[from:to]))
	}
}

// literal is an address in a view, with the port, brackets and zone around it.
type literal struct {
	from, to int
	addr     netip.Addr
}

// addressAt looks for an address that starts at i, where text before done has
// been replaced. Without one it returns where to look next.
func (v *view) addressAt(i, done int, v6 bool) (found literal, ok bool, next int) {
	t := v.text
	if v6 && (i == done || class[t[i-1]]&isHex == 0) {
		if found, ok = v.v6(i, done); ok {
			return found, true, 0
		}
	}
	if class[t[i]]&isDigit == 0 || i > done && class[t[i-1]]&isDigit != 0 {
		return literal{}, false, i + 1
	}
	run := v.numbers(i)
	switch run.sep {
	case '.':
		found, ok = v.dotted(&run, done)
	case '-':
		found, ok = v.hyphened(&run, done)
	}
	return found, ok, run.next()
}

// wrapped extends an address over its zone, brackets and port.
func (v *view) wrapped(l literal, done int) literal {
	t := v.text
	at := func(i int) byte {
		if i < len(t) {
			return t[i]
		}
		return 0
	}
	if at(l.to) == '%' && isAlnum(at(l.to+1)) {
		end := l.to + 1
		for end-l.to < 32 && (isAlnum(at(end)) || (at(end) == '.' || at(end) == '-' || at(end) == '_') && isAlnum(at(end+1))) {
			end++
		}
		l.to = end
	}
	bracketed := l.from > done && t[l.from-1] == '[' && at(l.to) == ']'
	if bracketed {
		l.from, l.to = l.from-1, l.to+1
	}
	if (bracketed || l.addr.Is4()) && at(l.to) == ':' {
		end := l.to + 1
		for end-l.to <= 5 && class[at(end)]&isDigit != 0 {
			end++
		}
		if end > l.to+1 && class[at(end)]&isDigit == 0 {
			l.to = end
		}
	}
	return l
}
