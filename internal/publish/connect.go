package publish

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/lethe-audit/lethe/internal/config"
)

const (
	clientID    = "lethe"
	dialTimeout = 10 * time.Second
)

// Connect returns what every Kafka client of ours connects with: a transport
// for requests, and a dialer for the consumer group, with the encryption and
// the login that the settings ask for. It reads the authority file and opens no
// connection. The caller ends idle connections with CloseIdleConnections.
func Connect(c config.Kafka) (*kafka.Transport, *kafka.Dialer, error) {
	encryption, err := encrypt(c)
	if err != nil {
		return nil, nil, err
	}
	login, err := mechanism(c)
	if err != nil {
		return nil, nil, err
	}
	transport := &kafka.Transport{
		ClientID:    clientID,
		Dial:        (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		DialTimeout: dialTimeout,
		TLS:         encryption,
		SASL:        login,
	}
	dialer := &kafka.Dialer{
		ClientID:      clientID,
		Timeout:       dialTimeout,
		KeepAlive:     30 * time.Second,
		TLS:           encryption,
		SASLMechanism: login,
	}
	return transport, dialer, nil
}

// encrypt returns nil where TLS is off. Without a server name of their own,
// kafka-go checks each broker's certificate against the name it was dialled by.
func encrypt(c config.Kafka) (*tls.Config, error) {
	if !c.TLS {
		return nil, nil //nolint:nilnil // nil is how kafka-go spells "no TLS"
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("read KAFKA_TLS_CA: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read KAFKA_TLS_CA: no certificate in %s", c.TLSCA)
	}
	return t, nil
}

func mechanism(c config.Kafka) (sasl.Mechanism, error) {
	var algorithm scram.Algorithm
	switch c.SASLMechanism {
	case "":
		return nil, nil //nolint:nilnil // nil is how kafka-go spells "no login"
	case "plain":
		return plain.Mechanism{Username: c.SASLUsername, Password: string(c.SASLPassword)}, nil
	case "scram-sha-256":
		algorithm = scram.SHA256
	case "scram-sha-512":
		algorithm = scram.SHA512
	default:
		return nil, fmt.Errorf("set up login: KAFKA_SASL_MECHANISM is none of plain, scram-sha-256, scram-sha-512")
	}
	m, err := scram.Mechanism(algorithm, c.SASLUsername, string(c.SASLPassword))
	if err != nil {
		// The library's error could repeat the password's characters.
		return nil, fmt.Errorf("set up login: KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD holds characters that %s does not allow", c.SASLMechanism)
	}
	return m, nil
}
