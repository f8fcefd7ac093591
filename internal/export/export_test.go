package export

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

var at = time.Date(2026, 1, 31, 10, 0, 0, 123e6, time.UTC)

// row returns a stored row with the given fields.
func row(k event.Kind, id string, set func(*event.Row)) *event.Row {
	var r event.Row
	r.Reset()
	r.Kind, r.ID, r.Source, r.Type = k, id, "/svc/api", "com.example.v1"
	r.OccurredAt, r.ReceivedAt = at, at.Add(time.Second)
	r.Retention, r.PolicyVersion = "usage@2y", "2024-01-01-abcdef01"
	r.RetainedFrom, r.ExpiresAt = at.Truncate(time.Second), time.Date(2028, 1, 31, 10, 0, 0, 0, time.UTC)
	if set != nil {
		set(&r)
	}
	return &r
}

func TestAppendJSON(t *testing.T) {
	request := row(event.Request, "e-1", func(r *event.Row) {
		r.Text[event.TMethod], r.Text[event.TUserID] = "GET", "u_42"
		r.Number[event.NStatus], r.Number[event.NDuration] = 200, 0.0123
		r.TraceID, r.SpanID = [16]byte{0x4b, 15: 0x36}, [8]byte{7: 1}
		r.Metadata = []event.Pair{{Key: "a", Value: "1"}, {Key: "b", Value: "\"\n\x01"}}
		r.Owners = []string{"u_1", "u_2"}
	})
	security := row(event.Security, "\xff<é>", func(r *event.Row) {
		r.Number[event.NIsMFA] = 1
		r.ExpiresAt = never
	})
	tests := []struct {
		name string
		row  *event.Row
		want string
	}{
		{"every shape of value", request, `{"kind":"request","id":"e-1","source":"/svc/api","type":"com.example.v1","time":"2026-01-31T10:00:00.123Z",` +
			`"received_at":"2026-01-31T10:00:01.123Z","data":{"http.request.method":"GET","user.id":"u_42","http.response.status_code":200,` +
			`"http.server.request.duration":0.0123,"target.owner.id":["u_1","u_2"],"trace_id":"4b000000000000000000000000000036","span_id":"0000000000000001",` +
			`"metadata":{"a":"1","b":"\"\n\u0001"}},"retention":{"class":"usage@2y","retained_from":"2026-01-31T10:00:00Z",` +
			`"expires_at":"2028-01-31T10:00:00Z","policy_version":"2024-01-01-abcdef01"}}`},
		{"no expiry before the anchor, a boolean, broken text", security, `{"kind":"security","id":"` + "\ufffd" + `<é>","source":"/svc/api","type":"com.example.v1",` +
			`"time":"2026-01-31T10:00:00.123Z","received_at":"2026-01-31T10:00:01.123Z","data":{"authentication.is_mfa":true},"retention":{"class":"usage@2y",` +
			`"retained_from":"2026-01-31T10:00:00Z","expires_at":null,"policy_version":"2024-01-01-abcdef01"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendJSON(nil, tt.row, Mask{})); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// FuzzAppendString holds the strings to what encoding/json reads back.
func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\x1f\"\\\x7f\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); len(want) <= len(s) && got != want && !strings.Contains(got, "\ufffd") {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// secrets are the values of the actor; a row of somebody else's must show none.
func foreign(r *event.Row) {
	for i, f := range event.Texts {
		if f.Kinds.Has(r.Kind) && f.Tag != event.None {
			r.Text[i] = "secret-" + f.Name
		}
	}
	r.Text[event.TOnBehalfOf], r.Text[event.TTargetType] = "", "document"
	r.TraceID, r.SpanID = [16]byte{1}, [8]byte{2}
	r.Metadata = []event.Pair{{Key: "secret-key", Value: "secret-value"}}
}

func TestMask(t *testing.T) {
	const hash = "k1:0123456789abcdef0123456789abcdef"
	tests := []struct {
		name         string
		keys         []string
		row          *event.Row
		shown, never []string
	}{
		{"somebody else acted on what is the person's", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			foreign(r)
			r.Owners = []string{"u_42", "secret-owner"}
			r.Text[event.TAction] = "document.read"
		}), []string{`"u_42"`, "document.read", Masked, `"trace_id":"` + Masked + `"`}, []string{"secret-user", "secret-session", "secret-client.country",
			"secret-change", "secret-event.reason", "secret-owner", "secret-key", "secret-value", "0100000000", "secret-target.name", "secret-organization"}},
		{"somebody else acted on nothing of the person's", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			foreign(r)
			r.Text[event.TOnBehalfOf] = "u_42"
		}), []string{`"actor.on_behalf_of.id":"u_42"`}, []string{"secret-"}},
		{"somebody else's request", []string{"user:u_42"}, row(event.Request, "e", func(r *event.Row) {
			foreign(r)
			r.Owners = []string{"u_42"}
		}), []string{`["u_42"]`}, []string{"secret-"}},
		{"the person acted", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			foreign(r)
			r.Text[event.TUserID] = "u_42"
		}), []string{"u_42", "secret-session.id", "secret-client.country", "secret-change.new", "secret-value", "secret-target.id", "0100000000"}, []string{Masked}},
		{"the person acted on another", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			r.Text[event.TUserID], r.Text[event.TTargetType], r.Text[event.TTargetID], r.Text[event.TTargetName] = "u_42", "member", "secret-1", "secret-2"
			r.Owners, r.Text[event.TOnBehalfOf] = []string{"secret-3"}, "secret-4"
		}), []string{"u_42", Masked}, []string{"secret-"}},
		{"the person is the target", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			r.Text[event.TUserID], r.Text[event.TTargetType], r.Text[event.TTargetID], r.Text[event.TTargetName] = "secret-1", "member", "u_42", "secret-2"
		}), []string{`"target.id":"u_42"`, Masked}, []string{"secret-"}},
		{"found by e-mail", []string{"email:" + hash}, row(event.Security, "e", func(r *event.Row) {
			r.Text[event.TUserEmail], r.Text[event.TUserID] = hash, "u_42"
		}), []string{hash, "u_42"}, []string{Masked}},
		{"an id that was an e-mail", []string{"email:" + hash}, row(event.Security, "e", func(r *event.Row) {
			r.Text[event.TOnBehalfOf], r.Text[event.TUserID] = "email:"+hash, "secret-1"
		}), []string{hash, Masked}, []string{"secret-"}},
		{"a key is compared whole", []string{"user:u_4"}, row(event.Request, "e", func(r *event.Row) {
			r.Text[event.TUserID] = "u_42"
		}), []string{Masked}, []string{"u_42"}},
		{"a consultation shows why and in which role", []string{"user:u_42"}, row(event.Audit, "e", func(r *event.Row) {
			foreign(r)
			r.Text[event.TAction], r.Text[event.TActorType] = "lethe.access.subject", "staff"
			r.Text[event.TUserID] = "secret-staff"
			r.Owners = []string{"user:u_42", "user:secret-other"}
			r.Metadata = []event.Pair{{Key: "purpose", Value: "fraud"}, {Key: "role", Value: "officer"}, {Key: "route", Value: "secret-route"}}
		}), []string{`"metadata":{"purpose":"fraud","role":"officer"}`, `["user:u_42","[masked]"]`}, []string{"secret-"}},
		{"no mask", nil, row(event.Audit, "e", foreign), []string{"secret-user.id", "secret-value"}, []string{Masked}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m Mask
			if tt.keys != nil {
				m = MaskFor(tt.keys)
			}
			before := fmt.Sprint(*tt.row)
			v := m.view(tt.row)
			for form, got := range map[string]string{
				"JSON": string(AppendJSON(nil, tt.row, m)),
				"CSV":  strings.Join(v.record(nil), "|"),
			} {
				for _, s := range tt.shown {
					if form == "JSON" && !strings.Contains(got, s) {
						t.Errorf("%s does not show %q: %s", form, s, got)
					}
				}
				for _, s := range tt.never {
					if strings.Contains(got, s) {
						t.Errorf("%s shows %q: %s", form, s, got)
					}
				}
			}
			if after := fmt.Sprint(*tt.row); after != before {
				t.Errorf("the row was changed: got %s, want %s", after, before)
			}
		})
	}
}

func TestCell(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""}, {"plain", "plain"}, {"=1+1", "'=1+1"}, {"+1", "'+1"}, {"-1", "'-1"}, {"@SUM(A1)", "'@SUM(A1)"},
		{"\t=1", "'\t=1"}, {"\r=1", "'\r=1"}, {"a=1", "a=1"}, {"'=1", "'=1"},
	}
	for _, tt := range tests {
		if got := cell(tt.in); got != tt.want {
			t.Errorf("cell(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func each(rows ...*event.Row) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func order(keys ...string) Order {
	return Order{
		Keys: keys, Now: at, Horizon: json.RawMessage(`{"since":null}`), Withheld: json.RawMessage(`{"past_expiry":3}`),
		Notice: Notice{Policy: "sample", Version: "sample-01", Stores: []Store{{Name: "backups", Why: "not searched", GreatestAge: "30d"}}},
	}
}

// unzip returns the plain content of every file, in order.
func unzip(t *testing.T, b []byte) (names []string, content map[string][]byte) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	content = map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(r) // checks the CRC as well
		if err != nil {
			t.Fatalf("read %s: %v", f.Name, err)
		}
		if f.Modified.Year() < 2000 {
			t.Errorf("%s is of %v", f.Name, f.Modified)
		}
		names = append(names, f.Name)
		content[f.Name] = plain
	}
	return names, content
}

func manifest(t *testing.T, content map[string][]byte) (m Manifest) {
	t.Helper()
	if err := json.Unmarshal(content["manifest.json"], &m); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		sum := sha256.Sum256(content[f.Name])
		if got := hex.EncodeToString(sum[:]); got != f.SHA256 || uint64(len(content[f.Name])) != f.Bytes {
			t.Errorf("%s: got %s and %d bytes, want %s and %d", f.Name, got, len(content[f.Name]), f.SHA256, f.Bytes)
		}
	}
	return m
}

func TestWrite(t *testing.T) {
	mine := func(r *event.Row) {
		r.Text[event.TUserID], r.Text[event.TDeviceID], r.Text[event.TPath] = "u_42", "d_1", "=cmd()"
	}
	other := func(r *event.Row) {
		r.Text[event.TUserID], r.Text[event.TDeviceID], r.Owners = "u_7", "d_7", []string{"u_42"}
	}
	var b bytes.Buffer
	finished := uint64(math.MaxUint64)
	err := Write(&b, order("user:u_42"), each(row(event.Request, "1", mine), row(event.Request, "2", mine), row(event.Audit, "3", other)),
		func(n uint64) error { finished = n; return nil })
	if err != nil {
		t.Fatal(err)
	}
	names, content := unzip(t, b.Bytes())
	want := []string{"README.html", "request.ndjson", "request.csv", "audit.ndjson", "audit.csv", "manifest.json"}
	if !slices.Equal(names, want) {
		t.Errorf("files: got %q, want %q", names, want)
	}
	m := manifest(t, content)
	if len(m.Files) != len(want)-1 {
		t.Errorf("files in the manifest: got %d, want %d", len(m.Files), len(want)-1)
	}
	if m.Rows != 3 || finished != 3 || m.Masked != 1 || m.Kinds["request"].Rows != 2 || m.Kinds["audit"].Rows != 1 {
		t.Errorf("counts: got %d rows, %d finished, %d masked, %v; want 3, 3, 1, 2 requests and 1 audit", m.Rows, finished, m.Masked, m.Kinds)
	}
	if got, want := m.Identifiers.SeenNotSearched, []string{"device:d_1"}; !slices.Equal(got, want) {
		t.Errorf("seen, not searched: got %q, want %q: only the person's own", got, want)
	}
	if bytes.Contains(b.Bytes(), []byte("u_7")) || bytes.Contains(content["audit.csv"], []byte("u_7")) || bytes.Contains(content["audit.ndjson"], []byte("d_7")) {
		t.Error("the archive names the other person")
	}
	cells, err := csv.NewReader(bytes.NewReader(content["request.csv"])).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	path := slices.Index(cells[0], "url.path")
	if len(cells) != 3 || cells[1][path] != "'=cmd()" {
		t.Errorf("CSV: got %d lines and path %q, want 3 and '=cmd()", len(cells), cells[1][path])
	}
	if lines := bytes.Count(content["request.ndjson"], []byte("\n")); lines != 2 {
		t.Errorf("NDJSON: got %d lines, want 2", lines)
	}
}

func TestWriteNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, order("user:nobody"), each(), func(uint64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	names, content := unzip(t, b.Bytes())
	if want := []string{"README.html", "manifest.json"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if m := manifest(t, content); m.Rows != 0 || m.Identifiers.SeenNotSearched == nil {
		t.Errorf("got %+v, want no rows and an empty list of identifiers", m)
	}
}

// TestWriteParts shows that a kind too large for memory continues in further files.
func TestWriteParts(t *testing.T) {
	const n = 600
	random := rand.NewChaCha8([32]byte{})
	noise := make([]byte, 1000)
	rows := func(yield func(*event.Row, error) bool) {
		for i := range n {
			random.Read(noise)
			r := row(event.Request, fmt.Sprint(i), func(r *event.Row) { r.Text[event.TUserID], r.Text[event.TPath] = "u", hex.EncodeToString(noise) })
			if !yield(r, nil) {
				return
			}
		}
	}
	var b bytes.Buffer
	o := order("user:u")
	o.partBytes = 200 << 10
	if err := Write(&b, o, rows, func(uint64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	names, content := unzip(t, b.Bytes())
	if !slices.Contains(names, "request-2.ndjson") || !slices.Contains(names, "request-2.csv") {
		t.Errorf("got %q, want a second pair of files", names)
	}
	var lines, files uint64
	for _, f := range manifest(t, content).Files {
		if strings.HasSuffix(f.Name, ".ndjson") {
			lines += uint64(bytes.Count(content[f.Name], []byte("\n")))
			files += f.Rows
		}
	}
	if lines != n || files != n {
		t.Errorf("got %d lines and %d rows in the manifest, want %d", lines, files, n)
	}
}

func TestWriteFails(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name   string
		rows   iter.Seq2[*event.Row, error]
		finish func(uint64) error
	}{
		{"while rows are read", func(yield func(*event.Row, error) bool) {
			_ = yield(row(event.Request, "1", nil), nil) && yield(nil, broken)
		}, func(uint64) error { return nil }},
		{"when the end is recorded", each(row(event.Request, "1", nil)), func(uint64) error { return broken }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, order("user:u"), tt.rows, tt.finish); !errors.Is(err, broken) {
				t.Errorf("got %v, want %v", err, broken)
			}
			if bytes.Contains(b.Bytes(), []byte("manifest.json")) {
				t.Error("a broken archive has a manifest")
			}
			if _, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len())); err == nil {
				t.Error("a broken archive opens")
			}
		})
	}
}
