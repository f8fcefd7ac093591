// Package publish writes events to Kafka and returns when every in-sync
// replica has them. Dead letters, the query service's consultation records and
// cmd/publish use it; Connect is for everyone who speaks to the brokers.
//
// It does not look into values: what is written was made by the caller. A
// retry after a lost acknowledgement may write a message twice; readers see one
// event, because (source, id, time) identifies it.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Errors that another try does not cure; errors.Is finds them.
var (
	// ErrUnknownTopic says that the cluster has no topic of that name.
	ErrUnknownTopic = errors.New("the topic does not exist")
	// ErrTooLarge says that a message is larger than MaxBytes, or than the
	// broker allows. None of the messages of that call need be written.
	ErrTooLarge = errors.New("a message is too large")
	// ErrRefused says that the broker does not let this login write, or
	// cannot check who it is.
	ErrRefused = errors.New("the broker refused the login")
	// ErrTLS says that no encrypted connection came about that both sides trust.
	ErrTLS = errors.New("no trusted connection")
)

// ErrUnreachable says that no broker answered; another try may succeed.
var ErrUnreachable = errors.New("no broker answered")

// MaxBytes bounds one message and one batch before compression. Brokers allow
// 1 MiB for a batch with its header unless told otherwise.
const MaxBytes = 1 << 20

const (
	// linger is how long a message waits for company.
	linger = 5 * time.Millisecond
	// defaultBatch is small because kafka-go reserves room for a whole batch
	// whenever it starts one.
	defaultBatch = 256
)

// Message is one record to write.
type Message struct {
	Topic string
	// Key is the organization's id, or empty. Messages with one key keep their
	// order; without a key the partition is any. Never a person.
	Key     string
	Value   []byte
	Headers []Header
}

// Header is a name and a value beside the record.
type Header struct {
	Key   string
	Value []byte
}

// Options are what a Publisher needs.
type Options struct {
	// Brokers are host:port. Required.
	Brokers []string
	// Transport comes from Connect. Required.
	Transport *kafka.Transport
	// Batch is the number of messages after which a batch is sent without
	// waiting for more; 0 is fit for single messages, thousands for bulk.
	Batch int
}

// Publisher writes messages. Its methods may be called from any goroutine.
type Publisher struct {
	writer    *kafka.Writer
	transport *kafka.Transport
	addr      net.Addr
	brokers   string
}

// New returns a Publisher. It opens no connection.
func New(opts Options) (*Publisher, error) {
	if len(opts.Brokers) == 0 {
		return nil, errors.New("new publisher: Brokers is required")
	}
	if opts.Transport == nil {
		return nil, errors.New("new publisher: Transport is required")
	}
	if opts.Batch == 0 {
		opts.Batch = defaultBatch
	}
	if opts.Batch < 0 {
		return nil, errors.New("new publisher: Batch is negative")
	}
	addr := kafka.TCP(opts.Brokers...)
	return &Publisher{
		writer: &kafka.Writer{
			Addr:         addr,
			Transport:    opts.Transport,
			Balancer:     kafka.Murmur2Balancer{}, // as the Java client: one key, one partition for every publisher
			RequiredAcks: kafka.RequireAll,        // kafka-go's default is no acknowledgement
			BatchTimeout: linger,                  // and its default is a second
			BatchSize:    opts.Batch,
			BatchBytes:   MaxBytes,
			MaxAttempts:  5,
			ReadTimeout:  20 * time.Second,
			WriteTimeout: 20 * time.Second,
			Compression:  kafka.Lz4,
		},
		transport: opts.Transport,
		addr:      addr,
		brokers:   strings.Join(opts.Brokers, ", "),
	}, nil
}

// Publish writes the messages and returns nil when every in-sync replica has
// all of them. After an error some may be written; the caller repeats the call,
// and MUST NOT reuse the memory of the messages, which may still be on the way.
func (p *Publisher) Publish(ctx context.Context, msgs ...Message) error {
	out := make([]kafka.Message, len(msgs))
	for i, m := range msgs {
		out[i] = kafka.Message{Topic: m.Topic, Value: m.Value}
		if m.Key != "" {
			out[i].Key = []byte(m.Key)
		}
		for _, h := range m.Headers {
			out[i].Headers = append(out[i].Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	}
	return p.explain("publish", p.writer.WriteMessages(ctx, out...))
}

// Check asks the cluster for the topics. It returns ErrUnreachable,
// ErrRefused, ErrTLS or ErrUnknownTopic with the names, so that a program can say what
// is wrong before it reads any input.
func (p *Publisher) Check(ctx context.Context, topics ...string) error {
	client := kafka.Client{Addr: p.addr, Transport: p.transport}
	// The transport answers questions about topics from memory; this one is sent.
	if _, err := client.ApiVersions(ctx, new(kafka.ApiVersionsRequest)); err != nil {
		return p.explain("reach the cluster", err)
	}
	res, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return p.explain("ask the cluster for its topics", err)
	}
	var errs []error
	for _, t := range res.Topics {
		if t.Error != nil {
			errs = append(errs, p.explain("look for topic "+t.Name, t.Error))
		}
	}
	return errors.Join(errs...)
}

// Close waits for the messages on the way and ends the connections that nobody
// uses.
func (p *Publisher) Close() error {
	err := p.writer.Close()
	p.transport.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("close publisher: %w", err)
	}
	return nil
}

// explain replaces kafka-go's lists of errors by the first one with its kind.
func (p *Publisher) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var each kafka.WriteErrors
	if errors.As(err, &each) {
		for _, e := range each {
			if e != nil {
				err = e
				break
			}
		}
	}
	var problem *Problem
	if err = Diagnose(err); errors.As(err, &problem) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	// MessageTooLargeError holds the message: only its kind goes on.
	var tooLarge kafka.MessageTooLargeError
	var dial *net.OpError
	switch {
	case errors.As(err, &tooLarge), errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge):
		return fmt.Errorf("%s: %w", doing, ErrTooLarge)
	case errors.Is(err, kafka.UnknownTopicOrPartition), errors.Is(err, kafka.InvalidTopic):
		return fmt.Errorf("%s: %w: %w", doing, ErrUnknownTopic, err)
	case errors.As(err, &dial), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w at %s: %w", doing, ErrUnreachable, p.brokers, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
