//go:build kafka

package kafkatest_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kafkatest.Tests{M: m}) }

func TestThreeNodesGoOnWithoutOne(t *testing.T) {
	cluster := kafkatest.Brokers(t)
	cluster.Create(t, embedded.Topic{Name: "spread", Partitions: 1})
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addrs()...), kgo.DefaultProduceTopic("spread"), kgo.ConsumeTopics("spread"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	leader := func() *kafkatest.Node {
		t.Helper()
		n, err := cluster.Leader(t.Context(), "spread", 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := leader()
	for _, value := range []string{"with three", "with two", "with three again"} {
		switch value {
		case "with two":
			first.Kill(t)
		case "with three again":
			if second := leader(); second == first {
				t.Errorf("node %d still leads although it was killed", first.ID())
			}
			first.Start(t)
		}
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if records := client.PollRecords(t.Context(), 1).Records(); len(records) != 1 || string(records[0].Value) != value {
			t.Errorf("%s: got records %v", value, records)
		}
	}
}

func TestAFrozenBrokerGoesOn(t *testing.T) {
	broker := kafkatest.Broker(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := broker.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := client.Ping(ctx); err == nil {
		t.Error("it answers although it is frozen")
	}
	if err := broker.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAKilledBrokerComesBackWithItsData(t *testing.T) {
	broker := kafkatest.Broker(t)
	broker.Create(t, embedded.Topic{Name: "kept", Partitions: 1})
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.ConsumeTopics("kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "kept", Value: []byte("value")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	broker.Kill(t)
	if err := client.Ping(t.Context()); err == nil {
		t.Error("it answers although it was killed")
	}
	broker.Start(t)
	records := client.PollRecords(t.Context(), 1).Records()
	if len(records) != 1 || string(records[0].Value) != "value" {
		t.Errorf("got records %v, want the one of before", records)
	}
	if got := kafkatest.Broker(t); got != broker {
		t.Error("a second call starts a second broker")
	}
}
