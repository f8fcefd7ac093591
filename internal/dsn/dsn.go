// Package dsn reads the URL of the database for store and migrate, which both
// connect to it. It opens no connection. Its errors are permanent and hold no
// part of the URL: that has a password in it.
package dsn

import (
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// Error is a URL that cannot be used.
type Error struct{ say string }

func (e *Error) Error() string { return e.say }

// Permanent reports true: the URL is the same at every try.
func (*Error) Permanent() bool { return true }

// Parse reads http://, https:// or clickhouse://user:password@host:port/database.
// Authorities may sign the server's certificate; nil means the system's.
func Parse(text string, authorities *x509.CertPool) (*clickhouse.Options, error) {
	malformed := &Error{"the DSN is malformed: want http://, https:// or clickhouse://user:password@host:port/database"}
	// The client library wants TLS said twice.
	if strings.HasPrefix(text, "https://") {
		u, err := url.Parse(text)
		if err != nil {
			return nil, malformed
		}
		q := u.Query()
		q.Set("secure", "true")
		u.RawQuery = q.Encode()
		text = u.String()
	}
	o, err := clickhouse.ParseDSN(text)
	if err != nil {
		return nil, malformed
	}
	if authorities != nil {
		if o.TLS == nil {
			return nil, &Error{"CLICKHOUSE_TLS_CA is set but CLICKHOUSE_DSN asks for no TLS: want https://, or clickhouse:// with secure=true"}
		}
		o.TLS.RootCAs = authorities
	}
	return o, nil
}
