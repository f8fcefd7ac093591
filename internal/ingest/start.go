package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// bounds are the first offset a partition still has and the one after its last.
type bounds struct{ start, end int64 }

// origin is where the group and the ledger stand.
type origin struct {
	ledger    int64 // the ledger's contiguous end; −1: it knows nothing
	committed int64 // the group's offset; −1: none
	others    bool  // the ledger knows other partitions of the cluster
}

// from returns the offset at which accounting goes on. It may lie below the
// start of the log: what is in between is lost.
func (o origin) from(b bounds) (int64, error) {
	switch {
	case o.ledger > b.end:
		return 0, fmt.Errorf("the ledger reaches offset %d but the partition ends at %d: the topic was made anew or lost its end; "+
			"stop the ingesters and run ingest ledger new-epoch TOPIC, and it is read again from its start", o.ledger, b.end)
	case o.ledger >= 0:
		return o.ledger, nil
	case o.committed > b.end:
		return 0, fmt.Errorf("the consumer group committed offset %d but the partition ends at %d: the topic was made anew or lost its end; "+
			"reset the group's offset", o.committed, b.end)
	case o.committed >= 0 && !o.others:
		return o.committed, nil // offsets chosen by hand, or no database and no backup
	default:
		return b.start, nil
	}
}

// ahead reports that something was committed that the ledger does not know:
// ClickHouse came back from a backup, or with nothing.
func (o origin) ahead(b bounds) bool {
	if o.ledger < 0 {
		return o.committed > b.start
	}
	return o.committed > o.ledger
}

// assigned returns the partitions of a generation with their places to start. It
// fails only when ctx is done.
func (i *Ingester) assigned(ctx context.Context, gen *kafka.Generation) ([]*partition, error) {
	ours := make(map[place]bool)
	for topic, assignments := range gen.Assignments {
		for _, a := range assignments {
			ours[place{topic, int32(a.ID)}] = true
		}
	}
	i.status.assigned(ours)
	var ends []ledger.End
	err := i.retry(ctx, partClickHouse, "read the ledger", func(ctx context.Context) (err error) {
		ends, err = i.o.Storage.LedgerEnds(ctx, i.cluster)
		return err
	})
	if err != nil {
		return nil, err
	}
	known, epochs := latest(ends)

	var parts []*partition
	for topic, assignments := range gen.Assignments {
		for _, a := range assignments {
			at := place{topic, int32(a.ID)}
			if i.status.isStopped(at) {
				continue
			}
			o := origin{ledger: -1, committed: max(a.Offset, -1), others: len(known) > 0}
			if next, ok := known[at]; ok {
				o.ledger = next
			}
			p, err := i.open(ctx, at, epochs[topic], o)
			if err != nil {
				return nil, err
			}
			if p == nil {
				continue
			}
			p.index = len(parts)
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// latest returns each partition's end in the newest epoch of its topic.
func latest(ends []ledger.End) (map[place]int64, map[string]uint32) {
	epochs := make(map[string]uint32)
	for _, e := range ends {
		epochs[e.Topic] = max(epochs[e.Topic], e.Epoch)
	}
	known := make(map[place]int64)
	for _, e := range ends {
		if e.Epoch == epochs[e.Topic] {
			known[place{e.Topic, e.Partition.Partition}] = e.Next
		}
	}
	return known, epochs
}

// settle is how often a position beyond the end is looked at again before it is
// believed: a new leader's high watermark may lag behind for a moment.
const settle = 4

// open finds out where a partition starts; nil when it is stopped instead.
func (i *Ingester) open(ctx context.Context, at place, epoch uint32, o origin) (*partition, error) {
	for try := 1; ; try++ {
		b, err := i.bounds(ctx, at)
		if err != nil {
			return nil, err
		}
		from, err := o.from(b)
		if err != nil {
			if try < settle {
				if !sleep(ctx, 2*i.o.RetryMin) {
					return nil, context.Cause(ctx)
				}
				continue
			}
			i.stop(at, err)
			return nil, nil
		}
		if o.ahead(b) {
			i.metrics.ahead.Inc()
			if o.ledger >= 0 || o.others { // events of the partition may all be younger than the backup
				i.log.Error("the group has committed more than the ledger knows: was ClickHouse restored from a backup? Reading again from the ledger's end",
					"partition", at.String(), "committed", o.committed, "ledger", from)
			} else {
				i.log.Error("the group has committed but the ledger does not know the partition: were ClickHouse's tables lost? Going on at the committed offset; what the topic has before it is read after the group's offset is reset",
					"partition", at.String(), "committed", o.committed, "log_start", b.start)
			}
		}
		p := &partition{
			place: at, kind: i.kinds[at.topic],
			id: ledger.Partition{Cluster: i.cluster, Topic: at.topic, Epoch: epoch, Partition: at.partition},
			at: from, next: from, done: from, end: b.end, started: time.Now(), committed: min(o.committed, b.end),
		}
		if from < b.start {
			p.start = b.start
		}
		return p, nil
	}
}

// bounds asks for both ends of a partition until it gets them.
func (i *Ingester) bounds(ctx context.Context, at place) (bounds, error) {
	var b bounds
	err := i.retry(ctx, partKafka, "ask for the ends of "+at.String(), func(ctx context.Context) error {
		res, err := i.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
			at.topic: {kafka.FirstOffsetOf(int(at.partition)), kafka.LastOffsetOf(int(at.partition))},
		}})
		if err != nil {
			return err
		}
		for _, p := range res.Topics[at.topic] {
			if p.Partition == int(at.partition) {
				b = bounds{p.FirstOffset, p.LastOffset}
				return p.Error
			}
		}
		return errors.New("the answer does not hold the partition")
	})
	return b, err
}

// stop stops a partition until a person has acted.
func (i *Ingester) stop(at place, why error) {
	i.log.Error("partition is stopped", "partition", at.String(), "error", why)
	i.status.stop(at, why.Error())
	i.metrics.stopped.Inc()
}

// tellLost logs what is lost, once it is in the ledger.
func (i *Ingester) tellLost(entries []ledger.Entry) {
	for _, e := range entries {
		for _, run := range e.Other {
			if run.Outcome == ledger.Lost {
				i.log.Error("offsets are lost: the topic's retention took them before they were read",
					"partition", place{e.Topic, e.Partition.Partition}.String(), "first", run.First, "last", run.Last)
			}
		}
	}
}
