// Package replay publishes dead letters again, to the topics they came from. A
// redacted letter goes as it is, with its seal, by which the ingester knows it
// for its own; for a letter without payload the record is read again at its
// place, while its topic still has it.
//
// It decides nothing about an event: what is still wrong with it makes another
// dead letter, which this run does not read. It draws no progress and knows no
// flags: that is cmd/publish.
//
//	dead topic → letter (filter) → itself, or source (the record again) → Publish → state file
package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/publish"
)

// Bounds of a chunk: the messages that are published in one call, after which
// the state file may move on.
const (
	chunkMessages = 1000
	chunkBytes    = 4 << 20
	fetchBytes    = 1 << 20
)

// maxMessage leaves room for the key and Kafka's own bytes in a batch.
const maxMessage = publish.MaxBytes - 4096

// publisher is what a Replay needs of publish.Publisher.
type publisher interface {
	Publish(ctx context.Context, msgs ...publish.Message) error
}

// Options are what a Replay needs.
type Options struct {
	// Brokers are host:port. Required.
	Brokers []string
	// Transport comes from publish.Connect. Required.
	Transport *kafka.Transport
	// Publisher writes the events; a dry run needs none.
	Publisher publisher
	// DeadTopic is read. Required.
	DeadTopic string
	// Topics are where letters may come from and go to. Required.
	Topics []string
	// Reason and SourceTopic are those of the letters to replay; empty: any.
	Reason, SourceTopic string
	// Since is the least time at which the ingester wrote a letter; zero: any.
	Since time.Time
	// StatePath is the file that remembers what was replayed. Required.
	StatePath string
	// Forget starts with an empty state.
	Forget bool
	// DryRun counts, and publishes and remembers nothing.
	DryRun bool
	// Patience is how long a request that fails is tried again.
	Patience time.Duration
	// Progress is called after every chunk, from Run's goroutine; it may be nil.
	Progress func(Progress)
}

// Progress is where a run is: dead letters read, of all there were at its start,
// and events published.
type Progress struct{ Read, Total, Replayed int64 }

// Replay publishes dead letters. Use one for one run.
type Replay struct {
	o      Options
	client *kafka.Client
	fetch  *fetch.Client
	reader fetch.Reader
	record fetch.Record
	source *source

	cluster string
	parts   map[place]bool
	state   *state
	own     *done
	at      Progress
	tally   tally

	messages []publish.Message
	bytes    int
	counted  []cell // of the messages
}

type place struct {
	topic     string
	partition int32
}

// New checks the options. It reads nothing and opens no connection.
func New(o Options) (*Replay, error) {
	switch {
	case len(o.Brokers) == 0 || o.Transport == nil:
		return nil, errors.New("new replay: Brokers and Transport are required")
	case o.Publisher == nil && !o.DryRun:
		return nil, errors.New("new replay: Publisher is required")
	case o.DeadTopic == "" || len(o.Topics) == 0:
		return nil, errors.New("new replay: DeadTopic and Topics are required")
	case o.StatePath == "":
		return nil, errors.New("new replay: StatePath is required")
	case o.SourceTopic != "" && !slices.Contains(o.Topics, o.SourceTopic):
		return nil, errors.New("new replay: SourceTopic is none of the topics that events are published to")
	}
	addr := kafka.TCP(o.Brokers...)
	f, err := fetch.New(fetch.Options{Transport: o.Transport, Addr: addr})
	if err != nil {
		return nil, fmt.Errorf("new replay: %w", err)
	}
	r := &Replay{o: o, client: &kafka.Client{Addr: addr, Transport: o.Transport}, fetch: f, parts: map[place]bool{}, tally: tally{}}
	r.source = &source{fetch: r.records, places: map[place]*opened{}}
	return r, nil
}

// Run replays the letters that the dead topic has now and returns what became
// of them, also where it failed on the way. A repeated run goes on behind the
// letters whose events were acknowledged.
func (r *Replay) Run(ctx context.Context) (Result, error) {
	err := r.run(ctx)
	return r.tally.result(), err
}

func (r *Replay) run(ctx context.Context) error {
	defer r.source.close()
	dead, err := r.layout(ctx)
	if err != nil {
		return err
	}
	if r.state, err = loadState(r.o.StatePath, r.cluster, r.o.Forget); err != nil {
		return err
	}
	r.own = r.state.own(r.o)
	for _, p := range dead {
		r.state.recreated(p.id, p.end)
		p.at = max(p.start, r.state.from(r.o, p.id))
		r.at.Total += max(0, p.end-p.at)
	}
	for _, p := range dead {
		if err := r.partition(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// dead is a partition of the dead topic.
type dead struct {
	id             int32
	start, at, end int64
}

// layout asks the cluster for its name, the partitions of all topics, and the
// ends of the dead topic's.
func (r *Replay) layout(ctx context.Context) ([]*dead, error) {
	var list []*dead
	err := r.again(ctx, func() error {
		m, err := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: append([]string{r.o.DeadTopic}, r.o.Topics...)})
		if err != nil {
			return fmt.Errorf("ask the cluster for its topics: %w: %w", publish.ErrUnreachable, err)
		}
		r.cluster, list = m.ClusterID, nil
		var asked []kafka.OffsetRequest
		for _, t := range m.Topics {
			if t.Error != nil && t.Name == r.o.DeadTopic {
				return fmt.Errorf("look for topic %s: %w: %w", t.Name, publish.ErrUnknownTopic, t.Error)
			}
			for _, p := range t.Partitions {
				r.parts[place{t.Name, int32(p.ID)}] = true
				if t.Name == r.o.DeadTopic {
					asked = append(asked, kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
				}
			}
		}
		// The end of what is committed: no transaction can keep us waiting.
		res, err := r.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{r.o.DeadTopic: asked}, IsolationLevel: kafka.ReadCommitted,
		})
		if err != nil {
			return fmt.Errorf("ask for the ends of %s: %w", r.o.DeadTopic, err)
		}
		for _, p := range res.Topics[r.o.DeadTopic] {
			if p.Error != nil {
				return fmt.Errorf("ask for the ends of %s: %w", r.o.DeadTopic, p.Error)
			}
			list = append(list, &dead{id: int32(p.Partition), start: p.FirstOffset, end: p.LastOffset})
		}
		return nil
	})
	slices.SortFunc(list, func(a, b *dead) int { return int(a.id) - int(b.id) })
	return list, err
}

func (r *Replay) partition(ctx context.Context, p *dead) error {
	for p.at < p.end {
		a, err := r.records(ctx, place{r.o.DeadTopic, p.id}, p.at)
		if errors.Is(err, kafka.OffsetOutOfRange) {
			return fmt.Errorf("read %s/%d at offset %d: retention took it meanwhile; the same command goes on behind: %w", r.o.DeadTopic, p.id, p.at, err)
		}
		if err != nil {
			return err
		}
		err = r.answer(ctx, p, &a)
		a.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// answer replays the letters of one answer.
func (r *Replay) answer(ctx context.Context, p *dead, a *fetch.Answer) error {
	defer r.reader.Recycle()
	r.reader.Reset(a, p.at)
	for {
		more, err := r.reader.Next(&r.record)
		if err != nil {
			return fmt.Errorf("read %s/%d: %w", r.o.DeadTopic, p.id, err)
		}
		if !more || r.record.Offset >= p.end {
			break
		}
		if err := r.one(ctx, p.id); err != nil {
			return err
		}
		if len(r.messages) >= chunkMessages || r.bytes >= chunkBytes {
			if err := r.flush(ctx, p, r.record.Offset+1); err != nil {
				return err
			}
		}
	}
	return r.flush(ctx, p, min(r.reader.Offset(), p.end))
}

// one adds the letter that was read to the chunk.
func (r *Replay) one(ctx context.Context, partition int32) error {
	l, ok := parse(&r.record)
	if !ok {
		r.tally.add(cell{reason: "", publisher: unknown}, unreadable)
		return nil
	}
	if !l.matches(r.o.Reason, r.o.SourceTopic, r.o.Since) || r.state.has(l, partition, r.record.Offset) {
		return nil
	}
	c := cell{reason: l.reason, publisher: l.publisher}
	if !slices.Contains(r.o.Topics, l.from.topic) {
		r.tally.add(c, foreign)
		return nil
	}
	m, ok := l.message(&r.record)
	if !l.redacted {
		var err error
		if m, ok, err = r.fromSource(ctx, l); err != nil {
			return err
		}
	}
	switch {
	case !ok:
		r.tally.add(c, gone)
		return nil
	case size(m) > maxMessage:
		r.tally.add(c, tooLarge)
		return nil
	}
	m.Headers = append(m.Headers, publish.Header{Key: headerReplayed, Value: fmt.Appendf(nil, "%s/%d/%d", r.o.DeadTopic, partition, r.record.Offset)})
	r.messages = append(r.messages, m)
	r.bytes += size(m)
	r.counted = append(r.counted, c)
	return nil
}

// fromSource reads the record of a letter without payload again; false: its
// topic has it no longer, or has another one there.
func (r *Replay) fromSource(ctx context.Context, l letter) (publish.Message, bool, error) {
	if l.cluster != r.cluster || !r.parts[l.from] {
		return publish.Message{}, false, nil
	}
	rec, ok, err := r.source.read(ctx, l.from, l.offset)
	if err != nil || !ok || len(rec.Value) != l.length {
		return publish.Message{}, false, err
	}
	return copied(l.from.topic, rec), true, nil
}

// flush publishes the chunk and remembers that everything below next is done.
func (r *Replay) flush(ctx context.Context, p *dead, next int64) error {
	if len(r.messages) > 0 && !r.o.DryRun {
		err := r.again(ctx, func() error { return r.o.Publisher.Publish(ctx, r.messages...) })
		if err != nil {
			return err
		}
	}
	for _, c := range r.counted {
		r.tally.add(c, replayed)
	}
	r.at.Read += next - p.at
	r.at.Replayed += int64(len(r.messages))
	p.at = next
	// The old list may still be on its way.
	r.messages, r.bytes, r.counted = nil, 0, r.counted[:0]
	if r.o.Progress != nil {
		r.o.Progress(r.at)
	}
	if r.o.DryRun {
		return nil
	}
	r.own.Next[p.id] = next
	return r.state.save()
}

// records fetches from one partition, at least one batch.
func (r *Replay) records(ctx context.Context, p place, offset int64) (a fetch.Answer, err error) {
	err = r.again(ctx, func() error {
		answers, err := r.fetch.Fetch(ctx, []fetch.Want{{Topic: p.topic, Partition: p.partition, Offset: offset}}, fetchBytes, fetchBytes)
		switch {
		case err != nil:
			return fmt.Errorf("read %s/%d: %w", p.topic, p.partition, err)
		case len(answers) != 1:
			return fmt.Errorf("read %s/%d: the broker did not answer for it", p.topic, p.partition)
		}
		a = answers[0]
		if err = a.Err; err == nil && a.Bytes() == 0 && offset < a.LastStable {
			err = errors.New("the broker gave no records")
		}
		if err != nil {
			a.Release()
			return fmt.Errorf("read %s/%d at offset %d: %w", p.topic, p.partition, offset, err)
		}
		return nil
	})
	return a, err
}

// again calls f until it succeeds, fails for good, or patience ends.
func (r *Replay) again(ctx context.Context, f func() error) error {
	began := time.Now()
	for try := 0; ; try++ {
		err := f()
		if err == nil {
			return nil
		}
		for _, permanent := range []error{publish.ErrUnknownTopic, publish.ErrTooLarge, publish.ErrRefused, publish.ErrTLS, kafka.OffsetOutOfRange} {
			if errors.Is(err, permanent) {
				return err
			}
		}
		if ctx.Err() != nil || time.Since(began) > r.o.Patience {
			return err
		}
		select {
		case <-time.After(min(time.Second, 50*time.Millisecond<<min(try, 5))):
		case <-ctx.Done():
			return err
		}
	}
}
