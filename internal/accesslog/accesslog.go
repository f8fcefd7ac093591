// Package accesslog reads one line of an access log in the common or combined
// format, as Apache httpd and nginx write it:
//
//	client ident user [day/month/year:hour:minute:second zone] "request" status size "referer" "user agent"
//
// It is pure: no files, no clock, no memory per line. It keeps what an event
// can hold; ident, referer, query string and what follows the user agent are
// not returned. Errors are one word from a closed list and never hold text of
// the line.
package accesslog

import (
	"bytes"
	"time"
)

// Reason says what in a line could not be read. It is an error, and safe to
// print.
type Reason string

// The reasons, in the order of the line.
const (
	Empty        Reason = "empty line"
	BadClient    Reason = "no client address at the start"
	BadUser      Reason = "no user before the time"
	BadTime      Reason = "the time is not [02/Jan/2006:15:04:05 -0700]"
	BadRequest   Reason = "the request is not in quotes"
	BadStatus    Reason = "the status is not three digits"
	BadSize      Reason = "the size is not a number or a dash"
	BadReferer   Reason = "the referer is not in quotes"
	BadUserAgent Reason = "the user agent is not in quotes"
)

// Error returns the reason.
func (r Reason) Error() string { return string(r) }

// Line is what a line says. Its texts share the memory of the line or of Line
// itself: they are valid until the next Parse. An empty text means absent.
type Line struct {
	Client []byte // an address or a host name
	User   []byte // the authenticated user
	Time   time.Time
	// Method is the request's method, or "_OTHER" where the client sent
	// something that is not HTTP, such as a TLS handshake or nothing at all.
	Method  []byte
	Path    []byte // as sent, without the query string, without scheme and host
	Version []byte // "1.1", "2"
	Status  int
	Size    int64 // bytes of the answer's body
	// UserAgent is absent in the common format.
	UserAgent []byte

	scratch []byte // unescaped texts
}

var (
	other = []byte("_OTHER")
	dash  = []byte("-")
	two   = []byte("2")
	three = []byte("3")
)

// Parse reads a line without its line break into l. After an error l is not
// usable.
func Parse(line []byte, l *Line) error {
	*l = Line{scratch: l.scratch[:0]}
	if len(bytes.TrimSpace(line)) == 0 {
		return Empty
	}
	var ok bool
	if l.Client, line, ok = word(line); !ok || l.Client[0] == '"' {
		return BadClient
	}
	if bytes.Equal(l.Client, dash) {
		l.Client = nil
	}
	if line, ok = l.who(line); !ok {
		return BadUser
	}
	if line, ok = l.when(line); !ok {
		return BadTime
	}
	request, line, ok := quoted(line)
	if !ok {
		return BadRequest
	}
	l.request(l.unescape(request))
	if line, ok = l.status(line); !ok {
		return BadStatus
	}
	if line, ok = l.size(line); !ok {
		return BadSize
	}
	if len(line) == 0 {
		return nil // the common format ends here
	}
	if _, line, ok = quoted(line); !ok {
		return BadReferer
	}
	agent, _, ok := quoted(line)
	if !ok {
		// Servers and collectors cut long lines: what is there of the last field
		// is still a user agent, and the event before it is whole.
		if len(line) == 0 || line[0] != '"' {
			return BadUserAgent
		}
		agent = line[1:]
	}
	if l.UserAgent = l.unescape(agent); bytes.Equal(l.UserAgent, dash) {
		l.UserAgent = nil
	}
	return nil
}

// word cuts the text up to the next space; the rest begins behind it.
func word(b []byte) (w, rest []byte, ok bool) {
	i := bytes.IndexByte(b, ' ')
	if i <= 0 {
		return nil, b, false
	}
	return b[:i], b[i+1:], true
}

// who reads ident and user. A user may hold spaces and brackets, so it ends
// where the time begins: at a bracket that a digit follows.
func (l *Line) who(b []byte) (rest []byte, ok bool) {
	_, b, ok = word(b)
	if !ok {
		return b, false
	}
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(" ["))
		if i < 0 {
			return b, false
		}
		i += from
		if i+2 < len(b) && isDigit(b[i+2]) {
			// Apache writes "" for a user without a name.
			if u := b[:i]; len(u) > 0 && !bytes.Equal(u, dash) && string(u) != `""` {
				l.User = l.unescape(u)
			}
			return b[i+1:], true
		}
		from = i + 2
	}
}

// when reads the time in brackets and the space behind it.
func (l *Line) when(b []byte) (rest []byte, ok bool) {
	end := bytes.IndexByte(b, ']')
	if end < 0 || len(b) < end+2 || b[end+1] != ' ' {
		return b, false
	}
	if l.Time, ok = clock(b[1:end]); !ok {
		return b, false
	}
	return b[end+2:], true
}

// request splits the request line. Method and version are recognised; the
// target between them may hold spaces.
func (l *Line) request(b []byte) {
	l.Method = other
	method, target, found := bytes.Cut(b, []byte(" "))
	if !found || !isMethod(method) {
		return
	}
	l.Method = method
	if i := bytes.LastIndex(target, []byte(" HTTP/")); i >= 0 {
		l.Version = version(target[i+len(" HTTP/"):])
		target = target[:i]
	}
	if string(method) == "CONNECT" {
		return // its target is a host, not a path
	}
	if i := bytes.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if len(target) > 0 && target[0] != '/' {
		// The form that proxies send: http://host/path.
		_, host, absolute := bytes.Cut(target, []byte("://"))
		if absolute {
			if i := bytes.IndexByte(host, '/'); i >= 0 {
				target = host[i:]
			} else {
				target = []byte("/")
			}
		}
	}
	l.Path = target
}

// version writes HTTP versions as OpenTelemetry does: nginx logs 2.0, the
// protocol's name is 2. What is no version is left out.
func version(b []byte) []byte {
	switch string(b) {
	case "2.0":
		return two
	case "3.0":
		return three
	}
	for _, c := range b {
		if !isDigit(c) && c != '.' {
			return nil
		}
	}
	if len(b) > 8 {
		return nil
	}
	return b
}

func (l *Line) status(b []byte) (rest []byte, ok bool) {
	if len(b) < 4 || b[3] != ' ' || !isDigit(b[0]) || !isDigit(b[1]) || !isDigit(b[2]) {
		return b, false
	}
	l.Status = int(b[0]-'0')*100 + int(b[1]-'0')*10 + int(b[2]-'0')
	return b[4:], true
}

// size reads digits, or the dash that Apache writes for no bytes.
func (l *Line) size(b []byte) (rest []byte, ok bool) {
	n, rest, found := bytes.Cut(b, []byte(" "))
	if found && len(rest) == 0 {
		found = false // a space at the end
	}
	if !found {
		rest = nil
	}
	if bytes.Equal(n, dash) {
		return rest, true
	}
	if len(n) == 0 || len(n) > 15 {
		return b, false
	}
	for _, c := range n {
		if !isDigit(c) {
			return b, false
		}
		l.Size = l.Size*10 + int64(c-'0')
	}
	return rest, true
}

// quoted cuts a text in quotes and the space behind it. A quote ends the text
// when a space or the end of the line follows: old servers do not escape the
// quotes that clients send.
func quoted(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, b, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			if i+1 == len(b) {
				return b[1:i], nil, true
			}
			if b[i+1] == ' ' {
				return b[1:i], b[i+2:], true
			}
		}
	}
	return nil, b, false
}

// unescape undoes what the servers do to unusual bytes: \xHH, \" and \\, and
// the letters of C. Other backslashes stay.
func (l *Line) unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	from := len(l.scratch)
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '\\' || i+1 == len(b) {
			l.scratch = append(l.scratch, c)
			continue
		}
		i++
		switch b[i] {
		case '"', '\\':
			l.scratch = append(l.scratch, b[i])
		case 'n':
			l.scratch = append(l.scratch, '\n')
		case 't':
			l.scratch = append(l.scratch, '\t')
		case 'r':
			l.scratch = append(l.scratch, '\r')
		case 'b':
			l.scratch = append(l.scratch, '\b')
		case 'f':
			l.scratch = append(l.scratch, '\f')
		case 'v':
			l.scratch = append(l.scratch, '\v')
		case 'x':
			hi, lo := -1, -1
			if i+2 < len(b) {
				hi, lo = hex(b[i+1]), hex(b[i+2])
			}
			if hi < 0 || lo < 0 {
				l.scratch = append(l.scratch, '\\', 'x')
				continue
			}
			l.scratch = append(l.scratch, byte(hi<<4|lo))
			i += 2
		default:
			l.scratch = append(l.scratch, '\\', b[i])
		}
	}
	// A later text may move scratch; this one keeps the memory it has.
	return l.scratch[from:len(l.scratch):len(l.scratch)]
}

// isMethod accepts the tokens that name methods; whatever else a client sends
// in that place is not repeated.
func isMethod(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 32
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func hex(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
