package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

// TestMain also runs the children of the tests that kill a process.
func TestMain(m *testing.M) {
	if role := os.Getenv("EMBEDDED_TEST_CHILD"); role != "" {
		if err := runChild(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// openDriver is clickhouse-go on a database of its own.
func openDriver(t testing.TB, change func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	return dial(t, embeddedtest.ClickHouse(t), change)
}

func dial(t testing.TB, dsn string, change func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(options)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func execute(t testing.TB, conn driver.Conn, statement string, args ...any) {
	t.Helper()
	if err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// scalar reads one value.
func scalar[T any](t testing.TB, conn driver.Conn, statement string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), statement, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

// door is the plain HTTP side of one database.
type door struct {
	t        testing.TB
	base     string
	database string
	client   *http.Client
}

func openDoor(t testing.TB) *door {
	t.Helper()
	return newDoor(t, embeddedtest.ClickHouse(t))
}

func newDoor(t testing.TB, dsn string) *door {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &door{t, u.Scheme + "://" + u.Host + "/", strings.TrimPrefix(u.Path, "/"), &http.Client{Transport: transport}}
}

// request makes a POST with URL parameters given as name, value, name, value.
func (d *door) request(ctx context.Context, body io.Reader, pairs ...string) *http.Request {
	d.t.Helper()
	values := url.Values{"database": {d.database}}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+"?"+values.Encode(), body)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

type reply struct {
	status int
	header http.Header
	text   string
	err    error // of reading the body
}

func (d *door) send(r *http.Request) reply {
	d.t.Helper()
	answer, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, string(text), err}
}

// post sends a statement as the body.
func (d *door) post(statement string, pairs ...string) reply {
	d.t.Helper()
	return d.send(d.request(d.t.Context(), strings.NewReader(statement), pairs...))
}

// insert sends a statement in the URL and its data as the body.
func (d *door) insert(statement string, data []byte, pairs ...string) reply {
	d.t.Helper()
	return d.send(d.request(d.t.Context(), bytes.NewReader(data), append(pairs, "query", statement)...))
}

// must is the text of an answer without an error.
func (r reply) must(t testing.TB) string {
	t.Helper()
	if r.err != nil || r.status != http.StatusOK {
		t.Fatalf("got status %d, %q, %v, want an answer", r.status, r.text, r.err)
	}
	return strings.TrimSuffix(r.text, "\n")
}

// until polls until the condition holds.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		pause()
	}
}

// pause is the time between two looks at another process or thread, which gives
// no signal.
func pause() { <-time.After(5 * time.Millisecond) }

// resident is this process's memory in bytes.
func resident(t testing.TB) int64 {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
