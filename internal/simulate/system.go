package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
)

// fault is a mistake planted into the system: what it changes on its way in or
// out. The oracle must see each.
type fault struct {
	name   string
	late   bool // it shows as a late survival, else as an early loss
	event  func(*event.Event)
	source func(*retention.Source)                         // all that the system knows, each time it has learned
	grace  time.Duration                                   // so much more of it
	fate   func(*retention.Fate)                           // each, once decided
	ttl    func(p policy.Period, from time.Time) time.Time // in place of policy.Period.End
}

// system is the program under test for one policy, up to what it would store and
// what it decides about each row: the real Decide, the real redaction, the real
// facts and fates.
type system struct {
	policy   *policy.Policy
	fault    fault
	redactor *redact.Redactor
	promises map[string]policy.StoredClass
	source   retention.Source
	facts    *retention.Facts
	hashes   map[string][]string
	knew     time.Time // when know was called last
}

func newSystem(name string, f fault) (*system, error) {
	p, err := policy.Load(policyFile(name))
	if err != nil {
		return nil, err
	}
	keys, err := redact.ParseKeys("k1=" + strings.Repeat("5a", 32))
	if err != nil {
		return nil, err
	}
	s := &system{policy: p, fault: f, promises: make(map[string]policy.StoredClass), hashes: make(map[string][]string)}
	if s.redactor, err = redact.New(redact.Options{Keys: keys, Countries: nowhere{}, PolicyVersion: p.Version}); err != nil {
		return nil, err
	}
	s.source.Promises = p.Stored()
	for _, c := range s.source.Promises {
		s.promises[c.Key] = c
	}
	s.know(begin)
	return s, nil
}

// hash keeps what it has computed: the same few subjects are asked for all the time.
func (s *system) hash(subject string) []string {
	if s.hashes[subject] == nil {
		sum := sha256.Sum256([]byte(subject))
		s.hashes[subject] = []string{hex.EncodeToString(sum[:16])}
	}
	return s.hashes[subject]
}

// know makes facts of all that was learned and is not forgotten at an instant.
func (s *system) know(now time.Time) {
	if slices.ContainsFunc(s.source.Holds, func(h event.Hold) bool { return h.ReleasedAt.IsZero() }) {
		// As a sweep does: while anything is held, what is not forgotten yet stays.
		for i := range s.source.Facts {
			if f := &s.source.Facts[i]; f.ForgetAt.After(s.knew) {
				f.ForgetAt = later(f.ForgetAt, now.AddDate(0, 0, 60))
			}
		}
	}
	s.knew = now
	source := s.source
	source.Facts = slices.DeleteFunc(slices.Clone(source.Facts), func(f event.Fact) bool { return !f.ForgetAt.After(now) })
	if s.fault.source != nil {
		source.Promises = append([]policy.StoredClass(nil), source.Promises...)
		s.fault.source(&source)
	}
	p := *s.policy
	p.Grace += s.fault.grace
	s.facts = retention.New(&p, source, s.hash)
}

// row makes the row of an event. nil: it has no class.
func (s *system) row(h *happening) (*event.Row, error) {
	e := h.event()
	if s.fault.event != nil {
		s.fault.event(e)
	}
	d, err := s.policy.Decide(e, h.arrives)
	if errors.Is(err, policy.ErrUnclassified) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("decide event %d: %w", h.number, err)
	}
	row := new(event.Row)
	row.Reset()
	s.redactor.Row(e, d, row)
	row.ReceivedAt, row.Topic, row.Offset = h.arrives, "lethe."+h.kind.String(), h.number
	return row, nil
}

// arrives gives a row the expiry that the facts say, without those who must be gone
// from it, and reports whether it is stored at all: what is over on arrival is not, but
// where a hold was placed before.
func (s *system) arrives(row *event.Row) bool {
	fate := s.fate(row)
	if s.strip(row, fate, row.ReceivedAt) {
		fate = s.fate(row)
	}
	row.ExpiresOverride = fate.Override
	own := s.promises[row.Retention].Period.End(row.RetainedFrom)
	return fate.Expires.After(row.ReceivedAt) && (own.After(row.ReceivedAt) || fate.HeldBefore(own))
}

func (s *system) fate(row *event.Row) retention.Fate {
	f := s.facts.Fate(row)
	if s.fault.fate != nil {
		s.fault.fate(&f)
	}
	return f
}

// strip takes those out of a row whose identity has to be gone at an instant, as the
// ingester and the sweep do, and reports whether there are any.
func (s *system) strip(row *event.Row, f retention.Fate, at time.Time) bool {
	people := f.Without(at, true)
	if len(people) > 0 {
		s.facts.Strip(row, people)
	}
	return len(people) > 0
}

// shown returns a row as a reader sees it at an instant; nil: not at all.
func shown(row *event.Row, f retention.Fate, at time.Time, officer bool) *event.Row {
	if !f.Visible(at, officer) {
		return nil
	}
	people := f.Without(at, officer)
	if len(people) == 0 {
		return row
	}
	seen := *row
	seen.SubjectKeys, seen.Owners, seen.Metadata = slices.Clone(row.SubjectKeys), slices.Clone(row.Owners), slices.Clone(row.Metadata)
	retention.Strip(&seen, people)
	return &seen
}

// learn takes the facts in a row. It asks before the row is known to be over on
// arrival: a restoration that comes too late opens another life, its own row included.
func (s *system) learn(row *event.Row) []event.Fact {
	var facts []event.Fact
	said, _ := s.policy.Fact(row)
	for _, f := range said {
		x := event.Fact{Subject: f.Subject, Action: f.Action, OccurredAt: f.OccurredAt, Tier: f.Tier,
			Source: row.Source, ID: row.ID, ReceivedAt: row.ReceivedAt}
		facts = append(facts, s.facts.Remember(x)...)
	}
	s.source.Facts = append(s.source.Facts, facts...)
	return facts
}

// erasure and hold say what a request is to the system at an instant.
func (s *system) erasure(r request) event.Erasure {
	e := event.Erasure{ID: r.id, Scope: "subject", State: event.ErasureRequested, Until: r.at, UpdatedAt: r.at, PolicyVersion: s.policy.Version,
		Deadline: s.policy.Primary.End(r.at), Everywhere: s.policy.Everywhere.End(r.at), ForgetAt: policy.Sentinel}
	for _, subject := range r.subjects {
		e.Hashes = append(e.Hashes, s.hash(subject)...)
	}
	return e
}

func (r request) hold(now time.Time) event.Hold {
	h := event.Hold{ID: r.id, Subjects: r.subjects, Reason: "simulated", PlacedAt: r.at, UpdatedAt: now, ForgetAt: policy.Sentinel}
	if !r.until.IsZero() && !now.Before(r.until) {
		h.ReleasedAt = r.until
	}
	return h
}

// ask takes the requests that were made by an instant.
func (s *system) ask(requests []request, now time.Time) {
	s.source.Erasures, s.source.Holds = nil, nil
	for _, r := range requests {
		if r.erase {
			s.source.Erasures = append(s.source.Erasures, s.erasure(r))
		} else {
			s.source.Holds = append(s.source.Holds, r.hold(now))
		}
	}
}

// expires is what the TTL says of a row that carries an override: the twin of the
// expression, for a run without an engine.
func (s *system) expires(row *event.Row, override uint32) time.Time {
	if override > 0 {
		return time.Unix(int64(override), 0).UTC()
	}
	period := s.promises[row.Retention].Period
	if s.fault.ttl != nil {
		return s.fault.ttl(period, row.RetainedFrom)
	}
	return period.End(row.RetainedFrom)
}

func policyFile(name string) string { return root + "schemas/policies/" + name + ".yaml" }
