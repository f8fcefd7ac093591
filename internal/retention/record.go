package retention

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// ErasureRequested is the action of the audit event that records an erasure. A
// database that was restored from a backup learns the erasure from it again.
const ErasureRequested = "lethe.access.erasure_requested"

// hashesPerValue keeps the hashes of one metadata value within event.MaxMetadataValue.
const hashesPerValue = 9

// MaxSubjects is how many subjects one erasure can have, so that its record is one event.
const MaxSubjects = 100

// Record returns an erasure as the metadata of its audit event. Its ID is the
// event's target.id. It MUST have at most MaxSubjects hashes.
func Record(e event.Erasure) map[string]string {
	m := map[string]string{
		"scope": e.Scope, "until": moment(e.Until), "deadline": moment(e.Deadline), "everywhere": moment(e.Everywhere),
		"forget_at": moment(e.ForgetAt), "policy_version": e.PolicyVersion,
	}
	n := 0
	for part := range slices.Chunk(e.Hashes, hashesPerValue) {
		m["hashes."+strconv.Itoa(n)] = strings.Join(part, " ")
		n++
	}
	return m
}

// Recorded returns the erasure that the row of an audit event records, as it was
// requested. ok is false for every other row.
func Recorded(r *event.Row) (e event.Erasure, ok bool, err error) {
	if r.Kind != event.Audit || r.Text[event.TAction] != ErasureRequested {
		return e, false, nil
	}
	e = event.Erasure{ID: r.Text[event.TTargetID], State: event.ErasureRequested, UpdatedAt: r.OccurredAt}
	times := map[string]*time.Time{"until": &e.Until, "deadline": &e.Deadline, "everywhere": &e.Everywhere, "forget_at": &e.ForgetAt}
	for _, p := range r.Metadata {
		switch at := times[p.Key]; {
		case at != nil:
			if *at, err = time.Parse(time.RFC3339, p.Value); err != nil {
				return e, true, fmt.Errorf("read erasure: %s is no time", p.Key)
			}
		case p.Key == "scope":
			e.Scope = p.Value
		case p.Key == "policy_version":
			e.PolicyVersion = p.Value
		case strings.HasPrefix(p.Key, "hashes."):
			e.Hashes = append(e.Hashes, strings.Fields(p.Value)...)
		}
	}
	if e.ID == "" || len(e.Hashes) == 0 || e.Until.IsZero() || e.Deadline.IsZero() || e.Everywhere.IsZero() || e.ForgetAt.IsZero() {
		return e, true, fmt.Errorf("read erasure: the record is not whole")
	}
	return e, true, nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
