// Package kafkatest gives tests a real Apache Kafka: one node in KRaft mode on
// loopback ports, its data in a temporary folder. It is for tests only. It starts
// once per test binary, when first asked for, so tests take topic and group names
// of their own. Files that use it have the build tag kafka; what it needs is
// brought by `make fetch-kafka`.
package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/embedded"
)

const (
	formatIn = time.Minute
	answerIn = time.Minute
)

// Node is a broker that is its own controller.
type Node struct {
	addr    string
	cluster string
	dir     string // its own, with server.properties, data and the process's output
	libs    string // class path

	alive io.Closer // the process lives while this is open
	ended chan struct{}
}

var shared struct {
	sync.Mutex
	node *Node
	err  error
}

// Tests runs a binary's tests and ends the broker after them; it belongs into
// TestMain: goleak.VerifyTestMain(kafkatest.Tests{M: m}).
type Tests struct{ M *testing.M }

// Run implements goleak.TestingM.
func (t Tests) Run() int {
	code := t.M.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.node != nil {
		shared.node.kill()
		os.RemoveAll(shared.node.dir)
	}
	return code
}

// Broker returns the binary's broker, which answers. It creates no topic by itself.
func Broker(t testing.TB) *Node {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.node == nil && shared.err == nil {
		shared.node, shared.err = begin(t.Context(), func(string, string) string { return "" })
	}
	if shared.err != nil {
		t.Fatalf("Apache Kafka: %v", shared.err)
	}
	return shared.node
}

// Addr is where it listens; a restart keeps it.
func (n *Node) Addr() string { return n.addr }

// ClusterID names the cluster; a restart keeps it.
func (n *Node) ClusterID() string { return n.cluster }

// Create makes topics, whose names no other test may use.
func (n *Node) Create(t testing.TB, topics ...embedded.Topic) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(n.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15_000
	for _, topic := range topics {
		one := kmsg.NewCreateTopicsRequestTopic()
		one.Topic, one.NumPartitions, one.ReplicationFactor = topic.Name, topic.Partitions, 1
		for name, value := range topic.Configs {
			one.Configs = append(one.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: &value})
		}
		req.Topics = append(req.Topics, one)
	}
	res, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatalf("create topics: %v", err)
	}
	for _, topic := range res.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			t.Fatalf("create topic %s: %v", topic.Topic, err)
		}
	}
}

// Kill ends the process with SIGKILL and waits until it is gone. Its data stays
// for Start, which the test must call.
func (n *Node) Kill(t testing.TB) {
	t.Helper()
	n.kill()
}

// Start runs the broker on its data, after Kill, and waits until it answers.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	if err := n.start(t.Context()); err != nil {
		t.Fatalf("Apache Kafka: %v", err)
	}
}

// begin makes a broker with empty data and starts it. settings returns lines of
// server.properties that replace those of here.
func begin(ctx context.Context, settings func(broker, controller string) string) (_ *Node, err error) {
	if _, err := exec.LookPath("java"); err != nil {
		return nil, fmt.Errorf("it needs Java 17 or later; without the build tag kafka the tests leave it out: %w", err)
	}
	cache, err := embedded.CacheDir()
	if err != nil {
		return nil, err
	}
	libs := filepath.Join(cache, "kafka", "libs")
	if _, err := os.Stat(libs); err != nil {
		return nil, fmt.Errorf("its jars are missing, run `make fetch-kafka`: %w", err)
	}
	dir, err := os.MkdirTemp("", "lethe-kafka-")
	if err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	ports, err := freePorts(ctx, 2)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	var id [16]byte
	rand.Read(id[:])
	id[0] &= 0x7f // a leading '-' would be read as an option
	n := &Node{
		addr: ports[0], cluster: base64.RawURLEncoding.EncodeToString(id[:]),
		dir: dir, libs: filepath.Join(libs, "*"),
	}
	text := fmt.Sprintf(properties, ports[0], ports[1], filepath.Join(dir, "data")) + settings(ports[0], ports[1])
	if err := os.WriteFile(n.properties(), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	formatting, cancel := context.WithTimeout(ctx, formatIn)
	defer cancel()
	format := exec.CommandContext(formatting, "java", "-XX:TieredStopAtLevel=1", "-cp", n.libs, "kafka.tools.StorageTool", "format", "-t", n.cluster, "-c", n.properties())
	if text, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format its data directory: %w: %s", err, text)
	}
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// properties have small numbers where one node would make fifty partitions, and
// short times where it would wait: for large groups, and after a kill for the
// session of its former self.
const properties = `process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
controller.quorum.voters=1@%[2]s
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
`

func (n *Node) properties() string { return filepath.Join(n.dir, "server.properties") }

// guarded runs a program that dies with SIGKILL when standard input ends, as it
// does when a test binary dies, in whatever way.
const guarded = `exec 3<&0
"$@" 3<&- & program=$!
(read -r _; kill -9 $program) <&3 >/dev/null 2>&1 & guard=$!
wait $program; code=$?
kill $guard 2>/dev/null
exit $code`

func (n *Node) start(ctx context.Context) error {
	output, err := os.Create(filepath.Join(n.dir, "output"))
	if err != nil {
		return fmt.Errorf("make file for its output: %w", err)
	}
	defer output.Close()
	cmd := exec.Command("sh", "-c", guarded, "sh",
		"java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", n.libs, "kafka.Kafka", n.properties())
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, output, output
	if n.alive, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	n.ended = make(chan struct{})
	go func() {
		defer close(n.ended)
		_ = cmd.Wait() // the exit status of a killed process says nothing
	}()
	if err := n.await(ctx); err != nil {
		n.kill()
		text, _ := os.ReadFile(output.Name())
		return fmt.Errorf("start: %w: %s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// await waits until it answers as a broker.
func (n *Node) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(n.addr))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
		if err == nil && len(res.Brokers) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-n.ended:
			return errors.New("the process has ended")
		case <-ctx.Done():
			return fmt.Errorf("no answer in time: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func (n *Node) kill() {
	n.alive.Close()
	<-n.ended
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
