//go:build kafka

package ingest

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
	"github.com/lethe-audit/lethe/internal/verify"
)

// losses are the ledger's lost runs and what verify says of them.
func (s *stack) losses(want ...string) {
	s.t.Helper()
	runs := s.query(`SELECT concat(toString(partition), ' ', toString(other.first), '-', toString(other.last)) AS run
		FROM ingest_ledger ARRAY JOIN other WHERE other.outcome = 'lost' ORDER BY run`)
	if got := strings.Join(want, "\n"); runs != got {
		s.t.Errorf("got lost runs %q, want %q", runs, got)
	}
	var named []string
	for _, w := range want {
		named = append(named, fmt.Sprintf("lost %s/%s", s.topics[0], w))
	}
	if got := found(s.verify(everything)); !slices.Equal(got, named) {
		s.t.Errorf("verify: got %q, want %q", got, named)
	}
}

// configure sets one setting of the first topic.
func (s *stack) configure(name, value string) {
	s.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	topic := kmsg.NewIncrementalAlterConfigsRequestResource()
	topic.ResourceType, topic.ResourceName = kmsg.ConfigResourceTypeTopic, s.topics[0]
	topic.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: kmsg.IncrementalAlterConfigOpSet, Value: &value}}
	req.Resources = append(req.Resources, topic)
	res, err := req.RequestWith(s.t.Context(), s.other())
	if err == nil {
		err = kerr.ErrorForCode(res.Resources[0].ErrorCode)
	}
	if err != nil {
		s.t.Fatalf("configure topic: %v", err)
	}
}

// bounds are both ends of a partition of the first topic.
func (s *stack) bounds(partition int) (start, end int64) {
	s.t.Helper()
	res, err := (&kafka.Client{Addr: kafka.TCP(s.kafka.Brokers...), Transport: s.transport()}).ListOffsets(s.t.Context(),
		&kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{s.topics[0]: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)}}})
	if err != nil {
		s.t.Fatal(err)
	}
	p := res.Topics[s.topics[0]][0]
	return p.FirstOffset, p.LastOffset
}

// Time takes what was published while no ingester ran.
func TestApacheRetentionByTimeIsLoss(t *testing.T) {
	s := newApache(t, 2, map[string]string{"segment.ms": "100", "message.timestamp.type": "LogAppendTime"})
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 10)...)
	first := s.start(nil)
	eventually(t, "the first in the ledger", s.done(s.topics[0], 10))
	first.stop()
	s.losses()
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(10, 40)...)
	s.configure("retention.ms", "1")
	eventually(t, "the broker has taken them", func() bool { start, end := s.bounds(0); return start == end })
	second := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 40))
	second.stop()
	s.accounts(s.topics[0], 40, 10)
	if got := second.metric("offsets_total", "outcome=lost"); got != 30 {
		t.Errorf("got %v lost offsets, want 30", got)
	}
	s.losses("0 10-39")
}

// The records are taken below the position of an ingester that cannot keep up.
func TestApacheRetentionOvertakesTheIngester(t *testing.T) {
	const n = 8000
	s := newApache(t, 1, nil)
	decisions := new(counting)
	gate, waiting := make(chan struct{}), make(chan struct{}, 1)
	r := s.start(func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			select {
			case waiting <- struct{}{}:
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
		o.Storage, o.BatchRows, o.FetchBytes = f, 256, 512<<10
	})
	s.publish(s.topics[0], 0, 0, requestEvents(0, n)...)
	<-waiting
	last, same := int64(-1), 0
	eventually(t, "the workers wait", func() bool {
		now := decisions.n.Load()
		if same++; now != last {
			last, same = now, 0
		}
		return same > 20
	})
	s.deleteRecords(s.topics[0], 0, n-10)
	close(gate)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], n))
	r.stop()
	lost := int(r.metric("offsets_total", "outcome=lost"))
	if lost < n/2 {
		t.Fatalf("got %d lost offsets, want most of %d", lost, n)
	}
	s.accounts(s.topics[0], n, n-lost)
	s.losses(fmt.Sprintf("0 %d-%d", n-10-lost, n-11))
}

// drop deletes a topic.
func (s *stack) drop(topic string) {
	s.t.Helper()
	client := kafka.Client{Addr: kafka.TCP(s.kafka.Brokers...), Transport: s.transport()}
	res, err := client.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil || res.Errors[topic] != nil {
		s.t.Errorf("delete topic: %v %v", err, res)
	}
}

// damage flips a bit of one record in the broker's file, as a failing disk does,
// and returns the offsets of its batch.
func (s *stack) damage(partition int, batch int) (first, last int64) {
	s.t.Helper()
	path := filepath.Join(kafkatest.Broker(s.t).DataDir(), fmt.Sprintf("%s-%d", s.topics[0], partition), "00000000000000000000.log")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	at, head := int64(0), make([]byte, 61)
	for n := 0; ; n++ {
		if _, err := file.ReadAt(head, at); err != nil {
			s.t.Fatal(err)
		}
		if n == batch {
			break
		}
		at += 12 + int64(binary.BigEndian.Uint32(head[8:]))
	}
	first = int64(binary.BigEndian.Uint64(head))
	one := make([]byte, 1)
	place := at + int64(len(head)) + 100
	if _, err := file.ReadAt(one, place); err != nil {
		s.t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := file.WriteAt(one, place); err != nil {
		s.t.Fatal(err)
	}
	return first, first + int64(binary.BigEndian.Uint32(head[23:]))
}

func TestApacheADamagedBatchStopsItsPartition(t *testing.T) {
	s := newApache(t, 2, nil)
	for from := 0; from < 30; from += 10 {
		s.publish(s.topics[0], 0, 0, requestEvents(from, from+10)...)
	}
	s.publish(s.topics[0], 1, 0, requestEvents(30, 40)...)
	// The broker cuts off what it finds damaged when it starts again.
	t.Cleanup(func() { s.drop(s.topics[0]) })
	first, last := s.damage(0, 1)
	if first != 10 || last != 19 {
		t.Fatalf("damaged offsets %d to %d, want 10 to 19", first, last)
	}
	r := s.start(nil)
	want := fmt.Sprintf("broken: %s/0 is stopped: read batch at offset 10: corrupt record batch: checksum differs; "+
		"let another replica lead or, where none has the batch whole, delete the records up to its end, which are entered as lost; then restart", s.topics[0])
	eventually(t, "reported broken", func() bool { return r.states.of(partPartitions) == want })
	s.publish(s.topics[0], 1, 0, requestEvents(40, 50)...)
	eventually(t, "the other partition in the ledger", s.done(s.topics[0], 30))
	r.stop()
	s.accounts(s.topics[0], 30, 30)
	report := s.verify(everything)
	if report.Waiting != 20 {
		t.Errorf("verify: got %d offsets that wait, want 20", report.Waiting)
	}
	at := slices.IndexFunc(report.Accounts, func(a verify.Account) bool { return a.Topic == s.topics[0] && a.Partition.Partition == 0 })
	if got := report.Accounts[at]; got.First != 0 || got.Next != 10 || got.Committed != 10 || got.End != 30 {
		t.Errorf("verify: got %+v, want the ledger and the group at 10 of 30", got)
	}
	// What an operator does where no replica has the batch whole.
	s.deleteRecords(s.topics[0], 0, last+1)
	r = s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 50))
	eventually(t, "nothing is stopped", func() bool { return r.states.of(partPartitions) == "ready" })
	r.stop()
	s.accounts(s.topics[0], 50, 40)
	s.losses("0 10-19")
}
