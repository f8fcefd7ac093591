package ingest

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kafkatest.Tests{M: m}) }

var topics = [event.NumKinds]string{"lethe.request", "lethe.audit", "lethe.security"}

const deadTopic = "lethe.dead"

// tiers is a policy with tiers: an unlisted one has no class, and what is older
// than ninety days has expired under all of them.
func tiers(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.Load("../../schemas/policies/itskode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type everywhere struct{}

func (everywhere) Country(netip.Addr) string { return "DE" }

// storage is a store as the ingester sees it.
type storage struct{ *store.Store }

func (s storage) NewBatch() Batch { return s.Store.NewBatch() }

func (s storage) Insert(ctx context.Context, b Batch, token string) error {
	return s.Store.Insert(ctx, b.(*store.Batch), token)
}

func (s storage) InsertRows(ctx context.Context, b Batch, part, from, to int, token string) error {
	return s.Store.InsertRows(ctx, b.(*store.Batch), part, from, to, token)
}

// states remembers what was reported.
type states struct {
	mu   sync.Mutex
	last map[string]string
}

func (s *states) Report(part string, state daemon.State, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]string)
	}
	s.last[part] = strings.TrimSuffix(state.String()+": "+why, ": ")
}

func (s *states) of(part string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[part]
}

// cluster is an embedded broker or Apache Kafka.
type cluster interface {
	Addr() string
	ClusterID() string
}

// stack is a broker and a database.
type stack struct {
	t      testing.TB
	broker cluster
	topics [event.NumKinds]string
	dead   string
	group  string
	dsn    string
	store  *store.Store
	kafka  config.Kafka
}

// brokers are what onBoth runs on; Apache Kafka adds itself where it is.
var brokers = map[string]func(t testing.TB, partitions int32) *stack{"kfake": newStack}

// onBoth runs a test on the embedded broker and on Apache Kafka.
func onBoth(t *testing.T, partitions int32, test func(t *testing.T, s *stack)) {
	for _, name := range slices.Sorted(maps.Keys(brokers)) {
		t.Run(name, func(t *testing.T) { test(t, brokers[name](t, partitions)) })
	}
}

func newStack(t testing.TB, partitions int32) *stack {
	t.Helper()
	var made []embedded.Topic
	for _, name := range append(topics[:], deadTopic) {
		made = append(made, embedded.Topic{Name: name, Partitions: partitions})
	}
	return newStackWith(t, made...)
}

func newStackWith(t testing.TB, made ...embedded.Topic) *stack {
	t.Helper()
	return newStackOn(t, embeddedtest.Broker(t, t.TempDir(), "127.0.0.1:0", made...))
}

func newStackOn(t testing.TB, broker cluster) *stack {
	t.Helper()
	return newStackAt(t, broker, embeddedtest.ClickHouse(t))
}

func newStackAt(t testing.TB, broker cluster, dsn string) *stack {
	t.Helper()
	s := &stack{t: t, broker: broker, topics: topics, dead: deadTopic, group: "test", dsn: dsn}
	s.kafka = config.Kafka{Brokers: []string{s.broker.Addr()}}
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: s.dsn, Policy: tiers(t)}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.store, err = store.Open(t.Context(), store.Options{DSN: s.dsn}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	return s
}

// publish writes values to a topic, in their order, to one partition.
func (s *stack) publish(topic string, partition int, codec kafka.Compression, values ...string) {
	s.t.Helper()
	w := &kafka.Writer{
		Addr: kafka.TCP(s.kafka.Brokers...), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond,
		BatchSize: 500, Compression: codec, Transport: s.transport(),
		Balancer: kafka.BalancerFunc(func(kafka.Message, ...int) int { return partition }),
	}
	defer w.Close()
	messages := make([]kafka.Message, len(values))
	for i, v := range values {
		messages[i].Value = []byte(v)
	}
	if err := w.WriteMessages(context.Background(), messages...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) transport() *kafka.Transport {
	transport, _, err := publish.Connect(s.kafka)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// query returns ClickHouse's answer as text: rows of tab-separated values.
func (s *stack) query(format string, args ...any) string {
	s.t.Helper()
	u, err := url.Parse(s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: time.Minute}
	answer, err := client.Post("http://"+u.Host+"/?database="+strings.Trim(u.Path, "/"), "text/plain", strings.NewReader(fmt.Sprintf(format, args...)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("query: %v %s", err, text)
	}
	return strings.TrimSpace(string(text))
}

// running is an ingester at work.
type running struct {
	*Ingester
	t       testing.TB
	states  *states
	metrics *prometheus.Registry
	cancel  context.CancelFunc
	done    chan error
	stopped bool
}

// start runs an ingester over the stack; change may alter its options.
func (s *stack) start(change func(*Options), prepare ...func(*Ingester)) *running {
	s.t.Helper()
	transport, dialer, err := publish.Connect(s.kafka)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := redact.ParseKeys("test=" + hex.EncodeToString([]byte("a key that is only for the tests")))
	if err != nil {
		s.t.Fatal(err)
	}
	dead, err := publish.New(publish.Options{Brokers: s.kafka.Brokers, Transport: transport})
	if err != nil {
		s.t.Fatal(err)
	}
	r := &running{t: s.t, states: new(states), metrics: prometheus.NewRegistry(), done: make(chan error, 1)}
	rules := tiers(s.t)
	level := slog.DiscardHandler
	if testing.Verbose() {
		level = slog.NewTextHandler(s.t.Output(), nil)
	}
	o := Options{
		Brokers: s.kafka.Brokers, Transport: transport, Dialer: dialer, Group: s.group, Topics: s.topics, DeadTopic: s.dead,
		Policy: rules, PolicyVersion: rules.Version, Digest: keys.Digest,
		Known: retention.New(rules, retention.Source{Promises: rules.Stored()}, func(string) []string { return nil }),
		NewRedactor: func() (Redactor, error) {
			return redact.New(redact.Options{Keys: keys, Countries: everywhere{}, PolicyVersion: rules.Version})
		},
		Storage: storage{s.store}, Dead: dead, Health: r.states, Metrics: r.metrics, Log: slog.New(level),
		BatchAge: 50 * time.Millisecond, StopTimeout: 20 * time.Second, Heartbeat: 200 * time.Millisecond, SessionTimeout: 6 * time.Second,
		RebalanceTimeout: 6 * time.Second, WatchEvery: 200 * time.Millisecond, ProgressEvery: 100 * time.Millisecond,
		RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	if r.Ingester, err = New(o); err != nil {
		s.t.Fatal(err)
	}
	for _, f := range prepare {
		f(r.Ingester)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		err := r.Run(ctx)
		dead.Close()
		transport.CloseIdleConnections()
		r.done <- err
	}()
	s.t.Cleanup(r.stop)
	return r
}

// stop stops it as a signal would, and waits.
func (r *running) stop() {
	if r.stopped {
		return
	}
	r.stopped = true
	r.cancel()
	if err := <-r.done; err != nil {
		r.t.Errorf("run: %v", err)
	}
}

// metric returns the sum of a metric over the label values that are given as
// name=value, or −1 where there is none.
func (r *running) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := -1.0
	for _, f := range families {
		if f.GetName() != "lethe_ingest_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			text := ""
			for _, l := range m.GetLabel() {
				text += " " + l.GetName() + "=" + l.GetValue() + " "
			}
			all := true
			for _, l := range labels {
				all = all && strings.Contains(text, " "+l+" ")
			}
			if all {
				sum = max(sum, 0) + m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// requestEvent is one event as a service publishes it.
func requestEvent(id int, more string) string { return olderEvent(id, time.Hour, more) }

// olderEvent is one of an age.
func olderEvent(id int, age time.Duration, more string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"e-%d","source":"/svc/api","type":"com.example.request.completed.v1","time":"%s",
"data":{"http.request.method":"GET","http.response.status_code":200,"url.path":"/v1/things/%d","client.address":"203.0.113.7:51234","user.id":"u_%d","organization.id":"org_%d"%s}}`,
		id, time.Now().UTC().Add(-age).Format(time.RFC3339Nano), id, id%50, id%5, more)
}

func requestEvents(from, to int) []string { return olderEvents(from, to, time.Hour) }

func olderEvents(from, to int, age time.Duration) []string {
	values := make([]string, 0, to-from)
	for id := from; id < to; id++ {
		values = append(values, olderEvent(id, age, ""))
	}
	return values
}
