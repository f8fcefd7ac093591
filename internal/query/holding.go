package query

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// holds keeps what must not go.
type holds interface {
	// Holds returns each as it is now.
	Holds(ctx context.Context) ([]event.Hold, error)
	WriteHold(ctx context.Context, h event.Hold) error
}

// holdAnswer is a hold as answers show it. It names nobody, so that reading the
// list is no consultation: the reason says which case it belongs to.
type holdAnswer struct {
	ID         string     `json:"id"`
	Subjects   int        `json:"subjects"`
	Reason     string     `json:"reason"`
	PlacedAt   time.Time  `json:"placed_at"`
	ReleasedAt *time.Time `json:"released_at"`
}

func showHold(h event.Hold) holdAnswer {
	return holdAnswer{h.ID, len(h.Hashes), h.Reason, h.PlacedAt, instant(h.ReleasedAt)}
}

// maxReason bounds the reason of a hold, in bytes.
const maxReason = 500

// hold answers POST /v1/holds. The ingester keeps the rows from its next look at
// the facts on, within seconds.
func (s *Server) hold(w http.ResponseWriter, r *http.Request, c caller) error {
	var body struct {
		scope
		Reason string `json:"reason"`
	}
	q, err := s.requested(w, r, c, scopeShape+` A hold needs a "reason" as well.`, &body)
	switch reason := strings.TrimSpace(body.Reason); {
	case err != nil:
		return err
	case reason == "" || len(reason) > maxReason:
		return errBadRequest.because("A hold needs a reason of at most 500 bytes, such as the number of the case.")
	case slices.ContainsFunc(strings.Fields(reason), rawIdentifier):
		return errRawIdentifier.because("The reason must not name a person.")
	}
	now := s.now()
	h := event.Hold{ID: q.id, Subjects: q.keys, Hashes: q.hashes, Reason: strings.TrimSpace(body.Reason), PlacedAt: now, UpdatedAt: now, ForgetAt: policy.Sentinel}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	known, err := s.findHold(ctx, h.ID)
	switch {
	case err != nil:
		return err
	case known != nil && (!slices.Equal(known.Hashes, h.Hashes) || known.Reason != h.Reason):
		return errBadRequest.because("The " + idempotencyHeader + " was sent before with another body.")
	case known != nil:
		h = *known
	default:
		if err := s.o.Requests.WriteHold(ctx, h); err != nil {
			return fmt.Errorf("write hold: %w", err)
		}
	}
	return s.answerHold(w, r, c, h, retention.HoldPlaced, pathHolds)
}

// release answers POST /v1/holds/{id}/release. Periods go on as if there had been no hold.
func (s *Server) release(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := ofAllBare(r, c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	h, err := s.findHold(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	if h == nil {
		return errNotFound.because("There is no hold of this id, or it is over and forgotten.")
	}
	if h.ReleasedAt.IsZero() {
		// The newest row of a hold counts: a release is newer, whatever the clocks say.
		now := s.now()
		if !now.After(h.UpdatedAt) {
			now = h.UpdatedAt.Add(time.Millisecond)
		}
		h.ReleasedAt, h.UpdatedAt = now, now
		h.ForgetAt = s.o.Policy.Everywhere.End(now).Add(s.o.Policy.Grace)
		if err := s.o.Requests.WriteHold(ctx, *h); err != nil {
			return fmt.Errorf("write hold: %w", err)
		}
	}
	if err := s.forget(ctx, h.ReleasedAt); err != nil {
		return err
	}
	return s.answerHold(w, r, c, *h, retention.HoldReleased, pathRelease)
}

// forget gives the erasures that waited for holds their end again, once no hold
// stands: from then on they are carried out like any other.
func (s *Server) forget(ctx context.Context, released time.Time) error {
	holds, err := s.o.Requests.Holds(ctx)
	if err != nil {
		return fmt.Errorf("read holds: %w", err)
	}
	if slices.ContainsFunc(holds, func(h event.Hold) bool { return h.ReleasedAt.IsZero() }) {
		return nil
	}
	facts, err := s.facts(ctx)
	if err != nil {
		return err
	}
	all, err := s.o.Requests.Erasures(ctx)
	if err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	for _, e := range all {
		if !e.ForgetAt.Equal(policy.Sentinel) {
			continue
		}
		from := released
		if law := facts.Lawful(e.Until); law.After(from) {
			from = law // what the hold kept, a law may keep on
		}
		e.ForgetAt = s.o.Policy.Everywhere.End(from).Add(s.o.Policy.Grace)
		e.UpdatedAt = e.UpdatedAt.Add(time.Millisecond) // its state is as old as before
		if err := s.o.Requests.WriteErasure(ctx, e); err != nil {
			return fmt.Errorf("write erasure: %w", err)
		}
	}
	return nil
}

// answerHold records what was done and shows the hold.
func (s *Server) answerHold(w http.ResponseWriter, r *http.Request, c caller, h event.Hold, action, path string) error {
	record := consultation{action: action, route: path, purpose: notStated, caller: c, target: target{"hold", h.ID}, extra: retention.RecordHold(h, s.o.Keys.Fingerprints)}
	if err := s.record(r.Context(), record); err != nil {
		return err
	}
	return sendJSON(w, showHold(h))
}

func (s *Server) findHold(ctx context.Context, id string) (*event.Hold, error) {
	all, err := s.o.Requests.Holds(ctx)
	if err != nil {
		return nil, fmt.Errorf("read holds: %w", err)
	}
	i := slices.IndexFunc(all, func(h event.Hold) bool { return h.ID == id })
	if i < 0 {
		return nil, nil
	}
	return &all[i], nil
}

// holds answers GET /v1/holds, the newest first.
func (s *Server) holds(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := ofAllBare(r, c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	all, err := s.o.Requests.Holds(ctx)
	if err != nil {
		return fmt.Errorf("read holds: %w", err)
	}
	slices.SortFunc(all, func(a, b event.Hold) int { return cmp.Or(b.PlacedAt.Compare(a.PlacedAt), cmp.Compare(a.ID, b.ID)) })
	shown := make([]holdAnswer, len(all))
	for i, h := range all {
		shown[i] = showHold(h)
	}
	return sendJSON(w, struct {
		Holds []holdAnswer `json:"holds"`
	}{shown})
}
