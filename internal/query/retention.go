package query

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// retentionAnswer is what GET /v1/retention says.
type retentionAnswer struct {
	Policy  string           `json:"policy"`
	Version string           `json:"version"`
	Classes []retentionClass `json:"classes"`
}

// retentionClass is one class: what the policy promises and what ClickHouse
// does and holds. Variants are its stored forms, where there are several.
type retentionClass struct {
	Class   string  `json:"class"`
	Keep    string  `json:"keep"`
	From    string  `json:"from"`
	Section *string `json:"section"`
	TTL     *string `json:"ttl"`
	measured
	Variants []retentionVariant `json:"variants,omitempty"`
}

// retentionVariant is one stored form of a class: a tier, the form without an
// account, or a promise that an earlier policy file made.
type retentionVariant struct {
	Stored string `json:"stored"`
	Keep   string `json:"keep"`
	From   string `json:"from"`
	measured
}

// measured is what ClickHouse holds.
type measured struct {
	Rows       uint64     `json:"rows"`
	Oldest     *time.Time `json:"oldest"`
	Newest     *time.Time `json:"newest"`
	NextExpiry *time.Time `json:"next_expiry"`
	PastExpiry uint64     `json:"past_expiry"`
}

func (m *measured) add(f event.ClassFacts) {
	m.Rows += f.Rows
	m.PastExpiry += f.PastExpiry
	m.Oldest = earlier(m.Oldest, f.Oldest)
	m.NextExpiry = earlier(m.NextExpiry, f.NextExpiry)
	if n := instant(f.Newest); n != nil && (m.Newest == nil || n.After(*m.Newest)) {
		m.Newest = n
	}
}

// earlier returns the earlier of two instants, of which either may be unknown.
func earlier(a *time.Time, t time.Time) *time.Time {
	// An expiry at the sentinel is none: it waits for its anchor.
	b := instant(t)
	if b == nil || !b.Before(policy.Sentinel) || a != nil && a.Before(*b) {
		return a
	}
	return b
}

// retention answers GET /v1/retention. It shows no person, needs no
// consultation record, and counts all tenants: a token of one is refused.
func (s *Server) retention(w http.ResponseWriter, r *http.Request, c caller) error {
	if r.URL.RawQuery != "" {
		return errBadRequest.because("There are no parameters here.")
	}
	if c.Organization != "" {
		return errForbidden.because("The report counts all organizations, and the token is limited to one.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	facts, err := s.o.Facts.ClassFacts(ctx, s.now())
	if err != nil {
		return fmt.Errorf("read class facts: %w", err)
	}
	ttl, err := s.o.Facts.TTL(ctx)
	if err != nil {
		return fmt.Errorf("read TTL: %w", err)
	}
	return sendJSON(w, report(s.o.Policy, facts, ttl))
}

// report joins what the policy promises with what ClickHouse measures. Every
// stored class belongs to exactly one class of the answer, so that the rows add
// up to all rows: those that the policy file no longer knows stand at the end.
func report(p *policy.Policy, facts []event.ClassFacts, ttl map[string]string) retentionAnswer {
	a := retentionAnswer{Policy: p.Name, Version: p.Version, Classes: []retentionClass{}}
	stored := p.Stored()
	taken := make([]bool, len(facts))
	for _, name := range classNames(stored) {
		c := retentionClass{Class: name}
		var kinds event.KindSet
		var keeps []string
		for _, sc := range stored {
			if sc.Class != name {
				continue
			}
			kinds |= sc.Kinds
			v := retentionVariant{Stored: sc.Key, Keep: sc.Keep, From: sc.From}
			for i, f := range facts {
				if f.Retention == sc.Key {
					v.add(f)
					c.add(f)
					taken[i] = true
				}
			}
			if len(c.Variants) == 0 {
				c.From = sc.From
				c.Section = text(sc.Section)
			}
			copies := event.Original(sc.Key) != sc.Key // promised what their originals are
			if keep := strings.TrimSpace(sc.Keep + " " + sc.Tier); !copies && !slices.Contains(keeps, keep) {
				keeps = append(keeps, keep)
			}
			c.Variants = append(c.Variants, v)
		}
		c.old(facts, taken)
		c.Keep = strings.Join(keeps, ", ")
		c.TTL = text(expression(kinds, ttl))
		if len(c.Variants) == 1 {
			c.Variants = nil
		}
		a.Classes = append(a.Classes, c)
	}
	for i, f := range facts {
		if taken[i] {
			continue
		}
		_, promise, _ := strings.Cut(f.Retention, "@")
		c := retentionClass{Class: f.Retention, Keep: promise, From: "an earlier policy file", TTL: text(ttl[f.Table])}
		for j := i; j < len(facts); j++ {
			if facts[j].Retention == f.Retention {
				c.add(facts[j])
				taken[j] = true
			}
		}
		a.Classes = append(a.Classes, c)
	}
	return a
}

// old takes the facts of promises that earlier policy files made for the class.
func (c *retentionClass) old(facts []event.ClassFacts, taken []bool) {
	for i, f := range facts {
		key, promise, _ := strings.Cut(f.Retention, "@")
		name, _, _ := strings.Cut(key, "/")
		if taken[i] || name != c.Class {
			continue
		}
		v := retentionVariant{Stored: f.Retention, Keep: promise, From: "an earlier policy file"}
		for j := i; j < len(facts); j++ {
			if facts[j].Retention == f.Retention {
				v.add(facts[j])
				c.add(facts[j])
				taken[j] = true
			}
		}
		c.Variants = append(c.Variants, v)
	}
}

// classNames returns the classes in the order of the policy file.
func classNames(stored []policy.StoredClass) []string {
	var names []string
	for _, sc := range stored {
		if !slices.Contains(names, sc.Class) {
			names = append(names, sc.Class)
		}
	}
	return names
}

// expression returns the TTL of the tables that store the kinds: one text where
// they agree, else each with its table.
func expression(kinds event.KindSet, ttl map[string]string) string {
	var all, named []string
	for _, k := range event.Kinds {
		e := ttl[k.Table()]
		if !kinds.Has(k) || e == "" {
			continue
		}
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
		named = append(named, k.Table()+": "+e)
	}
	if len(all) == 1 {
		return all[0]
	}
	return strings.Join(named, "; ")
}

// text is nil for an absent text, which JSON shows as null.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
