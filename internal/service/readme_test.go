package service_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block returns the fenced block of a language.
func block(t *testing.T, language string) string {
	t.Helper()
	_, rest, found := strings.Cut(readme(t), "```"+language+"\n")
	code, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatalf("the README has no block of %s", language)
	}
	return code
}

func TestReadmeGoIsTheExampleThatCompiles(t *testing.T) {
	example, err := os.ReadFile("../../docs/example/publish.go")
	if err != nil {
		t.Fatal(err)
	}
	var indented strings.Builder
	for line := range strings.Lines(block(t, "go")) {
		if strings.TrimSpace(line) != "" {
			indented.WriteByte('\t')
		}
		indented.WriteString(line)
	}
	if !strings.Contains(string(example), indented.String()) {
		t.Error("the Go code of the README does not stand in docs/example/publish.go")
	}
}

func TestReadmeNginxFormatIsAnEvent(t *testing.T) {
	var format strings.Builder
	for _, part := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(block(t, "nginx"), -1) {
		format.WriteString(part[1])
	}
	// What nginx would write for its variables.
	line := strings.NewReplacer(
		"$request_id", "9e107d9d372bb6826bd81d3542a419d6", "$hostname", "web-1", "$time_iso8601", "2026-01-31T10:00:00+01:00",
		"$request_method", "GET", "$uri", "/a/b", "$status", "200", "$request_time", "0.012", "$body_bytes_sent", "512",
		"$remote_addr", "203.0.113.7", "$http_user_agent", `Mozilla\/5.0 \"x\"`,
	).Replace(format.String())
	if strings.Contains(line, "$") {
		t.Fatalf("a variable is not replaced: %s", line)
	}
	var e event.Event
	if err := codec.NewDecoder().Decode(event.Request, []byte(line), nil, &e); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if e.Unknown+e.Refused > 0 || e.Text[event.ClientAddress] != "203.0.113.7" {
		t.Errorf("%d attributes are unknown and %d refused, want a whole event", e.Unknown, e.Refused)
	}
}
