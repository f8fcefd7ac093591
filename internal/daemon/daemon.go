// Package daemon is the life of a service's process: signals, a stack of named
// and bounded stop steps, goroutines with an owner, the logger, and a small
// HTTP server for operators with /metrics, /healthz, /readyz and, on a loopback
// address, profiles.
//
// It knows nothing of what the service does, and it does not serve the API.
//
//	ctx, cancel := daemon.Signals(context.Background())
//	defer cancel()
//	d, err := daemon.New(daemon.Options{Log: log, OpsAddr: addr, StopTimeout: 25 * time.Second, Parts: []string{"clickhouse"}})
//	if err != nil { ... }
//	return d.Run(ctx, func(ctx context.Context) error {
//		db, err := store.Open(ctx, ...)
//		if err != nil { return err }
//		d.OnStop("close database", 5*time.Second, func(context.Context) error { return db.Close() })
//		d.Go("consume", 20*time.Second, in.Run)
//		return nil
//	})
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options are what a Daemon needs.
type Options struct {
	// Log receives starts, stops and changes of state. Required.
	Log *slog.Logger
	// OpsAddr is the address of the operators' server, host:port; port 0 picks
	// a free one. Empty: no server.
	OpsAddr string
	// StopTimeout bounds all stop steps together; it must be positive.
	StopTimeout time.Duration
	// Parts are what readiness depends on. Each is paused ("starting") until
	// its owner reports another state.
	Parts []string
}

// Daemon is one service's process. Its methods may be called from any goroutine.
type Daemon struct {
	opts     Options
	registry *prometheus.Registry
	health   *Health
	failed   chan error // the first failure of a goroutine

	mu      sync.Mutex
	steps   []step
	stopped bool
	opsAddr string
}

// step is one thing to undo when the process stops.
type step struct {
	name  string
	limit time.Duration
	stop  func(context.Context) error
}

// New returns a Daemon. It starts nothing.
func New(opts Options) (*Daemon, error) {
	if opts.Log == nil {
		return nil, errors.New("new daemon: Log is required")
	}
	if opts.StopTimeout <= 0 {
		return nil, errors.New("new daemon: StopTimeout must be positive")
	}
	registry := prometheus.NewRegistry()
	health := newHealth(opts.Log, opts.Parts)
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		health,
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register process metrics: %w", err)
		}
	}
	return &Daemon{opts: opts, registry: registry, health: health, failed: make(chan error, 1)}, nil
}

// Metrics returns the registry that /metrics shows.
func (d *Daemon) Metrics() *prometheus.Registry { return d.registry }

// Health returns where the parts report their state.
func (d *Daemon) Health() *Health { return d.health }

// OpsAddr returns the address on which the operators' server listens; it is
// empty before Run started it.
func (d *Daemon) OpsAddr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opsAddr
}

// OnStop adds a step to the stack. Steps run in reverse order, one at a time;
// the context of a step ends after limit, or when the time of the whole stop is
// over. A step added after the stop has begun runs at once.
func (d *Daemon) OnStop(name string, limit time.Duration, stop func(context.Context) error) {
	s := step{name: name, limit: limit, stop: stop}
	d.mu.Lock()
	if !d.stopped {
		d.steps = append(d.steps, s)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	// A drain: the caller's context has ended, the step still needs one.
	if err := d.run(context.Background(), s); err != nil {
		d.opts.Log.Error("a late stop step failed", "step", name, "error", err)
	}
}

// Go runs f in a goroutine that the Daemon owns, and adds a stop step that
// ends f's context and waits for f, at most limit. An error that f returns
// before it was asked to stop ends Run, which returns it; nil means that f had
// finished its work.
func (d *Daemon) Go(name string, limit time.Duration, f func(context.Context) error) {
	// The goroutine outlives the context of the start; its own ends in its stop step.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := f(ctx)
		if err != nil && ctx.Err() == nil {
			select {
			case d.failed <- fmt.Errorf("%s: %w", name, err):
			default: // an earlier failure already stops the process
			}
			err = nil
		}
		done <- err
	}()
	d.OnStop(name, limit, func(ctx context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// Run starts the operators' server and then the service, waits until ctx ends
// or a goroutine fails, and stops everything in reverse order. It returns what
// went wrong, nil after an orderly stop; it may be called once.
func (d *Daemon) Run(ctx context.Context, start func(context.Context) error) error {
	err := d.serveOps()
	if err == nil {
		err = start(ctx)
	}
	// A start that was cut off by the signal is an orderly stop.
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	} else if err == nil {
		select {
		case <-ctx.Done():
		case err = <-d.failed:
		}
	}
	d.opts.Log.Info("stopping")
	return errors.Join(err, d.stop())
}

// stop runs the steps, last one first. A step that fails or is too slow does
// not keep the others from running.
func (d *Daemon) stop() error {
	d.mu.Lock()
	steps := d.steps
	d.stopped, d.steps = true, nil
	d.mu.Unlock()

	// A drain: what asked for the stop has ended, the stop has its own deadline.
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.StopTimeout)
	defer cancel()
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		if err := d.run(ctx, steps[i]); err != nil {
			errs = append(errs, err)
		}
	}
	select {
	case err := <-d.failed: // failed while the signal was already being handled
		errs = append(errs, err)
	default:
	}
	return errors.Join(errs...)
}

// run runs one step within its limit. A step that ignores its context is left
// behind: the process is about to end.
func (d *Daemon) run(ctx context.Context, s step) error {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.stop(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		// What finished at the last moment counts as finished.
		select {
		case err = <-done:
		default:
			err = ctx.Err()
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop %s: not finished after %s", s.name, time.Since(began).Round(time.Millisecond))
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	d.opts.Log.Debug("stopped", "step", s.name, "took", time.Since(began))
	return nil
}

// Signals returns a context that ends with the first SIGINT or SIGTERM. The
// second one ends the process at once, as if nobody had listened.
func Signals(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}
