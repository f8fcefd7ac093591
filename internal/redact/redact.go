package redact

import (
	"errors"
	"math"
	"math/bits"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// Options is what a Redactor needs.
type Options struct {
	Keys      *Keys
	Countries Countries
	// PolicyVersion is written into every row; it belongs to the policy that decides.
	PolicyVersion string
}

// Redactor turns events into rows. It belongs to one goroutine.
type Redactor struct {
	key       *key
	keys      *Keys
	countries *countries
	agents    *agents
	emails    *hashes
	sessions  *hashes
	scrubber  scrubber
	arena     arena
	version   string

	clean        [event.NumAttrs + 2][]byte // the last text of each few-valued attribute that needed no scrubbing
	buf, scratch []byte
	dead         event.Row // of DeadLetter
	owners       map[string]struct{}
}

// New checks the options and makes a Redactor with empty caches. They take
// about 10 MiB, full or not.
func New(o Options) (*Redactor, error) {
	switch {
	case o.Keys == nil || len(o.Keys.keys) == 0:
		return nil, errors.New("new redactor: no keys")
	case o.Countries == nil:
		return nil, errors.New("new redactor: no country database")
	}
	r := &Redactor{
		key:       &o.Keys.keys[0],
		keys:      o.Keys,
		countries: &countries{o.Countries},
		version:   o.PolicyVersion,
		owners:    make(map[string]struct{}),
	}
	r.scrubber.country = r.countries.of
	r.emails = newHashes(r.key, "email:", domainEmail)
	r.sessions = newHashes(r.key, "session:", domainSession)
	r.agents = newAgents(r.scrubber.scrub)
	return r, nil
}

// Row makes row the stored form of an event and its decision. It sets every
// field but the coordinates: Topic, Partition, Offset and ReceivedAt are the
// caller's, and the expiry is the readers'. The row's strings share memory with
// the event; the row MUST be copied before the event's record is reused.
func (r *Redactor) Row(e *event.Event, d policy.Decision, row *event.Row) {
	r.fill(e, row)
	row.Retention = d.Retention
	row.Bucket = d.Bucket
	row.RetainedFrom = d.RetainedFrom
	row.ExpiresOverride = 0
	row.PolicyVersion = r.version
}

// step is what happens to one attribute.
type step struct {
	how treatment
	to  uint8 // an event.Text or event.Num
}

type treatment uint8

const (
	asText     treatment = iota
	asRepeated           // text of few values
	asPath
	asNumber
	asPerson // a pseudonym; the event is about its bearer
	asDevice
	asUser
	asTarget
	asAddress
	asAgent
	asEmail
	asSession
	asOwners
	asTrace
	asSpan
	asMetadata
)

// steps says what happens to each attribute; what is not named is plain text.
var steps = func() (s [event.NumAttrs]step) {
	for t := range event.NumTexts {
		s[event.Texts[t].From].to = uint8(t)
		if event.Texts[t].Dictionary {
			s[event.Texts[t].From].how = asRepeated
		}
	}
	for n := range event.NumNumbers {
		s[event.Numbers[n].From] = step{asNumber, uint8(n)}
	}
	s[event.UserAgent].to = uint8(event.TAgentName)
	for a, how := range map[event.Attr]treatment{
		event.HTTPRoute: asPath, event.URLPath: asPath,
		event.UserID: asUser, event.DeviceID: asDevice, event.OnBehalfOf: asPerson, event.TargetID: asTarget,
		event.TargetOwner: asOwners, event.ClientAddress: asAddress, event.UserAgent: asAgent,
		event.UserEmail: asEmail, event.SessionID: asSession,
		event.TraceID: asTrace, event.SpanID: asSpan, event.Metadata: asMetadata,
	} {
		s[a].how = how
	}
	return s
}()

var noNumbers = func() (n [event.NumNumbers]float64) {
	for i := range n {
		n[i] = math.NaN()
	}
	return n
}()

// fill sets what comes from the event.
func (r *Redactor) fill(e *event.Event, row *event.Row) {
	row.Kind = e.Kind
	row.OccurredAt = e.Time.Truncate(time.Millisecond)
	row.Type = r.repeated(event.NumAttrs, e.Type)
	r.identity(e, row)
	row.SubjectKeys, row.Owners, row.Metadata = row.SubjectKeys[:0], row.Owners[:0], row.Metadata[:0]
	row.TraceID, row.SpanID = [16]byte{}, [8]byte{}
	row.Text = [event.NumTexts]string{}
	row.Number = noNumbers

	for left := e.Has; left != 0; left &= left - 1 {
		a := bits.TrailingZeros64(left)
		if a >= event.NumAttrs {
			break
		}
		s, v := steps[a], e.Text[a]
		if e.Stored != nil && restore(e, row, s, v) {
			continue
		}
		switch s.how {
		case asText:
			row.Text[s.to] = r.text(v)
		case asRepeated:
			row.Text[s.to] = r.repeated(a, v)
		case asPath:
			row.Text[s.to] = r.text(cutQuery(v))
		case asNumber:
			row.Number[s.to] = e.Number[a]
		case asPerson:
			row.Text[s.to] = r.person(row, "user:", v)
		case asDevice:
			row.Text[s.to] = r.person(row, "device:", v)
		case asUser:
			r.user(e, row, v)
		case asTarget:
			row.Text[s.to] = r.person(row, targetPrefix(e.Text[event.TargetType]), v)
		case asAddress:
			if v != "" {
				row.Text[s.to] = r.countries.client(v)
			}
		case asAgent:
			g := r.agents.of(v)
			row.Text[event.TAgentName], row.Text[event.TAgentVersion], row.Text[event.TAgentOS] = g.name, g.version, g.os
		case asEmail:
			row.Text[s.to] = r.email(row, v)
		case asSession:
			if v != "" {
				k := r.hashed(r.sessions, v)
				addKey(row, k)
				row.Text[s.to] = k[len("session:"):]
			}
		case asOwners:
			r.ownersOf(e, row)
		case asTrace:
			unhexInto(row.TraceID[:], v)
		case asSpan:
			unhexInto(row.SpanID[:], v)
		case asMetadata:
			r.metadata(e, row)
		}
	}
	if e.Stored != nil {
		row.SubjectKeys = append(row.SubjectKeys[:0], e.Stored.SubjectKeys...)
	}
}

// text returns s without addresses and e-mails.
func (r *Redactor) text(s string) string {
	if out, changed := r.scrubber.scrub(s); changed {
		return r.arena.keep(out)
	}
	return s
}

// repeated is text for attributes of few values: to compare with the last one is
// cheaper than to look at it again.
func (r *Redactor) repeated(slot int, s string) string {
	if string(r.clean[slot]) == s {
		return s
	}
	if out, changed := r.scrubber.scrub(s); changed {
		return r.arena.keep(out)
	}
	r.clean[slot] = append(r.clean[slot][:0], s...)
	return s
}

// identity keeps (source, id) unique where scrubbing would make two events one.
func (r *Redactor) identity(e *event.Event, row *event.Row) {
	if e.Stored != nil {
		row.Source, row.ID = e.Source, e.ID
		return
	}
	row.Source, row.ID = r.repeated(event.NumAttrs+1, e.Source), e.ID
	_, changed := r.scrubber.scrub(e.ID)
	if changed || row.Source != e.Source {
		var sum [hashBytes]byte
		sum, r.scratch = r.key.sum(r.scratch, domainID, e.Source, e.ID)
		r.buf = r.key.appendSum(append(r.buf[:0], "id:"...), &sum)
		row.ID = r.arena.keep(r.buf)
	}
}

// hashed returns the subject key of a value.
func (r *Redactor) hashed(h *hashes, v string) string {
	r.buf = h.append(r.buf[:0], v)
	return r.arena.keep(r.buf)
}
