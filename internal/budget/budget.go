// Package budget holds how long Kafka keeps what was published against what the
// policy promises. Source topics hold raw addresses and dead letters hold
// accounts: a topic that remembers longer than the shortest promise breaks it,
// however well the tables expire.
//
// It reads and, when told to, changes settings of topics. It makes no topic,
// reads no record, and knows no policy: the bounds are given to it.
package budget

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
)

// What is done about a topic that remembers for too long.
const (
	Check = "check" // refuse
	Set   = "set"   // change its settings
	Off   = "off"   // nothing is read, for brokers that do not keep to their settings
)

// Bound is what a topic must keep to.
type Bound struct {
	Topic string
	// Under is the age that no record of the topic may reach.
	Under time.Duration
	// Promise says in words where Under comes from.
	Promise string
}

// Options are what a Budget needs; all are required.
type Options struct {
	Brokers   []string
	Transport *kafka.Transport
	Bounds    []Bound
	Mode      string // Check, Set or Off
	Metrics   prometheus.Registerer
	Log       *slog.Logger
}

// Budget compares topics with their bounds.
type Budget struct {
	o          Options
	worst, max *prometheus.GaugeVec
}

// New checks the options and registers the metrics. It connects to nothing.
func New(o Options) (*Budget, error) {
	if len(o.Brokers) == 0 || o.Transport == nil || len(o.Bounds) == 0 || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("new topic budget: Brokers, Transport, Bounds, Metrics and Log are required")
	}
	if !slices.Contains([]string{Check, Set, Off}, o.Mode) {
		return nil, fmt.Errorf("new topic budget: mode %q is none of check, set, off", o.Mode)
	}
	gauges := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lethe_ingest_topic_" + name, Help: help}, []string{"topic"})
	}
	b := &Budget{
		o:     o,
		worst: gauges("worst_age_seconds", "Age at which a record of the topic is gone for certain, by the topic's settings; +Inf: there is none."),
		max:   gauges("budget_seconds", "Age that no record of the topic may reach, by the policy. An alarm where the worst age is not below it."),
	}
	off := prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_ingest_topic_budget_off", Help: "1: nothing is known of how long topics keep records, because KAFKA_TOPIC_BUDGET is off."})
	if o.Mode == Off {
		off.Set(1)
	}
	for _, c := range []prometheus.Collector{b.worst, b.max, off} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, bound := range o.Bounds {
		if bound.Topic == "" || bound.Under <= 0 {
			return nil, fmt.Errorf("new topic budget: topic %q needs a name and a bound", bound.Topic)
		}
		b.max.WithLabelValues(bound.Topic).Set(bound.Under.Seconds())
	}
	return b, nil
}

// Enforce looks at the topics once. Its error has one sentence for each topic that
// breaks its bound, and says Permanent unless another try may help. A topic that
// does not exist yet is left to Watch.
func (b *Budget) Enforce(ctx context.Context) error {
	if b.o.Mode == Off {
		b.o.Log.Warn("the topics are not looked at: nobody knows how long they keep raw addresses (KAFKA_TOPIC_BUDGET is off)")
		return nil
	}
	topics, err := b.look(ctx)
	if topics == nil && err != nil {
		return err
	}
	for _, bound := range b.o.Bounds {
		i := slices.IndexFunc(topics, func(t Topic) bool { return t.Name == bound.Topic })
		if i < 0 {
			b.o.Log.Warn("a topic does not exist yet: its settings are looked at when it does", "topic", bound.Topic)
			continue
		}
		t := topics[i]
		age, ok := t.WorstAge()
		b.o.Log.Info("a topic's settings", "topic", t.Name, "worst_age", age, "enforced", ok, "under", bound.Under, "promise", bound.Promise,
			retentionTime, t.Retention.Milliseconds(), retentionBytes, t.RetentionBytes, segmentTime, t.Segment.Milliseconds(), segmentBytes, t.SegmentBytes,
			cleanupPolicy, t.Cleanup, timestampType, t.Timestamps)
	}
	return err
}

// look reads, sets where that is wanted, and judges. Without topics, nothing is
// known of them.
func (b *Budget) look(ctx context.Context) ([]Topic, error) {
	topics, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	if b.o.Mode == Set {
		if topics, err = b.set(ctx, topics); err != nil {
			return nil, err
		}
	}
	return topics, b.judge(topics)
}

// Watch looks again until ctx is done: a topic can be made or changed while the
// ingester runs. It stops nothing: what breaks a bound is logged each time, and
// the metrics tell.
func (b *Budget) Watch(ctx context.Context, every time.Duration) {
	if b.o.Mode == Off {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, err := b.look(ctx); err != nil && ctx.Err() == nil {
			b.o.Log.Error("topic budget", "error", err)
		}
	}
}

// read also sets the metric.
func (b *Budget) read(ctx context.Context) ([]Topic, error) {
	names := make([]string, len(b.o.Bounds))
	for i := range b.o.Bounds {
		names[i] = b.o.Bounds[i].Topic
	}
	topics, err := Read(ctx, b.o.Brokers, b.o.Transport, names...)
	for i := range topics {
		seconds := math.Inf(1)
		if age, ok := topics[i].WorstAge(); ok {
			seconds = age.Seconds()
		}
		b.worst.WithLabelValues(topics[i].Name).Set(seconds)
	}
	return topics, err
}

func (b *Budget) judge(topics []Topic) error {
	var errs []error
	for i := range topics {
		if err := topics[i].Exceeds(b.bound(topics[i].Name)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return final{fmt.Errorf("topics outlive the policy; change them, or set KAFKA_TOPIC_BUDGET=set:\n%w", errors.Join(errs...))}
}

func (b *Budget) bound(topic string) Bound {
	i := slices.IndexFunc(b.o.Bounds, func(x Bound) bool { return x.Topic == topic })
	return b.o.Bounds[i]
}

// Exceeds returns an error with the numbers, in one sentence, when a record can
// reach the bound's age.
func (t *Topic) Exceeds(b Bound) error {
	age, ok := t.WorstAge()
	if ok && age < b.Under {
		return nil
	}
	var why []string
	if !t.ends() || age >= b.Under {
		why = append(why, fmt.Sprintf("%s of %s and %s of %s, with %s until the brokers look and %s until files go, keep a record %s",
			retentionTime, words(t.Retention), segmentTime, words(t.Segment), words(t.CheckInterval), words(t.DeleteDelay), t.lasting()))
	}
	if t.Cleanup != deletes {
		why = append(why, fmt.Sprintf("%s is %s and must be %s", cleanupPolicy, t.Cleanup, deletes))
	}
	if t.Timestamps != appendTime {
		why = append(why, fmt.Sprintf("%s is %s and must be %s, because a record dated in the future keeps its segment", timestampType, t.Timestamps, appendTime))
	}
	return fmt.Errorf("topic %s must forget in less than %s (%s), but %s", t.Name, words(b.Under), b.Promise, strings.Join(why, ", and "))
}

func (t *Topic) lasting() string {
	if !t.ends() {
		return "for ever"
	}
	return "for " + words(t.sum())
}

// words writes a time with days, as policies do.
func words(d time.Duration) string {
	if d < 0 {
		return "no end"
	}
	const day = 24 * time.Hour
	var text string
	if d >= day {
		text = strconv.Itoa(int(d/day)) + "d"
		if d %= day; d == 0 {
			return text
		}
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return text + s
}

// leastLeft is the least of a bound that the brokers must leave for a topic to
// be set: a shorter retention would take records before they are read.
const leastLeft = time.Hour

// set changes the settings of the topics that break their bounds, and reads
// them again.
func (b *Budget) set(ctx context.Context, topics []Topic) ([]Topic, error) {
	req := new(kafka.IncrementalAlterConfigsRequest)
	for i := range topics {
		t := &topics[i]
		bound := b.bound(t.Name)
		if t.Exceeds(bound) == nil {
			continue
		}
		if left := bound.Under - t.CheckInterval - t.DeleteDelay; left < leastLeft || t.CheckInterval < 0 || t.DeleteDelay < 0 {
			return nil, b.judge(topics) // no retention fits: the brokers themselves are too slow
		}
		resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: t.Name}
		for _, s := range t.fitting(bound) {
			b.o.Log.Warn("a topic's setting is changed: the topic outlives the policy", "topic", t.Name, "setting", s.Name, "value", s.Value, "promise", bound.Promise)
			resource.Configs = append(resource.Configs, s)
		}
		req.Resources = append(req.Resources, resource)
	}
	if len(req.Resources) == 0 {
		return topics, nil
	}
	res, err := connect(b.o.Brokers, b.o.Transport).IncrementalAlterConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("change topic settings: %w", err)
	}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("change settings of topic %s: %w", r.ResourceName, judged(r.Error))
		}
	}
	return b.read(ctx)
}

// fitting returns settings under which the topic keeps to the bound. Times are
// only ever made shorter: half of what the bound leaves for the retention, an
// eighth for the segment, and the rest in hand.
func (t *Topic) fitting(b Bound) []kafka.IncrementalAlterConfigsRequestConfig {
	var changes []kafka.IncrementalAlterConfigsRequestConfig
	change := func(name, value string) {
		changes = append(changes, kafka.IncrementalAlterConfigsRequestConfig{Name: name, Value: value})
	}
	shorter := func(name string, now, most time.Duration) {
		if now < 0 || now > most {
			change(name, strconv.FormatInt(most.Milliseconds(), 10))
		}
	}
	left := b.Under - t.CheckInterval - t.DeleteDelay
	shorter(retentionTime, t.Retention, left/2)
	shorter(segmentTime, t.Segment, left/8)
	if t.Cleanup != deletes {
		change(cleanupPolicy, deletes)
	}
	if t.Timestamps != appendTime {
		change(timestampType, appendTime)
	}
	return changes
}
