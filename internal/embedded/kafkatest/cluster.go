package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded"
)

const (
	formatIn = 2 * time.Minute
	answerIn = 2 * time.Minute
)

// Options say what Begin starts.
type Options struct {
	Nodes int // Default: 1.
	// Settings returns lines of a node's server.properties that replace those of
	// here; it is given where the node listens. nil: none.
	Settings func(broker, controller string) string
}

// Cluster is brokers that are their own controllers.
type Cluster struct {
	Nodes []*Node

	id  string
	dir string // its own, with a folder of each node
}

// Begin makes a cluster with empty data and starts it. The caller must End it;
// its processes end with the caller's in any case.
func Begin(ctx context.Context, o Options) (_ *Cluster, err error) {
	if _, err := exec.LookPath("java"); err != nil {
		return nil, fmt.Errorf("it needs Java 17 or later; without the build tag kafka the tests leave it out: %w", err)
	}
	classes, err := ClassPath()
	if err != nil {
		return nil, err
	}
	count := max(o.Nodes, 1)
	ports, err := freePorts(ctx, 2*count)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	var id [16]byte
	rand.Read(id[:])
	id[0] &= 0x7f // a leading '-' would be read as an option
	c := &Cluster{id: base64.RawURLEncoding.EncodeToString(id[:])}
	if c.dir, err = os.MkdirTemp("", "lethe-kafka-"); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	defer func() {
		if err != nil {
			c.End()
		}
	}()
	brokers, controllers := ports[:count], ports[count:]
	var voters []string
	for n := range count {
		voters = append(voters, fmt.Sprintf("%d@%s", n+1, controllers[n]))
	}
	for n := range count {
		node := &Node{id: int32(n + 1), addr: brokers[n], cluster: c.id, dir: filepath.Join(c.dir, fmt.Sprint(n+1)), classes: classes}
		text := fmt.Sprintf(properties, node.id, node.addr, controllers[n], strings.Join(voters, ","), node.DataDir(), count, min(count, 2))
		if o.Settings != nil {
			text += o.Settings(node.addr, controllers[n])
		}
		if err := os.Mkdir(node.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
		if err := os.WriteFile(node.properties(), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write settings: %w", err)
		}
		c.Nodes = append(c.Nodes, node)
	}
	if err := c.each(func(n *Node) error { return n.format(ctx) }); err != nil {
		return nil, err
	}
	if err := c.each(func(n *Node) error { return n.Up(ctx) }); err != nil {
		return nil, err
	}
	return c, nil
}

// properties have small numbers where one node would make fifty partitions, and
// short times where it would wait: for large groups, for the next look at what
// retention takes, and after a kill for the session of its former self.
const properties = `process.roles=broker,controller
node.id=%[1]d
listeners=PLAINTEXT://%[2]s,CONTROLLER://%[3]s
advertised.listeners=PLAINTEXT://%[2]s
controller.listener.names=CONTROLLER
controller.quorum.voters=%[4]s
log.dirs=%[5]s
auto.create.topics.enable=false
default.replication.factor=%[6]d
min.insync.replicas=%[7]d
offsets.topic.num.partitions=1
offsets.topic.replication.factor=%[6]d
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=%[6]d
transaction.state.log.min.isr=%[7]d
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=%[6]d
share.coordinator.state.topic.min.isr=%[7]d
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
auto.leader.rebalance.enable=false
`

// ClassPath is Apache Kafka's jars, as Java takes them.
func ClassPath() (string, error) {
	cache, err := embedded.CacheDir()
	if err != nil {
		return "", err
	}
	libs := filepath.Join(cache, "kafka", "libs")
	if _, err := os.Stat(libs); err != nil {
		return "", fmt.Errorf("its jars are missing, run `make fetch-kafka`: %w", err)
	}
	return filepath.Join(libs, "*"), nil
}

// each runs do for all nodes at once.
func (c *Cluster) each(do func(*Node) error) error {
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, n := range c.Nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// End kills the processes and removes their data.
func (c *Cluster) End() {
	for _, n := range c.Nodes {
		n.Down()
	}
	os.RemoveAll(c.dir)
}

// Addrs is where the nodes listen.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.addr)
	}
	return addrs
}

// Addr is where one of the nodes listens.
func (c *Cluster) Addr() string { return c.Nodes[0].addr }

// ClusterID names the cluster; restarts keep it.
func (c *Cluster) ClusterID() string { return c.id }

// Leader returns the node that leads a partition, or nil while none does.
func (c *Cluster) Leader(ctx context.Context, topic string, partition int32) (*Node, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	one := kmsg.NewMetadataRequestTopic()
	one.Topic = &topic
	req.Topics = append(req.Topics, one)
	res, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("ask for the leader: %w", err)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if p.Partition == partition {
				return c.node(p.Leader), nil
			}
		}
	}
	return nil, fmt.Errorf("ask for the leader: there is no partition %s/%d", topic, partition)
}

// Coordinator returns the node that leads a consumer group.
func (c *Cluster) Coordinator(ctx context.Context, group string) (*Node, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKeys = []string{group}
	res, err := req.RequestWith(ctx, client)
	if err == nil && len(res.Coordinators) != 1 {
		err = fmt.Errorf("%d answers", len(res.Coordinators))
	}
	if err == nil {
		err = kerr.ErrorForCode(res.Coordinators[0].ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the coordinator: %w", err)
	}
	return c.node(res.Coordinators[0].NodeID), nil
}

func (c *Cluster) node(id int32) *Node {
	for _, n := range c.Nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// freePorts returns loopback addresses that nobody listens on at the moment:
// brokers must know their ports before they start.
func freePorts(ctx context.Context, count int) ([]string, error) {
	var addrs []string
	for range count {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all of them after the last, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
