package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDaemon(t *testing.T, opts Options) *Daemon {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.StopTimeout == 0 {
		opts.StopTimeout = 10 * time.Second
	}
	d, err := New(opts)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return d
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{StopTimeout: time.Second}); err == nil {
		t.Error("no logger: got no error")
	}
	if _, err := New(Options{Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("no stop timeout: got no error")
	}
}

func TestStepsRunInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var order []string
		note := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
		err := d.Run(ctx, func(context.Context) error {
			d.OnStop("first", time.Second, func(context.Context) error { note("first"); return nil })
			d.Go("worker", time.Second, func(ctx context.Context) error { <-ctx.Done(); note("worker"); return ctx.Err() })
			d.OnStop("last", time.Second, func(context.Context) error { note("last"); return nil })
			cancel()
			return nil
		})
		if err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		if want := []string{"last", "worker", "first"}; !slices.Equal(order, want) {
			t.Errorf("order: got %q, want %q", order, want)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	tests := []struct {
		name         string
		limits       []time.Duration // of steps that hang, in the order they are added
		total        time.Duration
		want         time.Duration
		wantInError  []string
		respectsStop bool
	}{
		{"by the step's limit", []time.Duration{2 * time.Second}, 10 * time.Second, 2 * time.Second, []string{"stop step 0: not finished after 2s"}, false},
		{"by the whole stop", []time.Duration{time.Minute, time.Minute}, 10 * time.Second, 10 * time.Second, []string{"stop step 1: not finished after 10s", "stop step 0: not finished after 0s"}, false},
		{"when the step returns the deadline itself", []time.Duration{time.Second}, 10 * time.Second, time.Second, []string{"stop step 0: not finished after 1s"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t, Options{StopTimeout: tt.total})
				ctx, cancel := context.WithCancel(t.Context())
				release := make(chan struct{})
				began := time.Now()
				var ran bool
				err := d.Run(ctx, func(context.Context) error {
					d.OnStop("quick", time.Second, func(context.Context) error { ran = true; return nil })
					for i, limit := range tt.limits {
						d.OnStop("step "+string(rune('0'+i)), limit, func(ctx context.Context) error {
							if tt.respectsStop {
								<-ctx.Done()
								return ctx.Err()
							}
							<-release
							return nil
						})
					}
					cancel()
					return nil
				})
				if got := time.Since(began); got != tt.want {
					t.Errorf("stop took %s, want %s", got, tt.want)
				}
				for _, want := range tt.wantInError {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("got %v, want it to contain %q", err, want)
					}
				}
				if tt.total > tt.want && !ran {
					t.Error("a step after a slow one did not run")
				}
				close(release)
			})
		})
	}
}

func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name  string
		start func(d *Daemon, ctx context.Context, cancel func()) error
		want  error
	}{
		{"of the start", func(*Daemon, context.Context, func()) error { return boom }, boom},
		{"of a goroutine", func(d *Daemon, _ context.Context, _ func()) error {
			d.Go("worker", time.Second, func(context.Context) error { return boom })
			return nil
		}, boom},
		{"of a goroutine while it stops", func(d *Daemon, _ context.Context, cancel func()) error {
			d.Go("worker", time.Second, func(ctx context.Context) error { <-ctx.Done(); return boom })
			cancel()
			return nil
		}, boom},
		{"of a stop step", func(d *Daemon, _ context.Context, cancel func()) error {
			d.OnStop("x", time.Second, func(context.Context) error { return boom })
			cancel()
			return nil
		}, boom},
		{"none: a start cut off by the signal", func(_ *Daemon, ctx context.Context, cancel func()) error {
			cancel()
			return ctx.Err()
		}, nil},
		{"none: a goroutine that has finished its work", func(d *Daemon, _ context.Context, cancel func()) error {
			d.Go("worker", time.Second, func(context.Context) error { defer cancel(); return nil })
			return nil
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t, Options{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				undone := false
				err := d.Run(ctx, func(ctx context.Context) error {
					d.OnStop("undo", time.Second, func(context.Context) error { undone = true; return nil })
					return tt.start(d, ctx, cancel)
				})
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if !undone {
					t.Error("the step added before was not run")
				}
			})
		})
	}
}

func TestLateStepRunsAtOnce(t *testing.T) {
	d := newDaemon(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx, func(context.Context) error { return nil }); err != nil {
		t.Fatalf("Run: %v", err)
	}
	ran := false
	d.OnStop("late", time.Second, func(context.Context) error { ran = true; return nil })
	if !ran {
		t.Error("the step did not run")
	}
}

func TestSignalsEndTheContext(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			ctx, cancel := Signals(t.Context())
			defer cancel()
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the context did not end")
			}
		})
	}
}

func TestOpsServer(t *testing.T) {
	d := newDaemon(t, Options{OpsAddr: "127.0.0.1:0", Parts: []string{"clickhouse", "kafka"}})
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	get := func(path string) (int, string) {
		res, err := client.Get("http://" + d.OpsAddr() + path)
		if err != nil {
			t.Fatalf("get %s: %v", path, err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		return res.StatusCode, string(body)
	}
	err := d.Run(ctx, func(context.Context) error {
		defer cancel()
		steps := []struct {
			name   string
			do     func()
			path   string
			status int
			want   string
		}{
			{"at the start", func() {}, "/readyz", 503, "paused\nclickhouse: paused: starting\nkafka: paused: starting\n"},
			{"ready", func() { d.Health().Report("kafka", Ready, ""); d.Health().Report("clickhouse", Ready, "") }, "/readyz", 200, "ready\nclickhouse: ready\nkafka: ready\n"},
			{"paused", func() { d.Health().Report("clickhouse", Paused, "it does not answer; trying again") }, "/readyz", 503, "paused\nclickhouse: paused: it does not answer; trying again\nkafka: ready\n"},
			{"broken wins", func() { d.Health().Report("kafka", Broken, "the topic was recreated") }, "/readyz", 503, "broken\nclickhouse: paused: it does not answer; trying again\nkafka: broken: the topic was recreated\n"},
			{"alive all the same", func() {}, "/healthz", 200, "alive\n"},
			{"metric of a state", func() {}, "/metrics", 200, `lethe_part_state{part="kafka"} 2`},
			{"metric of the runtime", func() {}, "/metrics", 200, "go_goroutines"},
			{"profiles on loopback", func() {}, "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
			{"nothing else", func() {}, "/", 404, ""},
		}
		for _, s := range steps {
			s.do()
			status, body := get(s.path)
			if status != s.status || !strings.Contains(body, s.want) {
				t.Errorf("%s: got %d %q, want %d with %q", s.name, status, body, s.status, s.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := client.Get("http://" + d.OpsAddr() + "/healthz"); err == nil {
		t.Error("the server still answers after the stop")
	}
}

func TestProfilesStayOnTheMachine(t *testing.T) {
	d := newDaemon(t, Options{OpsAddr: "0.0.0.0:0"})
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Run(ctx, func(context.Context) error {
		defer cancel()
		_, port, _ := strings.Cut(strings.TrimPrefix(d.OpsAddr(), "[::]"), ":")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		for path, want := range map[string]int{"/debug/pprof/heap": 404, "/healthz": 200} {
			res, err := client.Get("http://127.0.0.1:" + port + path)
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestOpsAddressInUse(t *testing.T) {
	d := newDaemon(t, Options{OpsAddr: "127.0.0.1:0"})
	ctx, cancel := context.WithCancel(t.Context())
	if err := d.Run(ctx, func(context.Context) error {
		defer cancel()
		second := newDaemon(t, Options{OpsAddr: d.OpsAddr()})
		err := second.Run(ctx, func(context.Context) error { t.Error("the service was started"); return nil })
		if err == nil || !strings.Contains(err.Error(), "listen for operators") {
			t.Errorf("got %v, want an error about the address", err)
		}
		return nil
	}); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStateChangesAreLogged(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "warn", "text")
	if err != nil {
		t.Fatal(err)
	}
	h := newHealth(log, []string{"a"})
	h.Report("a", Paused, "first")
	h.Report("a", Broken, "second")
	h.Report("a", Broken, "third")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "why=second") {
		t.Errorf("got %q, want one line about the change", got)
	}
}

func TestNewLogger(t *testing.T) {
	tests := []struct {
		name, level, format string
		want                string // what a warning looks like
		ok                  bool
	}{
		{"json", "info", "json", `"msg":"hello"`, true},
		{"text", "debug", "text", `msg=hello`, true},
		{"quieter", "error", "json", "", true},
		{"no such level", "loud", "json", "", false},
		{"no such format", "info", "xml", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			log, err := NewLogger(&out, tt.level, tt.format)
			if (err == nil) != tt.ok {
				t.Fatalf("got error %v, want ok %t", err, tt.ok)
			}
			if err != nil {
				return
			}
			log.Warn("hello")
			if got := out.String(); !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
				t.Errorf("got %q, want it to contain %q", got, tt.want)
			}
		})
	}
}
