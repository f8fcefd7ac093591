package service_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/daemon"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a log that may be read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// process is a service that runs as its program does.
type process struct {
	t    *testing.T
	d    *daemon.Daemon
	log  *text
	stop func()
}

// run starts a service, which must never say what holds the word canary.
func run(t *testing.T, parts []string, start func(context.Context, *daemon.Daemon, *slog.Logger) error) *process {
	t.Helper()
	p := &process{t: t, log: new(text)}
	log := slog.New(slog.NewJSONHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if p.d, err = daemon.New(daemon.Options{Log: log, OpsAddr: "127.0.0.1:0", StopTimeout: time.Minute, Parts: parts}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- p.d.Run(ctx, func(ctx context.Context) error { return start(ctx, p.d, log) })
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		p.silent(p.log.String())
	})
	t.Cleanup(p.stop)
	return p
}

func (p *process) silent(said string) {
	p.t.Helper()
	if strings.Contains(said, "canary") {
		p.t.Errorf("a secret is told: %s", said)
	}
}

// ops returns what the operators' server answers; nothing while it starts.
func (p *process) ops(path string) string {
	p.t.Helper()
	addr := p.d.OpsAddr()
	if addr == "" {
		return ""
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	answer, err := client.Get("http://" + addr + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	p.silent(string(said))
	return string(said)
}

// says waits until /readyz has a line that holds these words.
func (p *process) says(words ...string) {
	p.t.Helper()
	said := ""
	eventually(p.t, func() string { return strings.Join(words, " … ") + "\ngot:\n" + said }, func() bool {
		said = p.ops("/readyz")
		for line := range strings.Lines(said) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return true
			}
		}
		return false
	})
}

func eventually(t *testing.T, what func() string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain for %s", what())
		}
	}
}
