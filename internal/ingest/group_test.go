package ingest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
)

// other is another vendor's client.
func (s *stack) other(options ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.kafka.Brokers...)}, options...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func TestTwoMembersShareThePartitions(t *testing.T) { onBoth(t, 4, twoMembersShareThePartitions) }

func twoMembersShareThePartitions(t *testing.T, s *stack) {
	publishAll := func(from int) {
		for p := range 4 {
			s.publish(s.topics[0], p, kafka.Lz4, requestEvents(from+p*100, from+p*100+100)...)
		}
	}
	small := func(o *Options) { o.BatchRows = 130 }
	publishAll(0)
	a := s.start(small)
	eventually(t, "the first has begun", s.done(s.topics[0], 100))
	b := s.start(small)
	publishAll(400)
	eventually(t, "the second has partitions", func() bool { return b.metric("offsets_total") > 0 || s.done(s.topics[0], 800)() })
	publishAll(800)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 1200))
	eventually(t, "both have partitions", func() bool { return a.metric("lag_events") >= 0 && b.metric("lag_events") >= 0 })
	publishAll(1200)
	a.stop()
	publishAll(1600)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 2000))
	b.stop()
	s.accounts(s.topics[0], 2000, 2000)
	if got := b.metric("offsets_total", "outcome=stored"); got <= 0 {
		t.Errorf("the second member stored nothing")
	}
}

// counting counts decisions: how far the workers are.
type counting struct {
	decider
	n atomic.Int64
}

func (c *counting) Decide(e *event.Event, received time.Time) (policy.Decision, error) {
	c.n.Add(1)
	return c.decider.Decide(e, received)
}

func TestAStopFinishesTheBatch(t *testing.T) { onBoth(t, 1, aStopFinishesTheBatch) }

func aStopFinishesTheBatch(t *testing.T, s *stack) {
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 200)...)
	decisions := new(counting)
	r := s.start(func(o *Options) {
		decisions.decider, o.Policy, o.BatchAge = o.Policy, decisions, time.Hour
	})
	eventually(t, "all events in the batch", func() bool { return decisions.n.Load() == 200 })
	if !s.done(s.topics[0], 0)() || s.done(s.topics[0], 1)() {
		t.Error("the ledger has an entry before the batch was closed")
	}
	r.stop()
	s.accounts(s.topics[0], 200, 200)
	client := kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}
	res, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: s.group, Topics: map[string][]int{s.topics[0]: {0}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Topics[s.topics[0]][0].CommittedOffset; got != 200 {
		t.Errorf("got committed offset %d, want 200", got)
	}
	groups, err := client.DescribeGroups(t.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{s.group}})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(groups.Groups[0].Members); got != 0 {
		t.Errorf("got %d members after the stop, want 0: it did not leave", got)
	}
}

func TestASlowStoreBoundsMemoryAndDropsNothing(t *testing.T) {
	onBoth(t, 2, aSlowStoreBoundsMemoryAndDropsNothing)
}

func aSlowStoreBoundsMemoryAndDropsNothing(t *testing.T, s *stack) {
	const rows, fetched, n = 256, 512 << 10, 8000
	s.publish(s.topics[0], 0, 0, requestEvents(0, n/2)...)
	s.publish(s.topics[0], 1, 0, requestEvents(n/2, n)...)
	decisions := new(counting)
	gate, waiting := make(chan struct{}), make(chan int, 1)
	r := s.start(func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			select {
			case waiting <- b.Rows():
			default:
			}
			select {
			case <-gate:
			case <-ctx.Done():
				return ctx.Err()
			}
			return f.storage.Insert(ctx, b, token)
		}
		decisions.decider, o.Policy = o.Policy, decisions
		o.Storage, o.BatchRows, o.FetchBytes, o.BatchAge = f, rows, fetched, time.Hour
	})
	first := <-waiting
	if first < rows || first > rows+chunkRows {
		t.Errorf("got a batch of %d rows, want %d and at most a chunk more", first, rows)
	}
	// Two batches, and a chunk in each worker's hands: then everything waits.
	most := int64(2*(rows+chunkRows) + len(r.workers)*chunkRows)
	last, same := int64(-1), 0
	eventually(t, "the workers wait", func() bool {
		now := decisions.n.Load()
		if same++; now != last {
			last, same = now, 0
		}
		return same > 20
	})
	if last > most || last < 2*rows {
		t.Errorf("got %d events in memory, want between %d and %d", last, 2*rows, most)
	}
	if got := r.metric("in_flight_bytes"); got <= 0 || got > fetched {
		t.Errorf("got %v bytes in flight, want at most %d", got, fetched)
	}
	close(gate)
	eventually(t, "all events decided", func() bool { return decisions.n.Load() == n })
	r.stop() // the last batch is not full
	s.accounts(s.topics[0], n, n)
}

func TestTransactions(t *testing.T) { onBoth(t, 1, transactions) }

func transactions(t *testing.T, s *stack) {
	c := s.other(kgo.TransactionalID("t"), kgo.DefaultProduceTopic(s.topics[0]))
	produce := func(from, to int, end kgo.TransactionEndTry) {
		if err := c.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, v := range requestEvents(from, to) {
			c.Produce(t.Context(), &kgo.Record{Value: []byte(v)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, 50, kgo.TryCommit)
	produce(50, 80, kgo.TryAbort)
	s.publish(s.topics[0], 0, kafka.Zstd, requestEvents(80, 100)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 102))
	produce(100, 120, kgo.TryAbort)
	produce(120, 150, kgo.TryCommit)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 154))
	r.stop()
	s.accounts(s.topics[0], 154, 100)
	if got := r.metric("offsets_total", "outcome=absent"); got != 54 {
		t.Errorf("got %v absent offsets, want 50 aborted records and 4 control records", got)
	}
}

// deleteRecords is what topic retention does, now.
func (s *stack) deleteRecords(topic string, partition int32, before int64) {
	s.t.Helper()
	req := kmsg.NewDeleteRecordsRequest()
	req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition, Offset: before}}}}
	req.TimeoutMillis = 5000
	res, err := req.RequestWith(s.t.Context(), s.other())
	if err != nil || res.Topics[0].Partitions[0].ErrorCode != 0 {
		s.t.Fatalf("delete records: %v %+v", err, res)
	}
}

func TestWhatTopicRetentionTookIsLost(t *testing.T) { onBoth(t, 1, retentionIsLoss) }

func retentionIsLoss(t *testing.T, s *stack) {
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 10)...)
	s.deleteRecords(s.topics[0], 0, 4) // nobody had promised these
	first := s.start(nil)
	eventually(t, "the first in the ledger", s.done(s.topics[0], 10))
	first.stop()
	for from := 10; from < 100; from += 10 {
		s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(from, from+10)...)
	}
	s.deleteRecords(s.topics[0], 0, 60)
	second := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 100))
	second.stop()
	s.accounts(s.topics[0], 100, 46)
	if got := second.metric("offsets_total", "outcome=lost"); got != 50 {
		t.Errorf("got %v lost offsets, want 50", got)
	}
	if got, want := s.query(`SELECT other.first, other.last, other.outcome FROM ingest_ledger ARRAY JOIN other`), "10\t59\tlost"; got != want {
		t.Errorf("got runs %q, want %q", got, want)
	}
}

func TestALedgerAheadOfTheTopicStopsThePartition(t *testing.T) {
	onBoth(t, 2, aLedgerAheadOfTheTopicStopsThePartition)
}

func aLedgerAheadOfTheTopicStopsThePartition(t *testing.T, s *stack) {
	at := ledger.Partition{Cluster: s.broker.ClusterID(), Topic: s.topics[0]}
	if err := s.store.WriteLedger(t.Context(), []ledger.Entry{{Partition: at, First: 0, Last: 999, ReceivedAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	s.publish(s.topics[0], 0, 0, requestEvents(0, 10)...)
	s.publish(s.topics[0], 1, 0, requestEvents(10, 20)...)
	r := s.start(nil)
	eventually(t, "reported broken", func() bool {
		got := r.states.of(partPartitions)
		return strings.HasPrefix(got, "broken: "+s.topics[0]+"/0 is stopped: the ledger reaches offset 1000 but the partition ends at 10") &&
			strings.Contains(got, "run ingest ledger new-epoch TOPIC")
	})
	eventually(t, "the other partition in the ledger", s.done(s.topics[0], 1010))
	r.stop()
	if got, want := s.query(`SELECT count() FROM request_events WHERE src_partition = 0`), "0"; got != want {
		t.Errorf("got %s rows of the stopped partition, want %s", got, want)
	}
}

func TestCommittedAheadOfTheLedgerReadsAgain(t *testing.T) {
	onBoth(t, 1, committedAheadOfTheLedgerReadsAgain)
}

func committedAheadOfTheLedgerReadsAgain(t *testing.T, s *stack) {
	s.publish(s.topics[0], 0, 0, requestEvents(0, 100)...)
	first := s.start(func(o *Options) { o.BatchRows = 64 })
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 100))
	first.stop()
	// ClickHouse comes back as it was before the last batches.
	s.query(`ALTER TABLE ingest_ledger DELETE WHERE last > 63 SETTINGS mutations_sync = 2`)
	s.query(`ALTER TABLE request_events DELETE WHERE src_offset > 63 SETTINGS mutations_sync = 2`)
	second := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 100))
	second.stop()
	s.accounts(s.topics[0], 100, 100)
	if got := second.metric("committed_ahead_total"); got != 1 {
		t.Errorf("got alarm %v, want 1", got)
	}
}

func TestTopicsAndPartitionsThatComeLater(t *testing.T) {
	topicsComeLater(t, newStackWith(t, embedded.Topic{Name: deadTopic, Partitions: 1}))
}

func topicsComeLater(t *testing.T, s *stack) {
	client := kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}
	create := func(topic string, partitions int) {
		res, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}})
		if err != nil || res.Errors[topic] != nil {
			t.Fatalf("create topic: %v %v", err, res)
		}
	}
	// A broker may know of a topic a little later than who made it.
	writer := s.other(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.MetadataMaxAge(200*time.Millisecond), kgo.UnknownTopicRetries(-1))
	publish := func(topic string, partition int32, values ...string) {
		for _, v := range values {
			if err := writer.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := s.start(func(o *Options) { o.Transport.MetadataTTL = 200 * time.Millisecond })
	eventually(t, "waiting for topics", func() bool { return strings.HasPrefix(r.states.of(partKafka), "paused: could not find the topics") })
	create(s.topics[0], 1)
	publish(s.topics[0], 0, requestEvents(0, 10)...)
	eventually(t, "the first topic", s.done(s.topics[0], 10))
	create(s.topics[2], 1)
	publish(s.topics[2], 0, `{"specversion":"1.0","id":"s-1","source":"/svc/auth","type":"login","time":"`+time.Now().UTC().Format(time.RFC3339)+
		`","data":{"event.action":"login","event.outcome":"failure"}}`)
	eventually(t, "the second topic", s.done(s.topics[2], 1))
	res, err := client.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: s.topics[0], Count: 3}}})
	if err != nil || res.Errors[s.topics[0]] != nil {
		t.Fatalf("create partitions: %v %v", err, res)
	}
	eventually(t, "the publisher knows the new partition", func() bool {
		leader, _, err := writer.PartitionLeader(s.topics[0], 2)
		return err == nil && leader >= 0
	})
	publish(s.topics[0], 2, requestEvents(10, 15)...)
	eventually(t, "the new partition", s.done(s.topics[0], 15))
	r.stop()
	if got, want := s.query(`SELECT count() FROM security_events`), "1"; got != want {
		t.Errorf("got %s security events, want %s", got, want)
	}
	s.accounts(s.topics[0], 15, 15)
}

func TestABrokerThatRestarts(t *testing.T) {
	dir := t.TempDir()
	s := newStack(t, 1)
	all := []embedded.Topic{{Name: topics[0], Partitions: 2}, {Name: topics[1], Partitions: 1}, {Name: topics[2], Partitions: 1}, {Name: deadTopic, Partitions: 1}}
	broker := embeddedtest.Broker(t, dir, "127.0.0.1:0", all...)
	s.broker = broker
	s.kafka.Brokers = []string{s.broker.Addr()}
	s.publish(topics[0], 0, kafka.Lz4, requestEvents(0, 100)...)
	r := s.start(nil)
	eventually(t, "the first in the ledger", s.done(topics[0], 100))
	broker.Stop()
	eventually(t, "reported paused", func() bool { return strings.HasPrefix(r.states.of(partKafka), "paused: ") })
	s.broker = embeddedtest.Broker(t, dir, s.broker.Addr(), all...)
	s.publish(topics[0], 1, kafka.Lz4, requestEvents(100, 200)...)
	eventually(t, "all offsets in the ledger", s.done(topics[0], 200))
	eventually(t, "ready again", func() bool { return r.states.of(partKafka) == "ready" })
	r.stop()
	s.accounts(topics[0], 200, 200)
}

func TestProgressIsHonest(t *testing.T) { onBoth(t, 1, progressIsHonest) }

func progressIsHonest(t *testing.T, s *stack) {
	c := s.other(kgo.TransactionalID("t"), kgo.DefaultProduceTopic(s.topics[0]))
	r := s.start(nil)
	until := func() (next, high, complete int64) {
		text := s.query(`SELECT argMax(next, updated_at), argMax(high_watermark, updated_at), toUnixTimestamp64Milli(argMax(complete_until, updated_at))
			FROM ingest_progress WHERE topic = '%s'`, s.topics[0])
		fmt.Sscan(text, &next, &high, &complete)
		return next, high, complete
	}
	began := time.Now().UnixMilli()
	eventually(t, "an empty topic is complete", func() bool { _, _, complete := until(); return complete >= began })
	s.publish(s.topics[0], 0, 0, requestEvents(0, 20)...)
	published := time.Now().UnixMilli()
	eventually(t, "complete after the events", func() bool { next, high, complete := until(); return next == 20 && high == 20 && complete >= published })
	// What an open transaction has sent was received and has no outcome yet.
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := c.ProduceSync(t.Context(), &kgo.Record{Value: []byte(requestEvent(20, ""))}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	sent := time.Now().UnixMilli()
	eventually(t, "the open transaction is seen", func() bool { _, high, _ := until(); return high == 21 })
	if _, _, complete := until(); complete > sent {
		t.Errorf("complete until %d although an event received before %d has no outcome", complete, sent)
	}
	if err := c.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, "complete after the transaction", func() bool { next, _, complete := until(); return next == 22 && complete > sent })
	eventually(t, "no lag", func() bool {
		return r.metric("lag_events", "topic="+s.topics[0]) == 0 && r.metric("lag_seconds", "topic="+s.topics[0]) < 5
	})
	r.stop()
}
