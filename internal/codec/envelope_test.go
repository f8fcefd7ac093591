package codec

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func headers(pairs ...string) (hs []Header) {
	for i := 0; i < len(pairs); i += 2 {
		hs = append(hs, Header{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return hs
}

func TestModesSayTheSame(t *testing.T) {
	value, hs := binaryRequest()
	d := NewDecoder()
	structured, binary := new(event.Event), new(event.Event)
	if err := d.Decode(event.Request, requestValue, nil, structured); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(event.Request, value, hs, binary); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(binary, structured) {
		t.Errorf("binary mode gives %+v, structured mode %+v", binary, structured)
	}
	spaced := bytes.NewBuffer(nil)
	for _, c := range requestValue {
		spaced.WriteByte(c)
		if bytes.IndexByte([]byte(`{}[],:`), c) >= 0 && bytes.Count(spaced.Bytes(), []byte(`"`))%2 == 0 {
			spaced.WriteString(" \n\t\r")
		}
	}
	again := new(event.Event)
	if err := d.Decode(event.Request, spaced.Bytes(), nil, again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, structured) {
		t.Errorf("with space: got %+v, want %+v", again, structured)
	}
}

func TestBinaryMode(t *testing.T) {
	context := []string{"ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s", "ce_type", "t", "ce_time", "2026-01-31T10:00:00Z"}
	with := func(more ...string) []Header { return headers(append(append([]string{}, context...), more...)...) }
	data := `{` + auditOK + `}`
	for _, c := range []struct {
		name      string
		headers   []Header
		value     string
		reason    Reason
		attribute string
		unknown   int
		refused   int
	}{
		{"event", with(), data, "", "", 0, 0},
		{"content type of the data", with("content-type", "application/json"), data, "", "", 0, 0},
		{"other headers are not read", with("authorization", "x", "traceparent", "y"), data, "", "", 0, 0},
		{"extensions", with("ce_partitionkey", "k", "ce_clientip", "192.0.2.1", "ce_subject", "s"), data, "", "", 1, 1},
		{"a header named data is an extension", with("ce_data", "x"), data, "", "", 1, 0},
		{"eight deep", with(), `{` + auditOK + `,"x":` + nested(7) + `}`, "", "", 1, 0},
		{"nine deep", with(), `{` + auditOK + `,"x":` + nested(8) + `}`, TooDeep, "", 0, 0},
		{"tombstone", with(), "", Empty, "", 0, 0},
		{"header twice", with("ce_id", "2"), data, DuplicateKey, "", 0, 0},
		{"extension twice", with("ce_x", "2", "ce_x", "2"), data, DuplicateKey, "", 0, 0},
		{"header not UTF-8", with("ce_x", "\xff"), data, NotUTF8, "", 0, 0},
		{"large header", with("ce_x", strings.Repeat("x", MaxValue)), data, TooLarge, "", 0, 0},
		{"data is a list", with(), `[]`, NotObject, "", 0, 0},
		{"data is cut off", with(), data[:20], NotJSON, "", 0, 0},
		{"trailing data", with(), data + data, NotJSON, "", 0, 0},
		{"no time", headers(context[:8]...), data, MissingAttribute, "time", 0, 0},
		{"no version", headers(context[2:]...), data, MissingAttribute, "specversion", 0, 0},
		{"empty source", headers("ce_specversion", "1.0", "ce_id", "1", "ce_source", "", "ce_type", "t", "ce_time", "2026-01-31T10:00:00Z"), data, MissingAttribute, "source", 0, 0},
		{"bad time", headers(append(append([]string{}, context[:8]...), "ce_time", "now")...), data, TimeOutOfRange, "time", 0, 0},
		{"structured wins by content type", with("Content-Type", "Application/CloudEvents+json; charset=utf-8"), auditWith(""), "", "", 0, 0},
		{"a batch is not an event", headers("content-type", "application/cloudevents-batch+json"), "[" + auditWith("") + "]", NotObject, "", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := decode(t, event.Audit, c.value, c.headers...)
			if err == nil {
				err = &Error{}
			}
			if err.Reason != c.reason || err.Attribute != c.attribute {
				t.Fatalf("got %v, want %s %s", err, c.reason, c.attribute)
			}
			if c.reason == "" && (e.ID != "1" || e.Source != "/s" || e.Type != "t" || e.Action() != "a.b") {
				t.Errorf("got %+v", e)
			}
			if e.Unknown != c.unknown || e.Refused != c.refused {
				t.Errorf("got %d unknown, %d refused, want %d, %d", e.Unknown, e.Refused, c.unknown, c.refused)
			}
		})
	}
}

func TestTime(t *testing.T) {
	at := func(nano int) time.Time { return time.Date(2026, 1, 31, 10, 0, 0, nano, time.UTC) }
	for _, c := range []struct {
		text string
		want time.Time // zero: not a time
	}{
		{"2026-01-31T10:00:00Z", at(0)},
		{"2026-01-31t10:00:00z", at(0)},
		{"2026-01-31T10:00:00.123Z", at(123_000_000)},
		{"2026-01-31T10:00:00.123456789Z", at(123_456_789)},
		{"2026-01-31T10:00:00.1234567899999Z", at(123_456_789)},
		{"2026-01-31T12:00:00+02:00", at(0)},
		{"2026-01-31T04:30:00-05:30", at(0)},
		{"2026-02-01T09:59:00+23:59", at(0)},
		{"2026-01-31T10:00:00-00:00", at(0)},
		{"2026-01-31T09:59:60Z", at(0)},
		{"2024-02-29T00:00:00Z", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
		{"2026-02-29T00:00:00Z", time.Time{}},
		{"2026-04-31T00:00:00Z", time.Time{}},
		{"2026-00-10T00:00:00Z", time.Time{}},
		{"2026-13-10T00:00:00Z", time.Time{}},
		{"2026-01-31T24:00:00Z", time.Time{}},
		{"2026-01-31T10:60:00Z", time.Time{}},
		{"2026-01-31T10:00:61Z", time.Time{}},
		{"2026-01-31T10:00:00", time.Time{}},
		{"2026-01-31T10:00:00.Z", time.Time{}},
		{"2026-01-31T10:00:00,1Z", time.Time{}},
		{"2026-01-31T1:00:00Z", time.Time{}},
		{"2026-01-31 10:00:00Z", time.Time{}},
		{"2026-01-31T10:00:00+0200", time.Time{}},
		{"2026-01-31T10:00:00+24:00", time.Time{}},
		{"2026-01-31T10:00:00+02:60", time.Time{}},
		{"2026-01-31T10:00:00+ab:cd", time.Time{}},
		{"2026-01-31T10:00:00Zz", time.Time{}},
		{"1769853600", time.Time{}},
		{"", time.Time{}},
	} {
		t.Run(c.text, func(t *testing.T) {
			got, ok := parseTime(c.text)
			if ok == c.want.IsZero() || !got.Equal(c.want) {
				t.Errorf("got %v %t, want %v", got, ok, c.want)
			}
			if ok && got.Location() != time.UTC {
				t.Errorf("got location %v, want UTC", got.Location())
			}
		})
	}
}
