package retention

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// Search finds the rows of those who are known by their hashes alone: an erasure or a
// hold that was learned again from Kafka has no identifiers, and those of an erasure go
// with its deadline. It hashes every subject that the rows have, once for all, keeps the
// identifiers that it has found, and returns them for a sweep. An erasure whose rows
// have come back, out of a backup for instance, begins anew. With fresh it looks for
// those alone that nobody has looked for: holds and erasures that no sweep has moved.
func (s *Sweeper) Search(ctx context.Context, fresh bool) (found []string, err error) {
	source, err := read(ctx, s.o.Storage)
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	w, err := s.wanted(ctx, source, fresh)
	if err != nil || len(w.erasures)+len(w.holds) == 0 {
		return nil, err
	}
	began, subjects := s.o.Now(), 0
	for subject, err := range s.o.Storage.Subjects(ctx) {
		if err != nil {
			return nil, fmt.Errorf("search subjects: %w", err)
		}
		subjects++
		w.look(subject, s.o.HashOnce(subject))
	}
	facts := New(s.o.Policy, source, s.o.Hash)
	for e, subjects := range w.foundErasures {
		again, err := s.found(ctx, *e, subjects, facts)
		if err != nil {
			return nil, fmt.Errorf("erasure %s: %w", e.ID, err)
		}
		if again {
			found = append(found, subjects...)
		}
	}
	for h, subjects := range w.foundHolds {
		h.Subjects = append(slices.Clone(h.Subjects), subjects...)
		h.UpdatedAt = h.UpdatedAt.Add(time.Millisecond) // and not now: a release meanwhile is newer
		if err := s.o.Storage.WriteHold(ctx, *h); err != nil {
			return nil, fmt.Errorf("hold %s: %w", h.ID, err)
		}
		found = append(found, subjects...)
	}
	for _, h := range source.Holds {
		s.searched[h.ID] = true
	}
	s.o.Log.Info("searched the rows of those who are known by their hashes alone", "erasures", len(w.erasures), "holds", len(w.holds),
		"subjects", subjects, "found", len(found), "took", s.o.Now().Sub(began).Round(time.Millisecond))
	return found, nil
}

// found keeps the subjects of an erasure that were found, where it has rows to move.
func (s *Sweeper) found(ctx context.Context, e event.Erasure, subjects []string, facts *Facts) (bool, error) {
	back := 0
	for _, kind := range event.Kinds {
		for row, err := range s.o.Storage.Candidates(ctx, kind, subjects) {
			if err != nil {
				return false, err
			}
			fate := facts.Fate(row)
			if fate.Erased && !fate.Held && fate.Override != row.ExpiresOverride && !row.Came().After(e.Until) {
				back++
			}
		}
	}
	if back == 0 && e.State != event.ErasureRequested {
		return false, nil // somebody came back, or is held
	}
	if err := s.o.Storage.WriteErasureSubjects(ctx, e.ID, subjects, later(e.Deadline, s.o.Now().Add(s.o.Policy.Grace))); err != nil {
		return false, err
	}
	if e.State == event.ErasureRequested {
		return true, nil
	}
	e.State = event.ErasureRequested
	s.o.Log.Warn("rows of an erasure have come back; it begins anew", "erasure", e.ID, "rows", back)
	return true, s.write(ctx, e)
}

// wanted are hashes that no known subject explains, and who wants them.
type wanted struct {
	erasures      map[string][]*event.Erasure
	holds         map[string][]*event.Hold
	foundErasures map[*event.Erasure][]string
	foundHolds    map[*event.Hold][]string
}

func (s *Sweeper) wanted(ctx context.Context, source Source, fresh bool) (*wanted, error) {
	w := &wanted{
		erasures: make(map[string][]*event.Erasure), holds: make(map[string][]*event.Hold),
		foundErasures: make(map[*event.Erasure][]string), foundHolds: make(map[*event.Hold][]string),
	}
	for i := range source.Erasures {
		e := &source.Erasures[i]
		if fresh && e.State != event.ErasureRequested {
			continue
		}
		subjects, err := s.o.Storage.ErasureSubjects(ctx, e.ID)
		if err != nil {
			return nil, fmt.Errorf("read erasure: %w", err)
		}
		for _, h := range unexplained(e.Hashes, subjects, s.o.Hash) {
			w.erasures[h] = append(w.erasures[h], e)
		}
	}
	for i := range source.Holds {
		h := &source.Holds[i]
		if !h.ReleasedAt.IsZero() || fresh && s.searched[h.ID] {
			continue
		}
		for _, hash := range unexplained(h.Hashes, h.Subjects, s.o.Hash) {
			w.holds[hash] = append(w.holds[hash], h)
		}
	}
	return w, nil
}

// look may be asked about a subject more than once.
func (w *wanted) look(subject string, hashes []string) {
	for _, hash := range hashes {
		for _, e := range w.erasures[hash] {
			w.foundErasures[e] = with(w.foundErasures[e], subject)
		}
		for _, h := range w.holds[hash] {
			w.foundHolds[h] = with(w.foundHolds[h], subject)
		}
	}
}

func with(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
