package publish_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "lethe.audit"

// open returns a Publisher for the settings, closed when the test ends.
func open(t *testing.T, c config.Kafka) *publish.Publisher {
	t.Helper()
	transport, _, err := publish.Connect(c)
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	p, err := publish.New(publish.Options{Brokers: c.Brokers, Transport: transport})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

// limit bounds what a broken broker could make wait for ever.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// readAll reads a partition from its start to its end.
func readAll(t *testing.T, d *kafka.Dialer, broker, topic string, partition int) []kafka.Message {
	t.Helper()
	conn, err := d.DialLeader(limit(t), "tcp", broker, topic, partition)
	if err != nil {
		t.Fatalf("dial leader: %v", err)
	}
	defer func() { _ = conn.Close() }()
	end, err := conn.ReadLastOffset()
	if err != nil {
		t.Fatalf("read last offset: %v", err)
	}
	if _, err := conn.Seek(0, kafka.SeekAbsolute); err != nil {
		t.Fatalf("seek: %v", err)
	}
	var list []kafka.Message
	for int64(len(list)) < end {
		m, err := conn.ReadMessage(2 << 20)
		if err != nil {
			t.Fatalf("read message %d: %v", len(list), err)
		}
		list = append(list, m)
	}
	return list
}

func TestPublishIsAcknowledged(t *testing.T) {
	const partitions = 4
	broker := embeddedtest.Kafka(t, embedded.Topic{Name: topic, Partitions: partitions})
	c := config.Kafka{Brokers: []string{broker}}
	p := open(t, c)
	const n = 600
	var msgs []publish.Message
	for i := range n {
		msgs = append(msgs, publish.Message{
			Topic: topic, Key: fmt.Sprintf("org_%d", i%7), Value: fmt.Appendf(nil, "value %d", i),
			Headers: []publish.Header{{Key: "reason", Value: []byte("test")}},
		})
	}
	for range 20 {
		msgs = append(msgs, publish.Message{Topic: topic, Value: []byte("no key")})
	}
	if err := p.Publish(limit(t), msgs...); err != nil {
		t.Fatalf("Publish: %v", err)
	}
	_, dialer, err := publish.Connect(c)
	if err != nil {
		t.Fatal(err)
	}
	home := map[string]int{} // key → partition
	last := map[string]int{} // key → number of its last value
	seen := 0
	for partition := range partitions {
		for _, m := range readAll(t, dialer, broker, topic, partition) {
			seen++
			if len(m.Key) == 0 {
				if got, want := string(m.Value), "no key"; got != want {
					t.Errorf("a message without a key: got %q, want %q", got, want)
				}
				continue
			}
			key := string(m.Key)
			if before, ok := home[key]; ok && before != partition {
				t.Errorf("key %s is in partitions %d and %d", key, before, partition)
			}
			home[key] = partition
			var i int
			if _, err := fmt.Sscanf(string(m.Value), "value %d", &i); err != nil {
				t.Errorf("got value %q", m.Value)
			}
			if before, ok := last[key]; ok && before > i {
				t.Errorf("key %s: value %d came after %d", key, i, before)
			}
			last[key] = i
			if len(m.Headers) != 1 || m.Headers[0].Key != "reason" || string(m.Headers[0].Value) != "test" {
				t.Errorf("got headers %v", m.Headers)
			}
		}
	}
	if want := n + 20; seen != want {
		t.Errorf("got %d messages back, want %d", seen, want)
	}
}

func TestOneMessageDoesNotWait(t *testing.T) {
	broker := embeddedtest.Kafka(t, embedded.Topic{Name: topic, Partitions: 1})
	p := open(t, config.Kafka{Brokers: []string{broker}})
	one := publish.Message{Topic: topic, Value: []byte("x")}
	if err := p.Publish(limit(t), one); err != nil { // connects
		t.Fatal(err)
	}
	fastest := time.Hour
	for range 20 {
		began := time.Now()
		if err := p.Publish(limit(t), one); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 200*time.Millisecond {
		t.Errorf("the fastest of 20 took %s; kafka-go's own delay is a second", fastest)
	}
}

func TestFailuresAreTold(t *testing.T) {
	broker := embeddedtest.Kafka(t, embedded.Topic{Name: topic, Partitions: 1})
	closed := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}()
	tests := []struct {
		name    string
		broker  string
		message publish.Message
		want    error
	}{
		{"unknown topic", broker, publish.Message{Topic: "nope", Value: []byte("canary")}, publish.ErrUnknownTopic},
		{"too large", broker, publish.Message{Topic: topic, Value: bytes.Repeat([]byte("canary"), 1<<18)}, publish.ErrTooLarge},
		{"nobody listens", closed, publish.Message{Topic: topic, Value: []byte("canary")}, publish.ErrUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := open(t, config.Kafka{Brokers: []string{tt.broker}})
			err := p.Publish(limit(t), tt.message)
			if !errors.Is(err, tt.want) {
				t.Errorf("Publish: got %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows the payload: %v", err)
			}
			err = p.Check(limit(t), tt.message.Topic)
			if errors.Is(tt.want, publish.ErrTooLarge) {
				if err != nil {
					t.Errorf("Check: got %v, want nil", err)
				}
				return
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("Check: got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestPublishAfterARestart(t *testing.T) {
	dir := t.TempDir()
	first := embeddedtest.Broker(t, dir, "127.0.0.1:0", embedded.Topic{Name: topic, Partitions: 1})
	addr := first.Addr()
	c := config.Kafka{Brokers: []string{addr}}
	p := open(t, c)
	if err := p.Publish(limit(t), publish.Message{Topic: topic, Value: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	if err := p.Publish(limit(t), publish.Message{Topic: topic, Value: []byte("lost")}); err == nil {
		t.Fatal("no broker: got no error, want one")
	}
	embeddedtest.Broker(t, dir, addr)
	ctx := limit(t)
	for {
		err := p.Publish(ctx, publish.Message{Topic: topic, Value: []byte("after")})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the publisher did not come back: %v", err)
		}
	}
	_, dialer, err := publish.Connect(c)
	if err != nil {
		t.Fatal(err)
	}
	got := readAll(t, dialer, addr, topic, 0)
	if len(got) < 2 || string(got[0].Value) != "before" || string(got[len(got)-1].Value) != "after" {
		t.Errorf("got %d messages, want before first and after last", len(got))
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name string
		opts publish.Options
	}{
		{"no brokers", publish.Options{Transport: &kafka.Transport{}}},
		{"no transport", publish.Options{Brokers: []string{"a:1"}}},
		{"negative batch", publish.Options{Brokers: []string{"a:1"}, Transport: &kafka.Transport{}, Batch: -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := publish.New(tt.opts); err == nil {
				t.Error("got no error")
			}
		})
	}
}

func TestEncryptionAndLogin(t *testing.T) {
	authority, foreign := certstest.New(t), certstest.New(t)
	good, byName, expired := authority.Issue("127.0.0.1", time.Hour), authority.Issue("kafka.example.com", time.Hour), authority.Issue("127.0.0.1", -time.Hour)
	ca := authority.File()
	const user, password = "lethe", "canary-password"
	login := func(mechanism string) config.Kafka {
		return config.Kafka{SASLMechanism: mechanism, SASLUsername: user, SASLPassword: password}
	}
	inside := func(c config.Kafka) config.Kafka { c.TLS, c.TLSCA = true, ca; return c }
	wrong := func(c config.Kafka) config.Kafka { c.SASLPassword = "canary-wrong"; return c }
	unknown := func(c config.Kafka) config.Kafka { c.SASLUsername = "canary-nobody"; return c }
	shows := func(c certstest.Certificate) config.Kafka {
		return config.Kafka{TLS: true, TLSCA: ca, ClientCert: c.CertFile, ClientKey: c.KeyFile}
	}
	tests := []struct {
		name      string
		cert      *certstest.Certificate
		mutual    bool
		mechanism string // of the broker's user
		c         config.Kafka
		kind      error // nil: it works
		want      string
	}{
		{"TLS", &good, false, "", inside(config.Kafka{}), nil, ""},
		{"TLS with another server name", &byName, false, "", config.Kafka{TLS: true, TLSCA: ca, TLSServerName: "kafka.example.com"}, nil, ""},
		{"TLS, the certificate is for another name", &byName, false, "", inside(config.Kafka{}), publish.ErrTLS, "for another host"},
		{"TLS, signed by somebody else", &good, false, "", config.Kafka{TLS: true, TLSCA: foreign.File()}, publish.ErrTLS, "check KAFKA_TLS_CA"},
		{"TLS, the system's authorities", &good, false, "", config.Kafka{TLS: true}, publish.ErrTLS, "check KAFKA_TLS_CA"},
		{"TLS, expired", &expired, false, "", inside(config.Kafka{}), publish.ErrTLS, "has expired"},
		{"mutual TLS", &good, true, "", shows(good), nil, ""},
		{"mutual TLS, no certificate", &good, true, "", inside(config.Kafka{}), publish.ErrTLS, "check KAFKA_TLS_CERT"},
		{"mutual TLS, expired", &good, true, "", shows(expired), publish.ErrTLS, "check KAFKA_TLS_CERT"},
		{"mutual TLS, signed by somebody else", &good, true, "", shows(foreign.Issue("127.0.0.1", time.Hour)), publish.ErrTLS, "check KAFKA_TLS_CERT"},
		{"plain", nil, false, "PLAIN", login("plain"), nil, ""},
		{"plain inside TLS", &good, false, "PLAIN", inside(login("plain")), nil, ""},
		{"scram-sha-256", nil, false, "SCRAM-SHA-256", login("scram-sha-256"), nil, ""},
		{"scram-sha-512", nil, false, "SCRAM-SHA-512", login("scram-sha-512"), nil, ""},
		{"scram-sha-512 inside TLS", &good, false, "SCRAM-SHA-512", inside(login("scram-sha-512")), nil, ""},
		// The embedded broker hangs up where Apache Kafka says what is wrong.
		{"plain, wrong password", nil, false, "PLAIN", wrong(login("plain")), publish.ErrUnreachable, "check KAFKA_TLS, KAFKA_SASL_*"},
		{"scram, wrong password", nil, false, "SCRAM-SHA-256", wrong(login("scram-sha-256")), publish.ErrUnreachable, "check KAFKA_TLS, KAFKA_SASL_*"},
		{"scram, unknown user", &good, false, "SCRAM-SHA-512", inside(unknown(login("scram-sha-512"))), publish.ErrUnreachable, "check KAFKA_TLS, KAFKA_SASL_*"},
		{"no login", nil, false, "PLAIN", config.Kafka{}, publish.ErrUnreachable, "check KAFKA_TLS, KAFKA_SASL_*"},
		{"no TLS", &good, false, "", config.Kafka{}, publish.ErrUnreachable, "check KAFKA_TLS, KAFKA_SASL_*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := embedded.KafkaOptions{Addr: "127.0.0.1:0", DataDir: t.TempDir(), Topics: []embedded.Topic{{Name: topic, Partitions: 1}}}
			if tt.cert != nil {
				opts.TLS = &tls.Config{Certificates: []tls.Certificate{tt.cert.TLS}}
				if tt.mutual {
					opts.TLS.ClientAuth, opts.TLS.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
				}
			}
			if tt.mechanism != "" {
				opts.Users = []embedded.User{{Mechanism: tt.mechanism, Name: user, Password: password}}
			}
			broker, err := embedded.NewKafka(opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := broker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(broker.Stop)
			tt.c.Brokers = []string{broker.Addr()}
			p := open(t, tt.c)
			err = p.Publish(limit(t), publish.Message{Topic: topic, Value: []byte("x")})
			if !errors.Is(err, tt.kind) {
				t.Fatalf("Publish: got %v, want %v", err, tt.kind)
			}
			if err != nil {
				if text := err.Error(); !strings.Contains(text, tt.want) || strings.Contains(text, "canary") {
					t.Errorf("got %q, want it to say %q and no secret", text, tt.want)
				}
				if got, want := daemon.Trouble(err) == daemon.Broken, !errors.Is(err, publish.ErrUnreachable); got != want {
					t.Errorf("%v: needs a person: got %t, want %t", err, got, want)
				}
				if checked := p.Check(limit(t), topic); !errors.Is(checked, tt.kind) {
					t.Errorf("Check: got %v, want %v", checked, tt.kind)
				}
				return
			}
			_, dialer, err := publish.Connect(tt.c)
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, dialer, broker.Addr(), topic, 0); len(got) != 1 {
				t.Errorf("the dialer reads %d messages, want 1", len(got))
			}
		})
	}
}

func TestConnectRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		c    config.Kafka
		want string
	}{
		{"no authority file", config.Kafka{TLS: true, TLSCA: empty + "x"}, "KAFKA_TLS_CA"},
		{"no certificate in it", config.Kafka{TLS: true, TLSCA: empty}, "no certificate in"},
		{"no client certificate", config.Kafka{TLS: true, ClientCert: empty + "x", ClientKey: empty}, "KAFKA_TLS_CERT"},
		{"no client key in its file", config.Kafka{TLS: true, ClientCert: certstest.New(t).Issue("127.0.0.1", time.Hour).CertFile, ClientKey: empty}, "KAFKA_TLS_KEY"},
		{"unknown mechanism", config.Kafka{SASLMechanism: "x"}, "KAFKA_SASL_MECHANISM"},
		{"password with a forbidden character", config.Kafka{SASLMechanism: "scram-sha-256", SASLUsername: "u", SASLPassword: "canary\x00"}, "KAFKA_SASL_PASSWORD holds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := publish.Connect(tt.c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to contain %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}
