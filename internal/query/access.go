package query

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
)

// The actions of consultation records.
const (
	accessEvents  = export.AccessPrefix + "events"
	accessSubject = export.AccessPrefix + "subject"
	accessExport  = export.AccessPrefix + "export"
)

// accessCategory is the data.category of consultation records, for the rules of a policy.
const accessCategory = "access_record"

// accessSource is the CloudEvents source of consultation records.
const accessSource = "/lethe/query"

// staffPrefix keeps the names of callers apart from the ids of users.
const staffPrefix = "staff:"

// The header that says why rows are read, and its values: a closed list,
// because the answer to "why was I looked up" must not be free text.
const (
	purposeHeader  = "Lethe-Purpose"
	verifiedHeader = "Lethe-Identity-Verified"
	notStated      = "not_stated"
)

var purposes = []string{
	"access_request", "portability_request", "correction_request", "deletion_request", "restriction_request", "objection_request",
	"complaint", "support", "security_monitoring", "security_incident", "fraud", "legal_claim", "authority_order", "audit",
}

// consultation is one reading of personal rows.
type consultation struct {
	action  string
	route   string // the template
	purpose string
	caller  caller
	// people are the distinct keys of the persons whose rows were read.
	people []string
	// extra are further metadata: rows, phase.
	extra map[string]string

	// Of what was done rather than read:
	target          target
	outcome, reason string    // success, and why not
	at              time.Time // zero: now
}

// target is what something was done to.
type target struct{ kind, id string }

// Bounds of one record: events are dead letters beyond them.
const (
	maxPeople      = event.MaxOwners
	maxPeopleBytes = 900 << 10 // of keys as JSON; an event has 1 MiB
)

// record publishes the consultation and returns when Kafka has acknowledged it.
// The caller MUST NOT send a byte of the rows before, nor after an error.
func (s *Server) record(ctx context.Context, c consultation) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	at := c.at
	if at.IsZero() {
		at = s.now()
	}
	events, err := c.events(at)
	if err == nil {
		err = s.o.Audit.Record(ctx, c.caller.Organization, events...)
	}
	if err != nil {
		s.metrics.records.WithLabelValues("refused").Inc()
		return &problem{problemType: errAudit, detail: "Try again in a few seconds.", err: err}
	}
	s.metrics.records.WithLabelValues("acknowledged").Inc()
	return nil
}

// events returns the record as CloudEvents: one, or several where there are
// more people than one event can name.
func (c consultation) events(now time.Time) ([][]byte, error) {
	parts := split(c.people)
	out := make([][]byte, len(parts))
	for i, people := range parts {
		metadata := map[string]string{"purpose": c.purpose, "role": string(c.caller.Role), "route": c.route}
		for k, v := range c.extra {
			metadata[k] = v
		}
		if len(parts) > 1 {
			metadata["part"] = fmt.Sprintf("%d of %d", i+1, len(parts))
		}
		data := map[string]any{
			"event.action": c.action, "event.outcome": cmp.Or(c.outcome, "success"), "actor.type": "staff", "user.id": staffPrefix + c.caller.Name,
			"data.category": accessCategory, "metadata": metadata,
		}
		for name, value := range map[string]string{"target.type": c.target.kind, "target.id": c.target.id, "event.reason": c.reason} {
			if value != "" {
				data[name] = value
			}
		}
		if len(people) > 0 {
			data["target.owner.id"] = people
		}
		if c.caller.Organization != "" {
			data["organization.id"] = c.caller.Organization
		}
		b, err := json.Marshal(map[string]any{
			"specversion": "1.0", "id": newEventID(), "source": accessSource, "type": c.action,
			"time": now.Format("2006-01-02T15:04:05.000Z"), "datacontenttype": "application/json", "data": data,
		})
		if err != nil {
			return nil, fmt.Errorf("encode consultation record: %w", err)
		}
		out[i] = b
	}
	return out, nil
}

func split(people []string) [][]string {
	parts := [][]string{nil}
	size := 0
	for _, p := range people {
		last := len(parts) - 1
		encoded, _ := json.Marshal(p) // a string: cannot fail
		if len(parts[last]) == maxPeople || size+len(encoded) >= maxPeopleBytes {
			parts, size = append(parts, nil), 0
			last++
		}
		parts[last] = append(parts[last], p)
		size += len(encoded) + 1
	}
	return parts
}

// newEventID returns a random UUID.
func newEventID() string {
	var b [16]byte
	rand.Read(b[:])
	return uuid(b)
}

// uuid writes 16 random bytes as one.
func uuid(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// people returns the distinct keys of the persons in the rows. Of a row that is
// itself a consultation record only the one who consulted counts: naming again
// whom it named would make every reading of the records longer than the last.
func people(rows []event.Row, searched []string) []string {
	keys := slices.Clone(searched)
	for i := range rows {
		r := &rows[i]
		if strings.HasPrefix(r.Text[event.TAction], export.AccessPrefix) {
			if id := r.Text[event.TUserID]; id != "" {
				keys = append(keys, "user:"+id)
			}
			continue
		}
		keys = append(keys, r.SubjectKeys...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// purpose returns why rows are read. Where it need not be stated, its absence is recorded.
func purpose(r *http.Request) (string, error) {
	p := r.Header.Get(purposeHeader)
	switch {
	case p == "":
		return notStated, nil
	case slices.Contains(purposes, p):
		return p, nil
	}
	return "", errBadRequest.because("The header " + purposeHeader + " must be one of: " + strings.Join(purposes, ", ") + ".")
}

func count(n int) map[string]string { return map[string]string{"rows": strconv.Itoa(n)} }

// checkRecords refuses a policy without a class for consultation records.
func checkRecords(p *policy.Policy, now time.Time) error {
	for _, action := range []string{accessEvents, accessSubject, accessExport, retention.ErasureRequested, retention.HoldPlaced, retention.HoldReleased} {
		var e event.Event
		e.Reset(event.Audit)
		e.ID, e.Source, e.Type, e.Time = newEventID(), accessSource, action, now
		e.Set(event.EventAction, action)
		e.Set(event.EventOutcome, "success")
		e.Set(event.ActorType, "staff")
		e.Set(event.UserID, staffPrefix+"check")
		e.Set(event.DataCategory, accessCategory)
		d, err := p.Decide(&e, now)
		if err != nil {
			return fmt.Errorf("find the class of consultation records (%s): %w", action, err)
		}
		if d.Expired {
			return fmt.Errorf("find the class of consultation records (%s): class %s would not keep them", action, d.Retention)
		}
	}
	return nil
}
