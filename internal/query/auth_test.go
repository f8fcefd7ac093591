package query

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// TestRoles is the whole table of who may open what.
func TestRoles(t *testing.T) {
	d := bare(t, nil)
	const yes, no = http.StatusOK, http.StatusForbidden
	paths := []struct {
		method, path, body string
		want               map[Role]int
		open               bool
	}{
		{http.MethodGet, "/v1/events", "", map[Role]int{Investigator: yes, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodPost, "/v1/subject-keys", `{"session":"s"}`, map[Role]int{Investigator: yes, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/subjects/user:u/events", "", map[Role]int{Investigator: yes, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/subjects/user:u/export", "", map[Role]int{Investigator: no, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodPost, "/v1/erasures", `{"workspace":"w_1"}`, map[Role]int{Investigator: no, Officer: http.StatusAccepted, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/erasures", "", map[Role]int{Investigator: no, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/erasures/x", "", map[Role]int{Investigator: no, Officer: http.StatusNotFound, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodPost, "/v1/holds", `{"workspace":"w_1","reason":"case 1"}`, map[Role]int{Investigator: no, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/holds", "", map[Role]int{Investigator: no, Officer: yes, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodPost, "/v1/holds/x/release", "", map[Role]int{Investigator: no, Officer: http.StatusNotFound, Approver: no, Auditor: no, Operator: no}, false},
		{http.MethodGet, "/v1/retention", "", map[Role]int{Investigator: yes, Officer: yes, Approver: yes, Auditor: yes, Operator: yes}, false},
		{http.MethodGet, "/v1/retention/proof", "", map[Role]int{Investigator: no, Officer: yes, Approver: no, Auditor: yes, Operator: no}, false},
		{http.MethodGet, "/openapi.yaml", "", nil, true},
		{http.MethodGet, "/", "", nil, true},
	}
	if len(paths) != len(d.routes()) {
		t.Errorf("the table has %d routes, the server %d", len(paths), len(d.routes()))
	}
	headers := []string{purposeHeader, "access_request", verifiedHeader, "id_document"}
	for _, p := range paths {
		for _, role := range allRoles {
			a := d.ask(p.method, string(role), p.path, p.body, headers...)
			want := p.want[role]
			if p.open {
				want = yes
			}
			if a.status != want || want == no && a.problem() != "forbidden" {
				t.Errorf("%s %s as %s: got %d %s, want %d", p.method, p.path, role, a.status, a.problem(), want)
			}
		}
		a := d.ask(p.method, "", p.path, p.body, headers...)
		if p.open && a.status != yes || !p.open && (a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "") {
			t.Errorf("%s %s without a token: got %d", p.method, p.path, a.status)
		}
	}
	for name, value := range map[string]string{
		"unknown": "Bearer lethe_unknown", "empty": "Bearer ", "another scheme": "Basic " + d.tokens["officer"], "no scheme": d.tokens["officer"],
		"longer": "Bearer " + d.tokens["officer"] + "x", "two": "Bearer " + d.tokens["officer"] + " " + d.tokens["officer"],
	} {
		if a := d.get("", "/v1/events", "Authorization", value); a.problem() != "unauthenticated" {
			t.Errorf("%s: got %d %s, want unauthenticated", name, a.status, a.problem())
		}
	}
	if a := d.get("", "/v1/events", "Authorization", "bearer "+d.tokens["officer"]); a.status != yes {
		t.Errorf("the scheme in lower case: got %d, want 200", a.status)
	}
}

func TestMethods(t *testing.T) {
	d := bare(t, nil)
	tests := []struct{ method, path, allow string }{
		{http.MethodPost, "/v1/events", "GET, HEAD"}, {http.MethodDelete, "/v1/subjects/user:u/events", "GET, HEAD"},
		{http.MethodGet, "/v1/subject-keys", "POST"}, {http.MethodPut, "/v1/retention", "GET, HEAD"},
		{http.MethodDelete, "/v1/erasures", "POST, GET, HEAD"},
	}
	for _, tt := range tests {
		a := d.ask(tt.method, "officer", tt.path, "")
		if a.problem() != "method_not_allowed" || a.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: got %d %s, allow %q; want %q", tt.method, tt.path, a.status, a.problem(), a.header.Get("Allow"), tt.allow)
		}
	}
}

// TestTenants shows that a token of an organization sees its rows only.
func TestTenants(t *testing.T) {
	d := open(t, nil)
	d.insert(
		row(event.Request, "mine", "u_1", "org_1", time.Minute), row(event.Request, "theirs", "u_1", "org_2", time.Minute),
		row(event.Audit, "none", "u_1", "", time.Minute),
	)
	tests := []struct{ name, as, path, want string }{
		{"no tenant", "officer", "/v1/events", "mine theirs none"},
		{"events", "officer-org_1", "/v1/events", "mine"},
		{"events as investigator", "investigator-org_1", "/v1/events", "mine"},
		{"own organization named", "officer-org_1", "/v1/events?organization=org_1", "mine"},
		{"a person in both", "officer-org_1", "/v1/subjects/user:u_1/events", "mine"},
		{"by user", "investigator-org_1", "/v1/events?user=u_1", "mine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := d.get(tt.as, tt.path).page(t).ids(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if a := d.get("officer-org_1", "/v1/events?organization=org_2"); a.problem() != "forbidden" {
		t.Errorf("another organization: got %d %s, want forbidden", a.status, a.body)
	}
	if a := d.get("operator-org_1", "/v1/retention"); a.problem() != "forbidden" {
		t.Errorf("the report over all organizations: got %d, want forbidden", a.status)
	}
	a := d.get("officer-org_1", "/v1/subjects/user:u_1/export", purposeHeader, "access_request", verifiedHeader, "id_document")
	z, err := zip.NewReader(bytes.NewReader(a.body), int64(len(a.body)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if slices.Contains(names, "audit.ndjson") || !slices.Contains(names, "request.ndjson") {
		t.Errorf("export: got %q, want the request of the tenant only", names)
	}
}

func TestParseTokens(t *testing.T) {
	_, sum := NewToken()
	_, other := NewToken()
	entry := func(name, role, sum string) string {
		return fmt.Sprintf("  - {name: %q, role: %s, sha256: %q}\n", name, role, sum)
	}
	tests := []struct{ name, file, want string }{
		{"YAML", "tokens:\n" + entry("alice", "officer", sum) + entry("bob", "auditor", other), ""},
		{"JSON", `{"tokens":[{"name":"alice","role":"officer","organization":"org_1","sha256":"` + sum + `"}]}`, ""},
		{"empty", "", "empty"},
		{"no tokens", "tokens: []", "1 to 1000"},
		{"unknown key", "tokens:\n  - {name: a, role: officer, sha256: \"" + sum + "\", admin: true}", "want only"},
		{"unknown top key", "users: []", "want only"},
		{"two documents", "tokens:\n" + entry("alice", "officer", sum) + "---\ntokens: []", "one document"},
		{"role", "tokens:\n" + entry("alice", "admin", sum), "role"},
		{"name with an @", "tokens:\n" + entry("alice@example.com", "officer", sum), "name"},
		{"no name", "tokens:\n" + entry("", "officer", sum), "name"},
		{"a token instead of its hash", "tokens:\n" + entry("alice", "officer", "lethe_secret"), "64 hexadecimal"},
		{"short hash", "tokens:\n" + entry("alice", "officer", sum[:62]), "64 hexadecimal"},
		{"the same name", "tokens:\n" + entry("alice", "officer", sum) + entry("alice", "officer", other), "token 2"},
		{"the same hash", "tokens:\n" + entry("alice", "officer", sum) + entry("bob", "officer", strings.ToUpper(sum)), "token 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseTokens([]byte(tt.file))
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error about %q", err, tt.want)
			}
			if strings.Contains(err.Error(), sum) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "alice") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestReloadTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, sum := NewToken()
	second, other := NewToken()
	write("tokens: [{name: alice, role: officer, sha256: \"" + sum + "\"}]")
	tokens, err := LoadTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	write("tokens: [{name: broken}]")
	if err := tokens.Reload(); err == nil {
		t.Error("a broken file is accepted")
	}
	if c, ok := tokens.find(first); !ok || c.Name != "alice" || c.Role != Officer {
		t.Errorf("after a broken file: got %+v, %t; want alice", c, ok)
	}
	write("tokens: [{name: bob, role: auditor, sha256: \"" + other + "\"}]")
	if err := tokens.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok := tokens.find(first); ok {
		t.Error("a token that was taken out still opens")
	}
	if c, ok := tokens.find(second); !ok || c.Name != "bob" {
		t.Errorf("got %+v, %t; want bob", c, ok)
	}
}
