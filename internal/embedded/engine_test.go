package embedded_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lethe-audit/lethe/internal/embedded"
)

func libraryPath(t testing.TB) string {
	t.Helper()
	path, err := embedded.LibraryPath()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenEngineRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := ""
	for _, path := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/usr/lib/libSystem.B.dylib", "/lib64/libc.so.6"} {
		if _, err := os.Stat(path); err == nil {
			other = path
			break
		}
	}
	if other == "" {
		t.Fatal("this machine has no C library where one is expected")
	}
	library := libraryPath(t)
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options embedded.EngineOptions
		want    string
	}{
		"nothing":         {embedded.EngineOptions{}, "required"},
		"no such library": {embedded.EngineOptions{Library: filepath.Join(dir, "none.so"), DataDir: dir}, "CHDB_LIB"},
		"a folder":        {embedded.EngineOptions{Library: dir, DataDir: dir}, "CHDB_LIB"},
		"a text":          {embedded.EngineOptions{Library: text, DataDir: dir}, "CHDB_LIB"},
		"another library": {embedded.EngineOptions{Library: other, DataDir: dir}, "is not libchdb"},
		"a file for data": {embedded.EngineOptions{Library: library, DataDir: taken}, taken},
		"negative bounds": {embedded.EngineOptions{Library: library, DataDir: dir, MaxQueries: -1}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			engine, err := embedded.OpenEngine(c.options)
			if err == nil {
				engine.Close()
				t.Fatal("got an engine, want an error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one sentence with %q", err, c.want)
			}
		})
	}
}

func TestOneEngineAtATime(t *testing.T) {
	dir := t.TempDir()
	options := embedded.EngineOptions{Library: libraryPath(t), DataDir: dir, MemoryLimit: 2 << 30}
	engine, err := embedded.OpenEngine(options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.OpenEngine(options); err == nil || !strings.Contains(err.Error(), "one open already") {
		t.Errorf("got %v for a second engine, want a refusal", err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "EMBEDDED_TEST_CHILD=clickhouse", "EMBEDDED_TEST_DIR="+dir)
	if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), "another process is using the data directory") {
		t.Errorf("got %v, %q from another process, want a refusal", err, out)
	}
	if got := engine.Version(); !strings.HasPrefix(got, "26.") {
		t.Errorf("got version %q, want 26 or so", got)
	}
	for range 2 {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
	if engine, err = embedded.OpenEngine(options); err != nil {
		t.Fatalf("open it again: %v", err)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

func TestLibraryPath(t *testing.T) {
	root := t.TempDir()
	library := filepath.Join(root, ".cache", "engine", "libchdb.so")
	inside := filepath.Join(root, "internal")
	for _, dir := range []string{filepath.Dir(library), inside} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CHDB_LIB", "")
	t.Chdir(inside)
	refused := func(what string) {
		t.Helper()
		if _, err := embedded.LibraryPath(); err == nil || !strings.Contains(err.Error(), "CHDB_LIB") {
			t.Errorf("%s: got %v, want what to set", what, err)
		}
	}
	found := func(want string) {
		t.Helper()
		if got, err := embedded.LibraryPath(); err != nil || got != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused("outside a checkout")
	write(filepath.Join(root, "go.mod"))
	refused("with an empty cache")
	write(library)
	found(library)
	own := filepath.Join(root, "own.so")
	t.Setenv("CHDB_LIB", own)
	refused("with a CHDB_LIB that is not there")
	write(own)
	found(own)
}

// The engine must leave the signals to Go.
func TestSignalsStayWithGo(t *testing.T) {
	openDoor(t).post("SELECT 1").must(t)
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(got)
	for _, want := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := syscall.Kill(os.Getpid(), want); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != want {
			t.Errorf("got %v, want %v", s, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("got no panic for a nil pointer, want Go's own")
		}
	}()
	var nothing *reply
	t.Log(nothing.status)
}

// serveEngine is an endpoint of the test's own, with its options.
func serveEngine(t *testing.T, options embedded.ClickHouseOptions) *embedded.ClickHouse {
	t.Helper()
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: libraryPath(t), DataDir: t.TempDir(), MaxQueries: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	options.Engine, options.Addr = engine, "127.0.0.1:0"
	endpoint, err := embedded.NewClickHouse(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := endpoint.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return endpoint
}

func TestStopCancelsWhatDoesNotEnd(t *testing.T) {
	endpoint := serveEngine(t, embedded.ClickHouseOptions{})
	d := newDoor(t, "http://"+endpoint.Addr()+"/default")
	const statement = "SELECT count() FROM numbers(1000000000000)"
	code := make(chan string, 1)
	go func() { code <- d.post(statement).header.Get("X-ClickHouse-Exception-Code") }()
	until(t, "the statement runs", func() bool {
		return d.post("SELECT count() FROM system.processes WHERE query = {q:String}", "param_q", statement).must(t) == "1"
	})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := endpoint.Stop(over); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want what cut it short", err)
	}
	if got, want := <-code, "394"; got != want {
		t.Errorf("got code %q, want %s (QUERY_WAS_CANCELLED)", got, want)
	}
}

func TestAuthentication(t *testing.T) {
	endpoint := serveEngine(t, embedded.ClickHouseOptions{User: "lethe", Password: "p w"})
	t.Cleanup(func() {
		if err := endpoint.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	d := newDoor(t, "http://"+endpoint.Addr()+"/default")
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"nobody": {func(*http.Request) {}, 403},
		"headers": {func(r *http.Request) {
			r.Header.Set("X-ClickHouse-User", "lethe")
			r.Header.Set("X-ClickHouse-Key", "p w")
		}, 200},
		"wrong headers":     {func(r *http.Request) { r.Header.Set("X-ClickHouse-User", "lethe") }, 403},
		"basic":             {func(r *http.Request) { r.SetBasicAuth("lethe", "p w") }, 200},
		"wrong basic":       {func(r *http.Request) { r.SetBasicAuth("lethe", "pw") }, 403},
		"URL":               {func(r *http.Request) { r.URL.RawQuery += "&user=lethe&password=p+w" }, 200},
		"another's URL":     {func(r *http.Request) { r.URL.RawQuery += "&user=default&password=p+w" }, 403},
		"headers before it": {func(r *http.Request) { r.SetBasicAuth("lethe", "p w"); r.Header.Set("X-ClickHouse-User", "x") }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.request(t.Context(), strings.NewReader("SELECT 1"))
			c.change(r)
			got := d.send(r)
			if got.status != c.status {
				t.Errorf("got status %d, want %d", got.status, c.status)
			}
			if c.status != 200 && got.header.Get("X-ClickHouse-Exception-Code") != "516" {
				t.Errorf("got code %q, want 516", got.header.Get("X-ClickHouse-Exception-Code"))
			}
		})
	}
	conn := dial(t, "http://lethe:p%20w@"+endpoint.Addr()+"/default", nil)
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNewClickHouseRefuses(t *testing.T) {
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: libraryPath(t), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	for name, options := range map[string]embedded.ClickHouseOptions{
		"no engine":          {Addr: "127.0.0.1:0"},
		"no address":         {Engine: engine},
		"an address for all": {Engine: engine, Addr: ":8123"},
		"a public address":   {Engine: engine, Addr: "192.0.2.1:8123"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := embedded.NewClickHouse(options); err == nil {
				t.Error("got no error, want one")
			}
		})
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	endpoint, err := embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	var refused *net.OpError
	if err := endpoint.Start(t.Context()); !errors.As(err, &refused) {
		t.Errorf("got %v for a port that is taken, want a *net.OpError", err)
	}
}
