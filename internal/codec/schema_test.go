package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lethe-audit/lethe/internal/event"
)

const schemaDir = "../../schemas/events"

// property is what a schema can say of one attribute.
type property struct {
	Description          string
	Tag                  string `json:"x-tag"`
	Type                 any
	Enum                 []string
	Pattern              string
	MinLength            int
	MaxLength            int
	MaxItems             int
	Minimum              *float64
	Maximum              *float64
	MaxProperties        int
	PropertyNames        *property
	Items                *property
	AdditionalProperties *property
}

// want is the schema's property for a line of the table.
func want(def event.Attribute, required bool) property {
	p := property{Tag: string(def.Tag), Type: "string", Enum: def.Enum}
	zero, most := 0.0, float64(def.Max)
	switch def.Type {
	case event.String:
		switch {
		case def.Hex > 0:
			p.Pattern = fmt.Sprintf("^[0-9A-Fa-f]{%d}$", def.Hex)
		case def.Enum == nil:
			p.MaxLength = def.Max
			if required {
				p.MinLength = 1
			}
		}
	case event.Integer:
		p.Type, p.Minimum, p.Maximum = "integer", &zero, &most
	case event.Number:
		p.Type, p.Minimum = "number", &zero
	case event.Boolean:
		p.Type = "boolean"
	case event.Strings:
		p.Type, p.MaxLength, p.MaxItems = []any{"string", "array"}, def.Max, event.MaxOwners
		p.Items = &property{Type: "string", MaxLength: def.Max}
	case event.Map:
		p.Type, p.MaxProperties = "object", event.MaxMetadata
		p.PropertyNames = &property{MaxLength: event.MaxMetadataKey}
		p.AdditionalProperties = &property{Type: "string", MaxLength: event.MaxMetadataValue}
	}
	return p
}

func TestSchemasSayWhatTheTableSays(t *testing.T) {
	for _, k := range event.Kinds {
		t.Run(k.String(), func(t *testing.T) {
			var schema struct {
				Defs struct {
					Data struct {
						Required   []string
						Properties map[string]property
					}
				} `json:"$defs"`
			}
			raw, err := os.ReadFile(filepath.Join(schemaDir, k.String()+".schema.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &schema); err != nil {
				t.Fatal(err)
			}
			data := schema.Defs.Data
			for _, def := range event.Attributes {
				got, ok := data.Properties[def.Name]
				if ok != def.Kinds.Has(k) {
					t.Errorf("%s: in the schema %t, in the table %t", def.Name, ok, !ok)
				}
				delete(data.Properties, def.Name)
				if !ok {
					continue
				}
				required := def.Required.Has(k)
				if in := slices.Contains(data.Required, def.Name); in != required {
					t.Errorf("%s: required in the schema %t, in the table %t", def.Name, in, required)
				}
				if got.Description == "" {
					t.Errorf("%s has no description", def.Name)
				}
				got.Description = ""
				if want := want(def, required); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: schema %+v, table %+v", def.Name, got, want)
				}
			}
			for name := range data.Properties {
				t.Errorf("%s is in the schema and not in the table", name)
			}
		})
	}
}

func compile(t *testing.T, k event.Kind) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join(schemaDir, k.String()+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchemaAndDecoderAgree holds both to the same verdict, wherever a schema
// can express the rule.
func TestSchemaAndDecoderAgree(t *testing.T) {
	ok := map[event.Kind]string{
		event.Request:  `"http.request.method":"GET","http.response.status_code":200`,
		event.Audit:    `"event.action":"a.b","event.outcome":"success"`,
		event.Security: `"event.action":"a.b","event.outcome":"unknown"`,
	}
	for _, c := range []struct {
		name  string
		kind  event.Kind
		data  string
		valid bool
	}{
		{"request", event.Request, ok[event.Request], true},
		{"audit", event.Audit, ok[event.Audit], true},
		{"security", event.Security, ok[event.Security], true},
		{"no method", event.Request, `"http.response.status_code":200`, false},
		{"empty method", event.Request, `"http.request.method":"","http.response.status_code":200`, false},
		{"status as text", event.Request, `"http.request.method":"GET","http.response.status_code":"200"`, false},
		{"status with a fraction of zero", event.Request, `"http.request.method":"GET","http.response.status_code":200.0`, true},
		{"status with a fraction", event.Request, `"http.request.method":"GET","http.response.status_code":200.5`, false},
		{"status too large", event.Request, `"http.request.method":"GET","http.response.status_code":1000`, false},
		{"negative duration", event.Request, ok[event.Request] + `,"http.server.request.duration":-1`, false},
		{"owner list", event.Audit, ok[event.Audit] + `,"target.owner.id":["a","b"]`, true},
		{"owner text", event.Audit, ok[event.Audit] + `,"target.owner.id":"a"`, true},
		{"owner number", event.Audit, ok[event.Audit] + `,"target.owner.id":[1]`, false},
		{"outcome", event.Audit, `"event.action":"a.b","event.outcome":"maybe"`, false},
		{"actor", event.Audit, ok[event.Audit] + `,"actor.type":"robot"`, false},
		{"trace id", event.Audit, ok[event.Audit] + `,"trace_id":"4BF92f3577b34da6a3ce929d0e0e4736"`, true},
		{"short trace id", event.Audit, ok[event.Audit] + `,"trace_id":"4bf9"`, false},
		{"severity", event.Security, ok[event.Security] + `,"event.severity":101`, false},
		{"mfa", event.Security, ok[event.Security] + `,"authentication.is_mfa":true`, true},
		{"mfa as text", event.Security, ok[event.Security] + `,"authentication.is_mfa":"yes"`, false},
		{"mfa elsewhere is unknown", event.Audit, ok[event.Audit] + `,"authentication.is_mfa":"yes"`, true},
		{"metadata", event.Audit, ok[event.Audit] + `,"metadata":{"a":"b"}`, true},
		{"metadata number", event.Audit, ok[event.Audit] + `,"metadata":{"a":1}`, false},
		{"metadata list", event.Audit, ok[event.Audit] + `,"metadata":[]`, false},
		{"unknown", event.Audit, ok[event.Audit] + `,"x":{"y":[1]}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			value := []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-31T10:00:00Z","data":{` + c.data + `}}`)
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
			if err != nil {
				t.Fatal(err)
			}
			if err := compile(t, c.kind).Validate(doc); (err == nil) != c.valid {
				t.Errorf("schema: got %v, want valid %t", err, c.valid)
			}
			if err := NewDecoder().Decode(c.kind, value, nil, new(event.Event)); (err == nil) != c.valid {
				t.Errorf("decoder: got %v, want valid %t", err, c.valid)
			}
		})
	}
}
