package query

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
)

var granted = []string{purposeHeader, "access_request", verifiedHeader, "id_document"}

// unzip returns the files of an answer, after checking every CRC.
func unzip(t *testing.T, a reply) (names []string, content map[string]string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(a.body), int64(len(a.body)))
	if err != nil {
		t.Fatalf("open archive: %v (status %d: %.200s)", err, a.status, a.body)
	}
	content = map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, f.Name)
		content[f.Name] = string(b)
	}
	return names, content
}

func TestExport(t *testing.T) {
	d := open(t, func(o *Options) { o.Now = func() time.Time { return now.Add(10 * 24 * time.Hour) } })
	own := row(event.Request, "own", "u_1", "org_1", time.Hour)
	own.Text[event.TPath], own.Text[event.TDeviceID] = "=HYPERLINK(1)", "d_1"
	own.SubjectKeys = append(own.SubjectKeys, "device:d_1")
	foreign := row(event.Audit, "foreign", "secret-actor", "org_1", time.Hour)
	foreign.Owners, foreign.Text[event.TCountry], foreign.Text[event.TReason] = []string{"u_1"}, "FR", "secret-reason"
	foreign.SubjectKeys = append(foreign.SubjectKeys, "user:u_1")
	consulted := row(event.Audit, "consulted", "staff:secret-name", "", 30*time.Minute)
	consulted.Text[event.TAction] = accessSubject
	consulted.Owners = []string{"user:u_1", "user:secret-third"}
	consulted.Metadata = []event.Pair{{Key: "purpose", Value: "fraud"}, {Key: "role", Value: "officer"}, {Key: "route", Value: "secret-route"}}
	consulted.SubjectKeys = append(consulted.SubjectKeys, "user:u_1", "user:secret-third")
	expired := row(event.Request, "expired", "u_1", "org_1", 25*24*time.Hour)
	d.insert(own, foreign, consulted, expired, row(event.Request, "other", "secret-other", "org_1", time.Hour))
	d.recorder.take(t)

	a := d.get("officer", "/v1/subjects/user:u_1/export", granted...)
	if got := a.header.Get("Content-Type"); got != "application/zip" {
		t.Errorf("type: got %q, want application/zip", got)
	}
	if got := a.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="lethe-export-2`) || strings.Contains(got, "u_1") {
		t.Errorf("file name: got %q, want a date and no person", got)
	}
	names, content := unzip(t, a)
	if want := []string{"README.html", "request.ndjson", "request.csv", "audit.ndjson", "audit.csv", "manifest.json"}; !slices.Equal(names, want) {
		t.Errorf("files: got %q, want %q", names, want)
	}
	for name, text := range content {
		if strings.Contains(text, "secret-") || strings.Contains(text, "FR") && name != "README.html" {
			t.Errorf("%s shows somebody else: %s", name, text)
		}
		if strings.Contains(text, `"expired"`) {
			t.Errorf("%s shows a row past its expiry", name)
		}
	}
	if !strings.Contains(content["audit.ndjson"], `{"purpose":"fraud","role":"officer"}`) {
		t.Errorf("the consultation does not show purpose and role: %s", content["audit.ndjson"])
	}
	cells, err := csv.NewReader(strings.NewReader(content["request.csv"])).ReadAll()
	if err != nil || cells[1][slices.Index(cells[0], "url.path")] != "'=HYPERLINK(1)" {
		t.Errorf("CSV: got %q, %v; want the formula quoted", cells, err)
	}
	for _, want := range []string{"security, analytics", "hosting", "standard contractual clauses", "authority of the country", "2 years", "90 days", "account.deleted", "30 days", "7d"} {
		if !strings.Contains(content["README.html"], want) {
			t.Errorf("README.html does not say %q", want)
		}
	}
	checkManifest(t, d, content)

	records := d.recorder.take(t)
	if len(records) != 2 {
		t.Fatalf("got %d records, want 2", len(records))
	}
	for i, want := range []map[string]string{{"phase": "begin"}, {"phase": "end", "rows": "3"}} {
		r := records[i]
		want["purpose"], want["role"], want["route"], want["identity_verified"] = "access_request", "officer", pathExport, "id_document"
		if r.Type != accessExport || !slices.Equal(r.Data.People, []string{"user:u_1"}) {
			t.Errorf("record %d: got %+v", i, r)
		}
		for k, v := range want {
			if r.Data.Metadata[k] != v {
				t.Errorf("record %d: %s: got %q, want %q", i, k, r.Data.Metadata[k], v)
			}
		}
	}
	if got := d.counter("lethe_query_rows_total", "route", pathExport); got != 3 {
		t.Errorf("rows sent: got %g, want 3", got)
	}
}

func checkManifest(t *testing.T, d *desk, content map[string]string) {
	t.Helper()
	var m export.Manifest
	if err := json.Unmarshal([]byte(content["manifest.json"]), &m); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		if sum := sha256.Sum256([]byte(content[f.Name])); hex.EncodeToString(sum[:]) != f.SHA256 {
			t.Errorf("%s has another SHA-256 than the manifest says", f.Name)
		}
	}
	if len(m.Files) != 5 || m.Rows != 3 || m.Masked != 2 || m.Policy != "sample" || m.Version != d.policy.Version {
		t.Errorf("manifest: got %+v", m)
	}
	if !slices.Equal(m.Identifiers.Searched, []string{"user:u_1"}) || !slices.Equal(m.Identifiers.SeenNotSearched, []string{"device:d_1"}) {
		t.Errorf("identifiers: got %+v, want user:u_1 searched and device:d_1 seen", m.Identifiers)
	}
	ages := map[string]string{}
	for _, s := range m.NotSearched {
		ages[s.Name] = s.GreatestAge
	}
	if ages["backups"] != "30d" || ages["source topics"] != "7d" || ages["dead letters"] != "unknown" {
		t.Errorf("stores not searched: got %v", ages)
	}
	if !strings.Contains(string(m.Horizon), `"complete_until"`) || !bytes.Contains(bytes.ReplaceAll(m.Withheld, []byte(" "), nil), []byte(`"past_expiry":1`)) {
		t.Errorf("horizon %s, withheld %s; want one row past expiry", m.Horizon, m.Withheld)
	}
}

func TestExportIsRefused(t *testing.T) {
	d := bare(t, nil)
	tests := []struct {
		name    string
		headers []string
		want    string
	}{
		{"no headers", nil, "purpose_required"},
		{"no purpose", []string{verifiedHeader, "id_document"}, "purpose_required"},
		{"a purpose that is not in the list", []string{purposeHeader, "curiosity", verifiedHeader, "id_document"}, "purpose_required"},
		{"identity not verified", []string{purposeHeader, "access_request"}, "identity_not_verified"},
		{"a method that is no word", []string{purposeHeader, "access_request", verifiedHeader, "<yes>"}, "identity_not_verified"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.get("officer", "/v1/subjects/user:u/export", tt.headers...)
			if a.status != http.StatusForbidden || a.problem() != tt.want {
				t.Errorf("got %d %s, want 403 %s", a.status, a.body, tt.want)
			}
			if got := d.recorder.take(t); len(got) != 0 {
				t.Errorf("got %d records, want none", len(got))
			}
		})
	}
}

// TestExportIsCutOff shows that a failure after the first byte breaks the
// transfer: the client sees an error, and no manifest.
func TestExportIsCutOff(t *testing.T) {
	many := make([]*event.Row, 5000)
	for i := range many {
		many[i] = row(event.Request, strings.Repeat("x", i%50), "u_1", "org_1", time.Duration(i)*time.Second)
	}
	tests := []struct {
		name   string
		change func(*Options)
		fail   func(int) error
	}{
		{"the database fails", func(o *Options) { o.Rows = &shelf{rows: many, err: storeError{}} }, nil},
		{"the end cannot be recorded", func(o *Options) { o.Rows = &shelf{rows: many} }, func(n int) error {
			if n > 0 {
				return errBroken
			}
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := bare(t, tt.change)
			d.recorder.fail = tt.fail
			a, err := d.try(http.MethodGet, "officer", "/v1/subjects/user:u_1/export", "", granted...)
			if err == nil {
				t.Errorf("the client got a whole answer of %d bytes", len(a.body))
			}
			if a.status != http.StatusOK || len(a.body) == 0 || bytes.Contains(a.body, []byte("manifest.json")) {
				t.Errorf("got status %d and %d bytes, want the beginning of an archive without manifest", a.status, len(a.body))
			}
			if got := d.counter("lethe_query_requests_total", "route", pathExport, "status", "aborted"); got != 1 {
				t.Errorf("aborted: got %g, want 1", got)
			}
		})
	}
}
