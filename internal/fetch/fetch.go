// Package fetch reads raw record batches from Kafka brokers and gives their
// records without copying them: broker → Client.Fetch → Answer → Reader → Record.
//
// It uses kafka-go's connections, TLS, SASL and version negotiation, and puts a
// response type of its own in the place of kafka-go's, one that keeps the bytes
// as they came. What a consumer of a whole log needs and kafka-go's Reader does
// not give is here: checksums, aborted transactions, the log start and the high
// watermark of every answer, and offsets that hold no record.
//
// It knows no consumer group and keeps no position. Because the response type
// is replaced for the whole process, kafka.Client.Fetch MUST NOT be used in a
// program that imports this package.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	api "github.com/segmentio/kafka-go/protocol/fetch"
)

// Options says how to reach a cluster and how much to ask of it at a time.
type Options struct {
	Transport *kafka.Transport
	Addr      net.Addr // brokers to ask for the cluster
	// MaxWait is how long a broker may wait for MinBytes. Default: 250 ms.
	MaxWait time.Duration
	// MinBytes is how much a broker waits for. Default: 1.
	MinBytes int
	// Timeout is how long an answer may take beyond MaxWait. Default: 30 s.
	Timeout time.Duration
}

// Client fetches from a cluster. It is safe for concurrent use.
type Client struct{ o Options }

// New checks the options and returns a client. It opens no connection.
func New(o Options) (*Client, error) {
	if o.Transport == nil || o.Addr == nil {
		return nil, errors.New("new fetch client: a transport and an address are needed")
	}
	if o.MaxWait <= 0 {
		o.MaxWait = 250 * time.Millisecond
	}
	if o.MinBytes <= 0 {
		o.MinBytes = 1
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	return &Client{o}, nil
}

// Want is a partition and the offset to read it from.
type Want struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Aborted is a transaction whose records from First on are not to be read, up
// to its end marker.
type Aborted struct{ Producer, First int64 }

// Answer is what a broker said of one partition.
type Answer struct {
	Topic     string
	Partition int32
	// Err is the broker's refusal of this partition, a kafka.Error, or nil.
	Err error
	// HighWatermark is the end of the partition. Offsets from LastStable on
	// belong to transactions that are still open. Offsets below LogStart are gone.
	HighWatermark, LastStable, LogStart int64
	// From is the offset that was asked for, Next the one to ask for after this
	// answer: behind its last whole batch.
	From, Next int64
	// Written is the time of the first batch's first record, Appended the broker's
	// clock when it appended that batch, where the topic says so; zero: unknown.
	Written, Appended time.Time
	// Asked is the instant before the request was sent: HighWatermark is not older.
	Asked time.Time

	aborted []Aborted
	set     *recordSet
}

// Bytes returns the size of the records as they came.
func (a *Answer) Bytes() int {
	if a.set == nil {
		return 0
	}
	return len(a.set.raw)
}

// Release gives the memory of the records back. Neither the answer's records
// nor anything that shares their memory may be used afterwards.
func (a *Answer) Release() {
	if a.set != nil {
		a.set.release()
		a.set = nil
	}
}

// Fetch asks the one broker that leads all of the partitions for at most about
// maxBytes of records, partitionBytes per partition. A broker gives one whole
// batch even where that is more. Committed records only are asked for.
//
// An error concerns the whole request; the transport's cached layout may be out
// of date, so it is worth trying again. The caller releases every answer.
func (c *Client) Fetch(ctx context.Context, wants []Want, maxBytes, partitionBytes int) ([]Answer, error) {
	req := &api.Request{
		ReplicaID:      -1,
		MaxWaitTime:    int32(c.o.MaxWait / time.Millisecond),
		MinBytes:       int32(min(c.o.MinBytes, maxBytes)),
		MaxBytes:       int32(maxBytes),
		IsolationLevel: int8(kafka.ReadCommitted),
		SessionEpoch:   -1, // no fetch session: every request names what it wants
	}
	from := make(map[partition]int64, len(wants))
	for _, w := range wants {
		from[partition{w.Topic, w.Partition}] = w.Offset
		p := api.RequestPartition{
			Partition:          w.Partition,
			CurrentLeaderEpoch: -1,
			FetchOffset:        w.Offset,
			LogStartOffset:     -1,
			PartitionMaxBytes:  int32(partitionBytes),
		}
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == w.Topic {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, p)
			continue
		}
		req.Topics = append(req.Topics, api.RequestTopic{Topic: w.Topic, Partitions: []api.RequestPartition{p}})
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.o.MaxWait+c.o.Timeout)
	defer cancel()
	m, err := c.o.Transport.RoundTrip(ctx, c.o.Addr, req)
	if err != nil {
		return nil, fmt.Errorf("fetch from broker: %w", err)
	}
	res, ok := m.(*response)
	if !ok {
		return nil, fmt.Errorf("fetch from broker: the answer is a %T", m)
	}
	answers := res.answers(from, asked)
	if res.ErrorCode != 0 {
		for i := range answers {
			answers[i].Release()
		}
		return nil, fmt.Errorf("fetch from broker: %w", kafka.Error(res.ErrorCode))
	}
	return answers, nil
}

type partition struct {
	topic string
	id    int32
}

func (r *response) answers(from map[partition]int64, asked time.Time) []Answer {
	var answers []Answer
	for _, t := range r.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			offset, wanted := from[partition{t.Topic, p.Partition}]
			if !wanted {
				p.Records.release()
				continue
			}
			a := Answer{
				Topic: t.Topic, Partition: p.Partition,
				HighWatermark: p.HighWatermark, LastStable: p.LastStableOffset, LogStart: p.LogStartOffset,
				From: offset, Next: max(offset, end(p.Records.raw)), Asked: asked, set: &p.Records,
			}
			a.Written, a.Appended = times(p.Records.raw)
			if p.ErrorCode != 0 {
				a.Err = kafka.Error(p.ErrorCode)
			}
			for _, x := range p.AbortedTransactions {
				a.aborted = append(a.aborted, Aborted{x.ProducerID, x.FirstOffset})
			}
			answers = append(answers, a)
		}
	}
	return answers
}

// The response types are kafka-go's, but for the record set.
type response struct {
	ThrottleTimeMs int32           `kafka:"min=v1,max=v11"`
	ErrorCode      int16           `kafka:"min=v7,max=v11"`
	SessionID      int32           `kafka:"min=v7,max=v11"`
	Topics         []responseTopic `kafka:"min=v0,max=v11"`
}

func (*response) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:revive // the name is kafka-go's

type responseTopic struct {
	Topic      string              `kafka:"min=v0,max=v11"`
	Partitions []responsePartition `kafka:"min=v0,max=v11"`
}

type responsePartition struct {
	Partition            int32                     `kafka:"min=v0,max=v11"`
	ErrorCode            int16                     `kafka:"min=v0,max=v11"`
	HighWatermark        int64                     `kafka:"min=v0,max=v11"`
	LastStableOffset     int64                     `kafka:"min=v4,max=v11"`
	LogStartOffset       int64                     `kafka:"min=v5,max=v11"`
	AbortedTransactions  []api.ResponseTransaction `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32                     `kafka:"min=v11,max=v11"`
	Records              recordSet                 `kafka:"min=v0,max=v11"`
}

// The table of types is not guarded against concurrent use: it is changed before
// anything can connect, after kafka-go's own registration, which is a dependency.
func init() { protocol.Register(&api.Request{}, &response{}) }
