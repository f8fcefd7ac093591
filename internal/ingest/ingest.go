// Package ingest is the route from Kafka to ClickHouse: a fenced consumer group
// assigns partitions, fetch reads them, codec decodes, policy decides, redact
// makes rows, and batches of them are inserted, entered in the ledger and
// committed, in this order.
//
//	fetch → worker (codec → policy → redact) → batch → insert → dead letters → facts → ledger → commit
//
// The contract: an offset MUST NOT be committed before the ledger holds its
// outcome, and the ledger MUST NOT say "stored" before the row is durable, nor
// "dead" before the dead letter is acknowledged. What an event says about the
// periods of other rows, and what it records of an erasure or a hold, is kept before its
// offset is in the ledger, whatever becomes of the event itself. What happens in between is
// repeated after a restart and changes nothing: the rows of a repeated delivery
// collapse, and ranges of the ledger are united.
//
// It holds no SQL and no rule of any policy. When ClickHouse slows down,
// fetching slows down; nothing is dropped and memory stays bounded.
package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/retention"
)

// Parts are what the ingester reports to Options.Health.
var Parts = []string{partKafka, partClickHouse, partPartitions}

const (
	partKafka      = "kafka"
	partClickHouse = "clickhouse"
	partPartitions = "partitions"
)

// Batch is rows on their way to ClickHouse. Add copies what it keeps.
type Batch interface {
	Add(*event.Row)
	Rows() int
	Bytes() int
	// Parts is into how many parts ClickHouse will put the rows, PartRows how many
	// rows one of them has.
	Parts() int
	PartRows(part int) int
	// Origin fills row with what names the one at a place of a part: Kind, Source,
	// ID, Retention, RetainedFrom, Topic, Partition and Offset.
	Origin(part, place int, row *event.Row)
	Reset()
}

// Storage is where rows and the ledger are kept. Errors that another try does
// not cure say so with Permanent() bool.
type Storage interface {
	NewBatch() Batch
	// Insert stores the batch and returns when it is durable. The same token
	// again stores nothing.
	Insert(ctx context.Context, b Batch, token string) error
	// InsertRows does the same with the rows from place from to below to of one
	// part, which the token of the batch names together with the places. A whole
	// part that Insert has stored under the token is stored no second time.
	InsertRows(ctx context.Context, b Batch, part, from, to int, token string) error
	WriteLedger(ctx context.Context, entries []ledger.Entry) error
	LedgerEnds(ctx context.Context, cluster string) ([]ledger.End, error)
	WriteProgress(ctx context.Context, rows []ledger.Progress) error
	WriteDead(ctx context.Context, counts []ledger.DeadCount) error
	WriteFacts(ctx context.Context, facts []event.Fact) error
	WriteErasure(ctx context.Context, e event.Erasure) error
	WriteHold(ctx context.Context, h event.Hold) error
	// WriteMoves enters rows that carry another expiry than their class's. No sweep has
	// the number 0.
	WriteMoves(ctx context.Context, s event.Sweep, moves []event.Move) error
}

// Redactor makes rows; each belongs to one goroutine.
type Redactor interface {
	Row(e *event.Event, d policy.Decision, row *event.Row)
	DeadLetter(e *event.Event) (letter []byte, seal string)
	// Open returns nil for everything but a letter of DeadLetter with its seal.
	Open(kind event.Kind, letter, seal []byte) *event.Stored
}

type decider interface {
	Decide(e *event.Event, received time.Time) (policy.Decision, error)
	// Fact returns what the row of an audit event says about other rows' periods.
	Fact(row *event.Row) (facts []event.Fact, ok bool)
}

type known interface {
	Fate(row *event.Row) retention.Fate
	// Strip makes a row the copy that has these people no more.
	Strip(row *event.Row, people []string)
	// Remember returns what is to be kept of a fact, and for how long.
	Remember(f event.Fact) []event.Fact
	// Recorded returns the erasure or the hold that a row records, or neither. They share no memory with it.
	Recorded(row *event.Row) (*event.Erasure, *event.Hold, error)
}

type publisher interface {
	Publish(ctx context.Context, msgs ...publish.Message) error
}

type health interface {
	Report(part string, s daemon.State, why string)
}

// Options are what an Ingester needs. What has a default may be left zero.
type Options struct {
	Brokers   []string
	Transport *kafka.Transport
	Dialer    *kafka.Dialer
	Group     string
	Topics    [event.NumKinds]string // by kind
	DeadTopic string

	Policy        decider
	PolicyVersion string
	NewRedactor   func() (Redactor, error)
	// Known is what was deleted, erased and held. Workers ask it about every row.
	Known known
	// Digest recognises a record that could not be decoded and tells nothing about it.
	Digest  func(value []byte) string
	Storage Storage
	Dead    publisher
	// Elsewhere are the organizations that chose a region which is not this
	// deployment's: nothing of their events MUST be stored here. There may be none.
	Elsewhere map[string]bool

	Health  health
	Metrics prometheus.Registerer
	Log     *slog.Logger

	BatchRows  int           // rows that close a batch. Default: 100,000.
	BatchBytes int           // bytes in memory that close a batch. Default: 32 MiB.
	BatchAge   time.Duration // age that closes a batch. Default: 1 s.
	FetchBytes int           // asked for, or fetched and not yet worked on; one record batch always fits. Default: 8 MiB.
	Workers    int           // goroutines that transform. Default: GOMAXPROCS.

	StopTimeout      time.Duration // the whole stop. Default: 25 s.
	SessionTimeout   time.Duration // of the consumer group. Default: 30 s.
	RebalanceTimeout time.Duration // of the consumer group. Default: 30 s.
	Heartbeat        time.Duration // of the consumer group. Default: a tenth of SessionTimeout.
	WatchEvery       time.Duration // looks for new topics and partitions. Default: 5 s.
	ProgressEvery    time.Duration // writes progress rows. Default: 5 s.
	RetryMin         time.Duration // first pause before a retry. Default: 100 ms.
	RetryMax         time.Duration // longest pause before a retry. Default: 15 s.
	Patience         time.Duration // for one try; then it is reported as waited for, and goes on. Default: 10 s.
}

func (o *Options) validate() error {
	var errs []error
	need := func(ok bool, name string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is required", name))
		}
	}
	need(len(o.Brokers) > 0, "Brokers")
	need(o.Transport != nil, "Transport")
	need(o.Dialer != nil, "Dialer")
	need(o.Group != "", "Group")
	for k, t := range o.Topics {
		need(t != "", "a topic of "+event.Kind(k).String()+" events")
	}
	need(o.DeadTopic != "", "DeadTopic")
	need(o.Policy != nil, "Policy")
	need(o.PolicyVersion != "", "PolicyVersion")
	need(o.NewRedactor != nil, "NewRedactor")
	need(o.Known != nil, "Known")
	need(o.Digest != nil, "Digest")
	need(o.Storage != nil, "Storage")
	need(o.Dead != nil, "Dead")
	need(o.Health != nil, "Health")
	need(o.Metrics != nil, "Metrics")
	need(o.Log != nil, "Log")
	for i, t := range o.Topics {
		for _, u := range o.Topics[:i] {
			if t == u {
				errs = append(errs, fmt.Errorf("topic %s is given for two kinds", t))
			}
		}
	}
	return errors.Join(errs...)
}

func (o *Options) defaults() {
	number := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	duration := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	number(&o.BatchRows, 100_000)
	number(&o.BatchBytes, 32<<20)
	number(&o.FetchBytes, 8<<20)
	number(&o.Workers, runtime.GOMAXPROCS(0))
	duration(&o.BatchAge, time.Second)
	duration(&o.StopTimeout, 25*time.Second)
	duration(&o.SessionTimeout, 30*time.Second)
	duration(&o.RebalanceTimeout, 30*time.Second)
	duration(&o.Heartbeat, o.SessionTimeout/10)
	duration(&o.WatchEvery, 5*time.Second)
	duration(&o.ProgressEvery, 5*time.Second)
	duration(&o.RetryMin, 100*time.Millisecond)
	duration(&o.RetryMax, 15*time.Second)
	duration(&o.Patience, 10*time.Second)
}

// Ingester consumes the topics. One Run at a time.
type Ingester struct {
	o       Options
	log     *slog.Logger
	client  *kafka.Client
	fetch   *fetch.Client
	metrics *metrics
	status  *status
	kinds   map[string]event.Kind

	fence func(committer) committer // for tests of failing commits

	process string // random: names this process in tokens
	cluster string
	workers []*worker // with their caches, kept from one generation to the next
	batches [2]*batch // one fills while the other is inserted

	// Of the one that inserts.
	again    *worker        // reads records again whose rows were refused
	refusals map[string]int // by table, rows refused since the last that was stored
}

// New checks the options and registers the metrics. It starts nothing and opens
// no connection.
func New(o Options) (*Ingester, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("new ingester: %w", err)
	}
	o.defaults()
	addr := kafka.TCP(o.Brokers...)
	client, err := fetch.New(fetch.Options{Transport: o.Transport, Addr: addr, MinBytes: 128 << 10})
	if err != nil {
		return nil, fmt.Errorf("new ingester: %w", err)
	}
	i := &Ingester{
		o: o, log: o.Log, fetch: client,
		client: &kafka.Client{Addr: addr, Transport: o.Transport, Timeout: requestTimeout},
		status: newStatus(o.Health), process: rand.Text(),
		fence: func(c committer) committer { return c },
		kinds: make(map[string]event.Kind, event.NumKinds), refusals: make(map[string]int),
	}
	for k, t := range o.Topics {
		i.kinds[t] = event.Kind(k)
	}
	for n := range i.batches {
		i.batches[n] = newBatch(o.Storage.NewBatch())
	}
	if i.metrics, err = newMetrics(o.Metrics, i.batched); err != nil {
		return nil, fmt.Errorf("new ingester: %w", err)
	}
	for range o.Workers {
		w, err := newWorker(i)
		if err != nil {
			return nil, fmt.Errorf("new ingester: %w", err)
		}
		i.workers = append(i.workers, w)
	}
	if i.again, err = newWorker(i); err != nil {
		return nil, fmt.Errorf("new ingester: %w", err)
	}
	return i, nil
}

// batched returns how many bytes the batches hold.
func (i *Ingester) batched() (bytes float64) {
	for _, b := range i.batches {
		bytes += float64(b.held.Load())
	}
	return bytes
}

// requestTimeout bounds questions about the cluster; fetches have their own.
const requestTimeout = 10 * time.Second

// Run consumes until ctx is done, then finishes the batch in hand within
// StopTimeout, leaves the group and returns nil. Whatever does not fit in that
// time is neither in the ledger nor committed, and is read again at the next
// start. Trouble with Kafka or ClickHouse does not end it: it reports itself
// paused and goes on when they answer.
func (i *Ingester) Run(ctx context.Context) error {
	// The stop has a deadline of its own: ctx is over when it begins.
	stopped, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(i.o.StopTimeout, cancel) })()
	err := i.retry(ctx, partKafka, "ask the cluster for its id", func(ctx context.Context) error {
		m, err := i.client.Metadata(ctx, &kafka.MetadataRequest{Topics: i.o.Topics[:]})
		if err == nil {
			i.cluster = m.ClusterID
		}
		return err
	})
	for err == nil && ctx.Err() == nil {
		var topics []string
		if topics, err = i.awaitTopics(ctx); err == nil {
			err = i.member(ctx, stopped, topics)
		}
	}
	if ctx.Err() != nil {
		return nil // whatever failed, failed because of the stop
	}
	return err
}
