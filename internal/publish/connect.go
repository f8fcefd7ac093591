package publish

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/config"
)

const (
	clientID    = "lethe"
	dialTimeout = 10 * time.Second
)

// Connect returns what every Kafka client of ours connects with: a transport
// for requests, and a dialer for the consumer group, with the encryption and
// the login that the settings ask for. It reads the files of certificates and
// opens no connection. The caller ends idle connections with CloseIdleConnections.
func Connect(c config.Kafka) (*kafka.Transport, *kafka.Dialer, error) {
	encryption, err := encrypt(c)
	if err != nil {
		return nil, nil, err
	}
	login, err := mechanism(c)
	if err != nil {
		return nil, nil, err
	}
	dial := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	if !c.TLS {
		dial = dialPlain(dial)
	}
	transport := &kafka.Transport{
		ClientID:    clientID,
		Dial:        dial,
		DialTimeout: dialTimeout,
		TLS:         encryption,
		SASL:        login,
	}
	dialer := &kafka.Dialer{
		ClientID:      clientID,
		DialFunc:      dial,
		Timeout:       dialTimeout,
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
	var err error
	if c.TLSCA != "" {
		if t.RootCAs, err = certs.Authorities(certs.File{Setting: "KAFKA_TLS_CA", Path: c.TLSCA}); err != nil {
			return nil, err
		}
	}
	if c.ClientCert == "" {
		return t, nil
	}
	pair, err := certs.LoadPair(certs.File{Setting: "KAFKA_TLS_CERT", Path: c.ClientCert}, certs.File{Setting: "KAFKA_TLS_KEY", Path: c.ClientKey})
	if err != nil {
		return nil, err
	}
	// Certificates are renewed while we run.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if err := pair.Reload(); err != nil {
			return nil, err
		}
		return pair.Certificate(), nil
	}
	return t, nil
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialPlain makes connections that know TLS when they are answered in it.
func dialPlain(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &plainConn{Conn: conn}, nil
	}
}

// plainConn is a connection without TLS. A broker that expects TLS answers with
// an alert, whose first bytes Kafka's protocol would take for a size.
type plainConn struct {
	net.Conn
	answered bool
}

func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.answered && n > 1 {
		c.answered = true
		if b[0] == 21 && b[1] == 3 { // an alert, TLS 1.x
			return 0, errWantsTLS
		}
	}
	return n, err
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
