package ingest

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// metrics are what an operator watches. Labels come from closed sets, or from
// the bounded set of publishers.
type metrics struct {
	publishers *publishers

	events      *prometheus.CounterVec
	offsets     *prometheus.CounterVec
	attributes  *prometheus.CounterVec
	skewed      *prometheus.CounterVec
	unnamed     *prometheus.CounterVec
	lagEvents   *prometheus.GaugeVec
	lagSeconds  *prometheus.GaugeVec
	complete    *prometheus.GaugeVec
	inserts     prometheus.Counter
	parts       prometheus.Counter
	rows        prometheus.Histogram
	bytes       prometheus.Histogram
	seconds     prometheus.Histogram
	inFlight    prometheus.Gauge
	batched     prometheus.GaugeFunc
	retries     *prometheus.CounterVec
	generations prometheus.Counter
	fenced      prometheus.Counter
	forgotten   prometheus.Counter
	stopped     prometheus.Counter
	ahead       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, batched func() float64) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "lethe_ingest_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_ingest_" + name, Help: help}, labels)
	}
	gauges := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lethe_ingest_" + name, Help: help}, []string{"topic", "partition"})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lethe_ingest_" + name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		publishers:  newPublishers(),
		events:      counters("events_total", "Events by publisher (the source of the first hundred, else \"other\"), outcome and, for dead letters, reason.", "publisher", "outcome", "reason"),
		offsets:     counters("offsets_total", "Offsets entered in the ledger. \"lost\" is an alarm: the topic's retention took them before they were read.", "topic", "outcome"),
		attributes:  counters("attributes_dropped_total", "Attributes that were not kept: unknown ones, and those refused by name.", "publisher", "why"),
		skewed:      counters("skewed_total", "Events whose time was more than five minutes ahead; their period starts when they were received.", "publisher"),
		unnamed:     counters("unnamed_facts_total", "Audit events that delete or restore something and do not say what, or say it by an e-mail: they end no period. What is read again is counted again.", "publisher"),
		lagEvents:   gauges("lag_events", "Offsets between the ledger's end and the partition's end."),
		lagSeconds:  gauges("lag_seconds", "Age of the instant up to which everything received by Kafka has an outcome."),
		complete:    gauges("complete_until_seconds", "That instant, in seconds since 1970; 0: not known yet."),
		inserts:     counter("batches_total", "Batches stored."),
		parts:       counter("parts_total", "Parts that stored batches made in ClickHouse, one per table and partition value of a batch."),
		rows:        histogram("batch_rows", "Rows of a stored batch.", prometheus.ExponentialBuckets(1, 4, 11)),
		bytes:       histogram("batch_bytes", "Bytes in memory of a stored batch.", prometheus.ExponentialBuckets(1<<10, 4, 10)),
		seconds:     histogram("insert_seconds", "Time from the first try of an insert until it was durable.", prometheus.ExponentialBuckets(0.005, 2, 14)),
		inFlight:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_ingest_in_flight_bytes", Help: "Bytes asked of brokers, or fetched and not yet worked on."}),
		batched:     prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lethe_ingest_batched_bytes", Help: "Bytes in memory of rows and dead letters that are not stored yet. Twice BATCH_BYTES: nothing is fetched until ClickHouse has taken a batch."}, batched),
		retries:     counters("retries_total", "Tries that failed and were made again.", "part"),
		generations: counter("generations_total", "Generations of the consumer group taken part in."),
		fenced:      counter("fenced_total", "Commits that failed; the partitions were read again from the ledger's end."),
		forgotten:   counter("forgotten_batches_total", "Batches given up before the ledger had them; they are read again."),
		stopped:     counter("stopped_partitions_total", "Partitions stopped until a person acts."),
		ahead:       counter("committed_ahead_total", "Partitions whose committed offset was ahead of the ledger: ClickHouse came back from a backup, or with nothing."),
	}
	for _, c := range []prometheus.Collector{m.events, m.offsets, m.attributes, m.skewed, m.unnamed, m.lagEvents, m.lagSeconds, m.complete, m.inserts, m.parts,
		m.rows, m.bytes, m.seconds, m.inFlight, m.batched, m.retries, m.generations, m.fenced, m.forgotten, m.stopped, m.ahead} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) inserted(b Batch, parts int, took time.Duration) {
	m.inserts.Inc()
	m.parts.Add(float64(parts))
	m.rows.Observe(float64(b.Rows()))
	m.bytes.Observe(float64(b.Bytes()))
	m.seconds.Observe(took.Seconds())
}

// accounted counts what the ledger now holds.
func (m *metrics) accounted(entries []ledger.Entry, tallies map[tally]counts) {
	for _, e := range entries {
		for o, n := range e.Counts {
			if n > 0 {
				m.offsets.WithLabelValues(e.Topic, ledger.Outcome(o).String()).Add(float64(n))
			}
		}
	}
	for t, c := range tallies {
		m.events.WithLabelValues(t.publisher, t.outcome.String(), t.reason).Add(float64(c.events))
		if c.unknown > 0 {
			m.attributes.WithLabelValues(t.publisher, "unknown").Add(float64(c.unknown))
		}
		if c.refused > 0 {
			m.attributes.WithLabelValues(t.publisher, "refused").Add(float64(c.refused))
		}
		if c.skewed > 0 {
			m.skewed.WithLabelValues(t.publisher).Add(float64(c.skewed))
		}
	}
}

func (m *metrics) lag(p place, offsets int64, behind time.Duration, complete time.Time) {
	id := strconv.Itoa(int(p.partition))
	m.lagEvents.WithLabelValues(p.topic, id).Set(float64(offsets))
	m.lagSeconds.WithLabelValues(p.topic, id).Set(behind.Seconds())
	until := 0.0
	if !complete.IsZero() {
		until = float64(complete.UnixMilli()) / 1000
	}
	m.complete.WithLabelValues(p.topic, id).Set(until)
}

// forget removes the gauges of a partition that is not ours any more.
func (m *metrics) forget(p place) {
	id := strconv.Itoa(int(p.partition))
	m.lagEvents.DeleteLabelValues(p.topic, id)
	m.lagSeconds.DeleteLabelValues(p.topic, id)
	m.complete.DeleteLabelValues(p.topic, id)
}

// tally is what events are counted by; index is the partition's in the route.
type tally struct {
	index             int
	publisher         string
	outcome           ledger.Outcome
	reason, attribute string
}

type counts struct{ events, unknown, refused, skewed uint64 }

func (c counts) plus(d counts) counts {
	return counts{c.events + d.events, c.unknown + d.unknown, c.refused + d.refused, c.skewed + d.skewed}
}

type counted struct {
	tally
	counts
}

func (c *chunk) count(t tally, e *event.Event, skewed bool) {
	n := counts{events: 1, unknown: uint64(e.Unknown), refused: uint64(e.Refused)}
	if skewed {
		n.skewed = 1
	}
	for i := len(c.tallies) - 1; i >= 0; i-- {
		if c.tallies[i].tally == t {
			c.tallies[i].counts = c.tallies[i].plus(n)
			return
		}
	}
	c.tallies = append(c.tallies, counted{t, n})
}

// Names of publishers that have none of their own.
const (
	publisherOther   = "other"
	publisherUnknown = "unknown" // the record does not tell
	maxPublishers    = 100
)

// publishers holds the sources that are named in metrics: the first hundred.
type publishers struct {
	mu    sync.Mutex
	named map[string]bool
}

func newPublishers() *publishers { return &publishers{named: make(map[string]bool)} }

// name returns the label of a source. A source can hold anything, an address
// too: what does not look like a plain name has no label of its own.
func (p *publishers) name(source string) string {
	if source == "" {
		return publisherUnknown
	}
	if !plain(source) {
		return publisherOther
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.named[source] {
		if len(p.named) >= maxPublishers {
			return publisherOther
		}
		p.named[strings.Clone(source)] = true
	}
	return source
}

// plain reports whether a source is made of words: letters, digits and - _ . /
// with a colon at most once, and nothing like an address, an id or a token in it.
func plain(source string) bool {
	if len(source) > 64 {
		return false
	}
	colons, digits := 0, 0
	for i := range len(source) {
		switch c := source[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.', c == '/':
		case c == ':':
			colons++
		default:
			return false
		}
	}
	return colons <= 1 && digits <= 3
}

// names is a worker's view of the publishers, without a lock for those it knows.
type names struct {
	all   *publishers
	known map[string]string // only names of publishers: bounded
	last  string
}

func newNames(all *publishers) names { return names{all: all, known: make(map[string]string)} }

func (n *names) of(source string) string {
	if source == n.last && source != "" {
		return n.last
	}
	if name, ok := n.known[source]; ok {
		n.last = name
		return name
	}
	name := n.all.name(source)
	if name == source { // not the source's own memory, which is the record's
		name = strings.Clone(name)
		n.known[name] = name
		n.last = name
	}
	return name
}
