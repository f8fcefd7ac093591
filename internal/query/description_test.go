package query

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/schemas"
)

func description(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(schemas.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// words returns an enumeration of the description, sorted.
func words(doc *openapi3.T, schema string) []string {
	var out []string
	for _, v := range doc.Components.Schemas[schema].Value.Enum {
		out = append(out, v.(string))
	}
	slices.Sort(out)
	return out
}

func TestDescription(t *testing.T) {
	doc := description(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("the description is not OpenAPI 3.1: %v", err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("version: got %s, want 3.1", doc.OpenAPI)
	}

	var problems []string
	for _, p := range problemTypes {
		problems = append(problems, typePrefix+p.name)
	}
	var roles []string
	for _, r := range allRoles {
		roles = append(roles, string(r))
	}
	for schema, want := range map[string][]string{"ProblemType": problems, "Purpose": slices.Clone(purposes), "Role": roles} {
		slices.Sort(want)
		if got := words(doc, schema); !slices.Equal(got, want) {
			t.Errorf("%s: the description says %q, the code %q", schema, got, want)
		}
	}

	want := []string{"target.owner.id", "trace_id", "span_id", "metadata"}
	for _, f := range event.Texts {
		want = append(want, f.Name)
	}
	for _, f := range event.Numbers {
		want = append(want, f.Name)
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(doc.Components.Schemas["Data"].Value.Properties)); !slices.Equal(got, want) {
		t.Errorf("data: the description has %q, the table of fields %q", got, want)
	}
}

// TestDescriptionHasEveryRoute compares paths, and the parameters that the
// handlers really ask for.
func TestDescriptionHasEveryRoute(t *testing.T) {
	doc := description(t)
	d := bare(t, nil)
	var got, want []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			got = append(got, method+" "+path)
		}
	}
	for _, r := range d.routes() {
		want = append(want, r.method+" "+strings.TrimSuffix(r.path, "{$}"))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("routes: the description has %q, the code %q", got, want)
	}
	for _, path := range []string{pathEvents, pathSubjectEvents, pathExport} {
		var described []string
		for _, p := range doc.Paths.Value(path).Get.Parameters {
			if p.Value.In == openapi3.ParameterInQuery {
				described = append(described, p.Value.Name)
			}
		}
		slices.Sort(described)
		// The answer to an unknown parameter lists the known ones.
		a := d.get("officer", strings.Replace(path, "{key}", "user:u", 1)+"?unknown=1")
		_, known, _ := strings.Cut(string(a.body), "Known: ")
		known, _, _ = strings.Cut(known, ".")
		if got := strings.Split(known, ", "); !slices.Equal(got, described) {
			t.Errorf("%s: the description has %q, the code %q", path, described, got)
		}
	}
}

// TestDescriptionIsEnforced shows that the validator of the other tests really
// knows JSON Schema 2020-12: each of these is caught by a keyword that OpenAPI
// 3.0 does not have or reads differently.
func TestDescriptionIsEnforced(t *testing.T) {
	doc := description(t)
	flags := map[string]any{"request": true, "audit": false, "security": false}
	tests := []struct {
		name, schema string
		value        any
		ok           bool
	}{
		{"null by a list of types", "Instant", nil, true},
		{"a number in its place", "Instant", 1.0, false},
		{"const", "Index", map[string]any{"service": "another", "policy": "p", "version": "v", "routes": []any{}}, false},
		{"const kept", "Index", map[string]any{"service": "lethe query", "policy": "p", "version": "v", "routes": []any{}}, true},
		{"oneOf: a number", "Withheld", map[string]any{"past_expiry": 3.0, "erased": 0.0}, true},
		{"oneOf: flags", "Withheld", map[string]any{"past_expiry": flags, "erased": flags}, true},
		{"oneOf: neither", "Withheld", map[string]any{"past_expiry": "3", "erased": 0.0}, false},
		{"an unknown member", "Keys", map[string]any{"keys": []any{"user:u"}, "more": 1.0}, false},
		{"a raw e-mail as key", "Keys", map[string]any{"keys": []any{"ada@example.com"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := doc.Components.Schemas[tt.schema].Value.VisitJSON(tt.value, openapi3.EnableJSONSchema2020())
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %t", err, tt.ok)
			}
		})
	}
}

func TestIndex(t *testing.T) {
	d := bare(t, nil)
	a := d.get("", "/", "Accept", "text/html,*/*")
	for _, want := range []string{"/v1/events", "/v1/retention", `href="/openapi.yaml"`, d.policy.Version} {
		if a.status != http.StatusOK || !strings.Contains(string(a.body), want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	if a := d.get("", "/"); !strings.Contains(string(a.body), `"path":"/v1/events"`) {
		t.Errorf("JSON: got %s", a.body)
	}
	if a := d.get("", "/openapi.yaml"); string(a.body) != string(schemas.OpenAPI) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("description: got %d bytes of %s", len(a.body), a.header.Get("Content-Type"))
	}
}
