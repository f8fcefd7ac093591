package retention

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a database under a policy, and its storage as a Sweeper sees it.
type world struct {
	*store.Store
	t      testing.TB
	conn   driver.Conn
	policy *policy.Policy
	offset int64
}

func (w *world) Promises(context.Context) ([]policy.StoredClass, error) {
	return w.policy.Stored(), nil
}

func newWorld(t testing.TB, name string) *world {
	t.Helper()
	return newWorldUnder(t, load(t, name))
}

func newWorldUnder(t testing.TB, p *policy.Policy) *world {
	t.Helper()
	w := &world{t: t, policy: p}
	dsn := embeddedtest.ClickHouse(t)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: dsn, Policy: w.policy}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.Store, err = store.Open(t.Context(), store.Options{DSN: dsn}); err != nil {
		t.Fatal(err)
	}
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	options.ReadTimeout = time.Hour // a mutation of BenchmarkCost answers when it is done
	if w.conn, err = clickhouse.Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close(); w.Close() })
	return w
}

func (w *world) exec(text string) {
	w.t.Helper()
	if err := w.conn.Exec(context.Background(), text); err != nil {
		w.t.Fatal(err)
	}
}

// now is the tests' clock: the engine's own, so that what they store stays.
var now = time.Now().UTC().Truncate(time.Second)

// store keeps rows, each in a part of its own.
func (w *world) store(rows ...*event.Row) {
	w.t.Helper()
	for _, r := range rows {
		w.offset++
		r.ID, r.Source, r.Topic, r.Offset = "e"+strconv.FormatInt(w.offset, 10), "/svc/api", "lethe."+r.Kind.String(), w.offset
		if r.ReceivedAt.IsZero() {
			r.ReceivedAt = r.OccurredAt
		}
		for _, p := range w.policy.Stored() {
			if p.Key == r.Retention {
				r.Bucket = p.Period.Bucket(r.RetainedFrom)
			}
		}
		b := w.NewBatch()
		b.Add(r)
		if err := w.Insert(context.Background(), b, r.ID); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) fact(subject, action string, at time.Time) {
	w.t.Helper()
	f := event.Fact{Subject: subject, Action: action, OccurredAt: at, Source: "/svc/api", ID: action + at.String(), ReceivedAt: at, ForgetAt: at.AddDate(9, 0, 0)}
	if err := w.WriteFacts(context.Background(), []event.Fact{f}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sweeper(s Storage) *Sweeper {
	return NewSweeper(Options{Storage: s, Policy: w.policy, Hash: marked, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
}

// sweep runs over everything and returns how many rows it moved.
func (w *world) sweep() int {
	w.t.Helper()
	res, err := w.sweeper(w).Sweep(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.Moved
}

// expiries returns when each audit row expires, says ClickHouse.
func (w *world) expiries() map[string]time.Time {
	w.t.Helper()
	rows, err := w.conn.Query(context.Background(), "SELECT id, expires_at FROM audit_events")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	all := make(map[string]time.Time)
	for rows.Next() {
		var id string
		var at time.Time
		if err := rows.Scan(&id, &at); err != nil {
			w.t.Fatal(err)
		}
		all[id] = at.UTC()
	}
	return all
}

func (w *world) want(why string, want map[string]time.Time) {
	w.t.Helper()
	if got := w.expiries(); !maps.EqualFunc(got, want, time.Time.Equal) {
		w.t.Errorf("%s: got %v, want %v", why, got, want)
	}
}

func TestSweepMovesWhatAnAnchorSaysAndBack(t *testing.T) {
	w := newWorld(t, "bstrapr")
	const class = "account@90d-after-account.deleted"
	deleted := now.AddDate(0, 0, -10)
	mine, other := row(class, "u", now.AddDate(0, -5, 0)), row(class, "v", now.AddDate(0, -5, 0))
	w.store(mine, other)
	if n := w.sweep(); n != 0 {
		t.Errorf("nothing is known and %d rows were moved", n)
	}
	w.fact("user:u", "account.deleted", deleted)
	w.fact("user:u", "account.deleted", deleted.AddDate(0, 0, 3)) // told twice
	if n := w.sweep(); n != 1 {
		t.Errorf("moved %d rows, want the one", n)
	}
	end := deleted.AddDate(0, 0, 90)
	w.want("deleted", map[string]time.Time{"e1": end, "e2": policy.Sentinel})
	late := row(class, "u", now.AddDate(0, -1, 0))
	w.store(late)
	if n := w.sweep(); n != 1 {
		t.Errorf("moved %d rows, want the late one", n)
	}
	if n := w.sweep(); n != 0 {
		t.Errorf("moved %d rows that are where they must be", n)
	}
	w.fact("user:u", "account.deleted", deleted.AddDate(0, 0, -5)) // the first one, told last
	if n := w.sweep(); n != 2 {
		t.Errorf("moved %d rows, want both", n)
	}
	w.want("told late", map[string]time.Time{"e1": end.AddDate(0, 0, -5), "e2": policy.Sentinel, "e3": end.AddDate(0, 0, -5)})
	w.fact("user:u", "account.restored", now.AddDate(0, 0, -1))
	if n := w.sweep(); n != 2 {
		t.Errorf("moved %d rows, want both back", n)
	}
	w.want("restored", map[string]time.Time{"e1": policy.Sentinel, "e2": policy.Sentinel, "e3": policy.Sentinel})
}

func TestTwoSweepsAtOnceMoveARowOnce(t *testing.T) {
	w := newWorld(t, "bstrapr")
	const class, rows = "account@90d-after-account.deleted", 20
	for i := range rows {
		w.store(row(class, "u"+strconv.Itoa(i%4), now.AddDate(0, -5, i)))
		w.fact("user:u"+strconv.Itoa(i%4), "account.deleted", now.AddDate(0, 0, -10))
	}
	var both sync.WaitGroup
	var results [2]Result
	var errs [2]error
	for i := range 2 {
		both.Go(func() { results[i], errs[i] = w.sweeper(w).Sweep(context.Background(), nil) })
	}
	both.Wait()
	for i, err := range errs {
		if err != nil && !errors.Is(err, ErrOvertaken) {
			t.Errorf("sweep %d: %v", i, err)
		}
	}
	if errs[0] != nil && errs[1] != nil {
		t.Errorf("nobody did the work: %v, %v", errs[0], errs[1])
	}
	end := now.AddDate(0, 0, -10).AddDate(0, 0, 90)
	for id, at := range w.expiries() {
		if !at.Equal(end) {
			t.Errorf("%s expires at %s, want %s", id, at, end)
		}
	}
	if n := w.sweep(); n != 0 {
		t.Errorf("%d rows were moved again", n)
	}
}

// brokenStorage fails where a process would be killed.
type brokenStorage struct {
	Storage
	moves, ends bool
}

var errKilled = errors.New("killed")

func (b brokenStorage) Move(ctx context.Context, s event.Sweep, kind event.Kind) error {
	if b.moves {
		return errKilled
	}
	return b.Storage.Move(ctx, s, kind)
}

func (b brokenStorage) EndSweep(ctx context.Context, s event.Sweep, moved int) (bool, error) {
	if b.ends {
		return false, errKilled
	}
	return b.Storage.EndSweep(ctx, s, moved)
}

func TestASweepThatIsKilledIsMadeGoodByTheNext(t *testing.T) {
	w := newWorld(t, "infratrace")
	deleted := now.AddDate(0, 0, -2)
	for name, broken := range map[string]brokenStorage{"before the rows are moved": {w, true, false}, "after": {w, false, true}} {
		t.Run(name, func(t *testing.T) {
			w.store(row("audit@within-30d-of-account.deleted", name, now.AddDate(0, -5, 0)))
			w.fact("user:"+name, "account.deleted", deleted)
			if _, err := w.sweeper(broken).Sweep(t.Context(), nil); !errors.Is(err, errKilled) {
				t.Fatalf("got %v", err)
			}
			w.sweep()
			for id, at := range w.expiries() {
				if want := deleted.AddDate(0, 0, 29); !at.Equal(want) { // thirty days, less the grace
					t.Errorf("%s expires at %s, want %s", id, at, want)
				}
			}
		})
	}
}

// While anything is held, what ended it is not forgotten: all sweeps over all rows see to that.
func TestFactsAreKeptWhileAnythingIsHeld(t *testing.T) {
	w := newWorld(t, "bstrapr")
	soon := now.AddDate(0, 0, 20)
	f := event.Fact{Subject: "user:u", Action: "account.deleted", OccurredAt: now.AddDate(0, 0, -90), Source: "/svc/api", ID: "1", ReceivedAt: now, ForgetAt: soon}
	if err := w.WriteFacts(t.Context(), []event.Fact{f}); err != nil {
		t.Fatal(err)
	}
	sweep := func(why string, subjects []string, want time.Time) {
		t.Helper()
		if _, err := w.sweeper(w).Sweep(t.Context(), subjects); err != nil {
			t.Fatal(err)
		}
		var got time.Time
		if err := w.conn.QueryRow(t.Context(), "SELECT max(forget_at) FROM anchors").Scan(&got); err != nil || !got.Equal(want) {
			t.Errorf("%s: the fact is kept until %s, %v, want %s", why, got, err, want)
		}
	}
	sweep("nothing is held", nil, soon)
	h := event.Hold{ID: "h", Subjects: []string{"user:v"}, PlacedAt: now, UpdatedAt: now, ForgetAt: policy.Sentinel}
	if err := w.WriteHold(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	sweep("a sweep of some", h.Subjects, soon)
	sweep("a sweep of all", nil, now.Add(2*keptAhead))
}

// await tries until ok, as long as ClickHouse needs.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func TestKeeperErasesUntilNothingIsLeft(t *testing.T) {
	w := newWorld(t, "bstrapr")
	w.exec("ALTER TABLE audit_events MODIFY SETTING merge_with_ttl_timeout = 1, old_parts_lifetime = 1, cleanup_delay_period = 1, max_cleanup_delay_period = 1, cleanup_delay_period_random_add = 0")
	mine, held, bill, back, other := row("usage@2y", "u", now.AddDate(0, -1, 0)), row("usage@2y", "u", now.AddDate(0, -2, 0)), row("billing@7y", "u", now.AddDate(0, -3, 0)),
		row("usage@2y", "u", now.Add(time.Minute)), row("usage@2y", "v", now.AddDate(0, -1, 0))
	held.SubjectKeys = append(held.SubjectKeys, "user:suspect")
	ahead := row("usage@2y", "u", now.Add(3*time.Minute))
	ahead.ReceivedAt = now.Add(-time.Hour) // by a clock that is ahead it came after the request
	w.store(mine, ahead, held, bill, back, other)
	if err := w.WriteHold(t.Context(), event.Hold{ID: "h", Subjects: []string{"user:suspect"}, Reason: "court", PlacedAt: now, UpdatedAt: now, ForgetAt: now.AddDate(9, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteErasureSubjects(t.Context(), "e", []string{"user:u"}, now.AddDate(0, 0, 30)); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteErasure(t.Context(), event.Erasure{ID: "e", Scope: "subject", State: event.ErasureRequested, Hashes: marked("user:u"), Until: now, Deadline: now.AddDate(0, 0, 30),
		Everywhere: now.AddDate(0, 0, 90), UpdatedAt: now, ForgetAt: now.AddDate(0, 0, 91)}); err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	k, err := NewKeeper(Options{Storage: w, Policy: w.policy, Hash: marked, Now: time.Now, Look: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := k.Fate(mine); !f.Erased || f.Visible(now, true) {
		t.Errorf("got %+v before any sweep, want it erased", f)
	}
	if f := k.Fate(back); f.Erased {
		t.Error("what came after the request is about somebody new")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	var e event.Erasure
	await(t, "the erasure to be done", func() bool {
		all, err := w.Erasures(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e = all[0]; e.State == event.ErasureMoved {
			w.exec("OPTIMIZE TABLE audit_events FINAL") // by itself it would take up to 80 s, and the parts behind it half a minute
		}
		return testutil.ToFloat64(k.metrics.erasures.WithLabelValues("done")) == 1
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if e.ErasedRows != 2 || e.KeptRows != 2 {
		t.Errorf("got %d rows erased and %d kept, want 2 and 2", e.ErasedRows, e.KeptRows)
	}
	if !e.ForgetAt.Equal(policy.Sentinel) {
		t.Errorf("while a row is held the erasure is forgotten at %s", e.ForgetAt)
	}
	w.want("erased", map[string]time.Time{held.ID: policy.Sentinel, bill.ID: bill.RetainedFrom.AddDate(7, 0, 0), back.ID: back.RetainedFrom.AddDate(2, 0, 0), other.ID: other.RetainedFrom.AddDate(2, 0, 0)})

	// The hold is released after the erasure was done: it is not any more, until that row is gone.
	later := time.Now()
	if err := w.WriteHold(t.Context(), event.Hold{ID: "h", Subjects: []string{"user:suspect"}, Reason: "court", PlacedAt: now, ReleasedAt: later, UpdatedAt: later, ForgetAt: now.AddDate(9, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	state := func() event.Erasure {
		all, err := w.Erasures(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	w.sweep()
	if e := state(); e.State != event.ErasureMoved || e.ErasedRows != 3 || e.KeptRows != 1 || e.KeptReason != "statute" {
		t.Errorf("released: got %s, %d rows erased and %d kept by a %s, want moved, 3, 1, statute", e.State, e.ErasedRows, e.KeptRows, e.KeptReason)
	}
	await(t, "the erasure to be done again", func() bool {
		w.exec("OPTIMIZE TABLE audit_events FINAL")
		if err := w.sweeper(w).Erasures(t.Context()); err != nil {
			t.Fatal(err)
		}
		return state().State == event.ErasureDone
	})
	if e := state(); e.ErasedRows != 3 || e.KeptRows != 1 {
		t.Errorf("got %d rows erased and %d kept, want 3 and 1", e.ErasedRows, e.KeptRows)
	}
}
