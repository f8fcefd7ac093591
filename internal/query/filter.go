package query

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	// lookBack is how far a query without a start goes back.
	lookBack = 24 * time.Hour
	// skew is how far a query without an end reaches ahead, so that events with
	// a clock ahead of ours are seen. Ingest takes no more as an event's true time.
	skew = 5 * time.Minute
	// maxAlso bounds the further keys of a subject query.
	maxAlso = 20
	// maxValue bounds a text filter, in bytes.
	maxValue = 1024
)

// Every event lies between these: older ones are refused at ingest, and no
// later instant can be stored.
var (
	firstInstant = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	lastInstant  = time.Date(2105, 12, 31, 0, 0, 0, 0, time.UTC)
)

// question is a parsed request for a page.
type question struct {
	filter event.Filter
	limit  int
	after  *event.Position
	// hash binds cursors to the filter, the route and what the caller may see.
	hash [sha256.Size]byte
	// withheld is what page 1 said; nil on page 1.
	withheld []byte
}

// parameters are the query parameters, each of which must be asked for.
type parameters struct {
	values url.Values
	known  map[string]bool
	err    error
}

func parseParameters(raw string) (*parameters, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errBadRequest.because("The query string is not well formed.")
	}
	return &parameters{values: v, known: map[string]bool{}}, nil
}

func (p *parameters) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// all returns the values of a parameter that may be repeated.
func (p *parameters) all(name string) []string {
	p.known[name] = true
	return p.values[name]
}

// one returns the value of a parameter, "" where there is none. An empty value
// is an error: it would match everything where nothing was meant.
func (p *parameters) one(name string) string {
	v := p.all(name)
	if len(v) == 0 {
		return ""
	}
	if len(v) > 1 || v[0] == "" || len(v[0]) > maxValue && name != "cursor" {
		p.fail(errBadRequest.because("The parameter " + name + " must have one value, of at most 1024 bytes."))
		return ""
	}
	return v[0]
}

func (p *parameters) time(name string) time.Time {
	v := p.one(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil || t.Before(firstInstant) || t.After(lastInstant) {
		p.fail(errBadRequest.because("The parameter " + name + " must be a time between 2000 and 2105, such as 2026-01-31T10:00:00Z."))
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// done returns the first error; a parameter that nobody asked for is one.
func (p *parameters) done() error {
	for name := range p.values {
		if !p.known[name] {
			// The name is not repeated in the answer: it may be a value in the wrong place.
			known := make([]string, 0, len(p.known))
			for k := range p.known {
				known = append(known, k)
			}
			slices.Sort(known)
			return errBadRequest.because("There is a parameter that is not known here. Known: " + strings.Join(known, ", ") + ".")
		}
	}
	return p.err
}

// parse reads a request for a page. subjects is nil where the route has none.
func (s *Server) parse(raw, route string, subjects []string, c caller) (question, error) {
	p, err := parseParameters(raw)
	if err != nil {
		return question{}, err
	}
	var q question
	f := &q.filter
	for _, name := range p.all("kind") {
		k, ok := event.ParseKind(name)
		if !ok {
			p.fail(errBadRequest.because("The parameter kind must be request, audit or security; it may be repeated."))
			continue
		}
		f.Kinds |= 1 << k
	}
	from, to := p.time("from"), p.time("to")
	f.User = p.one("user")
	if rawIdentifier(f.User) {
		p.fail(errRawIdentifier.because("The parameter user is a user's id. Ask POST /v1/subject-keys for the key of an e-mail, and /v1/subjects/{key}/events for its events."))
	}
	f.Organization = p.one("organization")
	f.Action = p.one("action")
	f.Outcome = p.one("outcome")
	if f.Outcome != "" && !slices.Contains(event.Attributes[event.EventOutcome].Enum, f.Outcome) {
		p.fail(errBadRequest.because("The parameter outcome must be success, failure or unknown."))
	}
	f.Country = p.one("country")
	if f.Country != "" && !isCountry(f.Country) {
		p.fail(errBadRequest.because("The parameter country must be two capital letters, such as DE, or ZZ where it is not known."))
	}
	if v := p.one("status"); v != "" {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n < 100 || n > 999 {
			p.fail(errBadRequest.because("The parameter status must be an HTTP status, such as 404."))
		}
		f.Status = uint16(n)
	}
	if v := p.one("trace"); v != "" {
		id, err := hex.DecodeString(v)
		if err != nil || len(id) != len(f.TraceID) || f.TraceID == [16]byte(id) {
			p.fail(errBadRequest.because("The parameter trace must be 32 hexadecimal digits, not all zero."))
		} else {
			f.TraceID = [16]byte(id)
		}
	}
	q.limit = defaultLimit
	if v := p.one("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxLimit {
			p.fail(errBadRequest.because("The parameter limit must be a number from 1 to 1000."))
		}
		q.limit = n
	}
	if subjects != nil {
		f.Subjects = alsoKeys(p, subjects)
	}
	text := p.one("cursor")
	if err := p.done(); err != nil {
		return question{}, err
	}
	if c.Organization != "" {
		if f.Organization != "" && f.Organization != c.Organization {
			return question{}, errForbidden.because("The token is limited to another organization.")
		}
		f.Tenant = c.Organization
	}
	q.hash = sha256.Sum256(fmt.Appendf(nil, "%q %d %d %d %q %q %q %q %q %d %x %q %q %q", route, f.Kinds, from.UnixMilli(), to.UnixMilli(),
		f.User, f.Organization, f.Action, f.Outcome, f.Country, f.Status, f.TraceID, f.Subjects, f.Tenant, c.Role))
	return q, s.place(&q, from, to, text)
}

// place sets the time range, the ceiling and the position: from the clock on
// page 1, from the cursor on the others.
func (s *Server) place(q *question, from, to time.Time, text string) error {
	q.filter.Now = s.now()
	if text != "" {
		v, err := s.cursors.open(q.hash, text)
		if err != nil {
			return err
		}
		q.filter.From, q.filter.To, q.filter.Ceiling = v.from, v.to, v.ceiling
		q.after, q.withheld = &v.after, v.withheld
		return nil
	}
	q.filter.Ceiling = q.filter.Now
	q.filter.From, q.filter.To = from, to
	if to.IsZero() {
		q.filter.To = q.filter.Now.Add(skew)
	}
	if from.IsZero() {
		end := q.filter.Now
		if !to.IsZero() {
			end = to
		}
		q.filter.From = end.Add(-lookBack)
	}
	if !q.filter.From.Before(q.filter.To) {
		return errBadRequest.because("The parameter from must be before to; without to, it must not be in the future.")
	}
	return nil
}

// alsoKeys adds the further keys of the person that the parameter also names.
func alsoKeys(p *parameters, keys []string) []string {
	also := p.all("also")
	if len(also) > maxAlso {
		p.fail(errBadRequest.because("The parameter also may stand at most 20 times."))
		return keys
	}
	for _, k := range also {
		if err := checkKey(k); err != nil {
			p.fail(err)
			return keys
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func isCountry(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// rawIdentifier reports whether a text is an e-mail or an internet address,
// which MUST NOT stand in a URL: URLs end in proxy logs and browser histories.
func rawIdentifier(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at > 0 && at < len(s)-1 {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}
