package retention

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// The actions of the audit events that record what officers asked for. A database
// that was restored from a backup learns it from them again.
const (
	ErasureRequested = "lethe.access.erasure_requested"
	HoldPlaced       = "lethe.access.hold_placed"
	HoldReleased     = "lethe.access.hold_released"
)

// MaxSubjects is how many subjects one erasure or hold can have, so that its record
// is one event; hashesPerValue keeps the hashes of one metadata value within
// event.MaxMetadataValue.
const (
	MaxSubjects    = 100
	hashesPerValue = 9
)

// The metadata of a record beside its times and hashes. The seal, a keyed hash of all
// the others but the reason, keeps those who may publish audit events from making one.
const (
	fieldScope  = "scope"
	fieldPolicy = "policy_version"
	fieldReason = "reason"
	fieldSeal   = "seal"
	hashesOf    = "hashes."
)

// Record returns an erasure as the metadata of its audit event. Its ID is the
// event's target.id. It MUST have at most MaxSubjects hashes. hash is that of New.
func Record(e event.Erasure, hash func(subject string) []string) map[string]string {
	m := map[string]string{
		fieldScope: e.Scope, fieldPolicy: e.PolicyVersion,
		"until": moment(e.Until), "deadline": moment(e.Deadline), "everywhere": moment(e.Everywhere), "forget_at": moment(e.ForgetAt),
	}
	return sealed(ErasureRequested, e.ID, m, e.Hashes, hash)
}

// RecordHold returns a hold, placed or released, as Record does an erasure.
func RecordHold(h event.Hold, hash func(subject string) []string) map[string]string {
	m := map[string]string{"placed_at": moment(h.PlacedAt), "forget_at": moment(h.ForgetAt)}
	action := HoldPlaced
	if !h.ReleasedAt.IsZero() {
		action, m["released_at"] = HoldReleased, moment(h.ReleasedAt)
	}
	m = sealed(action, h.ID, m, h.Hashes, hash)
	m[fieldReason] = h.Reason
	return m
}

// Recorded returns the erasure, or the hold, that the row of an audit event records, as
// it was asked for: it never beats what the tables know of it. Of every other row there
// is neither. What is returned shares no memory with the row.
func Recorded(r *event.Row, hash func(subject string) []string) (*event.Erasure, *event.Hold, error) {
	if r.Kind != event.Audit {
		return nil, nil, nil
	}
	switch r.Text[event.TAction] {
	case ErasureRequested:
		e := event.Erasure{State: event.ErasureRequested}
		err := open(r, hash, &e.ID, &e.Hashes, map[string]*string{fieldScope: &e.Scope, fieldPolicy: &e.PolicyVersion},
			map[string]*time.Time{"until": &e.Until, "deadline": &e.Deadline, "everywhere": &e.Everywhere, "forget_at": &e.ForgetAt})
		if err != nil {
			return nil, nil, fmt.Errorf("read erasure: %w", err)
		}
		e.UpdatedAt = e.Until.Add(-time.Millisecond) // before any state of it
		return &e, nil, nil
	case HoldPlaced, HoldReleased:
		h, err := openHold(r, hash)
		return nil, h, err
	}
	return nil, nil, nil
}

func openHold(r *event.Row, hash func(subject string) []string) (*event.Hold, error) {
	h := new(event.Hold)
	times := map[string]*time.Time{"placed_at": &h.PlacedAt, "forget_at": &h.ForgetAt}
	released := r.Text[event.TAction] == HoldReleased
	if released {
		times["released_at"] = &h.ReleasedAt
	}
	if err := open(r, hash, &h.ID, &h.Hashes, nil, times); err != nil {
		return nil, fmt.Errorf("read hold: %w", err)
	}
	for _, p := range r.Metadata {
		if p.Key == fieldReason {
			h.Reason = strings.Clone(p.Value)
		}
	}
	// After a placing that the tables know comes its release, and nothing else.
	if h.UpdatedAt = h.PlacedAt.Add(-time.Millisecond); released {
		h.UpdatedAt = h.ReleasedAt
	}
	return h, nil
}

// sealed adds the hashes and the seal to the metadata of a record.
func sealed(action, id string, m map[string]string, hashes []string, hash func(string) []string) map[string]string {
	n := 0
	for part := range slices.Chunk(hashes, hashesPerValue) {
		m[hashesOf+strconv.Itoa(n)] = strings.Join(part, " ")
		n++
	}
	m[fieldSeal] = hash(sealText(action, id, m))[0]
	return m
}

// sealText is what a seal is the hash of. No subject of a row looks like it.
func sealText(action, id string, m map[string]string) string {
	parts := []string{"record", action, id}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, "\x00")
}

// open reads a record, which must be whole and sealed.
func open(r *event.Row, hash func(string) []string, id *string, hashes *[]string, texts map[string]*string, times map[string]*time.Time) error {
	*id = strings.Clone(r.Text[event.TTargetID])
	said, seal := make(map[string]string), ""
	for _, p := range r.Metadata {
		switch {
		case p.Key == fieldSeal:
			seal = p.Value
		case strings.HasPrefix(p.Key, hashesOf), texts[p.Key] != nil, times[p.Key] != nil:
			said[strings.Clone(p.Key)] = strings.Clone(p.Value)
		}
	}
	if !slices.Contains(hash(sealText(r.Text[event.TAction], *id, said)), seal) {
		return errors.New("the seal is not of these keys, or the record was changed")
	}
	for n := 0; ; n++ {
		part, ok := said[hashesOf+strconv.Itoa(n)]
		if !ok {
			break
		}
		*hashes = append(*hashes, strings.Fields(part)...)
	}
	for name, text := range texts {
		*text = said[name]
	}
	for name, at := range times {
		var err error
		if *at, err = time.Parse(time.RFC3339, said[name]); err != nil {
			return fmt.Errorf("%s is no time", name)
		}
	}
	return nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// unexplained returns the hashes that are of none of the subjects.
func unexplained(hashes, subjects []string, hash func(subject string) []string) []string {
	of := make(map[string]bool)
	for _, k := range subjects {
		for _, h := range hash(k) {
			of[h] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(hashes), func(h string) bool { return of[h] })
}
