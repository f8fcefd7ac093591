package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func TestRunLoadsTheSampleAndCanBeRepeated(t *testing.T) {
	m := newMachine(t)
	want := map[event.Kind]int{
		event.Request:  countLines(t, "access.log"),
		event.Audit:    countLines(t, "audit.ndjson"),
		event.Security: countLines(t, "security.ndjson"),
	}
	if want[event.Request] < 2000 {
		t.Errorf("the sample has %d access-log lines, want at least 2000", want[event.Request])
	}
	for round, note := range []string{"events published", "published before, nothing new"} {
		p := m.start(nil)
		p.awaitReady()
		if got := strings.Count(p.output(), note); got != event.NumKinds {
			t.Errorf("run %d says %q %d times, want %d times:\n%s", round+1, note, got, event.NumKinds, p.output())
		}
		for _, k := range event.Kinds {
			// The service's own consultation records are audit events too.
			got := number(t, m.sql("SELECT count() FROM "+k.Table()+" WHERE source != '/lethe/query'"))
			if got != want[k] {
				t.Errorf("run %d: %d rows in %s, want %d", round+1, got, k.Table(), want[k])
			}
		}
		if got := m.sql("SELECT count() FROM ingest_ledger ARRAY JOIN other AS o WHERE o.3 != 'absent'"); got != "0" {
			t.Errorf("run %d: the ledger has %s runs of events that were not stored, want none", round+1, got)
		}
		if round == 0 {
			tryPrintedCommands(t, p.output())
		}
		p.interrupt()
	}
}

// tryPrintedCommands runs what the program tells its user to try.
func tryPrintedCommands(t *testing.T, output string) {
	t.Helper()
	tried := 0
	for line := range strings.Lines(output) {
		command := strings.TrimSpace(line)
		if !strings.HasPrefix(command, "curl ") {
			continue
		}
		tried++
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = t.TempDir()
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		if strings.Contains(command, "export.zip") {
			if zip, err := os.ReadFile(filepath.Join(cmd.Dir, "export.zip")); err != nil || !strings.HasPrefix(string(zip), "PK") {
				t.Errorf("%s: made no ZIP: %v", command, err)
			}
			continue
		}
		var answer map[string]any
		if err := json.Unmarshal(out, &answer); err != nil || answer["policy"] == nil && answer["events"] == nil {
			t.Errorf("%s: got %.200s, %v, want an answer", command, out, err)
		}
	}
	if tried < 3 {
		t.Errorf("%d curl commands were printed, want 3", tried)
	}
}

// TestEveryPolicyStoresALogWithoutUsers loads a log in which nobody is logged
// in: no row may be refused, and none may live for ever.
func TestEveryPolicyStoresALogWithoutUsers(t *testing.T) {
	file, lines := anonymousLog(t)
	for _, policy := range []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"} {
		t.Run(policy, func(t *testing.T) {
			m := newMachine(t)
			p := m.start(nil, "POLICY="+policy, "LOG="+file, "CLICKHOUSE_REGION=IN", "KAFKA_REGION=IN", "BACKUP_REGION=IN", "EXPORT_REGION=CA")
			p.awaitReady()
			if got := number(t, m.sql("SELECT count() FROM request_events")); got != lines {
				t.Errorf("got %d rows, want one for each of %d lines", got, lines)
			}
			if got := number(t, m.sql("SELECT sum(stored) FROM (SELECT DISTINCT topic, partition, first, last, stored FROM ingest_ledger WHERE topic = 'lethe.request')")); got != lines {
				t.Errorf("the ledger accounts for %d stored offsets, want %d", got, lines)
			}
			if got := m.sql("SELECT count() FROM dead_letters"); got != "0" {
				t.Errorf("got %s rows of dead letters, want none", got)
			}
			if got := m.sql("SELECT countIf(expires_at >= '2100-01-01'), countIf(expires_at <= now()) FROM request_events"); got != "0\t0" {
				t.Errorf("rows without an end, rows already over: got %q, want none of either", got)
			}
			p.interrupt()
		})
	}
}

// anonymousLog writes the sample log without its users.
func anonymousLog(t *testing.T) (file string, lines int) {
	t.Helper()
	_, all := sampleLog(t)
	for i, line := range all {
		fields := strings.SplitN(line, " ", 4)
		fields[2] = "-"
		all[i] = strings.Join(fields, " ")
	}
	file = filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(file, []byte(strings.Join(all, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, len(all)
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ setting, want string }{
		"engine":       {"CHDB_LIB=/nowhere/libchdb.so", "CHDB_LIB"},
		"country file": {"GEOIP_DB=/nowhere/country.mmdb", "GEOIP_DB"},
		"policy":       {"POLICY=nobody", "bstrapr"},
		"log":          {"LOG=/nowhere/access.log", "LOG"},
		"address":      {"HTTP_ADDR=nowhere", "HTTP_ADDR"},
		"unknown name": {"KAFKA_BROKER=127.0.0.1:1", "KAFKA_BROKERS"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), beStandalone+"=1", "DATA_DIR="+m.dir, "KAFKA_ADDR="+m.kafka,
				"CLICKHOUSE_ADDR="+m.clickhouse, "HTTP_ADDR="+m.api, c.setting)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			began := time.Now()
			if err := cmd.Run(); err == nil {
				t.Fatalf("with %s it started", c.setting)
			}
			if !strings.Contains(stderr.String(), c.want) {
				t.Errorf("with %s: got %q, want a sentence that names %s", c.setting, stderr.String(), c.want)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s to say so", took)
			}
		})
	}
}

// files of a folder, for searches.
func walk(t *testing.T, root string, f func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f(path, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
