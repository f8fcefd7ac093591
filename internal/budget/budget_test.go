package budget

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	day    = 24 * time.Hour
	topic  = "lethe.request"
	sweeps = 5*time.Minute + time.Minute // Apache Kafka's check interval and delete delay
)

var fits = map[string]string{"retention.ms": "43200000", "segment.ms": "21600000", "message.timestamp.type": "LogAppendTime"}

// but returns the settings with some of them changed.
func but(pairs ...string) map[string]string {
	m := map[string]string{}
	for k, v := range fits {
		m[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// rig is a broker with one topic, and a budget for it.
type rig struct {
	*Budget
	metrics *prometheus.Registry
	client  *kafka.Client
	log     *strings.Builder
}

func newRig(t *testing.T, mode string, configs map[string]string) *rig {
	t.Helper()
	var topics []embedded.Topic
	if configs != nil {
		topics = append(topics, embedded.Topic{Name: topic, Partitions: 1, Configs: configs})
	}
	addr := embeddedtest.Kafka(t, topics...)
	transport := new(kafka.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	r := &rig{metrics: prometheus.NewRegistry(), client: connect([]string{addr}, transport), log: new(strings.Builder)}
	var err error
	r.Budget, err = New(Options{
		Brokers: []string{addr}, Transport: transport, Mode: mode, Bounds: []Bound{{topic, 7 * day, "class request: within 7d"}},
		Metrics: r.metrics, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// alter changes a setting as an operator would.
func (r *rig) alter(t *testing.T, kind kafka.ResourceType, resource, name, value string) {
	t.Helper()
	res, err := r.client.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{
		{ResourceType: kind, ResourceName: resource, Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Resources[0].Error; err != nil {
		t.Fatal(err)
	}
}

// metric returns a gauge of the topic, or the only one; −1 where there is none.
func (r *rig) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if m := f.GetMetric(); f.GetName() == "lethe_ingest_topic_"+name && (len(m[0].GetLabel()) == 0 || m[0].GetLabel()[0].GetValue() == topic) {
			return m[0].GetGauge().GetValue()
		}
	}
	return -1
}

// topic reads the topic back.
func (r *rig) topic(t *testing.T) Topic {
	t.Helper()
	topics, err := Read(t.Context(), r.o.Brokers, r.o.Transport, topic)
	if err != nil || len(topics) != 1 {
		t.Fatalf("got %d topics, %v, want one", len(topics), err)
	}
	return topics[0]
}

func isFinal(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// cases are topics that outlive seven days, and one that does not.
var cases = []struct {
	name    string
	configs map[string]string
	want    []string // parts of the refusal; none: it fits
	seconds float64  // the worst age; below 0: none
}{
	{"fits", fits, nil, (18*time.Hour + sweeps).Seconds()},
	{"the broker's defaults", map[string]string{}, []string{
		"topic lethe.request must forget in less than 7d (class request: within 7d)",
		"retention.ms of 7d and segment.ms of 7d, with 5m until the brokers look and 1m until files go, keep a record for 14d6m",
		"message.timestamp.type is CreateTime and must be LogAppendTime"}, -1},
	{"the retention alone fits", but("retention.ms", "518400000", "segment.ms", "86400000"), []string{"retention.ms of 6d and segment.ms of 1d", "for 7d6m"}, (7*day + sweeps).Seconds()},
	{"exactly the bound", but("retention.ms", "604439999", "segment.ms", "1"), []string{"keep a record for 7d"}, (7 * day).Seconds()},
	{"a millisecond under the bound", but("retention.ms", "604439998", "segment.ms", "1"), nil, (7*day - time.Millisecond).Seconds()},
	{"no retention", but("retention.ms", "-1"), []string{"retention.ms of no end", "for ever"}, -1},
	{"a retention by size only", but("retention.ms", "-1", "retention.bytes", "1000"), []string{"for ever"}, -1},
	{"a segment that time never ends", but("segment.ms", "9223372036854775807"), []string{"segment.ms of no end", "for ever"}, -1},
	{"the producer's time", but("message.timestamp.type", "CreateTime"), []string{"but message.timestamp.type is CreateTime"}, -1},
	{"compacted", but("cleanup.policy", "compact,delete"), []string{"but cleanup.policy is compact,delete and must be delete"}, -1},
	{"slow to remove files", but("file.delete.delay.ms", "604800000"), []string{"7d until files go"}, (7*day + 18*time.Hour + 5*time.Minute).Seconds()},
}

func TestCheck(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Check, c.configs)
			err := r.Enforce(t.Context())
			if (err != nil) != (c.want != nil) {
				t.Fatalf("got %v, want a refusal: %t", err, c.want != nil)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if err != nil && !isFinal(err) {
				t.Error("another try would be made, want a refusal that ends the start")
			}
			tt := r.topic(t)
			if age, ok := tt.WorstAge(); ok != (c.seconds >= 0) || ok && age.Seconds() != c.seconds {
				t.Errorf("worst age: got %s, %t, want %g s", age, ok, c.seconds)
			}
			got := r.metric(t, "worst_age_seconds")
			if c.seconds >= 0 && got != c.seconds || c.seconds < 0 && got < 1e300 {
				t.Errorf("metric: got %g s, want %g (below 0: infinite)", got, c.seconds)
			}
			if got := r.metric(t, "budget_seconds"); got != (7 * day).Seconds() {
				t.Errorf("budget: got %g s, want seven days", got)
			}
		})
	}
}

func TestSet(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Set, c.configs)
			before := r.topic(t)
			err := r.Enforce(t.Context())
			if c.name == "slow to remove files" {
				if !isFinal(err) || r.topic(t) != before {
					t.Fatalf("got %v, want a refusal and the topic as it was", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			after := r.topic(t)
			if c.want == nil && after != before {
				t.Errorf("got %+v, want what fits left alone: %+v", after, before)
			}
			if err := after.Exceeds(r.o.Bounds[0]); err != nil {
				t.Error(err)
			}
			if before.Retention >= 0 && after.Retention > before.Retention || before.Segment >= 0 && after.Segment > before.Segment {
				t.Errorf("got %+v, want no time longer than before: %+v", after, before)
			}
			if after.Retention < min(12*time.Hour, before.Retention) {
				t.Errorf("got a retention of %s, want no less than is needed", after.Retention)
			}
			if changed := strings.Contains(r.log.String(), "a topic's setting is changed"); changed != (c.want != nil) {
				t.Errorf("a warning: %t, want %t", changed, c.want != nil)
			}
		})
	}
}

func TestOffWarnsAndReadsNothing(t *testing.T) {
	r := newRig(t, Off, map[string]string{})
	if err := r.Enforce(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Watch(t.Context(), time.Nanosecond) // returns at once
	if !strings.Contains(r.log.String(), "level=WARN") {
		t.Errorf("got log %q, want a warning", r.log)
	}
	if off, age := r.metric(t, "budget_off"), r.metric(t, "worst_age_seconds"); off != 1 || age != -1 {
		t.Errorf("got off %g and a worst age of %g, want 1 and none", off, age)
	}
}

func TestTheSlowestSweepCounts(t *testing.T) {
	r := newRig(t, Check, fits)
	r.alter(t, kafka.ResourceTypeBroker, "0", checkInterval, "604800000")
	if err := r.Enforce(t.Context()); err == nil || !strings.Contains(err.Error(), "7d until the brokers look") {
		t.Errorf("got %v, want a refusal that names the check interval", err)
	}
}

func TestATopicThatComesLaterIsLookedAt(t *testing.T) {
	r := newRig(t, Check, nil)
	if err := r.Enforce(t.Context()); err != nil {
		t.Fatalf("got %v, want a start without the topic", err)
	}
	if !strings.Contains(r.log.String(), "does not exist yet") {
		t.Errorf("got log %q, want the topic named", r.log)
	}
	res, err := r.client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Watch(ctx, 10*time.Millisecond) }()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for r.metric(t, "worst_age_seconds") < 0 {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("waited in vain for the topic's metric")
		}
	}
	cancel()
	<-done
}

func TestBrokersThatAreAwayAreTriedAgain(t *testing.T) {
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Read(ctx, []string{"127.0.0.1:1"}, transport, topic); err == nil || isFinal(err) {
		t.Errorf("got %v, want an error that another try may cure", err)
	}
}

func TestNewChecksItsOptions(t *testing.T) {
	good := Options{Brokers: []string{"127.0.0.1:1"}, Transport: new(kafka.Transport), Bounds: []Bound{{topic, day, "x"}}, Mode: Check, Log: slog.New(slog.DiscardHandler)}
	for name, change := range map[string]func(*Options){
		"no brokers":    func(o *Options) { o.Brokers = nil },
		"no transport":  func(o *Options) { o.Transport = nil },
		"no bounds":     func(o *Options) { o.Bounds = nil },
		"unknown mode":  func(o *Options) { o.Mode = "perhaps" },
		"a bound of 0":  func(o *Options) { o.Bounds = []Bound{{topic, 0, "x"}} },
		"no name":       func(o *Options) { o.Bounds = []Bound{{"", day, "x"}} },
		"no metrics":    func(o *Options) { o.Metrics = nil },
		"no logger":     func(o *Options) { o.Log = nil },
		"names of mode": func(o *Options) { o.Mode = "" },
	} {
		o := good
		o.Metrics = prometheus.NewRegistry()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
