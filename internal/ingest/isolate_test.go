package ingest

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish/replay"
)

// marked is a value that a table does not take once refuseMarked was called.
const marked = "marked"

func (s *stack) refuseMarked() {
	for _, k := range event.Kinds {
		s.query("ALTER TABLE %s ADD CONSTRAINT unmarked CHECK service_name != '%s'", k.Table(), marked)
	}
}

func (s *stack) takeMarked() {
	for _, k := range event.Kinds {
		s.query("ALTER TABLE %s DROP CONSTRAINT unmarked", k.Table())
	}
}

// eventsOf returns n events of a kind, those at the given places marked. Request
// events are of several classes.
func eventsOf(kind event.Kind, n int, marks ...int64) []string {
	values := make([]string, n)
	for i := range values {
		more := ""
		if slices.Contains(marks, int64(i)) {
			more = `,"service.name":"` + marked + `"`
		}
		if kind == event.Request {
			values[i] = requestEvent(i, more+`,"plan.tier":"`+[]string{"free", "pro", "enterprise"}[i%3]+`"`)
			continue
		}
		values[i] = fmt.Sprintf(`{"specversion":"1.0","id":"e-%d","source":"/svc/auth","type":"login","time":"%s",
"data":{"event.action":"login","event.outcome":"failure","user.id":"u_%d","client.address":"203.0.113.7"%s}}`,
			i, time.Now().UTC().Add(-time.Hour).Format(time.RFC3339Nano), i%7, more)
	}
	return values
}

// newStackOfAll has every topic in two partitions and the dead letters in one.
func newStackOfAll(t *testing.T) *stack {
	t.Helper()
	made := []embedded.Topic{{Name: deadTopic, Partitions: 1}}
	for _, name := range topics {
		made = append(made, embedded.Topic{Name: name, Partitions: 2})
	}
	return newStackWith(t, made...)
}

// deadRuns lists the ledger's dead runs as "topic/partition first-last".
func (s *stack) deadRuns() string {
	return s.query(`SELECT concat(topic, '/', toString(partition), ' ', toString(first), '-', toString(last)) FROM (
		SELECT topic, partition, other.first AS first, other.last AS last, other.outcome AS outcome FROM ingest_ledger ARRAY JOIN other)
		WHERE outcome = 'dead' ORDER BY ALL`)
}

func TestRefusedRowsBecomeDeadLetters(t *testing.T) {
	embeddedtest.ClickHouse(t) // one engine for all cases
	const each, parts = 60, 5  // rows of a partition, parts of the batch: three classes of request events, and two tables
	cases := []struct {
		name  string
		marks map[place][]int64
		runs  []string
	}{
		{"the first", map[place][]int64{{topics[0], 0}: {0}}, []string{"lethe.request/0 0-0"}},
		{"one in the middle", map[place][]int64{{topics[1], 1}: {30}}, []string{"lethe.audit/1 30-30"}},
		{"the last", map[place][]int64{{topics[2], 1}: {59}}, []string{"lethe.security/1 59-59"}},
		{"several, in all tables, classes and partitions", map[place][]int64{
			{topics[0], 0}: {3, 4, 5, 41}, {topics[0], 1}: {0, 59}, {topics[1], 0}: {59}, {topics[2], 1}: {10, 11},
		}, []string{"lethe.audit/0 59-59", "lethe.request/0 3-5", "lethe.request/0 41-41", "lethe.request/1 0-0", "lethe.request/1 59-59", "lethe.security/1 10-11"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newStackOfAll(t)
			s.refuseMarked()
			for kind, topic := range topics {
				for p := range 2 {
					s.publish(topic, p, kafka.Lz4, eventsOf(event.Kind(kind), each, c.marks[place{topic, int32(p)}]...)...)
				}
			}
			const all = each * 2 * event.NumKinds
			var inserts atomic.Int32
			f := &faults{storage: storage{s.store}, rows: func(context.Context) error { inserts.Add(1); return nil }}
			r := s.start(func(o *Options) { o.Storage, o.BatchRows, o.BatchAge = f, all, time.Minute })
			eventually(t, "all offsets in the ledger", func() bool { return s.query("SELECT count() FROM ingest_ledger") == "6" })
			refused := 0
			for _, m := range c.marks {
				refused += len(m)
			}
			if got, most := int(inserts.Load()), parts+2*refused*bits.Len(2*each); got > most {
				t.Errorf("got %d inserts for %d refused rows, want at most %d", got, refused, most)
			}
			if got, want := s.deadRuns(), strings.Join(c.runs, "\n"); got != want {
				t.Errorf("the ledger has as dead\n%s\nwant\n%s", got, want)
			}
			if got := found(s.verify(everything)); got != nil {
				t.Errorf("verify finds %q", got)
			}
			for outcome, want := range map[string]int{"stored": all - refused, "dead": refused} {
				for _, name := range []string{"offsets_total", "events_total"} {
					if got := r.metric(name, "outcome="+outcome); got != float64(want) {
						t.Errorf("%s of %s: got %v, want %d", name, outcome, got, want)
					}
				}
			}
			for _, part := range []string{partClickHouse, partPartitions} {
				if got := r.states.of(part); got != "ready" {
					t.Errorf("state of %s: got %q, want ready", part, got)
				}
			}
			entered := all // offsets with a row, in all entries
			if refused > 1 {
				done, err := r.reread(t.Context(), s, topics[0], 0, each-1, nil)
				if err != nil || done.Counts[ledger.Dead] != uint64(len(c.marks[place{topics[0], 0}])) || s.countLetters() != int64(refused) {
					t.Errorf("replayed while the rows are refused: got %+v and %v, with %d letters", done, err, s.countLetters())
				}
				entered += int(done.Counts[ledger.Stored])
			}
			r.stop()
			counts := make(map[string]int) // by publisher
			for _, m := range s.letters(refused) {
				h := headers(m)
				publisher := "/svc/auth"
				if h["lethe-topic"] == topics[0] {
					publisher = "/svc/api"
				}
				counts[publisher]++
				if h["lethe-reason"] != reasonRefused || h["lethe-form"] != "redacted" || h[headerSeal] == "" || strings.Contains(string(m.Value), "203.0.113.7") {
					t.Errorf("a letter has headers %v and value %s", h, m.Value)
				}
			}
			for publisher, want := range counts {
				if got := s.query(`SELECT sum(count) FROM dead_letters WHERE reason = '%s' AND publisher = '%s'`, reasonRefused, publisher); got != fmt.Sprint(want) {
					t.Errorf("dead letters of %s: the table counts %s, want %d", publisher, got, want)
				}
				if got := r.metric("events_total", "outcome=dead", "reason="+reasonRefused, "publisher="+publisher); got != float64(want) {
					t.Errorf("dead letters of %s: the metric says %v, want %d", publisher, got, want)
				}
			}
			if refused == 1 {
				return
			}

			s.takeMarked()
			state := t.TempDir() + "/state.json"
			want := []replay.Count{{Reason: reasonRefused, Publisher: "/svc/api", Replayed: 6}, {Reason: reasonRefused, Publisher: "/svc/auth", Replayed: 3}}
			for _, dry := range []bool{true, false} {
				if got := s.replay(state, reasonRefused, func(o *replay.Options) { o.DryRun = dry }).Counts; !slices.Equal(got, want) {
					t.Errorf("replayed, dry %v: got %+v, want %+v", dry, got, want)
				}
			}
			again := s.start(nil)
			eventually(t, "the replays are stored", func() bool {
				return s.query("SELECT sum(stored) FROM ingest_ledger") == fmt.Sprint(entered)
			})
			again.stop()
			if got := found(s.verify(everything)); got != nil {
				t.Errorf("after the replay verify finds %q", got)
			}
			if got, want := s.query("SELECT count() FROM request_events FINAL WHERE service_name = '%s'", marked), "6"; got != want {
				t.Errorf("got %s of the request events that were refused, want %s", got, want)
			}
		})
	}
}

func headers(m kafka.Message) map[string]string {
	h := make(map[string]string)
	for _, x := range m.Headers {
		h[x.Key] = string(x.Value)
	}
	return h
}

// A process that dies half way has stored some of the batch and nothing of it is
// in the ledger.
func TestKillBetweenTheHalves(t *testing.T) {
	s := newStackOfAll(t)
	s.refuseMarked()
	s.publish(topics[0], 0, kafka.Lz4, eventsOf(event.Request, 90, 7, 70)...)
	reached := make(chan struct{})
	var inserts atomic.Int32
	first := s.start(func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.rows = func(ctx context.Context) error {
			switch n := inserts.Add(1); {
			case n < 8:
				return nil
			case n == 8:
				close(reached)
			}
			<-ctx.Done()
			return ctx.Err()
		}
		o.Storage, o.BatchRows, o.BatchAge, o.StopTimeout = f, 90, time.Minute, 100*time.Millisecond
	})
	<-reached
	first.stop()
	if rows := s.query("SELECT count() FROM request_events"); rows == "0" || rows == "88" || s.query("SELECT count() FROM ingest_ledger") != "0" {
		t.Fatalf("%s rows are stored, want some and no ledger", rows)
	}
	second := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], 90))
	second.stop()
	s.accounts(topics[0], 90, 88)
	s.digests()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("verify finds %q", got)
	}
	var dead []string
	for _, m := range s.letters(2) {
		dead = append(dead, headers(m)["lethe-offset"])
	}
	slices.Sort(dead)
	if want := []string{"7", "70"}; !slices.Equal(dead, want) {
		t.Errorf("the letters are of offsets %q, want %q", dead, want)
	}
}

// What is wrong with a table makes no dead letters of a topic: its partitions stop,
// and the others go on.
func TestAFaultOfTheTableStopsItsPartitions(t *testing.T) {
	embeddedtest.ClickHouse(t)
	for name, c := range map[string]struct{ spoil, mend, says string }{
		"a constraint that nothing fulfils": {
			"ALTER TABLE request_events ADD CONSTRAINT nothing CHECK 0", "ALTER TABLE request_events DROP CONSTRAINT nothing", "VIOLATED_CONSTRAINT (code 469)"},
		"a column of another type": {
			"ALTER TABLE request_events MODIFY COLUMN policy_version UInt64", "ALTER TABLE request_events MODIFY COLUMN policy_version LowCardinality(String)", "CANNOT_PARSE_TEXT (code 6)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStackOfAll(t)
			s.query("%s", c.spoil)
			const each = maxRefused + 10
			s.publish(topics[0], 0, kafka.Lz4, eventsOf(event.Request, each)...)
			s.publish(topics[0], 1, kafka.Lz4, eventsOf(event.Request, each)...)
			s.publish(topics[1], 0, kafka.Lz4, eventsOf(event.Audit, each)...)
			r := s.start(func(o *Options) { o.BatchRows, o.BatchAge = 3*each, time.Second })
			for p := range 2 {
				want := fmt.Sprintf("lethe.request/%d is stopped: ClickHouse refuses offsets 0 to %d for good: insert a batch: insert request_events: ClickHouse says %s", p, each-1, c.says)
				eventually(t, want, func() bool { return strings.Contains(r.states.of(partPartitions), want) })
			}
			eventually(t, "the audit events are stored", s.done(topics[1], each))
			r.stop()
			if got := s.query("SELECT count() FROM dead_letters"); got != "0" {
				t.Errorf("got %s counts of dead letters, want none", got)
			}
			if got := r.metric("stopped_partitions_total"); got != 2 {
				t.Errorf("got %v stopped partitions, want 2", got)
			}
			s.query("%s", c.mend)
			again := s.start(nil)
			eventually(t, "all offsets in the ledger", s.done(topics[0], 2*each))
			again.stop()
			if got, want := s.query("SELECT sum(stored) FROM ingest_ledger"), fmt.Sprint(3*each); got != want {
				t.Errorf("got %s stored, want %s", got, want)
			}
			if got := found(s.verify(everything)); got != nil {
				t.Errorf("verify finds %q", got)
			}
		})
	}
}

// A topic with little traffic must not die away row by row either.
func TestRefusedRowsAreCountedOverBatches(t *testing.T) {
	s := newStackOfAll(t)
	s.refuseMarked()
	const each = maxRefused / 2
	marks := make([]int64, each)
	for i := range marks {
		marks[i] = int64(i)
	}
	r := s.start(nil)
	next := 0
	come := func(values ...string) {
		next += len(values)
		s.publish(topics[0], 0, 0, values...)
	}
	for round := range 3 {
		come(eventsOf(event.Request, each, marks...)...)
		if round == 1 { // one row is stored, and the count begins anew
			come(requestEvent(1000, ""))
		}
		eventually(t, "all offsets in the ledger", s.done(topics[0], next))
	}
	at := next
	come(eventsOf(event.Request, each, marks...)...)
	eventually(t, "as many again", s.done(topics[0], next))
	come(requestEvent(0, `,"service.name":"`+marked+`"`))
	eventually(t, "one more, and the partition stops", func() bool {
		return strings.HasPrefix(r.states.of(partPartitions), "broken: lethe.request/0 is stopped")
	})
	r.stop()
	if got, want := s.query("SELECT sum(dead) FROM ingest_ledger"), fmt.Sprint(at-1+each); got != want {
		t.Errorf("got %s dead, want %s", got, want)
	}
	s.takeMarked()
	again := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], next))
	again.stop()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("verify finds %q", got)
	}
}

func TestARefusedRecordIsReadAgain(t *testing.T) { readAgain(t, newStackOfAll(t)) }

// readAgain has a record refused that lies in the middle of a large batch.
func readAgain(t *testing.T, s *stack) {
	s.refuseMarked()
	s.publish(s.topics[0], 0, kafka.Zstd, eventsOf(event.Request, 500, 250)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 500))
	r.stop()
	s.accounts(s.topics[0], 500, 499)
	s.digests()
	m := s.letters(1)[0]
	if h := headers(m); h["lethe-offset"] != "250" || h["lethe-form"] != "redacted" || h[headerSeal] == "" || !strings.Contains(string(m.Value), `"id":"e-250"`) {
		t.Errorf("got headers %v and value %s", h, m.Value)
	}
}

// A refused row whose record is gone meanwhile leaves a letter without payload.
func TestARefusedRowWhoseRecordIsGone(t *testing.T) {
	s := newStackOfAll(t)
	s.refuseMarked()
	s.publish(topics[0], 0, 0, eventsOf(event.Request, 10, 4)...)
	var once sync.Once
	r := s.start(func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			once.Do(func() { s.deleteRecords(topics[0], 0, 8) })
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage = f
	})
	eventually(t, "all offsets in the ledger", s.done(topics[0], 10))
	r.stop()
	m := s.letters(1)[0]
	if h := headers(m); h["lethe-form"] != "coordinates" || h["lethe-offset"] != "4" || h["lethe-reason"] != reasonRefused || h[headerSeal] != "" {
		t.Errorf("got headers %v", h)
	}
	if got := s.replay(t.TempDir()+"/state.json", reasonRefused).Sum; got != (replay.Count{Gone: 1}) {
		t.Errorf("replayed: got %+v, want one that is gone", got)
	}
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("verify finds %q", got)
	}
}
