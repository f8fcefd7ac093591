package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// reread replays offsets of the first partition beside a running ingester,
// whose options it uses.
func (r *running) reread(ctx context.Context, s *stack, topic string, first, last int64, change func(*Options)) (Replayed, error) {
	s.t.Helper()
	survey, err := NewSurvey(s.t.Context(), SurveyOptions{Brokers: s.kafka.Brokers, Transport: s.transport(), Group: s.group, Topics: s.topics[:], DeadTopic: s.dead})
	if err != nil {
		s.t.Fatal(err)
	}
	o := r.o
	o.Metrics = prometheus.NewRegistry()
	if change != nil {
		change(&o)
	}
	i, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	said := first
	done, err := i.Replay(ctx, Reread{
		Topic: topic, Range: ledger.Range{First: first, Last: last}, Survey: survey,
		Progress: func(next int64) {
			if next < said || next > last+1 {
				s.t.Errorf("progress: got offset %d after %d", next, said)
			}
			said = next
		},
	})
	if err == nil && said != last+1 {
		s.t.Errorf("progress: got offset %d at the end, want %d", said, last+1)
	}
	return done, err
}

// countLetters returns how many the dead topic has.
func (s *stack) countLetters() int64 {
	s.t.Helper()
	res, err := (&kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}).ListOffsets(s.t.Context(),
		&kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{s.dead: {kafka.LastOffsetOf(0)}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return res.Topics[s.dead][0].LastOffset
}

func TestReplayRepairsWhatVerifyNames(t *testing.T) {
	s := filled(t)
	r := s.start(nil)
	for _, c := range []struct {
		name   string
		breaks []string
		want   []string
	}{
		{"a row", []string{"DELETE FROM request_events WHERE src_offset IN (12, 13, 17)"}, []string{"missing lethe.request/0 12-13", "missing lethe.request/0 17-17"}},
		{"an entry", []string{"DELETE FROM ingest_ledger WHERE first >= 10 AND last <= 19"}, []string{"gap lethe.request/0 10-19", "unaccounted lethe.request/0 10-19"}},
		{"the last entry and its rows", []string{"DELETE FROM ingest_ledger WHERE first = 30", "DELETE FROM request_events WHERE src_offset >= 30"}, []string{"position lethe.request/0 30-39"}},
		{"a whole bucket", []string{"TRUNCATE TABLE request_events"}, []string{"missing lethe.request/0 0-9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := *s
			s.t = t
			s.query("SYSTEM START MERGES request_events")
			for _, b := range c.breaks {
				s.query("%s", b)
			}
			broken := s.verify(shorter)
			if got := found(broken); len(got) < len(c.want) || !slices.Equal(got[:min(len(got), 1)], c.want[:1]) {
				t.Fatalf("got %q, want it to begin with %q", got, c.want)
			}
			for _, f := range broken.Findings {
				if f.Kind == "unaccounted" {
					continue // the same offsets as a gap
				}
				done, err := r.reread(t.Context(), &s, topics[0], f.First, f.Last, nil)
				if err != nil || done.Next != f.Last+1 {
					t.Errorf("replay of %d-%d: got %+v and %v", f.First, f.Last, done, err)
				}
			}
			if got := found(s.verify(shorter)); got != nil {
				t.Errorf("afterwards: got %q", got)
			}
			if got := found(s.verify(everything)); got != nil {
				t.Errorf("afterwards, in full: got %q", got)
			}
		})
	}
	if got := s.query("SELECT count(), uniqExact(id) FROM request_events FINAL"); got != "39\t39" {
		t.Errorf("rows and events: got %q, want 39 of each", got)
	}
	if got := s.countLetters(); got != 1 {
		t.Errorf("got %d dead letters, want the one of before", got)
	}
	if got := s.query("SELECT max(next) FROM ingest_progress"); got != "40" {
		t.Errorf("progress: got %s, want 40", got)
	}
	// The ingester beside it goes on where it was.
	s.publish(topics[0], 0, 0, requestEvents(40, 50)...)
	eventually(t, "what came meanwhile", s.done(topics[0], 50))
	r.stop()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("at the end: got %q", got)
	}
}

func TestReplayBringsALostLetterBack(t *testing.T) {
	s := filled(t)
	r := s.start(nil)
	client := &kafka.Client{Addr: kafka.TCP(s.broker.Addr()), Transport: s.transport()}
	if res, err := client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{deadTopic}}); err != nil || res.Errors[deadTopic] != nil {
		t.Fatal(err, res)
	}
	if res, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: deadTopic, NumPartitions: 1, ReplicationFactor: 1}}}); err != nil || res.Errors[deadTopic] != nil {
		t.Fatal(err, res)
	}
	if got := found(s.verify(shorter)); !slices.Equal(got, []string{"letter lethe.request/0 15-15"}) {
		t.Fatalf("got %q", got)
	}
	for range 2 { // the second finds the letter of the first
		if done, err := r.reread(t.Context(), s, topics[0], 15, 15, nil); err != nil || done.Counts[ledger.Dead] != 1 {
			t.Errorf("got %+v and %v", done, err)
		}
	}
	if got := s.countLetters(); got != 1 {
		t.Errorf("got %d letters, want 1", got)
	}
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("afterwards: got %q", got)
	}
}

func TestReplayCanBeInterruptedAndGoOn(t *testing.T) {
	const events = 3000
	s := newStack(t, 1)
	s.publish(topics[0], 0, 0, requestEvents(0, events)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], events))
	s.query("TRUNCATE TABLE request_events")

	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	done, err := r.reread(ctx, s, topics[0], 0, events-1, func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			interrupt()
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage, o.BatchRows = f, 100
	})
	if !errors.Is(err, context.Canceled) || done.Next <= 0 || done.Next >= events {
		t.Fatalf("interrupted: got %+v and %v", done, err)
	}
	if got := s.query("SELECT count() FROM request_events FINAL"); got != s.query("SELECT toString(%d)", done.Next) {
		t.Errorf("it says that it came to offset %d, but %s rows are there", done.Next, got)
	}
	if r := s.verify(shorter); r.OK() || r.Findings[0].First != done.Next {
		t.Errorf("got %q, want what is missing from offset %d on", found(r), done.Next)
	}
	if done, err = r.reread(t.Context(), s, topics[0], done.Next, events-1, nil); err != nil || done.Next != events {
		t.Fatalf("the rest: got %+v and %v", done, err)
	}
	if _, err = r.reread(t.Context(), s, topics[0], 0, events-1, nil); err != nil { // all of it once more
		t.Fatal(err)
	}
	r.stop()
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("afterwards: got %q", got)
	}
	s.accounts(topics[0], events, events)
}

func TestReplayRefuses(t *testing.T) {
	s := newStack(t, 1)
	s.publish(topics[0], 0, 0, requestEvents(0, 5)...)
	s.publish(topics[0], 0, 0, requestEvents(5, 20)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], 20))
	s.deleteRecords(topics[0], 0, 5)
	r.stop()
	again := s.start(func(o *Options) { o.Topics[0] = "lethe.other" }) // nobody reads the topic any more
	s.publish(topics[0], 0, 0, requestEvents(20, 30)...)
	before := s.query("SELECT count() FROM ingest_ledger")
	for _, c := range []struct {
		name        string
		topic       string
		first, last int64
		want        string
	}{
		{"what the log has no more", topics[0], 3, 10, "offsets 5 to 19 can be replayed, not 3 to 10: the log begins at 5"},
		{"what was not consumed", topics[0], 10, 20, "offsets 5 to 19 can be replayed, not 10 to 20"},
		{"what is not there yet", topics[0], 30, 40, "accounted for ends before 20"},
		{"backwards", topics[0], 9, 8, "offsets 9 to 8 are no range"},
		{"nothing consumed", topics[1], 0, 0, "no offset can be replayed: the log begins at 0 and what was consumed ends before 0"},
		{"another topic", deadTopic, 0, 0, "lethe.dead is no topic of events"},
	} {
		_, err := again.reread(t.Context(), s, c.topic, c.first, c.last, func(o *Options) { o.Topics = topics })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if got := s.query("SELECT count() FROM ingest_ledger"); got != before {
		t.Errorf("got %s entries, want the %s of before", got, before)
	}
}

// What topic retention takes while it is replayed does not become a loss.
func TestReplayStopsWhereTheLogEnds(t *testing.T) {
	const events = 3000
	s := newStack(t, 1)
	s.publish(topics[0], 0, 0, requestEvents(0, events)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(topics[0], events))
	var once sync.Once
	done, err := r.reread(t.Context(), s, topics[0], 0, events-1, func(o *Options) {
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			once.Do(func() { s.deleteRecords(topics[0], 0, events-100) })
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage, o.BatchRows, o.FetchBytes = f, 100, 1
	})
	if err == nil || !strings.Contains(err.Error(), "the topic has offsets 2900 to 2999 now") || done.Next >= events-100 {
		t.Errorf("got %+v and %v", done, err)
	}
	r.stop()
	if got := s.query("SELECT sum(lost) FROM ingest_ledger"); got != "0" {
		t.Errorf("got %s lost offsets, want none", got)
	}
	if got := found(s.verify(everything)); got != nil {
		t.Errorf("afterwards: got %q", got)
	}
}
