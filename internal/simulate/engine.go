package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
)

// engineEnv makes this program the engine, on the data directory that it names.
const engineEnv = "LETHE_SIMULATE_ENGINE"

// beEngine serves ClickHouse until its input ends; it prints its address.
func beEngine(dir string) error {
	library, err := embedded.LibraryPath()
	if err != nil {
		return err
	}
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: library, DataDir: dir})
	if err != nil {
		return err
	}
	door, err := embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: "127.0.0.1:0"})
	if err == nil {
		err = door.Start(context.Background())
	}
	if err != nil {
		return errors.Join(err, engine.Close())
	}
	fmt.Println(door.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, door.Stop(ctx), engine.Close())
}

// engine is ClickHouse in a process of its own, whose clock is set from here.
type engine struct {
	cmd  *exec.Cmd
	quit io.Closer
	addr string
	dir  string // data, clock and log
}

// startEngine starts it on an empty folder, at an instant.
func startEngine(ctx context.Context, dir string, at time.Time) (*engine, error) {
	libraries, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if err != nil || len(libraries) == 0 {
		return nil, errors.New("start engine: libfaketime is not installed: Debian has it in the package faketime")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	e := &engine{dir: dir}
	if err := e.set(at); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "engine.log"))
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	defer log.Close()
	e.cmd = exec.CommandContext(ctx, self)
	e.cmd.Env = append(os.Environ(), engineEnv+"="+e.data(), "LD_PRELOAD="+libraries[0], "FAKETIME_TIMESTAMP_FILE="+e.clock(),
		"FAKETIME_CACHE_DURATION=1", // the file is read once a second
		// Only the calendar is moved. The engine takes the deadlines of its waits from a
		// clock that the library does not reach; unbounded they would last years, or nothing.
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_WAIT_MS=20")
	e.cmd.Stderr = log
	if e.quit, err = e.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start engine: it ended before it was ready; its log is %s", log.Name()), e.stop())
	}
	e.addr = strings.TrimSpace(line)
	return e, nil
}

func (e *engine) data() string  { return filepath.Join(e.dir, "data") }
func (e *engine) clock() string { return filepath.Join(e.dir, "clock") }

// set moves the engine's clock; it goes on from there.
func (e *engine) set(at time.Time) error {
	next := e.clock() + ".next" // read at any moment: replaced, never half written
	if err := os.WriteFile(next, fmt.Appendf(nil, "%+d", int64(time.Until(at)/time.Second)), 0o600); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	if err := os.Rename(next, e.clock()); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}

func (e *engine) stop() error {
	err := e.quit.Close()
	stuck := time.AfterFunc(time.Minute, e.kill)
	defer stuck.Stop()
	if err := errors.Join(err, e.cmd.Wait()); err != nil {
		return fmt.Errorf("stop engine: %w", err)
	}
	return nil
}

// kill ends it where it does not end by itself; Wait tells.
func (e *engine) kill() { _ = e.cmd.Process.Kill() }

// nudge wakes the scheduler of a table's merges, which on a quiet table looks
// around every ten to eighty seconds of real time. What it finds to do, it decides.
const nudge = "SYSTEM START MERGES "
