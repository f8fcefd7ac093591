package retention

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/redact"
)

var costRows = flag.Int("cost.rows", 1_000_000, "rows that BenchmarkCost loads")

const (
	requestClass = "request@within-7d-of-account.deletion_requested"
	jobsClass    = "jobs/pro@30d-or-within-7d-of-account.deletion_requested"
	overClass    = "jobs/pro@30d"
	// Each account has rows in every partition, of twelve months and fourteen days.
	months, perMonth = 12, 60
	days, perDay     = 14, 20
	rowsPerAccount   = months*perMonth + days*perDay
)

// columns are those of a row as the ingester makes it, out of a number, an account
// u and an instant o.
const columns = `occurred_at, received_at, source, id, type, retention_class, bucket, retained_from, policy_version, src_topic, src_partition, src_offset,
	subject_keys, trace_id, span_id, http_request_method, http_route, url_path, network_protocol_version, client_country, user_agent_name, user_agent_version,
	user_agent_os, user_id, session_id, organization_id, workspace_id, service_name, service_version, region, plan_tier, data_category,
	http_response_status_code, http_server_request_duration, http_response_body_size`

const values = `o, o, '/svc/api', toString(generateUUIDv4(number)), 'com.example.request.completed.v1', '%[1]s', toDate('%[2]s'), toDateTime(o, 'UTC'), 'daestro-00000001',
	'lethe.request', number %% 4, %[3]d + number,
	['user:u_' || toString(u), 'session:k1:' || hex(cityHash64(number))], randomFixedString(16), randomFixedString(8),
	['GET', 'GET', 'GET', 'POST', 'PUT'][rand() %% 5 + 1], '/v1/workspaces/{id}/things-' || toString(rand(1) %% 150) || '/{thing}', '/v1/workspaces/' || toString(u %% 5000) || '/things/' || toString(rand(2) %% 100000),
	'2', ['DE', 'FR', 'IN', 'CA', 'US', 'BR', 'JP'][rand(3) %% 7 + 1], ['Firefox', 'Chrome', 'Safari', 'curl'][rand(4) %% 4 + 1], toString(117 + rand(5) %% 7),
	['Windows', 'macOS', 'Linux', 'iOS', 'Android'][rand(6) %% 5 + 1], 'u_' || toString(u), 'k1:' || hex(cityHash64(number)), 'org_' || toString(u %% 200), 'ws_' || toString(u %% 5000),
	'api', '1.42.0', 'ca-central', 'pro', '%[5]s', [200, 200, 201, 404, 500][rand(7) %% 5 + 1], rand(8) / 4294967295, rand(9) %% 100000
FROM (SELECT number, number %% %[6]d AS u, toDateTime64('%[2]s 00:00:00', 3, 'UTC') + intDiv(number * %[7]d, %[4]d) AS o FROM numbers(%[4]d))`

// load fills a partition.
func (w *world) load(class, category string, bucket time.Time, length time.Duration, rows, accounts int) {
	w.t.Helper()
	w.exec(fmt.Sprintf("INSERT INTO request_events ("+columns+") SELECT "+values+" SETTINGS max_execution_time = 0, optimize_on_insert = 0, async_insert = 0",
		class, bucket.Format(time.DateOnly), w.offset, rows, category, accounts, int(length.Seconds())))
	w.offset += int64(rows)
}

// spent is what something has cost.
type spent struct {
	wall, cpu time.Duration
	written   uint64 // bytes, into files
	read      uint64 // rows, by queries
}

// measure runs f.
func (w *world) measure(f func()) (s spent) {
	w.t.Helper()
	began, cpu := time.Now(), used()
	written, read := w.event("WriteBufferFromFileDescriptorWriteBytes"), w.event("SelectedRows")
	f()
	return spent{time.Since(began), used() - cpu, w.event("WriteBufferFromFileDescriptorWriteBytes") - written, w.event("SelectedRows") - read}
}

func (w *world) event(name string) (n uint64) {
	w.t.Helper()
	if err := w.conn.QueryRow(context.Background(), "SELECT sum(value) FROM system.events WHERE event = '"+name+"'").Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) number(text string) (n uint64) {
	w.t.Helper()
	if err := w.conn.QueryRow(context.Background(), text).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// used is the CPU time of this process, the engine's included.
func used() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed tells what of a sweep the mutation takes.
type timed struct {
	*world
	move spent
}

func (s *timed) Move(ctx context.Context, sweep event.Sweep, kind event.Kind) (err error) {
	s.move = s.measure(func() { err = s.Store.Move(ctx, sweep, kind) })
	return err
}

// BenchmarkCost moves and erases among cost.rows rows on the real engine, and beside
// it does what the engine can do at least: it changes or removes the rows of one key
// without an account of it. Each step can be run alone: -bench 'Cost/anchor_of_one'.
func BenchmarkCost(b *testing.B) {
	w := newWorld(b, "daestro")
	accounts := *costRows / rowsPerAccount
	w.exec("SYSTEM STOP TTL MERGES request_events")
	loaded := w.measure(func() {
		month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
		for range months {
			month = month.AddDate(0, -1, 0)
			w.load(requestClass, "", month, month.AddDate(0, 1, 0).Sub(month), perMonth*accounts, accounts)
		}
		day := now.Truncate(24 * time.Hour)
		for i := range days {
			w.load(jobsClass, "job_log", day.AddDate(0, 0, -2-i), 24*time.Hour, perDay*accounts, accounts)
		}
		w.load(overClass, "job_log", day.AddDate(0, 0, -31), 24*time.Hour, perDay*accounts, accounts) // all of it is over
	})
	for w.number("SELECT count() FROM system.merges WHERE database = currentDatabase()") > 0 {
		time.Sleep(time.Second)
	}
	b.Logf("loaded %d rows, %d parts, %d of them wide, %.2f GB on disk: %s", w.number("SELECT count() FROM request_events"), w.parts("1"), w.parts("part_type = 'Wide'"),
		float64(w.number("SELECT sum(bytes_on_disk) FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND active"))/1e9, loaded)

	nothing := func() []string { return nil }
	w.sweepCost(b, "a full sweep with nothing to move, 10,000 known accounts", w.anchors(10_000, "gone_"), 0)
	w.sweepCost(b, "the anchor of one account, in a full sweep", w.anchors(1, "u_4"), rowsPerAccount)
	w.sweepCost(b, "the anchors of a hundred accounts, in a full sweep", w.anchors(100, "u_1"), 100*rowsPerAccount)
	w.sweepCost(b, "a full sweep with nothing to move, the moved rows among what it looks at", nothing, 0)
	w.sweepCost(b, "erasing one subject", w.erase("a", 1, "u_2"), rowsPerAccount)
	w.sweepCost(b, "erasing a hundred subjects", w.erase("b", 100, "u_3"), 100*rowsPerAccount)
	w.expiryCost(b, "a day's rows go by TTL merges")

	w.engineCost(b, "the engine: ALTER UPDATE of one key", "ALTER TABLE request_events UPDATE expires_override = 4000000000 WHERE has(subject_keys, 'user:u_601') SETTINGS mutations_sync = 2")
	w.engineCost(b, "the engine: ALTER UPDATE of a hundred keys", "ALTER TABLE request_events UPDATE expires_override = 4000000000 WHERE match(user_id, '^u_5..$') SETTINGS mutations_sync = 2")
	w.engineCost(b, "the engine: ALTER DELETE of one key", "ALTER TABLE request_events DELETE WHERE has(subject_keys, 'user:u_602') SETTINGS mutations_sync = 2")
	w.engineCost(b, "the engine: lightweight DELETE of one key", "DELETE FROM request_events WHERE has(subject_keys, 'user:u_603') SETTINGS lightweight_deletes_sync = 2")
	w.engineCost(b, "the engine: APPLY DELETED MASK after it", "ALTER TABLE request_events APPLY DELETED MASK SETTINGS mutations_sync = 2")
}

func (s spent) String() string {
	return fmt.Sprintf("%.1f s, %.1f s of CPU, %.0f MB written, %.2f M rows read", s.wall.Seconds(), s.cpu.Seconds(), float64(s.written)/1e6, float64(s.read)/1e6)
}

func (w *world) parts(where string) uint64 {
	return w.number("SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'request_events' AND active AND " + where)
}

// anchors is a step's fact: n accounts, of numbers after a prefix, are to be deleted.
func (w *world) anchors(n int, prefix string) func() []string {
	return func() []string {
		w.t.Helper()
		var facts []event.Fact
		for i := range n {
			subject := fmt.Sprintf("user:%s%02d", prefix, i)
			facts = append(facts, event.Fact{Subject: subject, Action: "account.deletion_requested", OccurredAt: now, Source: "/svc", ID: subject, ReceivedAt: now, ForgetAt: now.AddDate(1, 0, 0)})
		}
		if err := w.WriteFacts(context.Background(), facts); err != nil {
			w.t.Fatal(err)
		}
		return nil
	}
}

// erase is a step's fact: the erasure of n accounts. It returns their subjects.
func (w *world) erase(id string, n int, prefix string) func() []string {
	return func() (subjects []string) {
		w.t.Helper()
		e := event.Erasure{ID: id, State: event.ErasureRequested, Until: now, Deadline: now.AddDate(0, 1, 0), Everywhere: now.AddDate(0, 2, 0), UpdatedAt: now, ForgetAt: now.AddDate(1, 0, 0)}
		for i := range n {
			subjects = append(subjects, fmt.Sprintf("user:%s%02d", prefix, i))
			e.Hashes = append(e.Hashes, marked(subjects[i])...)
		}
		if err := w.WriteErasureSubjects(context.Background(), id, subjects, now.AddDate(0, 1, 0)); err != nil {
			w.t.Fatal(err)
		}
		if err := w.WriteErasure(context.Background(), e); err != nil {
			w.t.Fatal(err)
		}
		return subjects
	}
}

// sweepCost enters facts and sweeps, the subjects that they return or all.
func (w *world) sweepCost(b *testing.B, what string, facts func() []string, want int) {
	b.Run(what, func(b *testing.B) {
		subjects := facts()
		s := &timed{world: w}
		var res Result
		var err error
		cost := w.measure(func() { res, err = w.sweeper(s).Sweep(context.Background(), subjects) })
		if err != nil {
			b.Fatal(err)
		}
		if res.Moved != want {
			b.Errorf("moved %d rows, want %d", res.Moved, want)
		}
		b.Logf("%d rows looked at, %d moved: %s; of it the mutation: %s", res.Rows, res.Moved, cost, s.move)
	})
}

func (w *world) engineCost(b *testing.B, what, text string) {
	b.Run(what, func(b *testing.B) { b.Log(w.measure(func() { w.exec(text) })) })
}

// expiryCost lets the TTL have what is over, and waits until it is gone.
func (w *world) expiryCost(b *testing.B, what string) {
	b.Run(what, func(b *testing.B) {
		const over = "SELECT count() FROM request_events WHERE expires_at <= now()"
		n := w.number(over)
		b.Logf("%d rows: %s", n, w.measure(func() {
			w.exec("SYSTEM START TTL MERGES request_events")
			for began := time.Now(); w.number(over) > 0; time.Sleep(time.Second) {
				if time.Since(began) > 20*time.Minute {
					b.Fatalf("%d rows are still there after 20 minutes", w.number(over))
				}
			}
		}))
	})
}

// BenchmarkFate asks of a row that arrives what becomes of it: with nothing known, with
// 10,000 deleted accounts and 1,000 erasures, none of them of its account, and the same
// where it occurred before one of the erasures, so that its subjects must be hashed.
func BenchmarkFate(b *testing.B) {
	p := load(b, "daestro")
	keys, err := redact.ParseKeys("k1=" + strings.Repeat("ab", 32))
	if err != nil {
		b.Fatal(err)
	}
	crowd := Source{Promises: p.Stored()}
	for i := range 10_000 {
		crowd.Facts = append(crowd.Facts, event.Fact{Subject: fmt.Sprint("user:gone_", i), Action: "account.deletion_requested", OccurredAt: start})
	}
	for i := range 1000 {
		crowd.Erasures = append(crowd.Erasures, event.Erasure{Hashes: keys.Fingerprints(fmt.Sprint("user:erased_", i)), Until: hour(1)})
	}
	for _, c := range []struct {
		name  string
		known Source
		at    time.Time
	}{{"nothing", Source{Promises: p.Stored()}, hour(2)}, {"crowd", crowd, hour(2)}, {"late", crowd, hour(0)}} {
		b.Run(c.name, func(b *testing.B) {
			facts := New(p, c.known, keys.Fingerprints)
			rows := make([]*event.Row, 20_000) // more accounts than the hashes that are remembered
			for i := range rows {
				rows[i] = row(requestClass, fmt.Sprint("u_", i), c.at)
				rows[i].SubjectKeys = append(rows[i].SubjectKeys, fmt.Sprint("session:k1:", i))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if fate := facts.Fate(rows[i%len(rows)]); fate.Erased {
					b.Fatal("erased")
				}
			}
		})
	}
}
