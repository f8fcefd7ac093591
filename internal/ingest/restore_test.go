package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/internal/verify"
)

// refusing is a storage that fails on one statement while it is told to.
type refusing struct {
	Storage
	inserts, ledger atomic.Bool
	refused         atomic.Int32
}

var errRefused = errors.New("refused for a test")

func (s *refusing) Insert(ctx context.Context, b Batch, token string) error {
	if s.inserts.Load() {
		s.refused.Add(1)
		return errRefused
	}
	return s.Storage.Insert(ctx, b, token)
}

func (s *refusing) WriteErasure(ctx context.Context, e event.Erasure) error {
	if s.ledger.Load() {
		s.refused.Add(1)
		return errRefused
	}
	return s.Storage.WriteErasure(ctx, e)
}

// behind are the partitions of which the ledger lacks what was committed.
func (s *stack) behind() []string {
	s.t.Helper()
	survey, err := NewSurvey(s.t.Context(), SurveyOptions{Brokers: s.kafka.Brokers, Transport: s.transport(), Group: s.group, Topics: s.topics[:], DeadTopic: s.dead})
	if err != nil {
		s.t.Fatal(err)
	}
	found, err := survey.Behind(s.t.Context(), s.store.LedgerEnds)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, p := range found {
		names = append(names, place{p.Topic, p.Partition}.String())
	}
	slices.Sort(names)
	return names
}

func TestBehindUntilItIsReadAgain(t *testing.T) { onBoth(t, 1, behindUntilItIsReadAgain) }

// While a restored ledger lacks what was committed, that can be seen, also after the
// ingester has begun to read it again and has committed.
func behindUntilItIsReadAgain(t *testing.T, s *stack) {
	topic := s.topics[event.Request]
	if got := s.behind(); got != nil {
		t.Errorf("without a group: got %q", got)
	}
	s.publish(topic, 0, 0, requestEvents(0, 100)...)
	first := s.start(func(o *Options) { o.BatchRows = 64 })
	eventually(t, "all offsets in the ledger", s.done(topic, 100))
	first.stop()
	if got := s.behind(); got != nil {
		t.Errorf("everything is done: got %q", got)
	}
	s.query(`ALTER TABLE ingest_ledger DELETE WHERE last > 63 SETTINGS mutations_sync = 2`)
	want := []string{topic + "/0"}
	if got := s.behind(); !slices.Equal(got, want) {
		t.Errorf("restored: got %q, want %q", got, want)
	}
	failing := &refusing{Storage: storage{s.store}}
	failing.inserts.Store(true)
	second := s.start(func(o *Options) { o.Storage = failing })
	eventually(t, "the ingester tries to store", func() bool { return failing.refused.Load() > 2 })
	if got := s.behind(); !slices.Equal(got, want) {
		t.Errorf("while it is read again: got %q, want %q", got, want)
	}
	failing.inserts.Store(false)
	eventually(t, "all offsets in the ledger", s.done(topic, 100))
	if got := s.behind(); got != nil {
		t.Errorf("read again: got %q", got)
	}
	s.publish(topic, 0, 0, requestEvents(100, 110)...)
	eventually(t, "what came later is committed as well", func() bool { return len(s.behind()) == 0 && s.done(topic, 110)() })
	second.stop()
	s.query("TRUNCATE TABLE ingest_ledger")
	if got := s.behind(); !slices.Equal(got, want) {
		t.Errorf("with an empty ledger: got %q, want %q", got, want)
	}
}

// recorded is the event that records an erasure or a hold.
func recorded(t *testing.T, id, action, target string, metadata map[string]string) string {
	t.Helper()
	text, err := json.Marshal(metadata)
	if err != nil {
		t.Fatal(err)
	}
	return auditEvent(id, action, time.Minute, `,"target.id":"`+target+`","metadata":`+string(text))
}

func TestErasuresAndHoldsAreLearned(t *testing.T) { onBoth(t, 1, erasuresAndHoldsAreLearned) }

func erasuresAndHoldsAreLearned(t *testing.T, s *stack) {
	rules := tiers(t)
	hash := func(subject string) []string { return []string{"k1:" + strings.ReplaceAll(subject, " ", "_")} }
	at := time.Now().UTC().Truncate(time.Second)
	e := event.Erasure{ID: "e-1", Scope: "subject", Hashes: hash("user:u_1"), Until: at.Add(-time.Hour), Deadline: at.AddDate(0, 0, 30), Everywhere: at.AddDate(0, 0, 90),
		PolicyVersion: rules.Version, ForgetAt: at.AddDate(0, 0, 91)}
	over := e
	over.ID, over.ForgetAt = "e-over", at.Add(-time.Minute)
	done := e
	done.ID, done.State, done.ErasedRows, done.UpdatedAt = "e-done", event.ErasureDone, 7, at.Add(-30*time.Minute)
	forged := retention.Record(e, hash)
	forged["hashes.0"] = hash("user:u_2")[0]
	h := event.Hold{ID: "h-1", Hashes: hash("user:u_3"), Reason: "case 1", PlacedAt: at.Add(-2 * time.Hour), ForgetAt: policy.Sentinel}
	released := h
	released.ReleasedAt, released.ForgetAt = at.Add(-time.Hour), at.AddDate(0, 0, 90)
	if err := s.store.WriteErasure(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	topic := s.topics[event.Audit]
	s.publish(topic, 0, 0,
		recorded(t, "a-1", retention.ErasureRequested, e.ID, retention.Record(e, hash)),
		recorded(t, "a-2", retention.ErasureRequested, over.ID, retention.Record(over, hash)),
		recorded(t, "a-3", retention.ErasureRequested, done.ID, retention.Record(done, hash)),
		recorded(t, "a-4", retention.ErasureRequested, "e-forged", forged),
		recorded(t, "a-5", retention.HoldReleased, h.ID, retention.RecordHold(released, hash)), // out of order
		recorded(t, "a-6", retention.HoldPlaced, h.ID, retention.RecordHold(h, hash)),
	)
	failing := &refusing{Storage: storage{s.store}}
	failing.ledger.Store(true)
	r := s.start(func(o *Options) {
		o.Known, o.Storage = retention.New(rules, retention.Source{Promises: rules.Stored()}, hash), failing
	})
	eventually(t, "an erasure to be written", func() bool { return failing.refused.Load() > 2 })
	if got := s.query("SELECT count() FROM ingest_ledger"); got != "0" {
		t.Error("the ledger has the record, and the table has not the erasure")
	}
	failing.ledger.Store(false)
	eventually(t, "all offsets in the ledger", s.done(topic, 6))
	r.stop()
	if got := r.metric("unlearned_records_total"); got != 1 {
		t.Errorf("%v records are counted as not usable, want the forged one", got)
	}
	if got := s.query("SELECT sum(stored) FROM ingest_ledger"); got != "6" {
		t.Errorf("%s records are stored, want all 6", got)
	}
	erasures, err := s.store.Erasures(t.Context())
	if err != nil || len(erasures) != 2 {
		t.Fatalf("got %+v, %v, want two erasures", erasures, err)
	}
	if got := erasures[0]; got.ID != e.ID || got.State != event.ErasureRequested || !slices.Equal(got.Hashes, e.Hashes) || !got.Until.Equal(e.Until) || !got.Deadline.Equal(e.Deadline) {
		t.Errorf("got %+v, want %+v", got, e)
	}
	if got := erasures[1]; got.State != event.ErasureDone || got.ErasedRows != 7 {
		t.Errorf("what is known was overwritten: %+v", got)
	}
	holds, err := s.store.Holds(t.Context())
	if err != nil || len(holds) != 1 || !holds[0].ReleasedAt.Equal(released.ReleasedAt) || !slices.Equal(holds[0].Hashes, h.Hashes) || holds[0].Reason != h.Reason {
		t.Errorf("got %+v, %v, want it released", holds, err)
	}
}

func TestAZombieBringsNothingBack(t *testing.T) { onBoth(t, 1, aZombieBringsNothingBack) }

// An ingester that was held up stores rows of somebody who was erased meanwhile, and is
// fenced before it writes the ledger. Another one has read the same offsets.
func aZombieBringsNothingBack(t *testing.T, s *stack) {
	rules := tiers(t)
	hash := func(subject string) []string { return []string{"k1:" + subject} }
	until := time.Now().UTC().Add(-30 * time.Minute).Truncate(time.Millisecond)
	e := event.Erasure{ID: "e", Scope: "subject", State: event.ErasureRequested, Hashes: hash("user:u_1"), Until: until, UpdatedAt: until,
		Deadline: until.AddDate(0, 0, 30), Everywhere: until.AddDate(0, 0, 90), ForgetAt: until.AddDate(0, 0, 91)}
	topic := s.topics[event.Request]
	s.publish(topic, 0, 0, olderEvent(1, time.Hour, ""), olderEvent(2, time.Hour, ""))
	zombie := s.start(func(o *Options) {
		o.Storage, o.StopTimeout = deaf{storage{s.store}}, time.Millisecond
		o.Known = retention.New(rules, retention.Source{Promises: rules.Stored()}, hash)
	})
	eventually(t, "the zombie has stored", func() bool { return s.query("SELECT uniqExact(id) FROM request_events") == "2" })
	zombie.stop()
	facts := retention.New(rules, retention.Source{Promises: rules.Stored(), Erasures: []event.Erasure{e}}, hash)
	r := s.start(func(o *Options) { o.Known = facts })
	eventually(t, "all offsets in the ledger", s.done(topic, 2))
	r.stop()
	if got := s.query("SELECT sum(stored), sum(suppressed) FROM ingest_ledger FORMAT TSV"); got != "1\t1" {
		t.Fatalf("got outcomes %q, want the erased one suppressed", got)
	}
	// The erasure has no identifiers: they are found by its hash.
	if err := s.store.WriteErasure(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for row, err := range s.store.Candidates(t.Context(), event.Request, []string{"user:u_1"}) {
		if err != nil {
			t.Fatal(err)
		}
		if facts.Fate(row).Visible(time.Now(), true) {
			t.Error("an officer sees the zombie's row")
		}
	}
	sweeper := retention.NewSweeper(retention.Options{Storage: promised{s.store, rules}, Policy: rules, Hash: hash, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	found, err := sweeper.Search(t.Context(), true)
	if err != nil || !slices.Equal(found, []string{"user:u_1"}) {
		t.Fatalf("found %q, %v", found, err)
	}
	if res, err := sweeper.Sweep(t.Context(), found); err != nil || res.Moved == 0 {
		t.Errorf("moved %d, %v", res.Moved, err)
	}
	s.query("OPTIMIZE TABLE request_events FINAL")
	eventually(t, "the row is gone", func() bool {
		return s.query("SELECT count() FROM request_events WHERE has(subject_keys, 'user:u_1')") == "0"
	})
	if got := s.query("SELECT uniqExact(id) FROM request_events"); got != "1" {
		t.Errorf("%s events are there, want that of the other", got)
	}
	if report := s.verify(func(*verify.Options) {}); !report.OK() {
		t.Errorf("verify found %+v", report.Findings)
	}
}

// deaf is a storage that never takes a ledger entry.
type deaf struct{ Storage }

func (deaf) WriteLedger(context.Context, []ledger.Entry) error { return errRefused }

// promised gives retention the facts of the database with the policy's promises.
type promised struct {
	*store.Store
	policy *policy.Policy
}

func (p promised) Promises(context.Context) ([]policy.StoredClass, error) {
	return p.policy.Stored(), nil
}
