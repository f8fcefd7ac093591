package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lethe-audit/lethe/internal/embedded"
)

// runChild is this binary started again as a server of one kind: it prints its
// address and serves until its input ends.
func runChild(role string) error {
	dir := os.Getenv("EMBEDDED_TEST_DIR")
	ctx := context.Background()
	switch role {
	case "clickhouse":
		library, err := embedded.LibraryPath()
		if err != nil {
			return err
		}
		engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: library, DataDir: dir})
		if err != nil {
			return err
		}
		door, err := embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		if err := door.Start(ctx); err != nil {
			return err
		}
		fmt.Println(door.Addr())
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		if err := door.Stop(ctx); err != nil {
			return err
		}
		return engine.Close()
	case "kafka":
		broker, err := embedded.NewKafka(embedded.KafkaOptions{
			Addr: "127.0.0.1:0", DataDir: dir,
			Topics: []embedded.Topic{{Name: "events", Partitions: 2}},
		})
		if err != nil {
			return err
		}
		if err := broker.Start(ctx); err != nil {
			return err
		}
		fmt.Println(broker.Addr())
		_, err = io.Copy(io.Discard, os.Stdin)
		broker.Stop()
		return err
	}
	return fmt.Errorf("no role %q", role)
}

// child is a server in a process of its own.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	quit io.Closer
	addr string
}

func startChild(t *testing.T, role, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "EMBEDDED_TEST_CHILD="+role, "EMBEDDED_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	quit, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Process.Kill()
		t.Fatalf("the child said nothing: %v, %v", err, cmd.Wait())
	}
	t.Cleanup(func() { quit.Close() })
	return &child{t, cmd, quit, strings.TrimSpace(addr)}
}

// stop lets the child end by itself.
func (c *child) stop() {
	c.t.Helper()
	c.quit.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the child ended with %v, want a clean end", err)
	}
}

// kill ends it as a power cut would, as far as its memory is concerned.
func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	c.cmd.Wait() // says that it was killed
}

// acks is what a server has acknowledged.
type acks struct {
	mu    sync.Mutex
	names []string
}

func (a *acks) add(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, name)
	return len(a.names)
}

// missing are those acknowledged that are not in found.
func (a *acks) missing(found []string) []string {
	there := make(map[string]bool, len(found))
	for _, name := range found {
		there[name] = true
	}
	return slices.DeleteFunc(slices.Clone(a.names), func(name string) bool { return there[name] })
}

func TestClickHouseKeepsWhatItAcknowledged(t *testing.T) {
	const kills, perKill, rows, writers = 3, 30, 500, 3
	dir := t.TempDir()
	server := startChild(t, "clickhouse", dir)
	d := newDoor(t, "http://"+server.addr+"/default")
	d.post("CREATE TABLE k (s String, n UInt64) ENGINE = MergeTree ORDER BY (s, n) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1").must(t)
	var acked acks
	for round := range kills {
		enough := make(chan struct{})
		var once sync.Once
		var group sync.WaitGroup
		start := len(acked.names)
		for writer := range writers {
			group.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("%d/%d/%d", round, writer, i)
					var body strings.Builder
					for n := range rows {
						fmt.Fprintf(&body, "%s\t%d\n", name, n)
					}
					r := d.request(t.Context(), strings.NewReader(body.String()), "query", "INSERT INTO k FORMAT TSV", "async_insert", "0")
					answer, err := d.client.Do(r)
					if err != nil {
						return // killed
					}
					_, err = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					if err != nil || answer.StatusCode != http.StatusOK {
						return
					}
					if acked.add(name) >= start+perKill {
						once.Do(func() { close(enough) })
					}
				}
			})
		}
		<-enough
		server.kill()
		group.Wait()
		server = startChild(t, "clickhouse", dir)
		d = newDoor(t, "http://"+server.addr+"/default")
		found := strings.Split(d.post("SELECT DISTINCT s FROM k").must(t), "\n")
		if missing := acked.missing(found); len(missing) > 0 {
			t.Fatalf("kill %d: %d of %d acknowledged blocks are gone: %q", round, len(missing), len(acked.names), missing)
		}
		if got := d.post("SELECT count() FROM (SELECT s FROM k GROUP BY s HAVING count() != {n:UInt32})", "param_n", fmt.Sprint(rows)).must(t); got != "0" {
			t.Errorf("kill %d: got %s blocks that are not whole, want 0", round, got)
		}
	}
	server.stop()
	server = startChild(t, "clickhouse", dir)
	d = newDoor(t, "http://"+server.addr+"/default")
	if missing := acked.missing(strings.Split(d.post("SELECT DISTINCT s FROM k").must(t), "\n")); len(missing) > 0 {
		t.Errorf("after a clean restart %q are gone", missing)
	}
	server.stop()
}
