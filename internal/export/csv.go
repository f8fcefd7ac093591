package export

import (
	"math"
	"strings"

	"github.com/lethe-audit/lethe/internal/event"
)

// header returns the columns of a kind's CSV file.
func header(k event.Kind) []string {
	h := []string{"kind", "id", "source", "type", "time", "received_at"}
	for _, f := range event.Texts {
		if f.Kinds.Has(k) {
			h = append(h, f.Name)
		}
	}
	for _, f := range event.Numbers {
		if f.Kinds.Has(k) {
			h = append(h, f.Name)
		}
	}
	return append(h, "target.owner.id", "trace_id", "span_id", "metadata",
		"retention.class", "retention.retained_from", "retention.expires_at", "retention.policy_version")
}

// record appends the row's cells, in the order of header, to dst.
func (v *view) record(dst []string) []string {
	dst = append(dst, v.Kind.String(), cell(v.ID), cell(v.Source), cell(v.Type),
		v.OccurredAt.UTC().Format(milliseconds), v.ReceivedAt.UTC().Format(milliseconds))
	for t, f := range event.Texts {
		if f.Kinds.Has(v.Kind) {
			dst = append(dst, cell(v.Text[t]))
		}
	}
	for n, f := range event.Numbers {
		if !f.Kinds.Has(v.Kind) {
			continue
		}
		if math.IsNaN(v.Number[n]) {
			dst = append(dst, "")
		} else {
			dst = append(dst, string(appendNumber(nil, f, v.Number[n])))
		}
	}
	metadata := ""
	if len(v.Metadata) > 0 {
		metadata = string(appendPairs(nil, v.Metadata))
	}
	expires := ""
	if t := expiry(v.Row); !t.IsZero() {
		expires = t.UTC().Format(seconds)
	}
	return append(dst, cell(strings.Join(v.Owners, " ")), v.trace(), v.span(), cell(metadata),
		cell(v.Retention), v.RetainedFrom.UTC().Format(seconds), expires, cell(v.PolicyVersion))
}

// cell makes a text safe to open in a spreadsheet, which would run it as a
// formula when it begins with one of these: it is quoted with '.
func cell(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r\n", s[0]) >= 0 {
		return "'" + s
	}
	return s
}
