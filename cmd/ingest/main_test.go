package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/embedded/fetch"
)

// asProgram makes the test binary be the program.
const asProgram = "TEST_AS_INGEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

const topic = "lethe.request"

// machine is a broker, a database, and the settings of an ingester on them.
type machine struct {
	t       *testing.T
	broker  string
	dsn     string
	environ []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	cache, err := embedded.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dsn: embeddedtest.ClickHouse(t), broker: embeddedtest.Kafka(t,
		embedded.Topic{Name: topic, Partitions: 1}, embedded.Topic{Name: "lethe.audit", Partitions: 1},
		embedded.Topic{Name: "lethe.security", Partitions: 1}, embedded.Topic{Name: "lethe.dead", Partitions: 1})}
	m.environ = []string{
		asProgram + "=1", "KAFKA_BROKERS=" + m.broker, "CLICKHOUSE_DSN=" + m.dsn, "KAFKA_TOPIC_BUDGET=off",
		"POLICY_FILE=../../schemas/policies/itskode.yaml", "GEOIP_DB=" + filepath.Join(cache, fetch.CountryFile),
		"SUBJECT_KEYS=test=" + strings.Repeat("ab", 32), "METRICS_ADDR=127.0.0.1:0", "LOG_FORMAT=text", "BATCH_AGE=50ms",
	}
	return m
}

// command is the program with arguments.
func (m *machine) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.CommandContext(m.t.Context(), os.Args[0], args...)
	cmd.Env = m.environ
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// run runs it to its end and returns its exit status and what it said.
func (m *machine) run(args ...string) (status int, said string) {
	m.t.Helper()
	cmd, out := m.command(args...)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// expect runs it and compares its exit status, and parts of what it says.
func (m *machine) expect(status int, parts []string, args ...string) {
	m.t.Helper()
	got, said := m.run(args...)
	if got != status {
		m.t.Errorf("ingest %s: got status %d, want %d\n%s", strings.Join(args, " "), got, status, said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			m.t.Errorf("ingest %s: it does not say %q:\n%s", strings.Join(args, " "), part, said)
		}
	}
}

// ingest runs an ingester until n offsets are in the ledger.
func (m *machine) ingest(n int) {
	m.t.Helper()
	cmd, out := m.command()
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if answer, err := m.ask("SELECT sum(last - first + 1) FROM ingest_ledger"); err != nil || answer != fmt.Sprint(n) {
				continue // no table yet
			}
		case err := <-ended:
			m.t.Fatalf("it ended: %v\n%s", err, out)
		case <-limit.C:
			_ = cmd.Process.Kill()
			<-ended
			m.t.Fatalf("waited in vain for %d offsets in the ledger\n%s", n, out)
		}
		break
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	if err := <-ended; err != nil {
		m.t.Fatalf("after SIGTERM: %v\n%s", err, out)
	}
}

func (m *machine) publish(from, to int, age time.Duration) {
	m.t.Helper()
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	w := &kafka.Writer{Addr: kafka.TCP(m.broker), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Transport: transport}
	defer w.Close()
	var messages []kafka.Message
	for id := from; id < to; id++ {
		messages = append(messages, kafka.Message{Value: fmt.Appendf(nil, `{"specversion":"1.0","id":"e-%d","source":"/svc/api","type":"t","time":"%s","data":{"http.request.method":"GET","http.response.status_code":200}}`,
			id, time.Now().UTC().Add(-age).Format(time.RFC3339))})
	}
	if err := w.WriteMessages(m.t.Context(), messages...); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) ask(statement string) (string, error) {
	u, err := url.Parse(m.dsn)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+u.Host+"/?database="+strings.Trim(u.Path, "/"), strings.NewReader(statement))
	if err != nil {
		return "", err
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return strings.TrimSpace(string(text)), err
}

func (m *machine) sql(statement string) {
	m.t.Helper()
	if _, err := m.ask(statement); err != nil {
		m.t.Fatalf("%s: %v", statement, err)
	}
}

func TestVerifyAndReplay(t *testing.T) {
	m := newMachine(t)
	m.publish(0, 30, time.Hour)
	m.publish(30, 40, 50*time.Hour)
	m.ingest(40)
	m.expect(0, []string{"lethe.request/0", "40 rows in 2 buckets (0 of them sampled", "verified: every offset that was consumed is accounted for"}, "verify")
	m.expect(0, []string{"with seed 7 although stamped", "taken on the word of stamps", "in 1 buckets whose parts and ledger are what they were"}, "verify", "--seed", "7")
	m.expect(0, []string{"40 rows in 2 buckets (all there are)"}, "verify", "--full")

	m.sql("DELETE FROM request_events WHERE src_offset IN (12, 13, 33)")
	for _, args := range [][]string{{"verify"}, {"verify", "--full"}} {
		m.expect(1, []string{"missing  lethe.request/0  0      12-13", "missing  lethe.request/0  0      33 ", "NOT verified: 2 findings", "ingest: the ledger is not verified"}, args...)
	}
	m.expect(0, []string{"lethe.request/0: 2 of 2 offsets are in the ledger again: 2 stored"}, "replay", "lethe.request/0", "12-13")
	m.expect(1, []string{"NOT verified: 1 findings"}, "verify")
	m.expect(0, []string{"1 stored"}, "replay", "lethe.request/0", "33")
	m.expect(0, []string{"verified: every offset that was consumed is accounted for"}, "verify")
	m.expect(0, []string{"verified: every offset that was consumed is accounted for"}, "verify", "--full")
	m.expect(1, []string{"offsets 0 to 39 can be replayed, not 39 to 40"}, "replay", "lethe.request/0", "39-40")
}

func TestNewEpoch(t *testing.T) {
	m := newMachine(t)
	m.publish(0, 30, time.Hour)
	m.ingest(30)
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(m.broker), Transport: transport}
	if res, err := client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	m.expect(1, []string{"lethe.request is no topic of events that Kafka has"}, "ledger", "new-epoch", topic)
	if res, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}}); err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	m.publish(100, 107, time.Hour)
	m.expect(1, []string{"position", "the ledger ends at 30 but the partition at 7"}, "verify")
	m.expect(0, []string{"lethe.request begins epoch 1: 1 partitions are read from the start of their logs"}, "ledger", "new-epoch", topic)
	m.ingest(37)
	m.expect(0, []string{"verified: every offset that was consumed is accounted for"}, "verify")
	m.expect(0, []string{"7 stored"}, "replay", "lethe.request/0", "0-6")
	m.expect(0, []string{"verified: every offset that was consumed is accounted for"}, "verify", "--full")
	m.expect(1, []string{"offsets 0 to 6 can be replayed, not 0 to 29"}, "replay", "lethe.request/0", "0-29")
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"verify more", `unknown argument "more"`},
		{"verify --seed x", "invalid value"},
		{"replay", "want ingest replay TOPIC/PARTITION FROM-TO"},
		{"replay lethe.request 1-2", "want TOPIC/PARTITION"},
		{"replay lethe.request/x 1-2", "want TOPIC/PARTITION"},
		{"replay lethe.request/0 2-1", "want FROM-TO"},
		{"replay lethe.request/0 1-", "want FROM-TO"},
		{"ledger", "want ingest ledger new-epoch TOPIC"},
		{"ledger new-epoch", "want ingest ledger new-epoch TOPIC"},
		{"policy", "want ingest policy check --text FILE, ingest policy diff OLD NEW, ingest policy prove or"},
		{"policy receipts more", `unknown argument "more"`},
		{"policy receipts --from yesterday", `--from: "yesterday" is no day`},
		{"policy receipts --from 2026-02-02 --to 2026-02-01", "--to is before --from"},
		{"policy prove more", `unknown argument "more"`},
		{"policy prove --json", "flag needs an argument"},
		{"policy check", "want ingest policy check --text FILE"},
		{"policy diff a", "want ingest policy diff OLD NEW"},
		{"policy diff a b", "read policy file"},
		{"policy check --text a b", "want ingest policy check --text FILE"},
		{"policy check --text a", "POLICY_FILE is not set"},
		{"nothing", `unknown command "nothing"`},
	} {
		err := run(strings.Fields(c.args), nil, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ingest %s: got %v, want %q", c.args, err, c.want)
		}
	}
}

func TestPolicyDiff(t *testing.T) {
	const policies = "../../schemas/policies/"
	var out bytes.Buffer
	if err := run([]string{"policy", "diff", policies + "abstra.yaml", policies + "itskode.yaml"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1y → 90d", "shorter: stored rows follow", "Rows were not counted", "POLICY_SHORTENS=itskode-"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	const folder = "../../internal/policy/sentences/testdata/"
	environ := []string{"POLICY_FILE=" + folder + "harbour.yaml"}
	var out bytes.Buffer
	if err := run([]string{"policy", "check", "--text", folder + "harbour.txt"}, environ, &out); err != nil || !strings.Contains(out.String(), "\nagreed: ") {
		t.Errorf("got %v\n%s", err, &out)
	}
	text, err := os.ReadFile(folder + "harbour.txt")
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "page.txt")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte("24 months"), []byte("25 months"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	err = run([]string{"policy", "check", "--text", changed}, environ, &out)
	if err == nil || !strings.Contains(err.Error(), "do not agree") || !strings.Contains(out.String(), `page.txt:17: unmapped sentence: "25 months"`) {
		t.Errorf("got %v\n%s", err, &out)
	}
}
