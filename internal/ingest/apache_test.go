//go:build kafka

package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
	"github.com/lethe-audit/lethe/internal/fetch"
)

// newApache is a stack on Apache Kafka. All tests share the broker, so each has
// names of its own.
func newApache(t testing.TB, partitions int32, configs map[string]string) *stack {
	t.Helper()
	s := newStackOn(t, kafkatest.Broker(t))
	suffix := "." + rand.Text()
	s.group += suffix
	s.dead += suffix
	made := []embedded.Topic{{Name: s.dead, Partitions: 1}}
	for k := range s.topics {
		s.topics[k] += suffix
		made = append(made, embedded.Topic{Name: s.topics[k], Partitions: partitions, Configs: configs})
	}
	kafkatest.Broker(t).Create(t, made...)
	return s
}

func TestApacheTransactions(t *testing.T) { transactions(t, newApache(t, 1, nil)) }

func TestApacheWhatTopicRetentionTookIsLost(t *testing.T) { retentionIsLoss(t, newApache(t, 1, nil)) }

func TestApacheRefusedRecordIsReadAgain(t *testing.T) { readAgain(t, newApache(t, 1, nil)) }

// Each codec comes once from the client and once from the broker, which compresses
// as the topic says with what Java has.
func TestApacheCompression(t *testing.T) {
	for _, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			s := newApache(t, 2, map[string]string{"compression.type": codec.String()})
			s.publish(s.topics[0], 0, 0, requestEvents(0, 700)...)
			s.publish(s.topics[0], 1, codec, append(requestEvents(700, 1200), "not JSON")...)
			r := s.start(nil)
			eventually(t, "all offsets in the ledger", s.done(s.topics[0], 1201))
			r.stop()
			s.accounts(s.topics[0], 1201, 1200)
			s.digests()
			res, err := (&kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}).ListOffsets(t.Context(),
				&kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{s.dead: {kafka.LastOffsetOf(0)}}})
			if err != nil {
				t.Fatal(err)
			}
			if got := res.Topics[s.dead][0].LastOffset; got != 1 {
				t.Errorf("got %d dead letters, want 1", got)
			}
		})
	}
}

// A publisher with a wrong clock does not decide how old a record is for the
// broker, and the ingester is told so.
func TestApacheLogAppendTime(t *testing.T) {
	s := newApache(t, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	before := time.Now().Truncate(time.Millisecond)
	c := s.other(kgo.DefaultProduceTopic(s.topics[0]))
	for _, v := range requestEvents(0, 20) {
		old := &kgo.Record{Value: []byte(v), Timestamp: time.Date(2001, 1, 31, 10, 0, 0, 0, time.UTC)}
		if err := c.ProduceSync(t.Context(), old).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	after := time.Now()
	client, err := fetch.New(fetch.Options{Transport: s.transport(), Addr: kafka.TCP(s.broker.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	answers, err := client.Fetch(t.Context(), []fetch.Want{{Topic: s.topics[0]}}, 1<<20, 1<<20)
	if err != nil || len(answers) != 1 || answers[0].Err != nil {
		t.Fatalf("fetch: %v %+v", err, answers)
	}
	defer answers[0].Release()
	inside := func(at time.Time) bool { return !at.Before(before) && !at.After(after) }
	if at := answers[0].Appended; !inside(at) {
		t.Errorf("got first batch appended at %v, want between %v and %v", at, before, after)
	}
	var reader fetch.Reader
	var record fetch.Record
	reader.Reset(&answers[0], 0)
	for n := range 20 {
		if more, err := reader.Next(&record); err != nil || !more {
			t.Fatalf("record %d: %v %v", n, more, err)
		}
		if at := time.UnixMilli(record.Time); !record.Appended || !inside(at) {
			t.Errorf("record %d: got time %v (appended: %v), want between %v and %v", n, at, record.Appended, before, after)
		}
	}
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 20))
	r.stop()
	s.accounts(s.topics[0], 20, 20)
}

func TestApacheKilledUnderLoad(t *testing.T) {
	s := newApache(t, 2, nil)
	r := s.start(func(o *Options) { o.BatchRows = 200 })
	// Idempotent, so that the publisher's own repeats are not what doubles.
	c := s.other(kgo.DefaultProduceTopic(s.topics[0]), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.UnknownTopicRetries(-1))
	n := 0
	restarted, published := make(chan struct{}), make(chan error, 1)
	go func() {
		for over := false; !over; { // once more after the restart
			select {
			case <-restarted:
				over = true
			default:
			}
			var records []*kgo.Record
			for _, v := range requestEvents(n, n+50) {
				records = append(records, kgo.StringRecord(v))
			}
			if err := c.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
				published <- err
				return
			}
			n += len(records)
		}
		published <- nil
	}()
	eventually(t, "the load is under way", s.done(s.topics[0], 600))
	broker := kafkatest.Broker(t)
	broker.Kill(t)
	eventually(t, "reported paused", func() bool { return strings.HasPrefix(r.states.of(partKafka), "paused: ") })
	broker.Start(t)
	close(restarted)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], n))
	eventually(t, "ready again", func() bool { return r.states.of(partKafka) == "ready" })
	r.stop()
	s.accounts(s.topics[0], n, n)
	s.digests()
}

// freezing is a connection of a process that can be frozen: it sends nothing
// while the gate is locked, and its deadlines stand still (they never pass).
type freezing struct {
	net.Conn
	gate *sync.RWMutex
}

func (c freezing) Write(b []byte) (int, error) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.Conn.Write(b)
}

func (freezing) SetDeadline(time.Time) error      { return nil }
func (freezing) SetReadDeadline(time.Time) error  { return nil }
func (freezing) SetWriteDeadline(time.Time) error { return nil }

// watched is a generation whose commits are seen.
type watched struct {
	committer
	saw func(at map[string]map[int]int64, err error)
}

func (w watched) CommitOffsets(at map[string]map[int]int64) error {
	err := w.committer.CommitOffsets(at)
	w.saw(at, err)
	return err
}

// A member freezes after the fence and before the insert, for longer than its
// session, while another one takes over and goes on.
func TestApacheFrozenMemberRewindsNothing(t *testing.T) {
	s := newApache(t, 1, nil)
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 100)...)
	short := func(o *Options) { o.SessionTimeout, o.RebalanceTimeout = 2*time.Second, 2*time.Second }

	var gate sync.RWMutex
	var first atomic.Bool
	full, thawed := make(chan struct{}), make(chan struct{})
	type refusal struct {
		at  int64
		err error
	}
	refused := make(chan refusal, 1)
	zombie := s.start(func(o *Options) {
		short(o)
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return freezing{conn, &gate}, err
		}
		o.Transport.Dial, o.Dialer.DialFunc = dial, dial
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if first.CompareAndSwap(false, true) {
				gate.Lock()
				close(full)
				<-thawed
				gate.Unlock()
			}
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage = f
	}, func(i *Ingester) {
		i.fence = func(c committer) committer {
			return watched{c, func(at map[string]map[int]int64, err error) {
				if err != nil && len(refused) == 0 {
					refused <- refusal{at[s.topics[0]][0], err}
				}
			}}
		}
	})
	<-full
	heir := s.start(short)
	eventually(t, "the other one took over", s.done(s.topics[0], 100))
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(100, 300)...)
	client := kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}
	committed := func() int64 {
		res, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: s.group, Topics: map[string][]int{s.topics[0]: {0}}})
		if err != nil || res.Error != nil {
			t.Fatalf("fetch offset: %v %v", err, res)
		}
		return res.Topics[s.topics[0]][0].CommittedOffset
	}
	eventually(t, "the other one has committed", func() bool { return committed() == 300 })
	if len(refused) > 0 {
		t.Fatalf("the frozen member was refused before it went on: %v", (<-refused).err)
	}

	close(thawed)
	got := <-refused
	if !errors.Is(got.err, kafka.UnknownMemberId) && !errors.Is(got.err, kafka.IllegalGeneration) {
		t.Errorf("got commit of the frozen member: %v, want the broker's refusal", got.err)
	}
	if got.at != 100 {
		t.Errorf("got refused offset %d, want 100: it was to store its batch and enter it in the ledger", got.at)
	}
	if got := committed(); got != 300 {
		t.Errorf("got committed offset %d, want 300 as before the frozen member went on", got)
	}
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(300, 400)...)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 400))
	heir.stop()
	zombie.stop()
	s.accounts(s.topics[0], 400, 400)
}
