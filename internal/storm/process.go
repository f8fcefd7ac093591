package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

// stopIn is more than any process may take for an orderly stop on a busy machine.
const stopIn = 90 * time.Second

// life is one process after the other of the same kind.
type life interface {
	start(ctx context.Context) error
	signal(s syscall.Signal) error
	// ended is closed when the process of the last start has ended.
	ended() <-chan struct{}
	// status is what an ended process's exit says of an orderly stop.
	status() error
	// peak is the most memory the process has had resident, in bytes; 0: unknown.
	peak() int64
}

// process is what the storm blows at.
type process struct {
	name string
	life
	failed func(error) // hears of an end that nobody asked for

	asked *atomic.Bool // of this life: its end was asked for

	mu      sync.Mutex
	state   string // "": it runs
	counts  [numActions]int
	highest int64 // of all lives
}

// begin starts the process and watches it.
func (p *process) begin(ctx context.Context) error {
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.watch()
	return nil
}

// watch hears of the end of the process that was started.
func (p *process) watch() {
	asked := new(atomic.Bool)
	p.asked = asked
	ended := p.ended()
	go func() {
		<-ended
		if !asked.Load() {
			p.failed(errors.Join(fmt.Errorf("%s ended although nobody had asked it to", p.name), p.status()))
		}
	}()
}

// end stops the process in an orderly way.
func (p *process) end() error {
	p.measure()
	p.asked.Store(true)
	if err := p.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	limit := time.NewTimer(stopIn)
	defer limit.Stop()
	select {
	case <-p.ended():
	case <-limit.C:
		return fmt.Errorf("stop %s: it still runs after %s", p.name, stopIn)
	}
	if err := p.status(); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return nil
}

// kill leaves the process no say.
func (p *process) kill() {
	p.measure()
	p.asked.Store(true)
	_ = p.signal(syscall.SIGKILL) // it may have ended
	<-p.ended()
}

// suffer does one fault and returns when it is over.
func (p *process) suffer(ctx context.Context, f fault) error {
	p.count(f.action, [...]string{"killed", "stopped", "frozen"}[f.action])
	switch f.action {
	case kill:
		p.kill()
	case stop:
		if err := p.end(); err != nil {
			return err
		}
	case freeze:
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return fmt.Errorf("freeze %s: %w", p.name, err)
		}
	}
	pause(ctx, f.lasts)
	var err error
	if f.action == freeze {
		err = p.signal(syscall.SIGCONT)
	} else if ctx.Err() == nil {
		err = p.begin(ctx)
	}
	p.mu.Lock()
	p.state = ""
	p.mu.Unlock()
	return err
}

func (p *process) count(a action, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[a]++
	p.state = state
}

func (p *process) look() (state string, counts [numActions]int, highest int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.counts, p.highest
}

// measure keeps the peak of this life.
func (p *process) measure() {
	n := p.peak()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.highest = max(p.highest, n)
}

// pause waits, or returns early when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// program is a life of a program of ours; all of its processes write one log.
type program struct {
	path string
	args []string
	env  []string
	log  string

	now atomic.Pointer[running]
}

type running struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *program) start(context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not the context of the run: how a process ends is what this is about.
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	r := &running{cmd, make(chan struct{})}
	p.now.Store(r)
	go func() {
		defer close(r.done)
		_ = cmd.Wait() // status looks at how it ended
	}()
	return nil
}

func (p *program) signal(s syscall.Signal) error { return p.now.Load().cmd.Process.Signal(s) }

func (p *program) ended() <-chan struct{} { return p.now.Load().done }

func (p *program) status() error {
	if s := p.now.Load().cmd.ProcessState; !s.Success() {
		return fmt.Errorf("it ended with %s; see %s", s, p.log)
	}
	return nil
}

// peak reads what Linux knows; elsewhere there is nothing to read.
func (p *program) peak() int64 {
	r := p.now.Load()
	if r == nil {
		return 0
	}
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// broker is a life of Apache Kafka.
type broker struct{ *kafkatest.Node }

func (b broker) start(ctx context.Context) error { return b.Up(ctx) }

func (b broker) signal(s syscall.Signal) error { return b.Signal(s) }

func (b broker) ended() <-chan struct{} { return b.Ended() }

// status says nothing: Java ends with that of the signal.
func (b broker) status() error { return nil }

func (b broker) peak() int64 { return 0 }
