package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

func TestFromDead(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broker := embeddedtest.Kafka(t, embedded.Topic{Name: "lethe.dead", Partitions: 1},
		embedded.Topic{Name: "lethe.request", Partitions: 1}, embedded.Topic{Name: "lethe.audit", Partitions: 1}, embedded.Topic{Name: "lethe.security", Partitions: 1})
	transport := &kafka.Transport{}
	w := &kafka.Writer{Addr: kafka.TCP(broker), Topic: "lethe.dead", RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Transport: transport}
	defer transport.CloseIdleConnections()
	defer func() { _ = w.Close() }()
	letter := func(reason, form, value string, more ...kafka.Header) {
		t.Helper()
		m := kafka.Message{Value: []byte(value), Headers: more}
		for _, h := range []string{
			"lethe-reason=" + reason, "lethe-form=" + form, "lethe-topic=lethe.audit", "lethe-partition=0",
			"lethe-offset=5", "lethe-cluster=x", "lethe-received-at=2026-01-31T10:00:00Z",
		} {
			name, text, _ := strings.Cut(h, "=")
			m.Headers = append(m.Headers, kafka.Header{Key: name, Value: []byte(text)})
		}
		if err := w.WriteMessages(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	seal := kafka.Header{Key: "lethe-seal", Value: []byte("k1:0")}
	letter("unclassified", "redacted", `{"source":"/svc/\u001b[31mapi","data":{}}`, seal)
	letter("wrong_type", "redacted", `{"source":"/svc/web","data":{}}`, seal)
	letter("not_json", "coordinates", `{"length":4}`)
	state := filepath.Join(t.TempDir(), "state.json")
	tests := []struct {
		name    string
		args    []string
		environ []string
		code    int
		out     string
		events  int64
	}{
		{"counted", []string{"-dry-run"}, nil, 3, "2 dead letters would be replayed, 1 cannot be", 0},
		{"none so late", []string{"-since", "2026-02-01T00:00:00Z"}, nil, 0, "0 dead letters replayed", 0},
		{"none of that topic", []string{"-source-topic", "lethe.request"}, nil, 0, "0 dead letters replayed", 0},
		{"one reason", []string{"-reason", "unclassified"}, nil, 0, `unclassified  /svc/\x1b[31mapi  1 `, 1},
		{"the same again", []string{"-reason", "unclassified"}, nil, 0, "0 dead letters replayed", 0},
		{"the rest", nil, nil, 3, "1 dead letters replayed, 1 cannot be", 1},
		{"nothing is left", nil, nil, 0, "0 dead letters replayed, 0 cannot be", 0},
		{"with another state file", []string{"-state", state, "-reason", "wrong_type"}, nil, 0, "1 dead letters replayed", 1},
		{"from the beginning", []string{"-restart", "-quiet"}, nil, 3, "2 dead letters replayed, 1 cannot be", 2},

		{"no such dead topic", nil, []string{"KAFKA_TOPIC_DEAD=nope"}, 1, "the topic does not exist", 0},
		{"no broker", []string{"-patience", "1s"}, []string{"KAFKA_BROKERS=127.0.0.1:1"}, 1, "is Kafka running there?", 0},
		{"not a source topic", []string{"-source-topic", "nope"}, nil, 2, "SourceTopic is none of", 0},
		{"a file too", []string{"access.log"}, nil, 2, "takes no file", 0},
		{"a kind too", []string{"-kind", "audit"}, nil, 2, "takes no file", 0},
		{"no time", []string{"-since", "yesterday"}, nil, 2, "usage:", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := ends(t, broker, "lethe.audit")
			var out bytes.Buffer
			environ := append([]string{"KAFKA_BROKERS=" + broker}, tt.environ...)
			code := run(t.Context(), append([]string{"-from-dead"}, tt.args...), environ, nil, &out, &out)
			if code != tt.code {
				t.Errorf("got status %d, want %d", code, tt.code)
			}
			if !strings.Contains(out.String(), tt.out) {
				t.Errorf("got %q, want it to contain %q", out.String(), tt.out)
			}
			if got := ends(t, broker, "lethe.audit") - before; got != tt.events {
				t.Errorf("got %d events, want %d", got, tt.events)
			}
		})
	}
	for _, name := range []string{"-reason=x", "-source-topic=x", "-since=2026-01-31T10:00:00Z", "-dry-run"} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{name, "access.log"}, nil, nil, &out, &out); code != exitUsage || !strings.Contains(out.String(), "need -from-dead") {
			t.Errorf("%s without -from-dead: got status %d and %q", name, code, out.String())
		}
	}
}
