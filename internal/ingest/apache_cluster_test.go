//go:build kafka

package ingest

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

const replicas = 3

// leader is the node that leads a partition of the first topic.
func (s *stack) leader(partition int32) *kafkatest.Node {
	s.t.Helper()
	n, err := kafkatest.Brokers(s.t).Leader(s.t.Context(), s.topics[0], partition)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// coordinator is the node that coordinates the group, or nil while it moves.
func (s *stack) coordinator() *kafkatest.Node {
	s.t.Helper()
	n, err := kafkatest.Brokers(s.t).Coordinator(s.t.Context(), s.group)
	if err != nil {
		return nil
	}
	return n
}

// The node does not coordinate the group. The pauses before retries
// are the usual ones, in which the leader moves.
func TestApacheALeaderDiesUnderLoad(t *testing.T) {
	s := newApacheOn(t, kafkatest.Brokers(t), 3, nil)
	r := s.start(func(o *Options) { o.RetryMin, o.RetryMax = 0, 0 })
	l := s.load()
	l.goesOn("the load is under way", 300)
	led := int32(0)
	if s.leader(led) == s.coordinator() {
		led++ // each partition begins on a node of its own
	}
	dead := s.leader(led)
	dead.Kill(t)
	eventually(t, "reported paused", func() bool { return strings.HasPrefix(r.states.of(partKafka), "paused: ") })
	eventually(t, "another node leads", func() bool { n := s.leader(led); return n != nil && n != dead })
	l.goesOn("the load goes on without the node", 600)
	eventually(t, "ready without the node", func() bool { return r.states.of(partKafka) == "ready" })
	dead.Start(t)
	l.goesOn("the load goes on with it", 300)
	eventually(t, "ready again", func() bool { return r.states.of(partKafka) == "ready" })
	l.proves()
	r.stop()
	if got := r.metric("offsets_total", "outcome=lost"); got > 0 {
		t.Errorf("got %v lost offsets, want none", got)
	}
}

func TestApacheTheCoordinatorDiesUnderLoad(t *testing.T) {
	s := newApacheOn(t, kafkatest.Brokers(t), 3, nil)
	first, second := s.start(nil), s.start(nil)
	l := s.load()
	l.goesOn("the load is under way", 300)
	dead := s.coordinator()
	dead.Kill(t)
	eventually(t, "another node coordinates", func() bool { n := s.coordinator(); return n != nil && n != dead })
	l.goesOn("the load goes on without the node", 600)
	for _, r := range []*running{first, second} {
		eventually(t, "ready without the node", func() bool { return r.states.of(partKafka) == "ready" })
	}
	dead.Start(t)
	l.goesOn("the load goes on with it", 300)
	l.proves()
	first.stop()
	second.stop()
}

// Partitions move to other leaders while they are read, by reassignment and by
// election; no node is lost.
func TestApacheLeadersMoveUnderLoad(t *testing.T) {
	s := newApacheOn(t, kafkatest.Brokers(t), 3, nil)
	r := s.start(nil)
	l := s.load()
	l.goesOn("the load is under way", 300)
	c := s.other()
	for round := range 3 {
		var want [3]int32
		assign := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		assign.TimeoutMillis = 15_000
		topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		topic.Topic = s.topics[0]
		elect := kmsg.NewPtrElectLeadersRequest()
		elect.TimeoutMillis = 15_000
		elected := kmsg.NewElectLeadersRequestTopic()
		elected.Topic = s.topics[0]
		for p := range int32(3) {
			before := s.leader(p).ID()
			order := []int32{before%replicas + 1, (before+1)%replicas + 1, before}
			if round == 1 { // away from a node altogether
				order = order[:2]
			}
			want[p] = order[0]
			part := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			part.Partition, part.Replicas = p, order
			topic.Partitions = append(topic.Partitions, part)
			elected.Partitions = append(elected.Partitions, p)
		}
		assign.Topics = append(assign.Topics, topic)
		elect.Topics = append(elect.Topics, elected)
		assigned, err := assign.RequestWith(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range assigned.Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				t.Fatalf("reassign: %v", err)
			}
		}
		eventually(t, "the wanted nodes lead", func() bool {
			// An election fails while the wanted node is not in sync, and has
			// nothing to do where it leads.
			if _, err := elect.RequestWith(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			var lead []int32
			for p := range int32(3) {
				if n := s.leader(p); n != nil {
					lead = append(lead, n.ID())
				}
			}
			return slices.Equal(lead, want[:])
		})
		l.goesOn("the load goes on", 300)
	}
	eventually(t, "ready", func() bool { return r.states.of(partKafka) == "ready" })
	l.proves()
	r.stop()
	if got := r.metric("generations_total"); got != 1 {
		t.Errorf("got %v generations, want 1: the members are the same", got)
	}
}
