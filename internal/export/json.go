// Package export turns stored rows into the forms that leave the house: the one
// JSON shape of a row, which the API answers with too, and the archive that a
// person gets who asks what is held about them.
//
// It reads nothing and decides nothing: query authenticates, records the
// consultation and hands over the rows. The route: rows → mask → NDJSON and CSV
// → ZIP, streamed, so that memory does not grow with the subject.
package export

import (
	"encoding/hex"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/event"
)

// Masked stands where a value was hidden because it belongs to someone else.
const Masked = "[masked]"

// never is the instant that stands for "not before its anchor happens": the
// last day that 32-bit dates hold.
var never = time.Date(2105, 12, 31, 0, 0, 0, 0, time.UTC)

const (
	milliseconds = "2006-01-02T15:04:05.000Z"
	seconds      = "2006-01-02T15:04:05Z"
)

// AppendJSON appends the JSON shape of a row as mask shows it: one object
// without a line break. Absent attributes are left out; expires_at is null
// while the row's class waits for its anchor. Times are UTC in RFC 3339.
func AppendJSON(dst []byte, r *event.Row, mask Mask) []byte {
	v := mask.view(r)
	return v.appendJSON(dst)
}

func (v *view) appendJSON(b []byte) []byte {
	b = append(b, `{"kind":"`...)
	b = append(b, v.Kind.String()...)
	b = append(b, `","id":`...)
	b = appendString(b, v.ID)
	b = append(b, `,"source":`...)
	b = appendString(b, v.Source)
	b = append(b, `,"type":`...)
	b = appendString(b, v.Type)
	b = append(b, `,"time":`...)
	b = appendTime(b, v.OccurredAt, milliseconds)
	b = append(b, `,"received_at":`...)
	b = appendTime(b, v.ReceivedAt, milliseconds)
	b = append(b, `,"data":{`...)
	b = v.appendData(b)
	b = append(b, `},"retention":{"class":`...)
	b = appendString(b, v.Retention)
	b = append(b, `,"retained_from":`...)
	b = appendTime(b, v.RetainedFrom, seconds)
	b = append(b, `,"expires_at":`...)
	b = appendTime(b, expiry(v.Row), seconds)
	b = append(b, `,"policy_version":`...)
	b = appendString(b, v.PolicyVersion)
	return append(b, "}}"...)
}

// appendData appends the members of "data", without its braces.
func (v *view) appendData(b []byte) []byte {
	start := len(b)
	name := func(n string) {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, n...)
		b = append(b, '"', ':')
	}
	for t := range v.Text {
		if v.Text[t] != "" {
			name(event.Texts[t].Name)
			b = appendString(b, v.Text[t])
		}
	}
	for n := range v.Number {
		if f := event.Numbers[n]; f.Kinds.Has(v.Kind) && !math.IsNaN(v.Number[n]) {
			name(f.Name)
			b = appendNumber(b, f, v.Number[n])
		}
	}
	if len(v.Owners) > 0 {
		name(event.Attributes[event.TargetOwner].Name)
		for i, o := range v.Owners {
			b = append(b, "[,"[min(i, 1)])
			b = appendString(b, o)
		}
		b = append(b, ']')
	}
	if s := v.trace(); s != "" {
		name(event.Attributes[event.TraceID].Name)
		b = appendString(b, s)
	}
	if s := v.span(); s != "" {
		name(event.Attributes[event.SpanID].Name)
		b = appendString(b, s)
	}
	if len(v.Metadata) > 0 {
		name(event.Attributes[event.Metadata].Name)
		b = appendPairs(b, v.Metadata)
	}
	return b
}

func (v *view) trace() string { return v.id(v.TraceID[:], v.TraceID == [16]byte{}) }

func (v *view) span() string { return v.id(v.SpanID[:], v.SpanID == [8]byte{}) }

func (v *view) id(raw []byte, absent bool) string {
	switch {
	case absent:
		return ""
	case v.hidden:
		return Masked
	}
	return hex.EncodeToString(raw)
}

// expiry is the row's expiry, or zero while it has none.
func expiry(r *event.Row) time.Time {
	if !r.ExpiresAt.Before(never) {
		return time.Time{}
	}
	return r.ExpiresAt
}

func appendNumber(b []byte, f event.Field, v float64) []byte {
	if event.Attributes[f.From].Type == event.Boolean {
		return strconv.AppendBool(b, v != 0)
	}
	return strconv.AppendFloat(b, v, 'f', -1, 64)
}

func appendPairs(b []byte, pairs []event.Pair) []byte {
	for i, p := range pairs {
		b = append(b, "{,"[min(i, 1)])
		b = appendString(b, p.Key)
		b = append(b, ':')
		b = appendString(b, p.Value)
	}
	return append(b, '}')
}

// appendTime appends a quoted time, or null for the zero time.
func appendTime(b []byte, t time.Time, layout string) []byte {
	if t.IsZero() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, layout)
	return append(b, '"')
}

// appendString appends a quoted JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
