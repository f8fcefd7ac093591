package ingest

import (
	"strconv"
	"testing"

	"github.com/segmentio/kafka-go"
)

// accounts checks the whole contract on what a topic has received: every offset
// of every partition has one outcome, and every stored one is one row.
func (s *stack) accounts(topic string, total, stored int) {
	s.t.Helper()
	if got, want := s.query(`SELECT count() FROM ingest_ledger WHERE last - first + 1 != stored + dead + expired + suppressed + lost + absent`), "0"; got != want {
		s.t.Errorf("ledger rows whose outcomes do not sum to their offsets: got %s, want %s", got, want)
	}
	if sum := s.reached(topic); sum != total {
		s.t.Errorf("%s: the ledger's contiguous ends sum to %d, want %d", topic, sum, total)
	}
	deliveries := s.query(`SELECT count() FROM (SELECT DISTINCT src_topic, src_partition, src_offset FROM request_events WHERE src_topic = '%s')`, topic)
	if want := strconv.Itoa(stored); deliveries != want {
		s.t.Errorf("%s: got %s stored deliveries, want %s", topic, deliveries, want)
	}
	if got, want := s.query(`SELECT count() FROM request_events FINAL WHERE src_topic = '%s'`, topic), strconv.Itoa(stored); got != want {
		s.t.Errorf("%s: got %s rows, want %s", topic, got, want)
	}
	if got, want := s.query(`SELECT uniqExact(id) FROM request_events WHERE src_topic = '%s'`, topic), strconv.Itoa(stored); got != want {
		s.t.Errorf("%s: got %s events, want %s", topic, got, want)
	}
}

// digests checks the ledger's cells against the rows, as ClickHouse computes them.
func (s *stack) digests() {
	s.t.Helper()
	rows := s.query(`SELECT retention_class, toDate(retained_from), count(), sumWithOverflow(xxHash64(concat(source, '\0', id, '\0', toString(src_offset))))
		FROM request_events FINAL GROUP BY ALL ORDER BY ALL`)
	cells := s.query(`SELECT cells.retention, toDate(cells.day), sum(cells.rows), sumWithOverflow(cells.digest)
		FROM ingest_ledger ARRAY JOIN cells GROUP BY ALL ORDER BY ALL`)
	if rows != cells {
		s.t.Errorf("the rows are\n%s\nand the ledger's cells\n%s", rows, cells)
	}
}

// done reports whether the ledger reaches n offsets of a topic's partitions together.
func (s *stack) done(topic string, n int) func() bool {
	return func() bool { return s.reached(topic) >= n }
}

// reached is how many offsets of a topic's partitions are in the ledger.
func (s *stack) reached(topic string) int {
	ends, err := s.store.LedgerEnds(s.t.Context(), s.broker.ClusterID())
	if err != nil {
		s.t.Fatal(err)
	}
	sum := int64(0)
	for _, e := range ends {
		if e.Topic == topic {
			sum += e.Next
		}
	}
	return int(sum)
}

func TestEveryOffsetHasItsOutcome(t *testing.T) { onBoth(t, 2, everyOffsetHasItsOutcome) }

func everyOffsetHasItsOutcome(t *testing.T, s *stack) {
	s.publish(s.topics[0], 0, kafka.Lz4, requestEvents(0, 1000)...)
	s.publish(s.topics[0], 1, kafka.Zstd, requestEvents(1000, 1500)...)
	s.publish(s.topics[0], 1, kafka.Snappy, "not JSON", "", requestEvent(1, `,"plan.tier":"unlisted"`),
		`{"specversion":"1.0","id":"x","source":"/svc/api","type":"t","time":"2026-01-31T10:00:00Z","data":{"http.request.method":"GET","client.address":"203.0.113.7"}}`,
		`{"specversion":"1.0","id":"old","source":"/svc/api","type":"t","time":"2001-01-31T10:00:00Z","data":{"http.request.method":"GET","http.response.status_code":200}}`)
	s.publish(s.topics[0], 0, kafka.Gzip, requestEvents(1500, 1600)...)
	r := s.start(nil)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 1605))
	r.stop()
	s.accounts(s.topics[0], 1605, 1600)
	s.digests()
	for label, want := range map[string]float64{"stored": 1600, "dead": 4, "expired": 1} {
		if got := r.metric("events_total", "outcome="+label); got != want {
			t.Errorf("metric of %s: got %v, want %v", label, got, want)
		}
	}
}
