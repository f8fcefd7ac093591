package store

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// full is a row in which every field of its kind has a value.
func full(kind event.Kind, i int) *event.Row {
	r := newRow(kind, usage, fmt.Sprintf("id-%d", i), now.Add(-time.Hour).Add(time.Duration(i)*time.Millisecond))
	r.Partition, r.Offset = 3, int64(1_000_000+i)
	r.ExpiresOverride = uint32(now.Add(1000*time.Hour).Unix()) + uint32(i)
	r.SubjectKeys = []string{"user:u_1", "email:k1:0011", strings.Repeat("k", 300)}
	r.Owners = []string{"u_2", "u_3"}
	r.TraceID = [16]byte{1, 2, 3, 15: byte(i)}
	r.SpanID = [8]byte{9, 7: byte(i)}
	r.Metadata = []event.Pair{{Key: "b", Value: "1"}, {Key: "a", Value: strings.Repeat("v", 500)}, {Key: "ü", Value: ""}}
	for j, f := range event.Texts {
		if f.Kinds.Has(kind) {
			r.Text[j] = fmt.Sprintf("%s-%d;\n\n'\\\t", f.Name, i%3)
		}
	}
	for j, f := range event.Numbers {
		if !f.Kinds.Has(kind) {
			continue
		}
		switch f.ClickHouse {
		case "Nullable(Bool)":
			r.Number[j] = float64(i % 2)
		case "Nullable(Float64)":
			r.Number[j] = 0.0123 + float64(i)
		case "Nullable(UInt64)":
			r.Number[j] = float64(uint64(1)<<53 - uint64(i))
		default:
			r.Number[j] = float64(100 + i%100)
		}
	}
	return r
}

// differences names the fields in which two rows differ.
func differences(got, want *event.Row) (names []string) {
	g, w := reflect.ValueOf(*got), reflect.ValueOf(*want)
	for i := range g.NumField() {
		name := g.Type().Field(i).Name
		switch name {
		case "Number":
			for j := range got.Number {
				if !sameNumber(got.Number[j], want.Number[j]) {
					names = append(names, event.Numbers[j].Name)
				}
			}
		case "ExpiresAt": // made by the database
		default:
			if a, b := g.Field(i), w.Field(i); !reflect.DeepEqual(a.Interface(), b.Interface()) && (a.Kind() != reflect.Slice || a.Len()+b.Len() > 0) {
				names = append(names, fmt.Sprintf("%s: got %v, want %v", name, a, b))
			}
		}
	}
	return names
}

func TestRoundTrip(t *testing.T) {
	s := open(t)
	for _, kind := range event.Kinds {
		var rows []*event.Row
		for i := range 100 {
			rows = append(rows, full(kind, i))
		}
		// Sparse rows between full ones: absent values must not shift.
		for i := 100; i < 200; i++ {
			rows = append(rows, newRow(kind, usage, fmt.Sprintf("id-%d", i), now.Add(-time.Hour).Add(time.Duration(i)*time.Millisecond)))
			if kind == event.Request {
				rows[i].Number[event.NStatus] = 0
			}
			if i%7 == 0 {
				rows[i] = full(kind, i)
			}
		}
		// Values longer than a chunk of the arena.
		rows[150].Metadata = []event.Pair{{Key: "long", Value: strings.Repeat("x", 3*chunkSize)}}
		rows[151].Owners = strings.Split(strings.Repeat("u_12345678,", 2000), ",")
		rows[152].Text[event.TDeviceID] = strings.Repeat("d", chunkSize)
		insert(t, s, rows...)

		got, err := s.Events(context.Background(), event.Filter{Kinds: 1 << kind, From: now.Add(-24 * time.Hour), To: now, Now: now}, nil, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(rows) {
			t.Fatalf("%s: got %d rows, want %d", kind, len(got), len(rows))
		}
		for i := range got {
			want := rows[len(rows)-1-i] // newest first
			if d := differences(&got[i], want); d != nil {
				t.Fatalf("%s row %s: %s", kind, want.ID, d)
			}
			if want.ExpiresOverride != 0 && got[i].ExpiresAt.Unix() != int64(want.ExpiresOverride) {
				t.Errorf("%s row %s: expires at %s, want the override", kind, want.ID, got[i].ExpiresAt)
			}
			if end := want.RetainedFrom.AddDate(2, 0, 0); want.ExpiresOverride == 0 && !got[i].ExpiresAt.Equal(end) {
				t.Errorf("%s row %s: expires at %s, want %s", kind, want.ID, got[i].ExpiresAt, end)
			}
		}
	}
}
