package query

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

var sample = cursor{
	from: now.Add(-time.Hour), to: now, ceiling: now.Add(time.Millisecond),
	after:    event.Position{OccurredAt: now.Add(-time.Minute), Kind: event.Security, Source: "/svc", ID: "é\x00"},
	withheld: json.RawMessage(`{"past_expiry":3}`),
}

func sealer(t testing.TB, fill byte) *cursors {
	t.Helper()
	c, err := newCursors(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCursorRoundTrip(t *testing.T) {
	c := sealer(t, 1)
	filter := sha256.Sum256([]byte("filter"))
	text := c.seal(filter, sample)
	got, err := c.open(filter, text)
	if err != nil || !reflect.DeepEqual(got, sample) {
		t.Errorf("got %+v, %v; want %+v", got, err, sample)
	}
	if raw, _ := base64.RawURLEncoding.DecodeString(text); bytes.Contains(raw, []byte("/svc")) {
		t.Error("the cursor can be read")
	}
	if _, err := newCursors([]byte("short")); err == nil {
		t.Error("a short secret is accepted")
	}
}

func TestCursorTampering(t *testing.T) {
	c := sealer(t, 1)
	filter := sha256.Sum256([]byte("filter"))
	text := c.seal(filter, sample)
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		if _, err := c.open(filter, string(b)); !errors.Is(err, errBadCursor) {
			t.Fatalf("byte %d changed: got %v, want bad_cursor", i, err)
		}
	}
	other := sha256.Sum256([]byte("another filter"))
	for name, open := range map[string]func() (cursor, error){
		"another filter": func() (cursor, error) { return c.open(other, text) },
		"another secret": func() (cursor, error) { return sealer(t, 2).open(filter, text) },
		"cut":            func() (cursor, error) { return c.open(filter, text[:len(text)-1]) },
		"longer":         func() (cursor, error) { return c.open(filter, text+"A") },
		"empty":          func() (cursor, error) { return c.open(filter, "") },
		"too long":       func() (cursor, error) { return c.open(filter, string(bytes.Repeat([]byte("A"), maxCursor+1))) },
	} {
		if _, err := open(); !errors.Is(err, errBadCursor) {
			t.Errorf("%s: got %v, want bad_cursor", name, err)
		}
	}
}

// TestForeignCursor takes a real cursor to other questions.
func TestForeignCursor(t *testing.T) {
	d := open(t, nil)
	d.insert(row(event.Request, "a", "u_1", "org_1", time.Minute), row(event.Request, "b", "u_1", "org_1", 2*time.Minute),
		row(event.Request, "c", "u_1", "org_1", 3*time.Minute))
	next := d.get("officer", "/v1/events?limit=1").page(t).Next
	tests := []struct{ name, as, path, want string }{
		{"the same question", "officer", "/v1/events?limit=1", ""},
		{"another limit", "officer", "/v1/events?limit=2", ""},
		{"another filter", "officer", "/v1/events?limit=1&kind=request", "bad_cursor"},
		{"another range", "officer", "/v1/events?limit=1&to=2100-01-01T00:00:00Z", "bad_cursor"},
		{"another route", "officer", "/v1/subjects/user:u_1/events?limit=1", "bad_cursor"},
		{"another role", "investigator", "/v1/events?limit=1", "bad_cursor"},
		{"another tenant", "officer-org_1", "/v1/events?limit=1", "bad_cursor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := d.get(tt.as, tt.path+"&cursor="+next).problem(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzCursor(f *testing.F) {
	// A key of this process alone: the fuzzer remembers cursors of earlier runs,
	// and those must be foreign.
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		f.Fatal(err)
	}
	c, err := newCursors(secret)
	if err != nil {
		f.Fatal(err)
	}
	filter := sha256.Sum256([]byte("filter"))
	f.Add(c.seal(filter, sample), []byte{cursorVersion})
	f.Add("", bytes.Repeat([]byte{1}, 60))
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		// Nobody without the key makes a cursor that opens, unless it is ours as it is.
		if v, err := c.open(filter, text); err == nil && !reflect.DeepEqual(v, sample) {
			t.Errorf("a foreign cursor opens: %+v", v)
		}
		// And what another version sealed under the key does not break the decoder.
		if v, err := decodeCursor(plain); err == nil {
			if got, err := c.open(filter, c.seal(filter, v)); err != nil || !reflect.DeepEqual(got, v) {
				t.Errorf("got %+v, %v; want %+v", got, err, v)
			}
		}
	})
}
