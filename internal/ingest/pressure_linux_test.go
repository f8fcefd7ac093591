package ingest

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/store"
)

// What fills the buffers in these tests.
const (
	pressureBatch = 64 << 10
	pressureFetch = 256 << 10
	aRecordBatch  = 256 << 10 // more than 500 events
	aChunk        = 64 << 10  // more than 64 rows
)

// pressure is an ingester whose database has troubles.
type pressure struct {
	*stack
	db *database
	r  *running

	published int                         // events
	bytes     int64                       // of them
	delay     atomic.Int64                // of each insert, in nanoseconds
	other     atomic.Pointer[store.Store] // inserts instead of the stack's; nil: that
	shared    atomic.Int32                // inserts of rows of a part
}

func newPressure(t *testing.T, size string) *pressure {
	t.Helper()
	db := newDatabase(t, size)
	broker := embeddedtest.Broker(t, t.TempDir(), "127.0.0.1:0", embedded.Topic{Name: topics[0], Partitions: 2}, embedded.Topic{Name: deadTopic, Partitions: 1})
	p := &pressure{stack: newStackAt(t, broker, db.dsn("")), db: db}
	p.r = p.start(func(o *Options) {
		f := &faults{storage: storage{p.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if d := time.Duration(p.delay.Load()); !sleep(ctx, d) {
				return ctx.Err()
			}
			if other := p.other.Load(); other != nil {
				return storage{other}.Insert(ctx, b, token)
			}
			return f.storage.Insert(ctx, b, token)
		}
		f.rows = func(context.Context) error { p.shared.Add(1); return nil }
		o.Storage, o.BatchBytes, o.FetchBytes, o.Patience = f, pressureBatch, pressureFetch, 300*time.Millisecond
		o.SessionTimeout, o.RebalanceTimeout = 30*time.Second, 30*time.Second
	})
	return p
}

// more publishes events to both partitions.
func (p *pressure) more(n int) {
	p.t.Helper()
	half := n / 2
	for partition := range 2 {
		values := requestEvents(p.published, p.published+half)
		p.publish(topics[0], partition, 0, values...)
		for _, v := range values {
			p.bytes += int64(len(v))
		}
		p.published += half
	}
}

// heap is how much of the heap is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools let go in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// inserting makes inserts go to the same tables with other settings or credentials.
func (p *pressure) inserting(dsn string) {
	p.t.Helper()
	s, err := store.Open(p.t.Context(), store.Options{DSN: dsn})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { s.Close() })
	p.other.Store(s)
}

// bounded waits for cond, and meanwhile holds that memory stays bounded.
func (p *pressure) bounded(what string, cond func() bool) {
	p.t.Helper()
	eventually(p.t, what, func() bool {
		if got, most := p.r.metric("batched_bytes"), 2*pressureBatch+2*aChunk; got > float64(most) {
			p.t.Fatalf("%s: batches hold %v bytes, want at most %d", what, got, most)
		}
		if got, most := p.r.metric("in_flight_bytes"), pressureFetch+aRecordBatch; got > float64(most) {
			p.t.Fatalf("%s: %v bytes are in flight, want at most %d", what, got, most)
		}
		return cond()
	})
}

// caughtUp waits until everything that was published is in the ledger.
func (p *pressure) caughtUp(when string) {
	p.t.Helper()
	p.bounded("caught up "+when, func() bool { return p.r.metric("offsets_total", "outcome=stored") == float64(p.published) })
	p.bounded("no lag "+when, func() bool { return p.r.metric("lag_events") == 0 })
	for _, part := range Parts {
		eventually(p.t, part+" is ready "+when, func() bool { return p.r.states.of(part) == "ready" })
	}
}

// outage is something that keeps ClickHouse from storing.
type outage struct {
	name, says   string // what /readyz tells of it
	begins, ends func(p *pressure)
}

// through takes the ingester through a trouble that lasts until three times what
// fills the buffers has come.
func (p *pressure) through(t *testing.T, c outage) {
	was := p.t
	p.t, p.r.t, p.db.t = t, t, t
	defer func() { p.t, p.r.t, p.db.t = was, was, was }()
	retries := p.r.metric("retries_total", "part="+partClickHouse)
	c.begins(p)
	const fills = 2000
	before := p.published
	p.more(fills)
	var last, same float64
	p.bounded("the buffers are full", func() bool {
		// The batch that is inserted may have been closed by its age, and small.
		batched, flying := p.r.metric("batched_bytes"), p.r.metric("in_flight_bytes")
		if same++; batched+flying != last {
			last, same = batched+flying, 0
		}
		return batched > pressureBatch && flying >= pressureFetch/2 && same >= 5
	})
	eventually(t, "paused, because "+c.says, func() bool {
		got := p.r.states.of(partClickHouse)
		return strings.HasPrefix(got, "paused: ") && strings.Contains(got, c.says)
	})
	held, came := heap(), p.bytes
	p.more(3 * fills)
	if p.delay.Load() == 0 {
		p.bounded("the lag tells all of it", func() bool { return p.r.metric("lag_events") >= float64(p.published-before-fills) })
		if got := p.r.metric("lag_seconds"); got <= 0 {
			t.Errorf("got a lag of %v seconds", got)
		}
	} else {
		p.bounded("the lag tells", func() bool { return p.r.metric("lag_events") >= fills })
	}
	// The broker in this process keeps records in files.
	if grown, came := heap()-held, p.bytes-came; grown > came {
		t.Errorf("the heap grew by %d bytes while %d were published", grown, came)
	}
	c.ends(p)
	p.caughtUp("after it ended")
	if got := p.r.metric("retries_total", "part="+partClickHouse); got == retries && !strings.Contains(c.says, "still waiting") {
		t.Errorf("got %v retries as before, want more", got)
	}
	if got := p.r.metric("stopped_partitions_total"); got != 0 {
		t.Errorf("got %v stopped partitions, want none", got)
	}
	if got := p.shared.Load(); got != 0 {
		t.Errorf("a transient error was looked for in single rows: %d inserts", got)
	}
}

// settled checks the account of everything.
func (p *pressure) settled() {
	p.t.Helper()
	p.r.stop()
	p.accounts(topics[0], p.published, p.published)
	p.digests()
	if got := found(p.verify(everything)); got != nil {
		p.t.Errorf("verify finds %q", got)
	}
}

func TestTroubleWithClickHouse(t *testing.T) {
	p := newPressure(t, "")
	p.more(100)
	p.caughtUp("before any trouble")
	statement := func(s string) func(*pressure) { return func(p *pressure) { p.query("%s", s) } }
	inserts := func(settings string) func(*pressure) { return func(p *pressure) { p.inserting(p.db.dsn(settings)) } }
	asBefore := func(p *pressure) { p.other.Store(nil) }
	for _, c := range []outage{
		{"slow: a second for each insert", "still waiting to insert a batch",
			func(p *pressure) { p.delay.Store(int64(time.Second)) }, func(p *pressure) { p.delay.Store(0) }},
		{"it refuses connections", "connection refused",
			func(p *pressure) { p.db.do("close") }, func(p *pressure) { p.db.do("open") }},
		{"it is killed", "connection refused", func(p *pressure) { p.db.kill() }, func(p *pressure) { p.db.start() }},
		{"it is frozen", "still waiting to insert a batch",
			func(p *pressure) { p.db.signal(syscall.SIGSTOP) }, func(p *pressure) { p.db.signal(syscall.SIGCONT) }},
		{"read-only", "READONLY (code 164)", inserts("?readonly=1"), asBefore},
		{"out of memory", "MEMORY_LIMIT_EXCEEDED (code 241)", inserts("?max_memory_usage=1000"), asBefore},
		{"too many parts", "TOO_MANY_PARTS (code 252)", func(p *pressure) {
			p.query("SYSTEM STOP MERGES request_events")
			p.query("ALTER TABLE request_events MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 1")
		}, func(p *pressure) {
			p.query("ALTER TABLE request_events RESET SETTING parts_to_delay_insert, parts_to_throw_insert")
			p.query("SYSTEM START MERGES request_events")
		}},
		{"the table is missing", "UNKNOWN_TABLE (code 60)",
			statement("RENAME TABLE request_events TO elsewhere"), statement("RENAME TABLE elsewhere TO request_events")},
	} {
		t.Run(c.name, func(t *testing.T) { p.through(t, c) })
	}
	p.settled()
}

func TestAFullDisk(t *testing.T) {
	p := newPressure(t, "96m")
	p.more(100)
	p.caughtUp("before any trouble")
	p.through(t, outage{"full", "NOT_ENOUGH_SPACE (code 243)", func(p *pressure) { p.db.do("fill") }, func(p *pressure) { p.db.do("free") }})
	p.settled()
}
