package budget

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Topic is how a topic forgets, as its brokers tell.
type Topic struct {
	Name string
	// Retention and Segment are retention.ms and segment.ms; Never where no clock ends them.
	Retention, Segment time.Duration
	// RetentionBytes and SegmentBytes are sizes; they only ever make a topic
	// forget sooner, so they do not count. −1: no limit.
	RetentionBytes, SegmentBytes int64
	Cleanup                      string // cleanup.policy
	Timestamps                   string // message.timestamp.type
	// CheckInterval is the longest log.retention.check.interval.ms of any broker,
	// DeleteDelay is file.delete.delay.ms.
	CheckInterval, DeleteDelay time.Duration
}

// Never stands for a time that does not come.
const Never time.Duration = -1

// Settings of a topic, and the broker's of its sweep.
const (
	retentionTime  = "retention.ms"
	retentionBytes = "retention.bytes"
	segmentTime    = "segment.ms"
	segmentBytes   = "segment.bytes"
	timestampType  = "message.timestamp.type"
	cleanupPolicy  = "cleanup.policy"
	deleteDelay    = "file.delete.delay.ms"
	checkInterval  = "log.retention.check.interval.ms"

	appendTime = "LogAppendTime"
	deletes    = "delete"
)

// defaults are Apache Kafka's, for brokers that do not tell.
var defaults = map[string]string{
	retentionTime: "604800000", retentionBytes: "-1", segmentTime: "604800000", segmentBytes: "1073741824",
	timestampType: "CreateTime", cleanupPolicy: deletes, deleteDelay: "60000", checkInterval: "300000",
}

var topicSettings = []string{retentionTime, retentionBytes, segmentTime, segmentBytes, timestampType, cleanupPolicy, deleteDelay}

// WorstAge is the age at which the last byte of a record is gone for certain: it
// may be the first of its segment, which ages once its last record is written,
// then waits for the next look and for the files to be removed. ok is false
// where there is no such age, because nothing is removed by the broker's clock.
func (t *Topic) WorstAge() (age time.Duration, ok bool) {
	return t.sum(), t.ends() && t.Cleanup == deletes && t.Timestamps == appendTime
}

func (t *Topic) ends() bool {
	return t.Retention >= 0 && t.Segment >= 0 && t.CheckInterval >= 0 && t.DeleteDelay >= 0
}

func (t *Topic) sum() time.Duration { return t.Retention + t.Segment + t.CheckInterval + t.DeleteDelay }

// requestTimeout bounds one question.
const requestTimeout = 10 * time.Second

func connect(brokers []string, transport *kafka.Transport) *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport, Timeout: requestTimeout}
}

// Read asks how the topics forget. Topics that do not exist are left out. An
// error that says Permanent needs a person: the login may not read settings.
func Read(ctx context.Context, brokers []string, transport *kafka.Transport, names ...string) ([]Topic, error) {
	client := connect(brokers, transport)
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, fmt.Errorf("read topic settings: %w", err)
	}
	req := new(kafka.DescribeConfigsRequest)
	for _, n := range names {
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: n, ConfigNames: topicSettings})
	}
	for _, b := range m.Brokers {
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(b.ID), ConfigNames: []string{checkInterval}})
	}
	res, err := client.DescribeConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("read topic settings: %w", err)
	}
	var topics []Topic
	var sweep time.Duration
	for i := range res.Resources {
		r := &res.Resources[i]
		read := reader{r.ConfigEntries, nil}
		switch kafka.ResourceType(r.ResourceType) {
		case kafka.ResourceTypeBroker:
			// The cluster's settings may be closed to a login that may read topics.
			if r.Error != nil && !errors.Is(r.Error, kafka.ClusterAuthorizationFailed) {
				return nil, fmt.Errorf("read settings of broker %s: %w", r.ResourceName, r.Error)
			}
			sweep = max(sweep, read.span(checkInterval))
		default:
			if errors.Is(r.Error, kafka.UnknownTopicOrPartition) {
				continue
			}
			if r.Error != nil {
				return nil, fmt.Errorf("read settings of topic %s: %w", r.ResourceName, judged(r.Error))
			}
			topics = append(topics, Topic{
				Name: r.ResourceName, Retention: read.span(retentionTime), Segment: read.span(segmentTime),
				RetentionBytes: read.number(retentionBytes), SegmentBytes: read.number(segmentBytes),
				Cleanup: read.text(cleanupPolicy), Timestamps: read.text(timestampType), DeleteDelay: read.span(deleteDelay),
			})
		}
		if read.err != nil {
			return nil, fmt.Errorf("read settings of %s: %w", r.ResourceName, read.err)
		}
	}
	for i := range topics {
		topics[i].CheckInterval = sweep
	}
	slices.SortFunc(topics, func(a, b Topic) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
	return topics, nil
}

// reader takes settings apart; err is the first that is not what it should be.
type reader struct {
	entries []kafka.DescribeConfigResponseConfigEntry
	err     error
}

func (r *reader) text(name string) string {
	for i := range r.entries {
		if r.entries[i].ConfigName == name && r.entries[i].ConfigValue != "" {
			return r.entries[i].ConfigValue
		}
	}
	return defaults[name]
}

func (r *reader) number(name string) int64 {
	n, err := strconv.ParseInt(r.text(name), 10, 64)
	if err != nil && r.err == nil {
		r.err = final{fmt.Errorf("%s is no whole number: %w", name, err)}
	}
	return n
}

// span reads milliseconds. Fifty years are never, so that sums do not overflow.
func (r *reader) span(name string) time.Duration {
	const most = 50 * 365 * 24 * time.Hour / time.Millisecond
	if n := r.number(name); n >= 0 && n < int64(most) {
		return time.Duration(n) * time.Millisecond
	}
	return Never
}

// final is an error that another try does not cure.
type final struct{ error }

func (final) Permanent() bool { return true }
func (f final) Unwrap() error { return f.error }

// judged makes a refusal of the brokers final; trouble of theirs passes.
func judged(err error) error {
	var code kafka.Error
	if errors.As(err, &code) && !code.Temporary() {
		return final{err}
	}
	return err
}
