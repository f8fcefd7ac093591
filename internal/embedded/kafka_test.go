package embedded_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

func newWriter(t *testing.T, addr string, transport *kafka.Transport) *kafka.Writer {
	t.Helper()
	if transport == nil {
		transport = new(kafka.Transport)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Writer{
		Addr: kafka.TCP(addr), Topic: "events", RequiredAcks: kafka.RequireAll, Transport: transport,
		BatchTimeout: time.Millisecond, MaxAttempts: 1, Balancer: &kafka.RoundRobin{}, Compression: kafka.Zstd,
	}
}

// readAll is every value of a topic.
func readAll(t *testing.T, addr string, dialer *kafka.Dialer) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var values []string
	for partition := range 2 {
		conn, err := dialer.DialLeader(ctx, "tcp", addr, "events", partition)
		if err != nil {
			t.Fatal(err)
		}
		first, last, err := conn.ReadOffsets()
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		if first == last {
			continue
		}
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{addr}, Topic: "events", Partition: partition, MaxWait: 10 * time.Millisecond, Dialer: dialer,
		})
		for {
			m, err := reader.ReadMessage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(m.Value))
			if m.Offset == last-1 {
				break
			}
		}
		reader.Close()
	}
	return values
}

func TestKafkaKeepsWhatItAcknowledged(t *testing.T) {
	const kills, perKill, writers = 3, 200, 3
	dir := t.TempDir()
	server := startChild(t, "kafka", dir)
	var acked acks
	for round := range kills {
		enough := make(chan struct{})
		var once sync.Once
		var group sync.WaitGroup
		start := len(acked.names)
		for writer := range writers {
			w := newWriter(t, server.addr, nil)
			group.Go(func() {
				defer w.Close()
				for i := 0; ; i++ {
					name := fmt.Sprintf("%d/%d/%d", round, writer, i)
					if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte(name)}); err != nil {
						return // killed
					}
					if acked.add(name) >= start+perKill {
						once.Do(func() { close(enough) })
					}
				}
			})
		}
		<-enough
		server.kill()
		group.Wait()
		server = startChild(t, "kafka", dir)
		if missing := acked.missing(readAll(t, server.addr, new(kafka.Dialer))); len(missing) > 0 {
			t.Fatalf("kill %d: %d of %d acknowledged messages are gone: %q", round, len(missing), len(acked.names), missing)
		}
	}
	server.stop()
}

func TestKafkaKeepsCommittedOffsets(t *testing.T) {
	dir := t.TempDir()
	for _, end := range []string{"kill", "stop"} {
		t.Run(end, func(t *testing.T) {
			server := startChild(t, "kafka", dir)
			w := newWriter(t, server.addr, nil)
			defer w.Close()
			if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("a")}, kafka.Message{Value: []byte("b")}); err != nil {
				t.Fatal(err)
			}
			transport := new(kafka.Transport)
			defer transport.CloseIdleConnections()
			client := &kafka.Client{Addr: kafka.TCP(server.addr), Transport: transport}
			committed, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
				GroupID: end, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{"events": {{Partition: 1, Offset: 1}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := committed.Topics["events"][0].Error; err != nil {
				t.Fatal(err)
			}
			if end == "kill" {
				server.kill()
			} else {
				server.stop()
			}
			server = startChild(t, "kafka", dir)
			defer server.stop()
			client.Addr = kafka.TCP(server.addr)
			fetched, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: end, Topics: map[string][]int{"events": {1}}})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fetched.Topics["events"][0].CommittedOffset, int64(1); got != want {
				t.Errorf("got committed offset %d, want %d", got, want)
			}
		})
	}
}

func TestKafkaRestartsInPlace(t *testing.T) {
	dir := t.TempDir()
	first := embeddedtest.Broker(t, dir, "127.0.0.1:0", embedded.Topic{Name: "events", Partitions: 2, Configs: map[string]string{"retention.ms": "3600000"}})
	w := newWriter(t, first.Addr(), nil)
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	first.Stop()
	// The same address, more topics, and another wish for a topic that exists.
	second := embeddedtest.Broker(t, dir, first.Addr(), embedded.Topic{Name: "events", Partitions: 5}, embedded.Topic{Name: "more", Partitions: 1})
	if got, want := second.Addr(), first.Addr(); got != want {
		t.Errorf("got address %s, want %s", got, want)
	}
	if got, want := second.ClusterID(), first.ClusterID(); got != want || got == "" {
		t.Errorf("got cluster id %q, want %q", got, want)
	}
	transport := new(kafka.Transport)
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(second.Addr()), Transport: transport}
	metadata, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := metadata.ClusterID, first.ClusterID(); got != want {
		t.Errorf("got cluster id %q on the wire, want %q", got, want)
	}
	partitions := map[string]int{}
	for _, topic := range metadata.Topics {
		partitions[topic.Name] = len(topic.Partitions)
	}
	if got, want := fmt.Sprint(partitions), "map[events:2 more:1]"; got != want {
		t.Errorf("got partitions %s, want %s", got, want)
	}
	configs, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: "events", ConfigNames: []string{"retention.ms"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := configs.Resources[0].ConfigEntries[0].ConfigValue, "3600000"; got != want {
		t.Errorf("got retention.ms %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(readAll(t, second.Addr(), new(kafka.Dialer))), "[kept]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if other := embeddedtest.Broker(t, t.TempDir(), "127.0.0.1:0"); other.ClusterID() == first.ClusterID() {
		t.Errorf("got cluster id %s for two directories, want two", other.ClusterID())
	}
}

func TestKafkaLetsInWhoItKnows(t *testing.T) {
	const secret = "a long password"
	good, err := scram.Mechanism(scram.SHA512, "lethe", secret)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := scram.Mechanism(scram.SHA512, "lethe", "another")
	if err != nil {
		t.Fatal(err)
	}
	certificate, pool := selfSigned(t)
	broker, err := embedded.NewKafka(embedded.KafkaOptions{
		Addr: "127.0.0.1:0", DataDir: t.TempDir(), Topics: []embedded.Topic{{Name: "events", Partitions: 2}},
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Users: []embedded.User{
			{Mechanism: "SCRAM-SHA-512", Name: "lethe", Password: secret},
			{Mechanism: "PLAIN", Name: "plain", Password: secret},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	for name, c := range map[string]struct {
		mechanism sasl.Mechanism
		ok        bool
	}{
		"scram": {good, true}, "plain": {plain.Mechanism{Username: "plain", Password: secret}, true},
		"wrong password": {wrong, false}, "nobody": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			w := newWriter(t, broker.Addr(), &kafka.Transport{SASL: c.mechanism, TLS: &tls.Config{RootCAs: pool}})
			defer w.Close()
			if err := w.WriteMessages(ctx, kafka.Message{Value: []byte(name)}); (err == nil) != c.ok {
				t.Errorf("got %v, want success %v", err, c.ok)
			}
		})
	}
}

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestNewKafkaRefuses(t *testing.T) {
	for name, options := range map[string]embedded.KafkaOptions{
		"no directory":         {Addr: "127.0.0.1:0"},
		"no address":           {DataDir: "x"},
		"an address for all":   {DataDir: "x", Addr: "0.0.0.0:9092"},
		"a topic of nothing":   {DataDir: "x", Addr: "127.0.0.1:0", Topics: []embedded.Topic{{Name: "events"}}},
		"an unknown mechanism": {DataDir: "x", Addr: "127.0.0.1:0", Users: []embedded.User{{Mechanism: "GSSAPI", Name: "u"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := embedded.NewKafka(options); err == nil {
				t.Error("got no error, want one")
			}
		})
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	broker, err := embedded.NewKafka(embedded.KafkaOptions{Addr: taken.Addr().String(), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var refused *net.OpError
	if err := broker.Start(t.Context()); !errors.As(err, &refused) {
		t.Errorf("got %v for a port that is taken, want a *net.OpError", err)
	}
}
