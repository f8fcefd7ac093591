package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/config.md")

const reference = "../../docs/config.md"

func TestReference(t *testing.T) {
	want := page()
	if *update {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatalf("read the reference: %v; write it with: go test ./internal/config -update", err)
	}
	if string(got) != want {
		t.Error("docs/config.md is not what the structs say; write it with: go test ./internal/config -update")
	}
}

const intro = `<!-- Written by go test ./internal/config -update. Change the struct tags, not this page. -->
# Settings

Every program is set up by environment variables. An empty variable counts as not set. A missing, malformed or
contradictory setting stops the start; all mistakes are named at once, and no message ever holds a value.

**Unknown names are mistakes.** A variable that starts with %s and is not listed here stops the start, and so
does one that is a letter away from a listed name (LOGLEVEL, kafka_brokers). Three exceptions:

- names that Kubernetes makes for services called kafka or clickhouse (KAFKA_SERVICE_HOST, CLICKHOUSE_PORT_8123_TCP, ...);
- settings of the other programs on this page: they may share one environment file;
- names listed in LETHE_ENV_IGNORE, separated by commas; a star at the end stands for any rest. Use it where another program's
  variables are in the same environment: LETHE_ENV_IGNORE=KAFKA_OPTS,CLICKHOUSE_*

Sizes are whole numbers of bytes, or have a unit: kB, MB, GB, KiB, MiB, GiB. Times are written 500ms, 1s, 2m, 1h.
`

func page() string {
	var b strings.Builder
	fmt.Fprintf(&b, intro, strings.Join(prefixes, ", "))
	for _, program := range []struct {
		title string
		t     reflect.Type
	}{
		{"The ingester (cmd/ingest)", reflect.TypeFor[Ingest]()},
		{"The query service (cmd/query)", reflect.TypeFor[Query]()},
		{"The publishing command (cmd/publish)", reflect.TypeFor[Publish]()},
		{"The stack in one process (cmd/standalone, make run)", reflect.TypeFor[Standalone]()},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| variable | default | meaning |\n|---|---|---|\n", program.title)
		for _, s := range settings(program.t) {
			value := "-"
			switch {
			case s.Required:
				value = "**required**"
			case s.Default != "":
				value = "`" + s.Default + "`"
			}
			help := s.Help
			if s.Type == reflect.TypeFor[Secret]() {
				help += " Secret: never printed."
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, value, help)
		}
	}
	return b.String()
}
