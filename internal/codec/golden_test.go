package codec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lethe-audit/lethe/internal/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// described is an event by the names of its attributes.
func described(e *event.Event) []byte {
	data := map[string]any{}
	for a, def := range event.Attributes {
		switch {
		case e.Has&(1<<a) == 0:
		case event.Attr(a) == event.TargetOwner:
			data[def.Name] = e.Owners
		case event.Attr(a) == event.Metadata:
			data[def.Name] = e.Metadata
		case def.Type == event.String:
			data[def.Name] = e.Text[a]
		default:
			data[def.Name] = e.Number[a]
		}
	}
	out, err := json.MarshalIndent(map[string]any{
		"kind": e.Kind.String(), "id": e.ID, "source": e.Source, "type": e.Type, "time": e.Time,
		"data": data, "unknown": e.Unknown, "refused": e.Refused,
	}, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append(out, '\n')
}

// TestGolden decodes testdata/events/<kind>_<what>.json, which the schemas
// accept too, and compares with the .golden file beside it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("got %d golden events, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			word, _, _ := strings.Cut(name, "_")
			k, ok := event.ParseKind(word)
			if !ok {
				t.Fatalf("%s does not begin with a kind", file)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			if err := compile(t, k).Validate(doc); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			e := new(event.Event)
			if err := NewDecoder().Decode(k, raw, nil, e); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			got := described(e)
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestDecodersDoNotShare runs a decoder per goroutine; the race detector watches.
func TestDecodersDoNotShare(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			d, e := NewDecoder(), new(event.Event)
			for range 200 {
				if err := d.Decode(event.Request, requestValue, nil, e); err != nil || e.Text[event.UserID] != "u_42" {
					t.Errorf("got %v, user %q", err, e.Text[event.UserID])
					return
				}
			}
		})
	}
	wg.Wait()
}
