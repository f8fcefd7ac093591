package main

import (
	"bufio"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/store"
)

// beStandalone makes the test binary the program itself, so that tests start
// and kill real processes.
const beStandalone = "BE_STANDALONE"

func TestMain(m *testing.M) {
	if os.Getenv(beStandalone) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// machine is a data folder and free addresses for the programs of one test.
type machine struct {
	t                      *testing.T
	dir                    string
	kafka, clickhouse, api string
	ops                    string // for the one program that a test asks for metrics
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: filepath.Join(t.TempDir(), "data")}
	for _, addr := range []*string{&m.kafka, &m.clickhouse, &m.api, &m.ops} {
		*addr = freeAddress(t)
	}
	return m
}

// program is a running standalone.
type program struct {
	t   *testing.T
	cmd *exec.Cmd

	mu  sync.Mutex
	out bytes.Buffer

	ready chan struct{} // closed when it has printed "ready"
	ended chan struct{} // closed when its output has ended
	wait  func() error
}

// start starts the program with arguments and further settings, NAME=value.
func (m *machine) start(args []string, settings ...string) *program {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	// Not the context of the test: a test that kills wants to choose when.
	p := &program{t: m.t, cmd: exec.Command(self, args...), ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), beStandalone+"=1", "DATA_DIR="+m.dir, "KAFKA_ADDR="+m.kafka,
		"CLICKHOUSE_ADDR="+m.clickhouse, "HTTP_ADDR="+m.api, "METRICS_ADDR=127.0.0.1:0")
	p.cmd.Env = append(p.cmd.Env, settings...)
	p.cmd.Dir = "../.." // the cache folder is found from the checkout
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	p.wait = sync.OnceValue(func() error { <-p.ended; return p.cmd.Wait() })
	go p.read(pipe)
	m.t.Cleanup(p.kill)
	return p
}

func (p *program) read(pipe io.Reader) {
	defer close(p.ended)
	ready := sync.OnceFunc(func() { close(p.ready) })
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		p.mu.Lock()
		p.out.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		if lines.Text() == "ready" {
			ready()
		}
	}
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// awaitReady waits for the line that is exactly "ready".
func (p *program) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.ended:
		p.t.Fatalf("the program ended before it was ready: %v\n%s", p.wait(), p.output())
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("not ready after two minutes:\n%s", p.output())
	}
}

// interrupt presses Ctrl-C and expects a clean end.
func (p *program) interrupt() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		p.t.Errorf("after Ctrl-C: %v, want a clean end\n%s", err, p.output())
	}
	if !strings.HasSuffix(p.output(), "stopped\n") {
		p.t.Errorf("the output does not end in \"stopped\":\n%s", p.output())
	}
}

// kill is SIGKILL: nothing in the process gets to run.
func (p *program) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		_ = p.wait()
	}
}

// sql asks the database of Lethe and returns the answer in TSV without the last line end.
func (m *machine) sql(query string) string { m.t.Helper(); return m.ask("lethe", query) }

func (m *machine) ask(database, query string) string {
	m.t.Helper()
	return m.do(database, query+" FORMAT TSV")
}

// do runs a statement.
func (m *machine) do(database, query string) string {
	m.t.Helper()
	resp, err := http.Post("http://"+m.clickhouse+"/?"+url.Values{"database": {database}}.Encode(), "text/plain", strings.NewReader(query))
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		m.t.Fatalf("%s: %s %v\n%s", query, resp.Status, err, body)
	}
	return strings.TrimSuffix(string(body), "\n")
}

// get asks the API with the officer's token and further headers, "Name: value".
func (m *machine) get(path string, headers ...string) []byte {
	m.t.Helper()
	status, body := m.call(http.MethodGet, path, "", headers...)
	if status != http.StatusOK {
		m.t.Fatalf("GET %s: got %d\n%s", path, status, body)
	}
	return []byte(body)
}

// awaitComplete waits until everything that Kafka has now has an outcome.
func (m *machine) awaitComplete() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 4*time.Minute)
	defer cancel()
	db, err := store.Open(ctx, store.Options{DSN: "http://" + m.clickhouse + "/lethe"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer db.Close()
	if err := (&stack{}).awaitComplete(ctx, db, time.Now()); err != nil {
		m.t.Fatal(err)
	}
}

// sampleLog returns the access log that the tests load: the bundled one, or the
// one that TEST_LOG names.
func sampleLog(t *testing.T) (file string, lines []string) {
	t.Helper()
	file = "sample/access.log"
	if own := os.Getenv("TEST_LOG"); own != "" {
		file = own
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = filepath.Abs(file); err != nil {
		t.Fatal(err)
	}
	return file, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func countLines(t *testing.T, name string) int {
	t.Helper()
	text, err := bundled.ReadFile("sample/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

func number(t *testing.T, text string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("got %q, want a number", text)
	}
	return n
}
