package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// errFenced says that the generation is over for this member: somebody else may
// own its partitions, and what is in hand is forgotten.
var errFenced = errors.New("the consumer group's generation has ended")

// errTopics ends a membership because a topic that was missing has come.
var errTopics = errors.New("a topic was made")

// existing returns which of the topics the cluster has.
func (i *Ingester) existing(ctx context.Context) ([]string, error) {
	m, err := i.client.Metadata(ctx, &kafka.MetadataRequest{Topics: i.o.Topics[:]})
	if err != nil {
		return nil, err
	}
	var topics []string
	for _, t := range m.Topics {
		if t.Error == nil && len(t.Partitions) > 0 {
			topics = append(topics, t.Name)
		}
	}
	slices.Sort(topics)
	return topics, nil
}

// awaitTopics returns the topics that exist, when there is at least one. A group
// that asks for a missing topic would end every generation at once: kafka-go's
// watcher of partitions fails on it.
func (i *Ingester) awaitTopics(ctx context.Context) ([]string, error) {
	var topics []string
	err := i.retry(ctx, partKafka, "find the topics", func(ctx context.Context) (err error) {
		topics, err = i.existing(ctx)
		if err == nil && len(topics) == 0 {
			err = fmt.Errorf("none of the topics %v exists", i.o.Topics)
		}
		return err
	})
	if err == nil && len(topics) < len(i.o.Topics) {
		i.log.Warn("some topics do not exist; they are consumed as soon as they do", "found", topics, "wanted", i.o.Topics)
	}
	return topics, err
}

// watchTopics ends the membership when a missing topic has come.
func (i *Ingester) watchTopics(ctx context.Context, have []string, end context.CancelCauseFunc) {
	if len(have) == len(i.o.Topics) {
		return
	}
	for sleep(ctx, i.o.WatchEvery) {
		if now, err := i.existing(ctx); err == nil && len(now) > len(have) {
			end(errTopics)
			return
		}
	}
}

// member is one membership of the group: generation after generation until ctx
// is done or the set of topics changes. stopped ends at the stop's deadline.
func (i *Ingester) member(ctx, stopped context.Context, topics []string) error {
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: i.o.Group, Brokers: i.o.Brokers, Dialer: i.o.Dialer, Topics: topics,
		HeartbeatInterval: i.o.Heartbeat, SessionTimeout: i.o.SessionTimeout, RebalanceTimeout: i.o.RebalanceTimeout,
		JoinGroupBackoff: time.Second, WatchPartitionChanges: true, PartitionWatchInterval: i.o.WatchEvery,
		StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("join consumer group: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		i.watchTopics(ctx, topics, end)
	}()
	wait := i.o.RetryMin
	for ctx.Err() == nil {
		var gen *kafka.Generation
		err := i.retry(ctx, partKafka, "join the consumer group", func(ctx context.Context) (err error) {
			gen, err = group.Next(ctx)
			return err
		})
		if err != nil {
			break // ctx is done: Next is tried for ever
		}
		i.metrics.generations.Inc()
		done := make(chan error, 1)
		gen.Start(func(over context.Context) {
			done <- i.generation(ctx, over, stopped, gen)
			if ctx.Err() != nil {
				// Returning would make the group join again. Heartbeats go on
				// until Close leaves it.
				<-over.Done()
			}
		})
		// The group is joined again at once and kept alive meanwhile; a fault that
		// stays must not become a storm of generations.
		if err := <-done; err == nil {
			wait = i.o.RetryMin
		} else if sleep(ctx, wait) {
			wait = min(2*wait, i.o.RetryMax)
		}
	}
	end(nil)
	<-watched
	i.leave(stopped, group)
	return nil
}

// leave ends the membership. Close waits for answers of the broker, in places
// without a limit of its own: past the deadline it is left alone.
func (i *Ingester) leave(stopped context.Context, group *kafka.ConsumerGroup) {
	closed := make(chan error, 1)
	go func() { closed <- group.Close() }()
	limit := time.NewTimer(i.o.StopTimeout)
	defer limit.Stop()
	select {
	case err := <-closed:
		if err != nil {
			i.log.Warn("leave consumer group", "error", err)
		}
	case <-stopped.Done():
		i.log.Warn("leave consumer group: no answer in time; the broker will notice by itself")
	case <-limit.C:
		i.log.Warn("leave consumer group: no answer in time; the broker will notice by itself")
	}
}

// generation runs the route on what one generation assigns. It returns when the
// generation is over or ctx is done, and everything in hand is stored and
// committed, or forgotten with an error.
func (i *Ingester) generation(ctx, over, stopped context.Context, gen *kafka.Generation) error {
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(over, func() { cancel(errFenced) })()

	// What is in hand when the work ends may be finished within this time. In an
	// ended generation no heartbeat is sent: the group waits for at most its
	// timeouts, and a heartbeat is lost before it is missed.
	finishing, forget := context.WithCancelCause(stopped)
	defer forget(nil)
	limit := min(i.o.SessionTimeout, i.o.RebalanceTimeout) - i.o.Heartbeat
	if limit <= 0 {
		limit = i.o.Heartbeat
	}
	defer context.AfterFunc(over, func() { time.AfterFunc(limit, func() { forget(errFenced) }) })()

	for working.Err() == nil {
		parts, err := i.assigned(working, gen)
		if err != nil {
			return nil // the generation or the process ends
		}
		err = newRoute(i, i.fence(gen), gen.ID, parts).run(working, finishing)
		switch {
		case err == nil:
		case errors.Is(err, errStopped):
			continue // without the partitions that were stopped
		default:
			i.log.Warn("a batch is forgotten and will be read again", "generation", gen.ID, "error", err)
			return err
		}
	}
	return nil
}
