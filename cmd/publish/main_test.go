package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/publish/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	logLine   = `192.0.2.1 - - [17/May/2015:10:05:04 +0200] "GET / HTTP/1.1" 200 1 "-" "curl/8"`
	auditLine = `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2020-01-01T00:00:01Z","data":{"event.action":"a.b","event.outcome":"success"}}`
)

func startBroker(t *testing.T) string {
	t.Helper()
	return embeddedtest.Kafka(t,
		embedded.Topic{Name: "lethe.request", Partitions: 2}, embedded.Topic{Name: "lethe.audit", Partitions: 1},
		embedded.Topic{Name: "lethe.security", Partitions: 1}, embedded.Topic{Name: "mine", Partitions: 1})
}

// ends returns the number of messages in the first partition of a topic.
func ends(t *testing.T, broker, topic string) int64 {
	t.Helper()
	conn, err := kafka.DialLeader(t.Context(), "tcp", broker, topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	n, err := conn.ReadLastOffset()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func write(t *testing.T, name string, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broker := startBroker(t)
	good := write(t, "access.log", logLine, logLine)
	mixed := write(t, "mixed.log", logLine, "jo@example.com was here", logLine)
	audit := write(t, "audit.ndjson", auditLine)
	broken := write(t, "broken.ndjson", `{"specversion":"1.0","id":"jo@example.com"}`, auditLine)
	var hopeless []string
	for range showRefused + 5 {
		hopeless = append(hopeless, "nothing")
	}
	tests := []struct {
		name    string
		args    []string
		environ []string
		stdin   string
		code    int
		out     string // a part of what is said
		topic   string // that got events
		events  int64
	}{
		{"an access log", []string{"-topic", "mine", good}, nil, "", 0, "2 events published, 0 lines refused", "mine", 2},
		{"standard input", []string{"-topic", "mine", "-"}, nil, logLine + "\n", 0, "1 events published", "mine", 1},
		{"events by kind", []string{"-kind", "audit", audit}, nil, "", 0, "1 events published", "lethe.audit", 1},
		{"events by topic", []string{"-topic", "lethe.audit", audit}, nil, "", 0, "1 events published", "lethe.audit", 1},
		{"another topic for a kind", []string{"-kind", "audit", "-topic", "mine", audit}, nil, "", 0, "1 events published", "mine", 1},
		{"topic from the environment", []string{"-kind", "audit", audit}, []string{"KAFKA_TOPIC_AUDIT=mine"}, "", 0, "1 events published", "mine", 1},
		{"a line is refused", []string{"-topic", "mine", mixed}, nil, "", 3, "mixed.log line 2 refused: no user before the time", "mine", 2},
		{"an event is refused", []string{"-kind", "audit", broken}, nil, "", 3, "line 1 refused: decode event: missing_attribute", "lethe.audit", 1},
		{"many are refused", []string{"-topic", "mine", write(t, "x.log", hopeless...)}, nil, "", 3, "and 5 more lines refused", "mine", 0},
		{"shifted", []string{"-topic", "mine", "-shift-to", "now", good}, nil, "", 0, "times moved by", "mine", 2},
		{"continued", []string{"-topic", "mine", "-shift-to", "now", "-resume", good}, nil, "", 0, "0 events published", "mine", 0},

		{"no such file", []string{good + "x"}, nil, "", 1, "no such file", "mine", 0},
		{"no such topic", []string{"-topic", "nope", good}, nil, "", 1, "create the topic", "mine", 0},
		{"no broker", []string{good}, []string{"KAFKA_BROKERS=127.0.0.1:1"}, "", 1, "is Kafka running there?", "mine", 0},
		{"a bad setting", []string{good}, []string{"KAFKA_BROKER=x"}, "", 1, "KAFKA_BROKER is not a setting; did you mean KAFKA_BROKERS?", "mine", 0},
		{"no kind", []string{audit}, nil, "", 1, "say what they are with -kind", "mine", 0},
		{"two inputs, one a pipe", []string{good, "-"}, nil, "", 1, "must be the only input", "mine", 0},
		{"continue a pipe without a state", []string{"-resume", "-"}, nil, "", 1, "-state", "mine", 0},
		{"no input", nil, nil, "", 2, "usage:", "mine", 0},
		{"unknown flag", []string{"-frobnicate", good}, nil, "", 2, "usage:", "mine", 0},
		{"unknown kind", []string{"-kind", "x", good}, nil, "", 2, "-kind must be", "mine", 0},
		{"unknown format", []string{"-format", "x", good}, nil, "", 2, "-format must be", "mine", 0},
		{"unknown time", []string{"-shift-to", "tomorrow", good}, nil, "", 2, "ShiftTo must be", "mine", 0},
		{"resume and restart", []string{"-resume", "-restart", good}, nil, "", 2, "exclude each other", "mine", 0},
		{"help", []string{"-h"}, nil, "", 0, "usage:", "mine", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := ends(t, broker, tt.topic)
			var out bytes.Buffer
			environ := append([]string{"KAFKA_BROKERS=" + broker}, tt.environ...)
			code := run(t.Context(), tt.args, environ, strings.NewReader(tt.stdin), &out, &out)
			if code != tt.code {
				t.Errorf("got status %d, want %d", code, tt.code)
			}
			if !strings.Contains(out.String(), tt.out) {
				t.Errorf("got %q, want it to contain %q", out.String(), tt.out)
			}
			if got := ends(t, broker, tt.topic) - before; got != tt.events {
				t.Errorf("got %d events, want %d", got, tt.events)
			}
			if strings.Contains(out.String(), "jo@example.com") || strings.Contains(out.String(), "192.0.2.") {
				t.Errorf("text of a line was shown: %q", out.String())
			}
		})
	}
}

func TestInterruptedBeforeTheFirstLine(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broker := startBroker(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	file := write(t, "access.log", logLine)
	environ := []string{"KAFKA_BROKERS=" + broker}
	if code := run(ctx, []string{file}, environ, nil, &out, &out); code != exitInterrupted {
		t.Errorf("got status %d, want %d: %s", code, exitInterrupted, out.String())
	}
	if code := run(t.Context(), []string{"-resume", file}, environ, nil, &out, &out); code != exitDone {
		t.Errorf("the next run: got status %d: %s", code, out.String())
	}
}

// stopAt ends the run when a line of standard input is asked for that is not there yet.
type stopAt struct {
	text    string
	stop    func()
	release chan struct{}
}

func (s *stopAt) Read(p []byte) (int, error) {
	if s.text == "" {
		s.stop()
		<-s.release // as a terminal on which nobody types
		return 0, io.EOF
	}
	n := copy(p, s.text)
	s.text = s.text[n:]
	return n, nil
}

func TestInterruptedPipe(t *testing.T) {
	broker := startBroker(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	state := filepath.Join(t.TempDir(), "state.json")
	in := &stopAt{text: logLine + "\n" + logLine + "\n", stop: cancel, release: make(chan struct{})}
	defer close(in.release)
	code := run(ctx, []string{"-topic", "mine", "-state", state, "-"}, []string{"KAFKA_BROKERS=" + broker}, in, &out, &out)
	if code != exitInterrupted {
		t.Errorf("got status %d, want %d", code, exitInterrupted)
	}
	if want := "the same command with -resume goes on there"; !strings.Contains(out.String(), want) {
		t.Errorf("got %q, want it to contain %q", out.String(), want)
	}
}

func TestLinesOfProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(flags{inputs: []string{write(t, "x.log", logLine)}}, &out)
	p.at(feed.Progress{Input: "x.log", Line: 1})
	if out.Len() != 0 {
		t.Errorf("at once: got %q, want nothing", out.String())
	}
	p.told = p.told.Add(-2 * every)
	p.at(feed.Progress{Input: "x.log", Line: 7, Read: p.total / 2, Counts: feed.Counts{Published: 6, Refused: 1}})
	if got := out.String(); !strings.HasPrefix(got, "x.log line 7 (49 %): 6 events, ") && !strings.HasPrefix(got, "x.log line 7 (50 %): 6 events, ") {
		t.Errorf("after %s: got %q", every, got)
	}
	p.at(feed.Progress{Input: "x.log", Line: 8})
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("got %d lines, want 1", got)
	}
}
