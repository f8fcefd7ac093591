package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/verify"
)

// proof reads the store's buckets as the wiring does.
type proof struct{ storage }

func (p proof) Rows(ctx context.Context, eras []ledger.Era, found func(ledger.Found)) (int, uint64, error) {
	all, err := p.Buckets(ctx)
	if err != nil {
		return 0, 0, err
	}
	repeats := uint64(0)
	for _, b := range all {
		counted, err := p.Find(ctx, b, eras)
		if err != nil {
			return 0, 0, err
		}
		for _, f := range counted {
			found(f)
		}
		n, err := p.Repeats(ctx, b)
		if err != nil {
			return 0, 0, err
		}
		repeats += n
	}
	return len(all), repeats, nil
}

func (p proof) Deliveries(ctx context.Context, eras []ledger.Era, era int, partition int32, r ledger.Range) (all []ledger.Delivery, err error) {
	for d, err := range p.Store.Deliveries(ctx, eras, era, partition, r) {
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// verify runs the proof; expiry is how long every class is kept.
func (s *stack) verify(period, grace time.Duration) *verify.Report {
	s.t.Helper()
	survey, err := NewSurvey(s.t.Context(), SurveyOptions{Brokers: s.kafka.Brokers, Transport: s.transport(), Group: s.group, Topics: s.topics[:], DeadTopic: s.dead})
	if err != nil {
		s.t.Fatal(err)
	}
	report, err := verify.Run(s.t.Context(), verify.Options{
		Storage: proof{storage{s.store}}, Kafka: survey, Grace: grace, Now: time.Now,
		Expiry: func(_ string, from time.Time) time.Time { return from.Add(period) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// found lists the findings as "kind partition first-last".
func found(r *verify.Report) []string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, fmt.Sprintf("%s %s/%d %d-%d", f.Kind, f.Partition.Topic, f.Partition.Partition, f.First, f.Last))
	}
	return list
}

// filled is a stack on which thirty events, one of them no event, came in three batches.
func filled(t *testing.T) *stack {
	t.Helper()
	s := newStack(t, 1)
	r := s.start(nil)
	for n := range 3 {
		values := requestEvents(10*n, 10*n+10)
		if n == 1 {
			values[5] = "no event"
		}
		s.publish(topics[0], 0, 0, values...)
		eventually(t, "the batch is in the ledger", func() bool {
			return s.query("SELECT sum(stored + dead) FROM ingest_ledger") == fmt.Sprint(10*n+10)
		})
	}
	r.stop()
	return s
}

const year = 365 * 24 * time.Hour

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	const columns = "* EXCEPT (id, src_offset), id, src_offset"
	cases := []struct {
		name   string
		breaks []string // statements; %s is an entry's condition
		want   []string
	}{
		{"nothing", nil, nil},
		{"one row deleted", []string{"DELETE FROM request_events WHERE src_offset = 12"}, []string{"missing lethe.request/0 12-12"}},
		{"one row inserted under another offset", []string{
			"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 3 FROM request_events WHERE src_offset = 12",
		}, []string{"unexpected lethe.request/0 3-3"}},
		{"one row inserted under an offset beyond the partition's end", []string{
			"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 99 FROM request_events WHERE src_offset = 12",
		}, []string{"unaccounted lethe.request/0 99-99"}},
		{"one row moved to another offset", []string{
			"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 3 FROM request_events WHERE src_offset = 12",
			"DELETE FROM request_events WHERE src_offset = 12",
		}, []string{"unexpected lethe.request/0 3-3", "missing lethe.request/0 12-12"}},
		{"a row where the ledger has a dead letter", []string{
			"INSERT INTO request_events (" + columns + ") SELECT * EXCEPT (id, src_offset), id, 15 FROM request_events WHERE src_offset = 12",
		}, []string{"unexpected lethe.request/0 15-15"}},
		{"one ledger row dropped", []string{"DELETE FROM ingest_ledger WHERE first = 10"},
			[]string{"gap lethe.request/0 10-19", "unaccounted lethe.request/0 10-19"}},
		{"the last ledger row dropped", []string{"DELETE FROM ingest_ledger WHERE first = 20"},
			[]string{"position lethe.request/0 20-29"}},
		{"one digest altered", []string{
			"ALTER TABLE ingest_ledger UPDATE `cells.digest` = arrayMap(d -> d + 1, `cells.digest`) WHERE first = 20 SETTINGS mutations_sync = 2",
		}, []string{"digest lethe.request/0 20-29"}},
		{"one part detached", nil, []string{"missing lethe.request/0 20-29"}},
		{"an entry contradicted by a second delivery", []string{
			"INSERT INTO ingest_ledger (cluster, topic, first, last, expired, `other.first`, `other.last`, `other.outcome`, received_at) " +
				"SELECT cluster, topic, 4, 5, 2, [4], [5], ['expired'], received_at FROM ingest_ledger WHERE first = 0",
		}, []string{"conflict lethe.request/0 4-5"}},
		{"offsets that the topic's retention took", []string{
			"ALTER TABLE ingest_ledger UPDATE dead = 0, lost = 1, `other.outcome` = ['lost'] WHERE first = 10 SETTINGS mutations_sync = 2",
		}, []string{"lost lethe.request/0 15-15"}},
		{"a dead letter that is not there", []string{
			"ALTER TABLE ingest_ledger UPDATE stored = 9, dead = 1, `other.first` = [24], `other.last` = [24], `other.outcome` = ['dead'], " +
				"`cells.rows` = [9] WHERE first = 20 SETTINGS mutations_sync = 2",
			"DELETE FROM request_events WHERE src_offset = 24",
			"ALTER TABLE ingest_ledger UPDATE `cells.digest` = [(SELECT sumWithOverflow(xxHash64(concat(source, '\\0', id, '\\0', toString(src_offset)))) FROM request_events WHERE src_offset >= 20)] WHERE first = 20 SETTINGS mutations_sync = 2",
		}, []string{"letter lethe.request/0 24-24"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := filled(t)
			for _, b := range c.breaks {
				s.query("%s", b)
			}
			if c.name == "one part detached" {
				s.query("ALTER TABLE request_events DETACH PART '%s'", s.query("SELECT _part FROM request_events WHERE src_offset = 22"))
			}
			report := s.verify(year, time.Hour)
			var text strings.Builder
			if err := report.Print(&text); err != nil {
				t.Fatal(err)
			}
			if got := found(report); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q\n%s", got, c.want, text.String())
			}
			for _, f := range report.Findings {
				if !strings.Contains(text.String(), f.Kind) || !strings.Contains(text.String(), f.Text) {
					t.Errorf("the table does not show %+v:\n%s", f, text.String())
				}
				if f.Kind == "missing" && (!strings.HasPrefix(f.Class, "request/") || f.Day == "") {
					t.Errorf("a missing row has no class or day: %+v", f)
				}
			}
			if c.want == nil {
				a := report.Accounts[0]
				if report.Rows != 29 || report.Entries != 3 || report.Letters != 1 || a.Counts[ledger.Stored] != 29 || a.Counts[ledger.Dead] != 1 || a.Committed != 30 || a.End != 30 {
					t.Errorf("it does not say what it read: %s", text.String())
				}
			}
		})
	}
}

func TestVerifyKnowsWhatIsDue(t *testing.T) {
	s := filled(t)
	s.query("DELETE FROM request_events WHERE src_offset = 12")
	if r := s.verify(time.Minute, 72*time.Hour); !r.OK() {
		t.Errorf("rows may have gone: got %q", found(r))
	}
	if r := s.verify(-72*time.Hour, time.Hour); !slices.ContainsFunc(found(r), func(f string) bool { return strings.HasPrefix(f, "late ") }) {
		t.Errorf("rows outlived the grace: got %q, want them late", found(r))
	}
}

func TestVerifyTakesRepeats(t *testing.T) {
	s := filled(t)
	s.query("SYSTEM STOP MERGES request_events")
	s.query("INSERT INTO request_events SELECT * FROM request_events WHERE src_offset BETWEEN 3 AND 12")
	s.query("INSERT INTO ingest_ledger SELECT * REPLACE (generation + 1 AS generation) FROM ingest_ledger WHERE first = 10")
	if r := s.verify(year, time.Hour); !r.OK() || r.Repeats != 10 || r.Accounts[0].Counts[ledger.Stored] != 29 {
		t.Errorf("got %q, %d repeats and %v, want none, 10 and 29 stored", found(r), r.Repeats, r.Accounts)
	}
}

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
	if got := found(s.verify(year, time.Hour)); got != nil {
		t.Errorf("after the command: got %q", got)
	}
	r = s.start(nil)
	eventually(t, "the new topic is read", func() bool {
		return s.query("SELECT sum(stored) FROM ingest_ledger WHERE epoch = 1") == "7"
	})
	r.stop()
	if got := found(s.verify(year, time.Hour)); got != nil {
		t.Errorf("after it was read again: got %q", got)
	}
	s.query("DELETE FROM request_events WHERE src_offset = 4 AND id = 'e-4'")
	if got := found(s.verify(year, time.Hour)); !slices.Equal(got, []string{"missing lethe.request/0 4-4"}) {
		t.Errorf("a row of the first epoch is gone: got %q", got)
	}
	if h, err := s.store.Horizon(t.Context()); err != nil || len(h.Gaps) > 0 {
		t.Errorf("horizon: got %v and %v, want no gap", h.Gaps, err)
	}
}
