package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
)

// What makes this binary a database instead of tests.
const (
	databaseDir  = "INGEST_TEST_DATABASE_DIR"
	databaseAddr = "INGEST_TEST_DATABASE_ADDR"
	databaseSize = "INGEST_TEST_DATABASE_SIZE" // of a tmpfs for the data; empty: no such
)

func init() {
	if os.Getenv(databaseDir) == "" {
		return
	}
	if err := serveDatabase(os.Getenv(databaseDir), os.Getenv(databaseAddr), os.Getenv(databaseSize)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveDatabase serves until its input ends. Each line of it is a command, answered
// with a line: close and open the endpoint, fill the disk and free it again.
func serveDatabase(dir, addr, size string) error {
	if size != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			return fmt.Errorf("a small disk needs a tmpfs, and the right to mount one, as root has it: %w", err)
		}
	}
	library, err := embedded.LibraryPath()
	if err != nil {
		return err
	}
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: library, DataDir: filepath.Join(dir, "data")})
	if err != nil {
		return err
	}
	var door *embedded.ClickHouse
	var ballast func() error // ends the filling
	commands := map[string]func() error{
		"open": func() (err error) {
			if door, err = embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: addr}); err != nil {
				return err
			}
			return door.Start(context.Background())
		},
		"close": func() error { return door.Stop(context.Background()) },
		"fill":  func() (err error) { ballast, err = fill(filepath.Join(dir, "ballast")); return err },
		"free":  func() error { return ballast() },
	}
	lines := bufio.NewScanner(io.MultiReader(strings.NewReader("open\n"), os.Stdin))
	for lines.Scan() {
		if err := commands[lines.Text()](); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println("done")
	}
	return errors.Join(lines.Err(), door.Stop(context.Background()), engine.Close())
}

// fill writes a file until the disk is full, and goes on with what becomes free: a
// merge that gives up leaves room. empty ends that.
func fill(path string) (empty func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	write := func() error {
		for block := make([]byte, 64<<10); len(block) > 0; {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				block = block[:len(block)/2] // to the last byte
			} else if err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(); err != nil {
		return nil, err
	}
	over, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := write(); err != nil {
					ended <- err
					return
				}
			case <-over:
				ended <- nil
				return
			}
		}
	}()
	return func() error {
		close(over)
		return errors.Join(<-ended, f.Close(), os.Remove(path))
	}, nil
}

// database is ClickHouse in a process of its own.
type database struct {
	t         testing.TB
	dir, size string
	addr      string
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Reader
}

// newDatabase starts one; with a size, on a disk of that size.
func newDatabase(t testing.TB, size string) *database {
	t.Helper()
	d := &database{t: t, dir: t.TempDir(), size: size, addr: quietAddr(t)}
	d.start()
	t.Cleanup(func() {
		d.in.Close()
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("the database ended with %v, want a clean end", err)
		}
	})
	return d
}

// quietAddr is a loopback address whose port no outgoing connection takes while
// nothing listens on it.
func quietAddr(t testing.TB) string {
	t.Helper()
	for port := 20_000 + os.Getpid()%10_000; port < 32_000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port below the ephemeral ones")
	return ""
}

func (d *database) start() {
	d.t.Helper()
	d.cmd = exec.Command(os.Args[0])
	d.cmd.Env = append(os.Environ(), databaseDir+"="+d.dir, databaseAddr+"="+d.addr, databaseSize+"="+d.size)
	d.cmd.Stderr = os.Stderr
	if d.size != "" { // the mount is seen by this process alone and goes with it
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	in, err := d.cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatalf("start a database of its own: %v (a small disk needs the right to mount, as root has it)", err)
	}
	d.in, d.out = in, bufio.NewReader(out)
	d.done()
}

func (d *database) done() {
	d.t.Helper()
	if line, err := d.out.ReadString('\n'); err != nil || line != "done\n" {
		d.t.Fatalf("the database said %q, %v", line, err)
	}
}

// do has it carry out a command.
func (d *database) do(command string) {
	d.t.Helper()
	if _, err := io.WriteString(d.in, command+"\n"); err != nil {
		d.t.Fatal(err)
	}
	d.done()
}

func (d *database) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// kill ends it as a power cut would.
func (d *database) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	d.cmd.Wait() // says that it was killed
}

func (d *database) dsn(more string) string { return "http://" + d.addr + "/pressure" + more }
