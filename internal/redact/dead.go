package redact

import (
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// DeadLetter returns an event that was decoded but is not valid, redacted, as
// CloudEvents JSON with the extension letheredacted. Its data has the stored
// names (client.country, user_agent.name, …) and the stored forms of e-mails
// and session ids; what could not be read is absent. The seal, a keyed hash of
// the letter and its kind, is what Open asks for when the letter comes back.
func (r *Redactor) DeadLetter(e *event.Event) (letter []byte, seal string) {
	row := &r.dead
	r.fill(e, row)
	data := make(map[string]any)
	for i, v := range row.Text {
		if v != "" {
			data[event.Texts[i].Name] = v
		}
	}
	for i, v := range row.Number {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
		case event.Attributes[event.Numbers[i].From].Type == event.Boolean:
			data[event.Numbers[i].Name] = v != 0
		default:
			data[event.Numbers[i].Name] = v
		}
	}
	if len(row.Owners) > 0 {
		data[event.Attributes[event.TargetOwner].Name] = row.Owners
	}
	if row.TraceID != [16]byte{} {
		data[event.Attributes[event.TraceID].Name] = hex.EncodeToString(row.TraceID[:])
	}
	if row.SpanID != [8]byte{} {
		data[event.Attributes[event.SpanID].Name] = hex.EncodeToString(row.SpanID[:])
	}
	if len(row.Metadata) > 0 {
		m := make(map[string]string, len(row.Metadata))
		for _, p := range row.Metadata {
			m[p.Key] = p.Value
		}
		data[event.Attributes[event.Metadata].Name] = m
	}
	if len(row.SubjectKeys) > 0 {
		data[subjectKeys] = row.SubjectKeys
	}
	envelope := map[string]any{
		"specversion": "1.0", "id": row.ID, "source": row.Source, "type": row.Type,
		"datacontenttype": "application/json", "letheredacted": true, "data": data,
	}
	if !row.OccurredAt.IsZero() {
		envelope["time"] = row.OccurredAt.UTC().Format(time.RFC3339Nano)
	}
	// Strings, finite numbers and booleans always marshal.
	letter, _ = json.Marshal(envelope)
	return letter, r.key.seal(e.Kind, letter)
}

// subjectKeys names, among a letter's data, the people of the event.
const subjectKeys = "lethe.subject_keys"

func (k *key) seal(kind event.Kind, letter []byte) string {
	sum, _ := k.sum(nil, domainLetter, kind.String(), string(letter))
	return string(k.appendSum(nil, &sum))
}

// Open returns what a letter of DeadLetter holds beyond the attributes that
// codec reads, or nil where the seal is not one of a live key for exactly this
// letter and kind. Anybody may publish something that calls itself redacted:
// without our seal it is an event like any other, to be redacted in full.
func (r *Redactor) Open(kind event.Kind, letter, seal []byte) *event.Stored {
	id, _, _ := strings.Cut(string(seal), ":")
	i := slices.IndexFunc(r.keys.keys, func(k key) bool { return k.id == id })
	if i < 0 || !hmac.Equal(seal, []byte(r.keys.keys[i].seal(kind, letter))) {
		return nil
	}
	var got struct {
		Data struct {
			Country      string   `json:"client.country"`
			AgentName    string   `json:"user_agent.name"`
			AgentVersion string   `json:"user_agent.version"`
			AgentOS      string   `json:"user_agent.os"`
			SubjectKeys  []string `json:"lethe.subject_keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(letter, &got); err != nil {
		return nil // we sealed no such thing
	}
	d := got.Data
	return &event.Stored{Country: d.Country, AgentName: d.AgentName, AgentVersion: d.AgentVersion, AgentOS: d.AgentOS, SubjectKeys: d.SubjectKeys}
}

// restore takes over what a dead letter holds in its stored form, and reports
// whether that was all there is to do. Text goes through the scrubber again.
func restore(e *event.Event, row *event.Row, s step, v string) bool {
	switch s.how {
	case asPerson, asDevice, asUser, asTarget, asEmail, asSession, asAddress:
		row.Text[s.to] = v
	case asAgent:
		row.Text[event.TAgentName], row.Text[event.TAgentVersion], row.Text[event.TAgentOS] = v, e.Stored.AgentVersion, e.Stored.AgentOS
	case asOwners:
		row.Owners = append(row.Owners, e.Owners...)
	default:
		return false
	}
	return true
}
