package kafkatest

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lethe-audit/lethe/internal/certs/certstest"
)

// Listener is a port of a secured broker.
type Listener struct {
	// Certificate is shown to clients; nil: no TLS.
	Certificate *certstest.Certificate
	// Clients sign certificates that clients must show; nil: none.
	Clients *certstest.Authority
	// Login asks for PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Login bool
}

// Secured is a broker of its own that speaks TLS and asks for logins. Node.Addr
// is a port without either, by which a test sets it up.
type Secured struct {
	*Node
	ports map[string]string // by the listener's name
}

// StartSecured starts a broker with these listeners by name, in capitals. user
// may log in by PLAIN with password; users of SCRAM are made by SetPassword. It
// ends with the test.
func StartSecured(t testing.TB, user, password string, listeners map[string]Listener) *Secured {
	t.Helper()
	names := slices.Sorted(maps.Keys(listeners))
	free, err := freePorts(t.Context(), len(names))
	if err != nil {
		t.Fatalf("find free ports: %v", err)
	}
	s := &Secured{ports: make(map[string]string)}
	for i, name := range names {
		s.ports[name] = free[i]
	}
	cluster, err := Begin(t.Context(), Options{Settings: func(broker, controller string) string {
		all, open, protocols := []string{"PLAINTEXT://" + broker}, "CONTROLLER://"+controller, "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
		var lines strings.Builder
		for _, name := range names {
			all = append(all, name+"://"+s.ports[name])
			protocol := listeners[name].settings(&lines, setting(name, ""), user, password)
			protocols += "," + name + ":" + protocol
		}
		advertised := strings.Join(all, ",")
		return fmt.Sprintf("listeners=%s,%s\nadvertised.listeners=%s\nlistener.security.protocol.map=%s\ninter.broker.listener.name=PLAINTEXT\n",
			advertised, open, advertised, protocols) + lines.String()
	}})
	if err != nil {
		t.Fatalf("Apache Kafka: %v", err)
	}
	t.Cleanup(cluster.End)
	s.Node = cluster.Nodes[0]
	return s
}

// settings writes what a listener needs and returns its protocol.
func (l Listener) settings(lines *strings.Builder, prefix, user, password string) string {
	protocol := "PLAINTEXT"
	line := func(name, value string) {
		fmt.Fprintf(lines, "%s%s=%s\n", prefix, name, strings.ReplaceAll(value, "\n", `\n`))
	}
	if l.Certificate != nil {
		protocol = "SSL"
		line("ssl.keystore.type", "PEM")
		line(keystoreChain, l.Certificate.CertPEM)
		line(keystoreKey, l.Certificate.KeyPEM)
	}
	if l.Clients != nil {
		line("ssl.client.auth", "required")
		line("ssl.truststore.type", "PEM")
		line("ssl.truststore.certificates", l.Clients.PEM())
	}
	if l.Login {
		protocol = "SASL_" + protocol
		line("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512")
		line("plain.sasl.jaas.config", fmt.Sprintf(`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, user, password))
		for _, mechanism := range []string{"scram-sha-256", "scram-sha-512"} {
			line(mechanism+".sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required;")
		}
	}
	return protocol
}

const (
	keystoreChain = "ssl.keystore.certificate.chain"
	keystoreKey   = "ssl.keystore.key"
)

func setting(listener, name string) string {
	return "listener.name." + strings.ToLower(listener) + "." + name
}

// Port returns where a listener listens.
func (s *Secured) Port(listener string) string { return s.ports[listener] }

// SetPassword makes a user of SCRAM-SHA-512, or changes the password.
func (s *Secured) SetPassword(t testing.TB, user, password string) {
	t.Helper()
	salt, iterations := []byte(rand.Text()), 4096
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Upsertions = append(req.Upsertions, kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		Name: user, Mechanism: 2, Iterations: int32(iterations), Salt: salt, SaltedPassword: salted,
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	res, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatalf("set password: %v", err)
	}
	for _, r := range res.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("set password: %v", err)
		}
	}
}

// Renew makes a listener show another certificate for the same names.
func (s *Secured) Renew(t testing.TB, listener string, c certstest.Certificate) {
	t.Helper()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
	for name, value := range map[string]string{keystoreChain: c.CertPEM, keystoreKey: c.KeyPEM} {
		resource.Configs = append(resource.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{
			Name: setting(listener, name), Op: kmsg.IncrementalAlterConfigOpSet, Value: &value,
		})
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, resource)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	res, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatalf("renew certificate: %v", err)
	}
	for _, r := range res.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatalf("renew certificate: %v: %v", err, r.ErrorMessage)
		}
	}
}
