package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Node is a broker that is its own controller, or one of three.
type Node struct {
	id      int32
	addr    string
	cluster string
	dir     string // its own, with server.properties, data, and the process's output and id
	classes string

	alive io.Closer // the process lives while this is open
	ended chan struct{}
}

// ID is the number that Kafka knows it by.
func (n *Node) ID() int32 { return n.id }

// Addr is where it listens; a restart keeps it.
func (n *Node) Addr() string { return n.addr }

// Addrs is Addr, as a cluster says it.
func (n *Node) Addrs() []string { return []string{n.addr} }

// ClusterID names the cluster; a restart keeps it.
func (n *Node) ClusterID() string { return n.cluster }

// DataDir is where its partitions are, a folder for each.
func (n *Node) DataDir() string { return filepath.Join(n.dir, "data") }

func (n *Node) properties() string { return filepath.Join(n.dir, "server.properties") }

func (n *Node) format(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, formatIn)
	defer cancel()
	cmd := exec.CommandContext(ctx, "java", "-XX:TieredStopAtLevel=1", "-cp", n.classes, "kafka.tools.StorageTool", "format", "-t", n.cluster, "-c", n.properties())
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format its data directory: %w: %s", err, text)
	}
	return nil
}

// guarded runs a program that dies with SIGKILL when standard input ends, as it
// does when a test binary dies, in whatever way.
const guarded = `exec 3<&0
"$@" 3<&- & program=$!
echo $program >pid
(read -r _; kill -9 $program) <&3 >/dev/null 2>&1 & guard=$!
wait $program; code=$?
kill $guard 2>/dev/null
exit $code`

// Up runs the node on its data and waits until it answers.
func (n *Node) Up(ctx context.Context) error {
	output, err := os.Create(filepath.Join(n.dir, "output"))
	if err != nil {
		return fmt.Errorf("make file for its output: %w", err)
	}
	defer output.Close()
	cmd := exec.Command("sh", "-c", guarded, "sh",
		"java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", n.classes, "kafka.Kafka", n.properties())
	cmd.Dir, cmd.Stdout, cmd.Stderr = n.dir, output, output
	alive, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	ended := make(chan struct{})
	n.alive, n.ended = alive, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the exit status of a killed process says nothing
	}()
	if err := n.await(ctx); err != nil {
		n.Down()
		text, _ := os.ReadFile(output.Name())
		return fmt.Errorf("start: %w: %s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// await waits until it answers as a broker of its cluster.
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
		res, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client.SeedBrokers()[0])
		if err == nil && slices.ContainsFunc(res.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == n.id }) {
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

// Ended is closed when the process of the last Up has ended.
func (n *Node) Ended() <-chan struct{} { return n.ended }

// Down ends the process with SIGKILL and waits until it is gone. Its data stays.
func (n *Node) Down() {
	if n.alive == nil {
		return
	}
	n.alive.Close()
	<-n.ended
	n.alive = nil
}

// Signal sends a signal to the process: SIGSTOP and SIGCONT freeze it and let it
// go on, SIGTERM stops it as an operator does.
func (n *Node) Signal(s syscall.Signal) error {
	if n.alive == nil {
		return errors.New("signal: the process has ended")
	}
	text, err := os.ReadFile(filepath.Join(n.dir, "pid"))
	if err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	if err := syscall.Kill(pid, s); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	return nil
}
