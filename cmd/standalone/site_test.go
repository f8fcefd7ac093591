package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/fetch"
)

// recipe returns the statements of docs/operations.md that begin with a verb:
// BACKUP or RESTORE.
func recipe(t *testing.T, verb string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(block[1], verb) {
			return strings.Split(strings.TrimSuffix(strings.TrimSpace(block[1]), ";"), ";\n")
		}
	}
	t.Fatalf("docs/operations.md has no statements that begin with %s", verb)
	return nil
}

// site is a machine whose database is backed up and lost.
type site struct {
	*machine
	from     time.Time
	events   int // published
	database *program
	ingester *program
}

// newSite starts the parts, each in its own process, and publishes what comes
// before every backup.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{machine: newMachine(t), from: time.Now().UTC().Add(-time.Hour).Truncate(time.Second)}
	s.start([]string{"-only", "kafka"}).awaitReady()
	s.database = s.start([]string{"-only", "clickhouse"})
	s.database.awaitReady()
	s.startIngester()
	s.publish(2000)
	return s
}

// startIngester starts one with small batches.
func (s *site) startIngester() {
	s.t.Helper()
	s.ingester = s.start([]string{"-only", "ingest"}, "BATCH_ROWS=500", "BATCH_AGE=100ms", "METRICS_ADDR="+s.ops, "POLICY=itskode")
	s.ingester.awaitReady()
}

// publish publishes n more events and waits until the ledger has them.
func (s *site) publish(n int) {
	s.t.Helper()
	s.publishFrom(s.from, n)
}

func (s *site) publishFrom(from time.Time, n int) {
	s.t.Helper()
	publishLoad(s.t, s.kafka, from, s.events, s.events+n)
	s.events += n
	s.eventually("the ledger has what was published", func() bool {
		return s.sql("SELECT sum(stored) FROM ingest_ledger") == fmt.Sprint(s.events)
	})
}

// lose stops the ingester, kills the database, takes the database's folder away, and
// starts an empty one.
func (s *site) lose() {
	s.t.Helper()
	s.ingester.interrupt() // a killed one is missed by the group only after its session
	s.database.kill()
	if err := os.RemoveAll(files{s.dir}.clickhouse()); err != nil {
		s.t.Fatal(err)
	}
	s.database = s.start([]string{"-only", "clickhouse"})
	s.database.awaitReady()
}

func (s *site) restore() {
	s.t.Helper()
	for _, statement := range recipe(s.t, "RESTORE") {
		s.do("default", statement)
	}
}

// ends returns where the ledger ends for each partition of the request topic.
func (s *site) ends() (ends [partitions]int64) {
	s.t.Helper()
	for p := range ends {
		ends[p] = int64(number(s.t, s.sql(fmt.Sprintf("SELECT max(last) + 1 FROM ingest_ledger WHERE topic = 'lethe.request' AND partition = %d", p))))
	}
	return ends
}

// eventually waits until cond holds; what it asks is in another process.
func (m *machine) eventually(what string, cond func() bool) {
	m.t.Helper()
	limit := time.NewTimer(4 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			m.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// metric sums the lines of a metric that hold all the labels, name="value".
func (m *machine) metric(name string, labels ...string) (sum float64) {
	m.t.Helper()
	resp, err := http.Get("http://" + m.ops + "/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
lines:
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " "):], &value); err != nil {
			m.t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// logged reports whether the ingesters of this machine ever logged the text.
func (m *machine) logged(text string) bool {
	m.t.Helper()
	log, err := os.ReadFile(filepath.Join(files{m.dir}.logs(), "ingest.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Contains(string(log), text)
}

// ingest runs a command of cmd/ingest with the settings of this machine's
// ingester, and returns what it prints and whether it ended well.
func (m *machine) ingest(args ...string) (out string, ok bool) {
	m.t.Helper()
	program := filepath.Join(m.dir, "ingest")
	if _, err := os.Stat(program); err != nil {
		build := exec.CommandContext(m.t.Context(), "go", "build", "-o", program, "../ingest")
		if text, err := build.CombinedOutput(); err != nil {
			m.t.Fatalf("build ingest: %v\n%s", err, text)
		}
	}
	cache, err := embedded.CacheDir()
	if err != nil {
		m.t.Fatal(err)
	}
	keys, err := os.ReadFile(files{m.dir}.keys())
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), program, args...)
	cmd.Env = []string{"KAFKA_BROKERS=" + m.kafka, "CLICKHOUSE_DSN=http://" + m.clickhouse + "/lethe", "KAFKA_TOPIC_BUDGET=off",
		"POLICY_FILE=" + files{m.dir}.policy(), "GEOIP_DB=" + filepath.Join(cache, fetch.CountryFile), "SUBJECT_KEYS=" + strings.TrimSpace(string(keys))}
	text, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		m.t.Fatal(err)
	}
	return string(text), err == nil
}

// verify expects every offset to be accounted for and every row to be there.
func (s *site) verify() {
	s.t.Helper()
	if out, ok := s.ingest("verify", "--full"); !ok {
		s.t.Errorf("verify --full found something:\n%s", out)
	}
}

// findings returns the ranges that verify names under a kind, by partition of
// the request topic.
func (s *site) findings(kind string) (found [partitions][]string, out string) {
	s.t.Helper()
	out, ok := s.ingest("verify", "--full")
	if ok {
		s.t.Errorf("verify --full found nothing, want %q", kind)
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != kind {
			continue
		}
		var p int
		if _, err := fmt.Sscanf(fields[1], "lethe.request/%d", &p); err != nil {
			s.t.Fatalf("verify names another topic: %s", line)
		}
		found[p] = append(found[p], fields[3])
	}
	return found, out
}
