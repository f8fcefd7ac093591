package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/event"
)

// FuzzDecode compares the scanner with encoding/json: both refuse the same
// records for their form, and read the same values from the others.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden events: %v", err)
	}
	for i, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), raw)
	}
	f.Add(uint8(0), requestValue)
	f.Add(uint8(1), []byte(auditWith(`,"x":`+nested(7))))
	f.Add(uint8(1), []byte(auditWith(`,"user.id":"\ud83d\u0041","x":[1.5e-3,true,null,{"a":{"a":[]}}],"user\u002eid":1`)))
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		k := event.Kind(kind % event.NumKinds)
		e := new(event.Event)
		var refused *Error
		err := NewDecoder().Decode(k, value, nil, e)
		errors.As(err, &refused)
		tree, want := reference(value)
		if want != "" {
			// The order in which two faults of one record are found may differ.
			if refused == nil || refused.Redactable() {
				t.Fatalf("got %v, want %s", err, want)
			}
			return
		}
		if refused != nil && !refused.Redactable() {
			t.Fatalf("got %v for a value that encoding/json reads", err)
		}
		compare(t, e, tree)
	})
}

// reference reads a value with encoding/json and refuses what must be refused.
func reference(value []byte) (map[string]any, Reason) {
	switch {
	case len(value) == 0:
		return nil, Empty
	case len(value) > MaxValue:
		return nil, TooLarge
	case !utf8.Valid(value):
		return nil, NotUTF8
	case !json.Valid(value):
		return nil, NotJSON
	}
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	v, reason := referenceValue(d, 0)
	if reason != "" {
		return nil, reason
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, NotJSON
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, NotObject
	}
	return object, ""
}

func referenceValue(d *json.Decoder, depth int) (any, Reason) {
	token, err := d.Token()
	if err != nil {
		return nil, NotJSON
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, ""
	}
	if depth >= MaxDepth {
		return nil, TooDeep
	}
	object, array := map[string]any{}, []any{}
	for d.More() {
		key := ""
		if delim == '{' {
			token, err := d.Token()
			if err != nil {
				return nil, NotJSON
			}
			key = token.(string)
			if _, twice := object[key]; twice {
				return nil, DuplicateKey
			}
		}
		v, reason := referenceValue(d, depth+1)
		if reason != "" {
			return nil, reason
		}
		object[key] = v
		array = append(array, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, NotJSON
	}
	if delim == '{' {
		return object, ""
	}
	return array, ""
}

// compare checks every value of the event against the tree: kept where it is
// within the bounds, absent where it is not.
func compare(t *testing.T, e *event.Event, tree map[string]any) {
	t.Helper()
	text := func(key string, limit int) string {
		if s, _ := tree[key].(string); len(s) <= limit {
			return s
		}
		return ""
	}
	if e.ID != text("id", MaxID) || e.Source != text("source", MaxSource) || e.Type != text("type", MaxType) {
		t.Errorf("envelope: got %q %q %q from %v", e.ID, e.Source, e.Type, tree)
	}
	data, _ := tree["data"].(map[string]any)
	for a, def := range event.Attributes {
		v := data[def.Name]
		if !def.Kinds.Has(e.Kind) {
			v = nil
		}
		n, has := e.Num(event.Attr(a))
		switch def.Type {
		case event.String:
			s, _ := v.(string)
			if def.Max > 0 && len(s) > def.Max || def.Enum != nil && !slices.Contains(def.Enum, s) || def.Hex > 0 && len(s) != def.Hex {
				continue // bounds have tests of their own
			}
			if def.Hex == 0 && e.Text[a] != s || def.Hex > 0 && e.Text[a] != "" && e.Text[a] != s {
				t.Errorf("%s: got %q, want %q", def.Name, e.Text[a], s)
			}
		case event.Integer, event.Number:
			want, ok := float64(0), false
			if text, is := v.(json.Number); is {
				f, err := text.Float64()
				ok = err == nil && f >= 0 && (def.Max == 0 || f <= float64(def.Max)) && (def.Type == event.Number || f == math.Trunc(f))
				want = f
			}
			if has != ok || ok && n != want {
				t.Errorf("%s: got %v %t, want %v %t", def.Name, n, has, want, ok)
			}
		case event.Boolean:
			b, ok := v.(bool)
			if has != ok || (n == 1) != b {
				t.Errorf("%s: got %v %t, want %v", def.Name, n, has, v)
			}
		case event.Strings:
			compareOwners(t, e, v, def.Max)
		case event.Map:
			compareMetadata(t, e, v)
		}
	}
}

func compareOwners(t *testing.T, e *event.Event, v any, limit int) {
	t.Helper()
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var want []string
	for _, v := range list {
		if s, _ := v.(string); s != "" && len(s) <= limit && len(want) < event.MaxOwners {
			want = append(want, s)
		}
	}
	if !slices.Equal(e.Owners, want) {
		t.Errorf("owners: got %q, want %q", e.Owners, want)
	}
}

func compareMetadata(t *testing.T, e *event.Event, v any) {
	t.Helper()
	m, _ := v.(map[string]any)
	if len(m) > event.MaxMetadata {
		return // which of them are kept depends on their order
	}
	d := NewDecoder()
	want := map[string]string{}
	for key, v := range m {
		if s, ok := v.(string); ok && len(key) <= event.MaxMetadataKey && !d.refused(key) {
			if len(s) > event.MaxMetadataValue {
				s = cut(s, event.MaxMetadataValue)
			}
			want[key] = s
		}
	}
	got := map[string]string{}
	for _, p := range e.Metadata {
		got[p.Key] = p.Value
	}
	if len(got) != len(e.Metadata) || !maps.Equal(got, want) {
		t.Errorf("metadata: got %q, want %q", e.Metadata, want)
	}
}

// FuzzTime compares parseTime with package time, which knows no leap seconds
// and small letters, and lets pass one-digit hours, commas and odd offsets.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-01-31T10:00:00Z", "2026-01-31T10:00:00.123456789+02:00", "2024-02-29T23:59:59-23:59"} {
		f.Add(s)
	}
	strict := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseTime(s)
		upper := strings.ToUpper(s)
		want, err := time.Parse(time.RFC3339, upper)
		leap := strings.Contains(s, ":60")
		if wantOK := err == nil && strict.MatchString(upper); !leap && (ok != wantOK || ok && !got.Equal(want)) {
			t.Fatalf("got %v %t, want %v %t", got, ok, want, wantOK)
		}
	})
}

// FuzzBinary reads headers of any kind without a panic, and never keeps more
// than the bounds allow.
func FuzzBinary(f *testing.F) {
	f.Add("ce_id", []byte("1"), "ce_x", []byte("y"), []byte(`{}`))
	f.Add("ce_time", []byte("2026-01-31T10:00:00Z"), "content-type", []byte("application/json"), []byte(`{"user.id":"a"}`))
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2, value []byte) {
		e := new(event.Event)
		hs := []Header{{"ce_specversion", []byte("1.0")}, {k1, v1}, {k2, v2}}
		err := NewDecoder().Decode(event.Audit, value, hs, e)
		var refused *Error
		if errors.As(err, &refused) && !slices.Contains(Reasons, refused.Reason) {
			t.Fatalf("got %v, which is not in the list", err)
		}
		if len(e.ID) > MaxID || len(e.Source) > MaxSource || len(e.Type) > MaxType {
			t.Fatal(fmt.Sprint("bounds: ", len(e.ID), len(e.Source), len(e.Type)))
		}
	})
}
