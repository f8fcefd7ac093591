//go:build kafka

package kafkatest_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kafkatest.Tests{M: m}) }

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
