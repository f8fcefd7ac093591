package query

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// horizonAnswer is what an answer says of how much can be known at all.
type horizonAnswer struct {
	// Classes is, per stored class, the earliest instant whose rows can still
	// be there; null while rows wait for an anchor.
	Classes       map[string]*time.Time `json:"classes"`
	Since         *time.Time            `json:"since"`
	CompleteUntil *time.Time            `json:"complete_until"`
	Gaps          []gapAnswer           `json:"gaps"`
}

// gapAnswer is a range of offsets that nothing accounts for.
type gapAnswer struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Epoch     uint32 `json:"epoch"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
}

func (s *Server) horizon(ctx context.Context, now time.Time) (json.RawMessage, error) {
	h, err := s.o.Facts.Horizon(ctx)
	if err != nil {
		return nil, fmt.Errorf("read horizon: %w", err)
	}
	a := horizonAnswer{Classes: map[string]*time.Time{}, Since: instant(h.Since), CompleteUntil: instant(h.CompleteUntil), Gaps: []gapAnswer{}}
	for _, c := range s.o.Policy.Stored() {
		a.Classes[c.Key] = instant(earliest(c.Period, now))
	}
	for _, g := range h.Gaps {
		a.Gaps = append(a.Gaps, gapAnswer{g.Topic, g.Partition.Partition, g.Epoch, g.First, g.Last})
	}
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode horizon: %w", err)
	}
	return b, nil
}

// instant is nil for the zero time, which JSON shows as null.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// earliest returns the first second from which the period is not over yet, zero
// where it ends at no known time. It asks the policy's own arithmetic, so that
// there is no second one for months of different length.
func earliest(p policy.Period, now time.Time) time.Time {
	if p.Sentinel {
		return time.Time{}
	}
	const day = 24 * 60 * 60
	end := now.Unix()
	n := (p.Months*31 + p.Days + 4) * day
	back := sort.Search(n, func(i int) bool {
		return p.End(time.Unix(end-int64(n)+int64(i), 0).UTC()).After(now)
	})
	return time.Unix(end-int64(n)+int64(back), 0).UTC()
}

// withheld says what the filter would have found and may not show. Officers get
// the number. Others get one flag per kind of event over everything they might
// see: a number under a narrow filter would betray something about a person.
func (s *Server) withheld(ctx context.Context, f event.Filter, c caller, facts *retention.Facts) (json.RawMessage, error) {
	f.Visible = nil
	var v any
	if c.Role == Officer {
		f.Kinds = orAll(f.Kinds)
		counts, err := s.hidden(ctx, f, nil, facts, func(r *event.Row) bool { return facts.Fate(r).Erased && !facts.Fate(r).Held })
		if err != nil {
			return nil, err
		}
		var sum event.Withheld
		for _, n := range counts {
			sum.PastExpiry += n.PastExpiry
			sum.Erased += n.Erased
		}
		v = map[string]uint64{"past_expiry": sum.PastExpiry, "erased": sum.Erased}
	} else {
		counts, err := s.flags.get(c.Organization, f.Now, func() ([event.NumKinds]event.Withheld, error) {
			all := event.Filter{Kinds: event.AllKinds, From: firstInstant, To: lastInstant, Now: f.Now, Tenant: c.Organization}
			return s.hidden(ctx, all, s.leaving(), facts, func(r *event.Row) bool { return facts.Fate(r).Erased })
		})
		if err != nil {
			return nil, err
		}
		past, erased := map[string]bool{}, map[string]bool{}
		for _, k := range event.Kinds {
			past[k.String()], erased[k.String()] = counts[k].PastExpiry > 0, counts[k].Erased > 0
		}
		v = map[string]map[string]bool{"past_expiry": past, "erased": erased}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode withheld: %w", err)
	}
	return b, nil
}

// hidden counts what the filter may not show: what the tables say themselves, and
// the rows of erasures that no sweep has moved yet.
func (s *Server) hidden(ctx context.Context, f event.Filter, leaving []string, facts *retention.Facts, erased func(*event.Row) bool) ([event.NumKinds]event.Withheld, error) {
	counts, err := s.o.Rows.Withheld(ctx, f, leaving)
	if err != nil {
		return counts, fmt.Errorf("count what is hidden: %w", err)
	}
	var subjects []string
	for _, id := range facts.Unswept() {
		keys, err := s.o.Requests.ErasureSubjects(ctx, id)
		if err != nil {
			return counts, fmt.Errorf("read erasure: %w", err)
		}
		subjects = append(subjects, keys...)
	}
	if len(subjects) == 0 {
		return counts, nil
	}
	more, err := s.o.Rows.Concealed(ctx, f, subjects, erased)
	if err != nil {
		return counts, fmt.Errorf("count what is hidden: %w", err)
	}
	for k, n := range more {
		counts[k].Erased += n
	}
	return counts, nil
}

// leaving returns the classes whose rows only officers see once their anchor has happened.
func (s *Server) leaving() (keys []string) {
	for _, c := range s.o.Policy.Stored() {
		if c.Within {
			keys = append(keys, c.Key)
		}
	}
	return keys
}

func orAll(k event.KindSet) event.KindSet {
	if k == 0 {
		return event.AllKinds
	}
	return k
}

// flagAge is how long the flags of a tenant are good for: they count whole
// tables, and change slowly.
const flagAge = 30 * time.Second

// maxFlags bounds the tenants that are remembered.
const maxFlags = 1000

// flags remembers the last counts per tenant.
type flags struct {
	mu    sync.Mutex
	known map[string]flagged
}

type flagged struct {
	at     time.Time
	counts [event.NumKinds]event.Withheld
}

func (f *flags) get(tenant string, now time.Time, read func() ([event.NumKinds]event.Withheld, error)) ([event.NumKinds]event.Withheld, error) {
	f.mu.Lock()
	v, ok := f.known[tenant]
	f.mu.Unlock()
	if age := now.Sub(v.at); ok && age >= 0 && age < flagAge {
		return v.counts, nil
	}
	counts, err := read()
	if err != nil {
		return counts, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || len(f.known) >= maxFlags {
		f.known = map[string]flagged{}
	}
	f.known[tenant] = flagged{now, counts}
	return counts, nil
}
