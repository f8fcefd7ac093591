package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

// faults is a real store that fails where a test wants it to.
type faults struct {
	storage
	insert func(ctx context.Context, b Batch, token string) error // instead of the store's; nil: the store's
	rows   func(ctx context.Context) error                        // before the store's InsertRows; nil: nothing
	ledger func(ctx context.Context, entries []ledger.Entry) error
}

func (f *faults) Insert(ctx context.Context, b Batch, token string) error {
	if f.insert != nil {
		return f.insert(ctx, b, token)
	}
	return f.storage.Insert(ctx, b, token)
}

func (f *faults) InsertRows(ctx context.Context, b Batch, part, from, to int, token string) error {
	if f.rows != nil {
		if err := f.rows(ctx); err != nil {
			return err
		}
	}
	return f.storage.InsertRows(ctx, b, part, from, to, token)
}

func (f *faults) WriteLedger(ctx context.Context, entries []ledger.Entry) error {
	if f.ledger != nil {
		return f.ledger(ctx, entries)
	}
	return f.storage.WriteLedger(ctx, entries)
}

var errTrouble = errors.New("trouble")

type permanently struct{ error }

func (permanently) Permanent() bool { return true }

func TestTransientTroublePausesAndLosesNothing(t *testing.T) {
	cases := []struct {
		name string
		part string
		with func(o *Options, s *stack, fail func() bool)
	}{
		{"the insert fails before it stores", partClickHouse, func(o *Options, s *stack, fail func() bool) {
			f := &faults{storage: storage{s.store}}
			f.insert = func(ctx context.Context, b Batch, token string) error {
				if fail() {
					return errTrouble
				}
				return f.storage.Insert(ctx, b, token)
			}
			o.Storage = f
		}},
		{"the insert stores and its answer is lost", partClickHouse, func(o *Options, s *stack, fail func() bool) {
			f := &faults{storage: storage{s.store}}
			f.insert = func(ctx context.Context, b Batch, token string) error {
				err := f.storage.Insert(ctx, b, token)
				if fail() {
					return errTrouble
				}
				return err
			}
			o.Storage = f
		}},
		{"the ledger fails", partClickHouse, func(o *Options, s *stack, fail func() bool) {
			f := &faults{storage: storage{s.store}}
			f.ledger = func(ctx context.Context, entries []ledger.Entry) error {
				if fail() {
					return errTrouble
				}
				return f.storage.WriteLedger(ctx, entries)
			}
			o.Storage = f
		}},
		{"dead letters are not taken", partKafka, func(o *Options, _ *stack, fail func() bool) {
			o.Dead = &failingPublisher{o.Dead, fail}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, 1, func(t *testing.T, s *stack) {
				s.publish(s.topics[0], 0, kafka.Lz4, append(requestEvents(0, 300), "not JSON")...)
				var failed atomic.Int32
				var r *running
				paused := make(chan struct{})
				r = s.start(func(o *Options) {
					c.with(o, s, func() bool {
						if failed.Add(1) == 2 { // the first failure has been reported
							close(paused)
						}
						return failed.Load() < 4
					})
				})
				<-paused
				if got := r.states.of(c.part); len(got) < 8 || got[:8] != "paused: " {
					t.Errorf("while it fails: got state %q, want paused", got)
				}
				eventually(t, "all offsets in the ledger", s.done(s.topics[0], 301))
				eventually(t, "ready again", func() bool { return r.states.of(c.part) == "ready" })
				r.stop()
				s.accounts(s.topics[0], 301, 300)
				if got := r.metric("retries_total", "part="+c.part); got < 3 {
					t.Errorf("got %v retries, want 3", got)
				}
			})
		})
	}
}

type failingPublisher struct {
	publisher
	fail func() bool
}

func (p *failingPublisher) Publish(ctx context.Context, msgs ...publish.Message) error {
	if p.fail() {
		return errTrouble
	}
	return p.publisher.Publish(ctx, msgs...)
}

// A process that dies between the insert and the commit, or between the ledger and
// the commit, has stored rows that nobody has committed.
func TestKillLosesAndDoublesNothing(t *testing.T) {
	for _, at := range []string{"before the insert", "after the insert", "after the ledger"} {
		t.Run(at, func(t *testing.T) {
			onBoth(t, 2, func(t *testing.T, s *stack) {
				s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 700)...)
				s.publish(s.topics[0], 1, kafka.Lz4, append(requestEvents(700, 1000), "not JSON")...)
				reached := make(chan struct{})
				var once atomic.Bool
				// From the kill on nothing gets through any more.
				die := func(ctx context.Context) error {
					if once.CompareAndSwap(false, true) {
						close(reached)
					}
					<-ctx.Done()
					return ctx.Err()
				}
				first := s.start(func(o *Options) {
					f := &faults{storage: storage{s.store}}
					f.insert = func(ctx context.Context, b Batch, token string) error {
						if at == "before the insert" || once.Load() {
							return die(ctx)
						}
						if err := f.storage.Insert(ctx, b, token); err != nil || at != "after the insert" {
							return err
						}
						return die(ctx)
					}
					f.ledger = func(ctx context.Context, entries []ledger.Entry) error {
						if err := f.storage.WriteLedger(ctx, entries); err != nil {
							return err
						}
						return die(ctx)
					}
					o.Storage, o.StopTimeout = f, 100*time.Millisecond
				})
				<-reached
				first.stop()
				second := s.start(nil)
				eventually(t, "all offsets in the ledger", s.done(s.topics[0], 1001))
				second.stop()
				s.accounts(s.topics[0], 1001, 1000)
				s.digests()
			})
		})
	}
}

// fencing is a generation whose commits fail.
type fencing struct {
	committer
	fail func() bool
}

func (f fencing) CommitOffsets(at map[string]map[int]int64) error {
	if f.fail() {
		return kafka.IllegalGeneration
	}
	return f.committer.CommitOffsets(at)
}

func TestAFailedCommitDoublesNothing(t *testing.T) {
	for name, which := range map[string]int32{"before the insert": 1, "after the ledger": 2} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, 1, func(t *testing.T, s *stack) {
				s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 500)...)
				var commits atomic.Int32
				r := s.start(nil, func(i *Ingester) {
					i.fence = func(c committer) committer {
						return fencing{c, func() bool { return commits.Add(1) == which }}
					}
				})
				eventually(t, "all offsets in the ledger", s.done(s.topics[0], 500))
				eventually(t, "a second generation", func() bool { return r.metric("generations_total") >= 2 })
				s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(500, 600)...)
				eventually(t, "all offsets in the ledger", s.done(s.topics[0], 600))
				r.stop()
				s.accounts(s.topics[0], 600, 600)
				if got := r.metric("fenced_total"); got != 1 {
					t.Errorf("got %v failed commits, want 1", got)
				}
			})
		})
	}
}

func TestAPermanentErrorOfEveryRowStopsThePartitionsOfItsBatch(t *testing.T) {
	s := newStack(t, 2)
	s.publish(topics[0], 0, kafka.Lz4, requestEvents(0, 100)...)
	var refuse atomic.Bool
	refuse.Store(true)
	r := s.start(func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.rows = func(context.Context) error {
			if refuse.Load() {
				return permanently{errTrouble}
			}
			return nil
		}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if err := f.rows(ctx); err != nil {
				return err
			}
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage = f
	})
	want := fmt.Sprintf("broken: %s/0 is stopped: ClickHouse refuses offsets 0 to 99 for good: insert a batch: trouble: too many rows for it to be their fault; restart after the cause is gone", topics[0])
	eventually(t, "reported broken", func() bool { return r.states.of(partPartitions) == want })
	refuse.Store(false)
	s.publish(topics[0], 1, kafka.Lz4, requestEvents(100, 150)...)
	eventually(t, "the other partition in the ledger", s.done(topics[0], 50))
	r.stop()
	again := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], 150))
	again.stop()
	s.accounts(topics[0], 150, 150)
}
