package query

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// erasures keeps the requests to erase.
type erasures interface {
	// Erasures returns each as it is now.
	Erasures(ctx context.Context) ([]event.Erasure, error)
	WriteErasure(ctx context.Context, e event.Erasure) error
	// ErasureSubjects returns the identifiers of an erasure while they are kept.
	ErasureSubjects(ctx context.Context, erasure string) ([]string, error)
	WriteErasureSubjects(ctx context.Context, erasure string, subjects []string, until time.Time) error
	// Candidates returns the rows of the subjects, with all that their fate depends on.
	Candidates(ctx context.Context, kind event.Kind, subjects []string) iter.Seq2[*event.Row, error]
}

// idempotencyHeader makes a request that is sent again the same request.
const idempotencyHeader = "Idempotency-Key"

var idempotencyForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// erasureAnswer is an erasure as answers show it: the receipt. It names nobody.
type erasureAnswer struct {
	ID            string    `json:"id"`
	Scope         string    `json:"scope"`
	State         string    `json:"state"`
	Until         time.Time `json:"until"`
	Deadline      time.Time `json:"deadline"`
	Everywhere    time.Time `json:"everywhere"`
	ErasedRows    uint64    `json:"erased_rows"`
	KeptRows      uint64    `json:"kept_rows"`
	KeptReason    *string   `json:"kept_reason"`
	PolicyVersion string    `json:"policy_version"`
	UpdatedAt     time.Time `json:"updated_at"`
	Expected      *expected `json:"expected,omitempty"`
	Offered       *bool     `json:"offered,omitempty"`
	Notes         []string  `json:"notes,omitempty"`
}

// expected says what an erasure will do, by deliveries as they are stored now.
type expected struct {
	Erase    uint64 `json:"erase"`
	Hold     uint64 `json:"hold"`     // kept while a hold stands
	Statute  uint64 `json:"statute"`  // kept because a law demands it
	Complete bool   `json:"complete"` // false: there are more rows than were counted
}

func showErasure(e event.Erasure) erasureAnswer {
	return erasureAnswer{
		ID: e.ID, Scope: e.Scope, State: string(e.State), Until: e.Until, Deadline: e.Deadline, Everywhere: e.Everywhere,
		ErasedRows: e.ErasedRows, KeptRows: e.KeptRows, KeptReason: text(e.KeptReason), PolicyVersion: e.PolicyVersion, UpdatedAt: e.UpdatedAt,
	}
}

// ofAll refuses a caller who may see one organization only: what an erasure or a
// hold is of may belong to others as well.
func ofAll(c caller) error {
	if c.Organization != "" {
		return errForbidden.because("Erasures and holds reach all organizations, and the token is limited to one.")
	}
	return nil
}

// ofAllBare also refuses a URL with parameters.
func ofAllBare(r *http.Request, c caller) error {
	if err := ofAll(c); err != nil || r.URL.RawQuery == "" {
		return err
	}
	return errBadRequest.because("There are no parameters here.")
}

// erase answers POST /v1/erasures. From its answer on nobody sees the rows; the
// ingester removes them.
func (s *Server) erase(w http.ResponseWriter, r *http.Request, c caller) error {
	var body struct {
		scope
		Until *time.Time `json:"until"`
	}
	q, err := s.requested(w, r, c, scopeShape, &body)
	if err != nil {
		return err
	}
	verified := r.Header.Get(verifiedHeader)
	switch q.kind {
	case "project", "deployment", "log":
		if verified == "" {
			verified = "own_act"
		}
	}
	if !methodForm.MatchString(verified) {
		return errNotVerified.because("This erasure needs the header " + verifiedHeader + " with the method by which the identity was verified, such as id_document.")
	}
	now := s.now()
	e := event.Erasure{
		ID: q.id, Scope: q.kind, State: event.ErasureRequested, Hashes: q.hashes, Until: now, Deadline: s.o.Policy.Primary.End(now), Everywhere: s.o.Policy.Everywhere.End(now),
		PolicyVersion: s.o.Policy.Version, UpdatedAt: now,
	}
	e.ForgetAt = e.Everywhere.Add(s.o.Policy.Grace)
	if body.Until != nil {
		e.Until = body.Until.UTC().Truncate(time.Millisecond)
	}
	if e.Until.After(now) || e.Until.Before(firstInstant) {
		return errBadRequest.because("The member until must be a time from 2000 on and not in the future.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	e, known, err := s.known(ctx, e, r.Header.Get(idempotencyHeader) != "", body.Until != nil)
	if err != nil {
		return err
	}
	facts, err := s.facts(ctx)
	if err != nil {
		return err
	}
	will, err := s.expect(ctx, facts, e, q.keys, known)
	if err != nil {
		return err
	}
	if !known {
		e.KeptRows, e.KeptReason = will.Hold+will.Statute, will.reason()
		if will.Hold > 0 {
			e.ForgetAt = policy.Sentinel // until the hold is released
		}
		// The identifiers first: an erasure whose rows cannot be found must not be.
		if err := s.o.Requests.WriteErasureSubjects(ctx, e.ID, q.keys, e.Deadline); err != nil {
			return fmt.Errorf("write erasure: %w", err)
		}
		if err := s.o.Requests.WriteErasure(ctx, e); err != nil {
			return fmt.Errorf("write erasure: %w", err)
		}
	}
	if err := s.recordErasure(r.Context(), e, will, verified, c); err != nil {
		return err
	}
	a := showErasure(e)
	offered := slices.Contains(s.o.Policy.Rights, "deletion")
	a.Expected, a.Offered, a.Notes = &will, &offered, notes(will, offered)
	return sendStatus(w, http.StatusAccepted, a)
}

// requestID returns the id of what a request makes: the same one for the same
// Idempotency-Key of the same caller, else a new one.
func (s *Server) requestID(r *http.Request, c caller) (string, error) {
	key := r.Header.Get(idempotencyHeader)
	switch {
	case key == "":
		return newEventID(), nil
	case !idempotencyForm.MatchString(key):
		return "", errBadRequest.because("The header " + idempotencyHeader + " has 1 to 128 letters, digits, dots, dashes and underscores.")
	}
	mac := hmac.New(sha256.New, s.o.Secret)
	fmt.Fprintf(mac, "lethe/request\x00%s\x00%s", c.Name, key)
	return uuid([16]byte(mac.Sum(nil))), nil
}

// known returns the erasure that a request sent again has made before.
func (s *Server) known(ctx context.Context, e event.Erasure, again, until bool) (event.Erasure, bool, error) {
	if !again {
		return e, false, nil
	}
	all, err := s.o.Requests.Erasures(ctx)
	if err != nil {
		return e, false, fmt.Errorf("read erasures: %w", err)
	}
	for _, k := range all {
		if k.ID != e.ID {
			continue
		}
		if k.Scope != e.Scope || !slices.Equal(k.Hashes, e.Hashes) || until && !k.Until.Equal(e.Until) {
			return e, false, errBadRequest.because("The " + idempotencyHeader + " was sent before with another body.")
		}
		return k, true, nil
	}
	return e, false, nil
}

// maxExpected is how many rows are looked at to say what an erasure will do.
const maxExpected = 100_000

// expect asks the one function that decides what an erasure will do, row by row. Of
// one that is known already it says what it does.
func (s *Server) expect(ctx context.Context, facts *retention.Facts, e event.Erasure, keys []string, known bool) (expected, error) {
	will := expected{Complete: true}
	after, now := facts.With(e), s.now()
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	n := 0
	for _, kind := range event.Kinds {
		for row, err := range s.o.Requests.Candidates(ctx, kind, keys) {
			if err != nil {
				return will, fmt.Errorf("read what is to be erased: %w", err)
			}
			if n++; n > maxExpected {
				enough() // closing an answer reads it to its end, which the server must cut
				will.Complete = false
				return will, nil
			}
			if row.Came().After(e.Until) || !known && !facts.Fate(row).Expires.After(now) {
				continue // another's, or gone before
			}
			switch fate := after.Fate(row); {
			case fate.Held:
				will.Hold++
			case fate.Goes(now): // the row, or the person out of it
				will.Erase++
			default:
				will.Statute++
			}
		}
	}
	return will, nil
}

func (x expected) reason() string {
	switch {
	case x.Hold > 0:
		return string(retention.ByHold)
	case x.Statute > 0:
		return string(retention.ByStatute)
	}
	return ""
}

// recordErasure publishes the erasure. The event holds hashes and nobody's name; its
// time is after what is erased, so that it is not erased itself.
func (s *Server) recordErasure(ctx context.Context, e event.Erasure, will expected, verified string, c caller) error {
	record := consultation{action: retention.ErasureRequested, route: pathErasures, purpose: "deletion_request", caller: c,
		extra: retention.Record(e, s.o.Keys.Fingerprints), target: target{"erasure", e.ID}, outcome: "success", at: s.now()}
	record.extra["identity_verified"] = verified
	if will.Erase == 0 && will.Hold+will.Statute > 0 {
		record.outcome, record.reason = "failure", "everything is kept: "+will.reason()
	}
	if !record.at.After(e.Until) {
		record.at = e.Until.Add(time.Millisecond)
	}
	return s.record(ctx, record)
}

// notes says what the officer must tell the person.
func notes(will expected, offered bool) (notes []string) {
	if !offered {
		notes = append(notes, "The policy does not offer deletion: this is carried out as a statutory request.")
	}
	if will.Hold > 0 {
		notes = append(notes, "Rows under a hold are kept, for officers only, and go when it is released. Where the published text names no such exception, say so to the person.")
	}
	if will.Statute > 0 {
		notes = append(notes, "Rows that a law demands are kept until its period is over, for officers only. Where the published text names no such exception, say so to the person.")
	}
	return notes
}

// erasures answers GET /v1/erasures, the newest first.
func (s *Server) erasures(w http.ResponseWriter, r *http.Request, c caller) error {
	all, err := s.allErasures(r, c)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b event.Erasure) int { return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.ID, b.ID)) })
	shown := make([]erasureAnswer, len(all))
	for i, e := range all {
		shown[i] = showErasure(e)
	}
	return sendJSON(w, struct {
		Erasures []erasureAnswer `json:"erasures"`
	}{shown})
}

// erasure answers GET /v1/erasures/{id}.
func (s *Server) erasure(w http.ResponseWriter, r *http.Request, c caller) error {
	all, err := s.allErasures(r, c)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.ID == r.PathValue("id") {
			return sendJSON(w, showErasure(e))
		}
	}
	return errNotFound.because("There is no erasure of this id, or it is over and forgotten.")
}

func (s *Server) allErasures(r *http.Request, c caller) ([]event.Erasure, error) {
	if err := ofAllBare(r, c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	all, err := s.o.Requests.Erasures(ctx)
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	return all, nil
}
