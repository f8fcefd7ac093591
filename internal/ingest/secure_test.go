package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
)

// What may log in. Neither word, nor what tests log in with instead, may be seen
// anywhere.
const (
	user     = "canary-user"
	password = "canary-password"
)

// witness hears everything an ingester says to its operator.
type witness struct {
	health health
	mu     sync.Mutex
	said   strings.Builder
}

func (w *witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *witness) Report(part string, s daemon.State, why string) {
	fmt.Fprintln(w, part, s, why)
	w.health.Report(part, s, why)
}

// heard starts an ingester that must not say a secret.
func (s *stack) heard() *running {
	s.t.Helper()
	w := new(witness)
	r := s.start(func(o *Options) {
		w.health, o.Health = o.Health, w
		o.Log = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	s.t.Cleanup(func() {
		r.stop()
		families, err := r.metrics.Gather()
		if said := w.said.String() + fmt.Sprint(families); err != nil || strings.Contains(said, "canary") {
			s.t.Errorf("%v: a secret is told: %s", err, said)
		}
	})
	return r
}

// flows takes events and a dead letter from end to end. Whoever calls it has
// started no ingester, or one that could not connect.
func (s *stack) flows(r *running) {
	s.t.Helper()
	if r == nil {
		r = s.heard()
	} else {
		eventually(s.t, "healed", func() bool { return r.states.of(partKafka) == "ready" })
	}
	s.publish(s.topics[0], 0, kafka.Lz4, append(requestEvents(0, 50), "not JSON")...)
	eventually(s.t, "all offsets in the ledger", s.done(s.topics[0], 51))
	r.stop()
	s.accounts(s.topics[0], 51, 50)
	res, err := (&kafka.Client{Addr: kafka.TCP(s.kafka.Brokers...), Transport: s.transport()}).ListOffsets(s.t.Context(),
		&kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{s.dead: {kafka.LastOffsetOf(0)}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if got := res.Topics[s.dead][0].LastOffset; got != 1 {
		s.t.Errorf("got %d dead letters, want 1", got)
	}
}

// refused starts an ingester with other settings than the stack's and waits for
// what it says of itself.
func (s *stack) refused(c config.Kafka, state, want string) *running {
	s.t.Helper()
	good := s.kafka
	s.kafka = c
	r := s.heard()
	s.kafka = good
	eventually(s.t, state+": "+want, func() bool {
		got := r.states.of(partKafka)
		return strings.HasPrefix(got, state+": ") && strings.Contains(got, want)
	})
	if r.metric("retries_total", "part=kafka") < 1 {
		s.t.Error("the tries are not counted")
	}
	return r
}

// newSecured is a stack on the embedded broker, and how to reach it.
func newSecured(t testing.TB, dir, addr string, encryption *tls.Config, mechanism string) (*stack, *embedded.Kafka) {
	t.Helper()
	o := embedded.KafkaOptions{Addr: addr, DataDir: dir, TLS: encryption}
	for _, name := range append(topics[:], deadTopic) {
		o.Topics = append(o.Topics, embedded.Topic{Name: name, Partitions: 1})
	}
	if mechanism != "" {
		o.Users = []embedded.User{{Mechanism: strings.ToUpper(mechanism), Name: user, Password: password}}
	}
	broker, err := embedded.NewKafka(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	s := newStackOn(t, broker)
	if mechanism != "" {
		s.kafka.SASLMechanism, s.kafka.SASLUsername, s.kafka.SASLPassword = mechanism, user, password
	}
	return s, broker
}

func TestLoginsAndTLS(t *testing.T) {
	authority := certstest.New(t)
	shown := authority.Issue("127.0.0.1", time.Hour)
	open := &tls.Config{Certificates: []tls.Certificate{shown.TLS}}
	mutual := open.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	for _, c := range []struct {
		name       string
		encryption *tls.Config
		mechanism  string
	}{
		{"mutual TLS", mutual, ""},
		{"scram-sha-512 inside TLS", open, "scram-sha-512"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newSecured(t, t.TempDir(), "127.0.0.1:0", c.encryption, c.mechanism)
			if c.encryption != nil {
				s.kafka.TLS, s.kafka.TLSCA = true, authority.File()
			}
			if c.encryption == mutual {
				s.kafka.ClientCert, s.kafka.ClientKey = shown.CertFile, shown.KeyFile
			}
			s.flows(nil)
		})
	}
}

// TestARenewedCertificateHeals lets the broker's certificate expire under an
// ingester at work.
func TestARenewedCertificateHeals(t *testing.T) {
	authority := certstest.New(t)
	good, expired := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", -time.Minute)
	var shown atomic.Pointer[tls.Certificate]
	shown.Store(&good.TLS)
	encryption := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }}
	dir := t.TempDir()
	s, broker := newSecured(t, dir, "127.0.0.1:0", encryption, "")
	s.kafka.TLS, s.kafka.TLSCA = true, authority.File()
	s.publish(s.topics[1], 0, 0, "not JSON")
	r := s.heard()
	eventually(t, "at work", s.done(s.topics[1], 1))

	shown.Store(&expired.TLS)
	broker.Stop() // connections end, and new ones see the new certificate
	again, err := embedded.NewKafka(embedded.KafkaOptions{Addr: broker.Addr(), DataDir: dir, TLS: encryption})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Stop)
	eventually(t, "broken", func() bool {
		return strings.HasPrefix(r.states.of(partKafka), "broken: ") && strings.Contains(r.states.of(partKafka), "the certificate of the broker has expired")
	})
	shown.Store(&good.TLS)
	s.publish(s.topics[0], 0, 0, requestEvents(0, 20)...)
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 20))
	eventually(t, "ready", func() bool { return r.states.of(partKafka) == "ready" })
	r.stop()
	s.accounts(s.topics[0], 20, 20)
}

// TestARenewedClientCertificateHeals writes new files under an ingester that a
// broker refuses.
func TestARenewedClientCertificateHeals(t *testing.T) {
	authority := certstest.New(t)
	good, expired := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", -time.Minute)
	s, _ := newSecured(t, t.TempDir(), "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{good.TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
	}, "")
	s.kafka.TLS, s.kafka.TLSCA, s.kafka.ClientCert, s.kafka.ClientKey = true, authority.File(), good.CertFile, good.KeyFile
	c := s.kafka
	c.ClientCert, c.ClientKey = expired.CertFile, expired.KeyFile
	r := s.refused(c, "broken", "check KAFKA_TLS_CERT and KAFKA_TLS_KEY")
	if err := os.WriteFile(expired.CertFile, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "half a renewal is told", func() bool {
		return strings.Contains(r.states.of(partKafka), "KAFKA_TLS_CERT and KAFKA_TLS_KEY: a file of certificates cannot be used")
	})
	if err := errors.Join(os.WriteFile(expired.CertFile, []byte(good.CertPEM), 0o600), os.WriteFile(expired.KeyFile, []byte(good.KeyPEM), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.flows(r)
}
