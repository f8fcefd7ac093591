package embedded_test

import (
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// peak watches this process's memory while f runs and returns by how much it grew.
func peak(t *testing.T, f func()) int64 {
	t.Helper()
	before := resident(t)
	highest := before
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				highest = max(highest, resident(t))
			}
		}
	})
	f()
	close(over)
	watcher.Wait()
	return highest - before
}

const (
	streamBytes = 2 << 30
	memoryBound = 400 << 20
)

func TestStreamedAnswerIsBounded(t *testing.T) {
	d := openDoor(t)
	d.post("SELECT randomString(1000) FROM numbers(10000) FORMAT RowBinary").must(t) // warm
	var got int64
	grown := peak(t, func() {
		answer, err := d.client.Do(d.request(t.Context(), strings.NewReader("SELECT repeat('0123456789', 100) AS s FROM numbers(2150000) SETTINGS max_block_size = 16384 FORMAT RowBinary")))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if got, err = io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%d MiB of answer, %d MiB of memory", got>>20, grown>>20)
	if got < streamBytes {
		t.Errorf("got %d bytes, want at least %d", got, streamBytes)
	}
	if grown > memoryBound {
		t.Errorf("memory grew by %d MiB, want at most %d", grown>>20, memoryBound>>20)
	}
}

// A client that reads nothing holds the engine back; it does not fill memory.
func TestSlowReaderIsBounded(t *testing.T) {
	d := openDoor(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	grown := peak(t, func() {
		answer, err := d.client.Do(d.request(ctx, strings.NewReader("SELECT repeat('0123456789', 100) FROM numbers(1000000000) FORMAT RowBinary")))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if _, err := io.CopyN(io.Discard, answer.Body, 100<<20); err != nil {
			t.Fatal(err)
		}
		running := func() string {
			return d.post("SELECT count() FROM system.processes WHERE query LIKE '%numbers(1000000000)%' AND query NOT LIKE '%processes%'").must(t)
		}
		if got := running(); got != "1" {
			t.Errorf("got %s such statements, want 1", got)
		}
		cancel()
		until(t, "the statement is gone", func() bool { return running() == "0" })
	})
	t.Logf("%d MiB of memory", grown>>20)
	if grown > memoryBound {
		t.Errorf("memory grew by %d MiB, want at most %d", grown>>20, memoryBound>>20)
	}
}

// endless is n bytes of lines.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	const line = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456\n"
	n := 0
	for n+len(line) <= len(p) && e.left >= len(line) {
		n += copy(p[n:], line)
		e.left -= len(line)
	}
	if n == 0 {
		n, e.left = 1, 0
		p[0] = '\n'
	}
	return n, nil
}

func TestInsertOfAnySizeIsBounded(t *testing.T) {
	const size = 1 << 30
	d := openDoor(t)
	d.post("CREATE TABLE big (s String) ENGINE = MergeTree ORDER BY tuple()").must(t)
	grown := peak(t, func() {
		r := d.request(t.Context(), io.NopCloser(&endless{size}), "query", "INSERT INTO big FORMAT TSV", "max_insert_block_size", "50000", "min_insert_block_size_bytes", "16000000")
		d.send(r).must(t)
	})
	t.Logf("%d MiB of data, %d MiB of memory", size>>20, grown>>20)
	if got, want := d.post("SELECT count() FROM big").must(t), "8388608"; got != want {
		t.Errorf("got %s rows, want %s", got, want)
	}
	if grown > memoryBound {
		t.Errorf("memory grew by %d MiB, want at most %d", grown>>20, memoryBound>>20)
	}
}

// Clients that come and go at any moment leave nothing behind.
func TestClientsThatGoAway(t *testing.T) {
	conn := openDriver(t, func(o *clickhouse.Options) { o.MaxOpenConns = 8 })
	execute(t, conn, "CREATE TABLE away (n UInt64) ENGINE = MergeTree ORDER BY n")
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(30_000))*time.Microsecond)
		var n uint64
		err := conn.QueryRow(ctx, "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))").Scan(&n)
		cancel()
		if err == nil {
			t.Fatal("got an answer, want none in that time")
		}
	}
	until(t, "no statement is left", func() bool {
		return scalar[uint64](t, conn, "SELECT count() FROM system.processes WHERE query LIKE '%numbers(100000000000)%' AND query NOT LIKE '%processes%'") == 0
	})
}
