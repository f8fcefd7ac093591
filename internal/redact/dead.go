package redact

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// DeadLetter returns an event that was decoded but is not valid, redacted, as
// CloudEvents JSON with the extension letheredacted. Its data has the stored
// names (client.country, user_agent.name, …) and the stored forms of e-mails
// and session ids; what could not be read is absent.
func (r *Redactor) DeadLetter(e *event.Event) []byte {
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
	letter := map[string]any{
		"specversion": "1.0", "id": row.ID, "source": row.Source, "type": row.Type,
		"datacontenttype": "application/json", "letheredacted": true, "data": data,
	}
	if !row.OccurredAt.IsZero() {
		letter["time"] = row.OccurredAt.UTC().Format(time.RFC3339Nano)
	}
	// Strings, finite numbers and booleans always marshal.
	out, _ := json.Marshal(letter)
	return out
}
