package dsn

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	roots := x509.NewCertPool()
	for _, c := range []struct {
		text  string
		roots *x509.CertPool
		tls   bool
		want  string // of the error
	}{
		{"http://u:canary@h:8123/d", nil, false, ""},
		{"https://u:canary@h:8443/d", nil, true, ""},
		{"https://u:canary@h:8443/d?secure=true&compress=lz4", roots, true, ""},
		{"clickhouse://u:canary@h:9000/d", nil, false, ""},
		{"clickhouse://u:canary@h:9440/d?secure=true", roots, true, ""},
		{"clickhouse://u:canary@h:9000/d", roots, false, "CLICKHOUSE_TLS_CA is set but"},
		{"http://u:canary@h/d?secure=true", nil, false, "malformed"},
		{"https://u:canary@[::1", nil, false, "malformed"},
		{"http://u:canary@[::1", nil, false, "malformed"},
		{"http://h/d?dial_timeout=canary", nil, false, "malformed"},
	} {
		o, err := Parse(c.text, c.roots)
		if c.want != "" {
			var e *Error
			if !errors.As(err, &e) || !e.Permanent() || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: got %v, want a permanent error that says %q", c.text, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := o.TLS != nil; got != c.tls || got && o.TLS.RootCAs != c.roots {
			t.Errorf("%s: got TLS %t, want %t with the authorities", c.text, got, c.tls)
		}
		if o.Auth.Username != "u" || o.Auth.Password != "canary" || o.Auth.Database != "d" {
			t.Errorf("%s: got user, password and database %v", c.text, o.Auth)
		}
	}
}
