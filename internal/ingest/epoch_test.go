package ingest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// A topic that was made anew is read again from its start, and the rows of its
// two lives are told apart.
func TestNewEpochReadsATopicMadeAnew(t *testing.T) {
	s := filled(t)
	topic := topics[0]
	begin := func() error {
		survey, err := NewSurvey(t.Context(), SurveyOptions{Brokers: s.kafka.Brokers, Transport: s.transport(), Group: "test", Topics: topics[:], DeadTopic: deadTopic})
		if err != nil {
			return err
		}
		ends, err := s.store.LedgerEnds(t.Context(), survey.Cluster())
		if err != nil {
			return err
		}
		entries, err := survey.NewEpoch(t.Context(), topic, ends, time.Now().UTC())
		if err != nil {
			return err
		}
		return s.store.WriteLedger(t.Context(), entries)
	}
	client := &kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}
	if res, err := client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	if res, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}}); err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	s.publish(topic, 0, 0, requestEvents(100, 107)...)

	r := s.start(nil)
	eventually(t, "the partition is stopped and the command named", func() bool {
		return strings.Contains(r.states.of(partPartitions), "ingest ledger new-epoch TOPIC")
	})
	if err := begin(); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Errorf("beside an ingester: got %v, want a refusal", err)
	}
	r.stop()
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("after the command: got %q", got)
	}
	r = s.start(nil)
	eventually(t, "the new topic is read", func() bool {
		return s.query("SELECT sum(stored) FROM ingest_ledger WHERE epoch = 1") == "7"
	})
	r.stop()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("after it was read again: got %q", got)
	}
	s.query("SYSTEM START MERGES request_events") // a mutation needs them
	s.query("DELETE FROM request_events WHERE src_offset = 4 AND id = 'e-4'")
	if got := found(s.verify(everything)); !slices.Equal(got, []string{"missing lethe.request/0 4-4"}) {
		t.Errorf("a row of the first epoch is gone: got %q", got)
	}
	if h, err := s.store.Horizon(t.Context()); err != nil || len(h.Gaps) > 0 {
		t.Errorf("horizon: got %v and %v, want no gap", h.Gaps, err)
	}
}
