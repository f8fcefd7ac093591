//go:build kafka

package ingest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
)

// port is one listener of a broker, as a cluster.
type port struct {
	*kafkatest.Secured
	name string
}

func (p port) Addr() string { return p.Port(p.name) }

// TestApacheLoginsAndTLS has one broker for all its parts: each starts an
// ingester that may come in by one of the listeners, or may not.
func TestApacheLoginsAndTLS(t *testing.T) {
	authority := certstest.New(t)
	good, foreign := authority.Issue("127.0.0.1", time.Hour), certstest.New(t)
	expired, elsewhere := authority.Issue("127.0.0.1", -time.Minute), authority.Issue("kafka.example.com", time.Hour)
	broker := kafkatest.StartSecured(t, user, password, map[string]kafkatest.Listener{
		"TLS":       {Certificate: &good},
		"MUTUAL":    {Certificate: &good, Clients: authority},
		"LOGIN":     {Login: true},
		"LOGINTLS":  {Certificate: &good, Login: true},
		"EXPIRED":   {Certificate: &expired},
		"ELSEWHERE": {Certificate: &elsewhere},
	})
	broker.SetPassword(t, user, password)

	login := func(mechanism string) config.Kafka {
		return config.Kafka{SASLMechanism: mechanism, SASLUsername: user, SASLPassword: password}
	}
	inside := func(c config.Kafka) config.Kafka { c.TLS, c.TLSCA = true, authority.File(); return c }
	wrong := func(c config.Kafka) config.Kafka { c.SASLPassword = "canary-wrong"; return c }
	unknown := func(c config.Kafka) config.Kafka { c.SASLUsername = "canary-nobody"; return c }
	signed := func(by config.Kafka, file string) config.Kafka { by.TLSCA = file; return by }
	named := func(c config.Kafka, name string) config.Kafka { c.TLSServerName = name; return c }
	shows := func(c certstest.Certificate) config.Kafka {
		k := inside(config.Kafka{})
		k.ClientCert, k.ClientKey = c.CertFile, c.KeyFile
		return k
	}
	base := newStackOn(t, broker)
	// on has topics of its own and comes in by one of the listeners.
	on := func(t *testing.T, listener string, c config.Kafka) *stack {
		s := *base
		s.t, s.broker = t, port{broker, listener}
		suffix := "." + rand.Text()
		s.group += suffix
		s.dead += suffix
		made := []embedded.Topic{{Name: s.dead, Partitions: 1}}
		for k := range s.topics {
			s.topics[k] += suffix
			made = append(made, embedded.Topic{Name: s.topics[k], Partitions: 1})
		}
		broker.Create(t, made...)
		c.Brokers = []string{s.broker.Addr()}
		s.kafka = c
		return &s
	}

	for _, c := range []struct {
		name, listener string
		c              config.Kafka
	}{
		{"TLS", "TLS", inside(config.Kafka{})},
		{"TLS with another server name", "ELSEWHERE", named(inside(config.Kafka{}), "kafka.example.com")},
		{"mutual TLS", "MUTUAL", shows(good)},
		{"plain", "LOGIN", login("plain")},
		{"scram-sha-512", "LOGIN", login("scram-sha-512")},
		{"plain inside TLS", "LOGINTLS", inside(login("plain"))},
		{"scram-sha-512 inside TLS", "LOGINTLS", inside(login("scram-sha-512"))},
	} {
		t.Run(c.name, func(t *testing.T) { on(t, c.listener, c.c).flows(nil) })
	}

	const badLogin = "Kafka refused the login: check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
	const hint = "the broker closed the connection: where that stays so, check KAFKA_TLS, KAFKA_SASL_*"
	shut := on(t, "TLS", inside(config.Kafka{})) // nobody comes in: they can share it
	for _, c := range []struct {
		name, listener string
		c              config.Kafka
		state, want    string
	}{
		{"plain, wrong password", "LOGIN", wrong(login("plain")), "broken", badLogin},
		{"plain inside TLS, wrong password", "LOGINTLS", inside(wrong(login("plain"))), "broken", badLogin},
		{"scram, wrong password", "LOGIN", wrong(login("scram-sha-512")), "broken", badLogin},
		{"scram inside TLS, wrong password", "LOGINTLS", inside(wrong(login("scram-sha-512"))), "broken", badLogin},
		{"scram, unknown user", "LOGIN", unknown(login("scram-sha-512")), "broken", badLogin},
		{"scram, no credentials of this kind", "LOGIN", login("scram-sha-256"), "broken", badLogin},
		{"a login where none is taken", "TLS", inside(login("plain")), "broken", "the broker"},
		{"no login", "LOGIN", config.Kafka{}, "paused", hint},
		{"expired", "EXPIRED", inside(config.Kafka{}), "broken", "the certificate of the broker has expired"},
		{"another host", "ELSEWHERE", inside(config.Kafka{}), "broken", "check KAFKA_TLS_SERVER_NAME"},
		{"unknown authority", "TLS", signed(inside(config.Kafka{}), foreign.File()), "broken", "check KAFKA_TLS_CA"},
		{"no TLS at a TLS port", "TLS", config.Kafka{}, "broken", "the broker speaks TLS at this port: check KAFKA_TLS"},
		{"no TLS at a TLS port with login", "LOGINTLS", login("plain"), "broken", "the broker speaks TLS at this port: check KAFKA_TLS"},
		{"TLS at a port without", "LOGIN", inside(config.Kafka{}), "paused", hint},
		{"no client certificate", "MUTUAL", inside(config.Kafka{}), "broken", "check KAFKA_TLS_CERT and KAFKA_TLS_KEY"},
		{"expired client certificate", "MUTUAL", shows(expired), "broken", "check KAFKA_TLS_CERT and KAFKA_TLS_KEY"},
		{"foreign client certificate", "MUTUAL", shows(foreign.Issue("127.0.0.1", time.Hour)), "broken", "check KAFKA_TLS_CERT and KAFKA_TLS_KEY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := *shut
			s.t, c.c.Brokers = t, []string{broker.Port(c.listener)}
			s.refused(c.c, c.state, c.want).stop()
		})
	}

	t.Run("a password that is changed at the broker heals", func(t *testing.T) {
		late := login("scram-sha-512")
		late.SASLUsername = "canary-late"
		broker.SetPassword(t, late.SASLUsername, "canary-old")
		s := on(t, "LOGINTLS", inside(late))
		r := s.refused(s.kafka, "broken", badLogin)
		broker.SetPassword(t, late.SASLUsername, password)
		s.flows(r)
	})
	t.Run("a certificate that is renewed heals", func(t *testing.T) {
		s := on(t, "EXPIRED", inside(config.Kafka{}))
		r := s.refused(s.kafka, "broken", "the certificate of the broker has expired")
		broker.Renew(t, "EXPIRED", good)
		s.flows(r)
	})
}
