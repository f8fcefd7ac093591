package embeddedtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClickHouseGivesEachCallItsOwnDatabase(t *testing.T) {
	ctx := context.Background()
	for range 2 {
		options, err := clickhouse.ParseDSN(embeddedtest.ClickHouse(t))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := clickhouse.Open(options)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		if err := conn.Exec(ctx, "CREATE TABLE one (n UInt8) ENGINE = MergeTree ORDER BY n"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKafkaHasTheTopics(t *testing.T) {
	addr := embeddedtest.Kafka(t, embedded.Topic{Name: "events", Partitions: 3})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := kafka.DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions("events")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(partitions), 3; got != want {
		t.Errorf("got %d partitions, want %d", got, want)
	}
}
