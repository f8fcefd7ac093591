package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serveOps starts the operators' server, where there is an address for it. It
// is the first step of the stack, so it answers until everything else has stopped.
func (d *Daemon) serveOps() error {
	if d.opts.OpsAddr == "" {
		return nil
	}
	l, err := net.Listen("tcp", d.opts.OpsAddr)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	addr := l.Addr().(*net.TCPAddr)
	d.mu.Lock()
	d.opsAddr = addr.String()
	d.mu.Unlock()
	srv := &http.Server{
		Handler:           d.opsHandler(addr.IP.IsLoopback()),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	d.OnStop("operators' server", 2*time.Second, func(ctx context.Context) error {
		if err := srv.Shutdown(ctx); err != nil {
			// A profile may still be running; nobody waits for it now.
			_ = srv.Close()
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	d.opts.Log.Info("serving operators", "addr", addr.String())
	return nil
}

// opsHandler routes what operators ask. Profiles hold memory, and memory holds
// events that are not redacted yet: they never leave the machine.
func (d *Daemon) opsHandler(loopback bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		state, lines := d.health.State()
		status := http.StatusOK
		if state != Ready {
			status = http.StatusServiceUnavailable
		}
		text := state.String()
		if lines != "" {
			text += "\n" + lines
		}
		answer(w, status, text)
	})
	if loopback {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// answer writes a text. A client that is gone misses nothing it could act on.
func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text)
}
