// Package kafkatest gives tests a real Apache Kafka: one node or three in KRaft
// mode on loopback ports, their data in a temporary folder. It is for tests only.
//
// [Broker] and [Brokers] are shared by the tests of a binary and start when first
// asked for, so tests take topic and group names of their own. [Begin] is for a
// program outside a test, and for other settings. Files that use it have the build
// tag kafka; what it needs is brought by `make fetch-kafka`.
package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded"
)

// shared are the binary's clusters by their number of nodes.
var shared = struct {
	sync.Mutex
	clusters map[int]*Cluster
	errs     map[int]error
}{clusters: make(map[int]*Cluster), errs: make(map[int]error)}

// Tests runs a binary's tests and ends the shared brokers after them; it belongs
// into TestMain: goleak.VerifyTestMain(kafkatest.Tests{M: m}).
type Tests struct{ M *testing.M }

// Run implements goleak.TestingM.
func (t Tests) Run() int {
	code := t.M.Run()
	shared.Lock()
	defer shared.Unlock()
	for _, c := range shared.clusters {
		if c != nil {
			c.End()
		}
	}
	return code
}

// Broker returns the binary's single broker, which answers. It creates no topic by itself.
func Broker(t testing.TB) *Node {
	t.Helper()
	return share(t, 1).Nodes[0]
}

// Brokers returns the binary's cluster of three, all of which answer. Topics have
// three replicas, and a write is acknowledged when two have it.
func Brokers(t testing.TB) *Cluster {
	t.Helper()
	return share(t, 3)
}

func share(t testing.TB, nodes int) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.clusters[nodes] == nil && shared.errs[nodes] == nil {
		shared.clusters[nodes], shared.errs[nodes] = Begin(t.Context(), Options{Nodes: nodes})
	}
	if err := shared.errs[nodes]; err != nil {
		t.Fatalf("Apache Kafka: %v", err)
	}
	return shared.clusters[nodes]
}

// Kill ends the process with SIGKILL and waits until it is gone. Its data stays
// for Start. A test that fails before that does not leave it dead for the others.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	n.Down()
	t.Cleanup(func() {
		if n.alive != nil {
			return
		}
		if err := n.Up(context.Background()); err != nil {
			t.Errorf("Apache Kafka: %v", err)
		}
	})
}

// Start runs the broker on its data, after Kill, and waits until it answers.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	if err := n.Up(t.Context()); err != nil {
		t.Fatalf("Apache Kafka: %v", err)
	}
}

// Create makes topics, whose names no other test may use.
func (n *Node) Create(t testing.TB, topics ...embedded.Topic) {
	t.Helper()
	create(t, []string{n.addr}, topics)
}

// Create makes topics, whose names no other test may use.
func (c *Cluster) Create(t testing.TB, topics ...embedded.Topic) {
	t.Helper()
	create(t, c.Addrs(), topics)
}

func create(t testing.TB, addrs []string, topics []embedded.Topic) {
	t.Helper()
	if err := Create(t.Context(), addrs, topics...); err != nil {
		t.Fatal(err)
	}
}

// Create makes topics with the brokers' number of replicas and returns when all
// brokers know them.
func Create(ctx context.Context, addrs []string, topics ...embedded.Topic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15_000
	for _, topic := range topics {
		one := kmsg.NewCreateTopicsRequestTopic()
		one.Topic, one.NumPartitions, one.ReplicationFactor = topic.Name, topic.Partitions, -1
		for name, value := range topic.Configs {
			one.Configs = append(one.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: &value})
		}
		req.Topics = append(req.Topics, one)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		return err
	}
	defer client.Close()
	res, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for _, topic := range res.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			errs = append(errs, fmt.Errorf("create topic %s: %w", topic.Topic, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return awaitTopics(ctx, client, topics)
}

// awaitTopics waits until every broker knows the leaders, and these their
// partitions: a creation is answered by the controller alone.
func awaitTopics(ctx context.Context, client *kgo.Client, topics []embedded.Topic) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	meta, offsets := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrListOffsetsRequest()
	offsets.ReplicaID = -1
	all := int32(0)
	for _, topic := range topics {
		one := kmsg.NewMetadataRequestTopic()
		one.Topic = &topic.Name
		meta.Topics = append(meta.Topics, one)
		ends := kmsg.NewListOffsetsRequestTopic()
		ends.Topic = topic.Name
		all += topic.Partitions
		for p := range topic.Partitions {
			end := kmsg.NewListOffsetsRequestTopicPartition()
			end.Partition, end.Timestamp = p, -1
			ends.Partitions = append(ends.Partitions, end)
		}
		offsets.Topics = append(offsets.Topics, ends)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := known(ctx, client, meta, offsets, all)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for topics: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func known(ctx context.Context, client *kgo.Client, meta *kmsg.MetadataRequest, offsets *kmsg.ListOffsetsRequest, all int32) error {
	for _, broker := range client.SeedBrokers() {
		res, err := meta.RequestWith(ctx, broker)
		if err != nil {
			return err
		}
		found := int32(0)
		for _, topic := range res.Topics {
			found += int32(len(topic.Partitions))
		}
		if found != all {
			return fmt.Errorf("a broker knows %d of %d partitions", found, all)
		}
	}
	res, err := offsets.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, topic := range res.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("%s/%d: %w", topic.Topic, p.Partition, err)
			}
		}
	}
	return nil
}
