//go:build kafka

package ingest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
	"github.com/lethe-audit/lethe/internal/fetch"
)

// apache is one broker or three.
type apache interface {
	cluster
	Addrs() []string
	Create(t testing.TB, topics ...embedded.Topic)
}

func init() {
	brokers["Apache Kafka"] = func(t testing.TB, partitions int32) *stack { return newApache(t, partitions, nil) }
}

// newApache is a stack on the broker that all tests share.
func newApache(t testing.TB, partitions int32, configs map[string]string) *stack {
	t.Helper()
	return newApacheOn(t, kafkatest.Broker(t), partitions, configs)
}

// newApacheOn is a stack with names of its own: tests share the brokers. Without
// partitions it has no topic but that of dead letters.
func newApacheOn(t testing.TB, brokers apache, partitions int32, configs map[string]string) *stack {
	t.Helper()
	s := newStackOn(t, brokers)
	s.kafka.Brokers = brokers.Addrs()
	suffix := "." + rand.Text()
	s.group += suffix
	s.dead += suffix
	made := []embedded.Topic{{Name: s.dead, Partitions: 1}}
	for k := range s.topics {
		s.topics[k] += suffix
		if partitions > 0 {
			made = append(made, embedded.Topic{Name: s.topics[k], Partitions: partitions, Configs: configs})
		}
	}
	brokers.Create(t, made...)
	return s
}

// load is a publisher at work: five hundred events a second, one in fifty no event.
// It is idempotent, so that its own repeats are not what doubles.
type load struct {
	s     *stack
	ended chan struct{}
	done  chan error
	n     int
}

func (s *stack) load() *load {
	s.t.Helper()
	l := &load{s: s, ended: make(chan struct{}), done: make(chan error, 1)}
	c := s.other(kgo.DefaultProduceTopic(s.topics[0]), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.UnknownTopicRetries(-1))
	go func() {
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		for over := false; !over; { // once more after the end
			select {
			case <-l.ended:
				over = true
			case <-pace.C:
			}
			values := append(requestEvents(l.n, l.n+49), "not JSON")
			records := make([]*kgo.Record, len(values))
			for n, v := range values {
				records[n] = kgo.StringRecord(v)
			}
			if err := c.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
				l.done <- err
				return
			}
			l.n += len(values)
		}
		l.done <- nil
	}()
	return l
}

// goesOn waits until so many more offsets are in the ledger.
func (l *load) goesOn(what string, more int) {
	l.s.t.Helper()
	eventually(l.s.t, what, l.s.done(l.s.topics[0], l.s.reached(l.s.topics[0])+more))
}

// proves ends the load and compares what was acknowledged with what is there.
func (l *load) proves() {
	l.s.t.Helper()
	close(l.ended)
	if err := <-l.done; err != nil {
		l.s.t.Fatal(err)
	}
	s, topic := l.s, l.s.topics[0]
	eventually(s.t, "all offsets in the ledger", s.done(topic, l.n))
	s.accounts(topic, l.n, l.n-l.n/50)
	s.verifies()
}

// verifies runs the proof, which must find nothing.
func (s *stack) verifies() {
	s.t.Helper()
	report := s.verify(everything)
	if report.OK() {
		return
	}
	var text strings.Builder
	if err := report.Print(&text); err != nil {
		s.t.Fatal(err)
	}
	s.t.Error(text.String())
}

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

func TestApacheTopicsAndPartitionsThatComeLater(t *testing.T) {
	topicsComeLater(t, newApache(t, 0, nil))
}

func TestApacheKilledUnderLoad(t *testing.T) {
	s := newApache(t, 2, nil)
	r := s.start(nil)
	l := s.load()
	l.goesOn("the load is under way", 300)
	broker := kafkatest.Broker(t)
	broker.Kill(t)
	eventually(t, "reported paused", func() bool { return strings.HasPrefix(r.states.of(partKafka), "paused: ") })
	broker.Start(t)
	l.goesOn("the load goes on", 300)
	eventually(t, "ready again", func() bool { return r.states.of(partKafka) == "ready" })
	l.proves()
	r.stop()
	s.digests()
}
