package certs_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/certs/certstest"
)

var settings = certs.Settings{CA: "THE_CA", ServerName: "THE_NAME", Cert: "THE_CERT", On: "THE_SWITCH"}

func TestPairIsReadAgain(t *testing.T) {
	authority := certstest.New(t)
	old, renewed, other := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", 2*time.Hour), authority.Issue("127.0.0.1", time.Hour)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(c certstest.Certificate, k string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(cert, []byte(c.CertPEM), 0o600), os.WriteFile(key, []byte(k), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(want certstest.Certificate, p *certs.Pair) {
		t.Helper()
		if got := p.Certificate().Leaf; !got.Equal(want.TLS.Leaf) {
			t.Errorf("got the certificate that expires at %v, want %v", got.NotAfter, want.TLS.Leaf.NotAfter)
		}
	}
	write(old, old.KeyPEM)
	p, err := certs.LoadPair(certs.File{Setting: "THE_CERT", Path: cert}, certs.File{Setting: "THE_KEY", Path: key})
	if err != nil {
		t.Fatal(err)
	}
	shows(old, p)
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"another one's key", func() { write(renewed, other.KeyPEM) }, "THE_CERT and THE_KEY"},
		{"no key in the file", func() { write(renewed, "canary") }, "THE_CERT and THE_KEY"},
		{"no key file", func() { os.Remove(key) }, "THE_KEY"},
		{"no certificate file", func() { os.Remove(cert) }, "THE_CERT"},
	} {
		c.do()
		err := p.Reload()
		if !errors.Is(err, certs.ErrFile) || !strings.HasPrefix(err.Error(), c.want+": ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want an error that names %s", c.name, err, c.want)
		}
		shows(old, p)
	}
	write(renewed, renewed.KeyPEM)
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	shows(renewed, p)
}

func TestValid(t *testing.T) {
	c := certstest.New(t).Issue("127.0.0.1", time.Hour)
	p, err := certs.LoadPair(certs.File{Setting: "THE_CERT", Path: c.CertFile}, certs.File{Setting: "THE_KEY", Path: c.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[time.Duration]string{0: "", 2 * time.Hour: "THE_CERT: the certificate expired at", -48 * time.Hour: "THE_CERT: the certificate is not valid before"} {
		err := p.Valid(time.Now().Add(when))
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s from now: got %v, want %q", when, err, want)
		}
	}
}

// TestExplain makes each failure with a real handshake.
func TestExplain(t *testing.T) {
	authority := certstest.New(t)
	good := &tls.Config{RootCAs: authority.Pool(), ServerName: "127.0.0.1"}
	server := func(c certstest.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c.TLS}} }
	wary := server(authority.Issue("127.0.0.1", time.Hour))
	wary.ClientAuth, wary.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	for _, c := range []struct {
		name   string
		server *tls.Config // nil: it answers in something else
		client *tls.Config
		want   string
	}{
		{"expired", server(authority.Issue("127.0.0.1", -time.Hour)), good, "the certificate of the server has expired"},
		{"another host", server(authority.Issue("db.example.com", time.Hour)), good, "check THE_NAME"},
		{"unknown authority", server(certstest.New(t).Issue("127.0.0.1", time.Hour)), good, "check THE_CA"},
		{"no certificate of the client", wary, good, "check THE_CERT"},
		{"no TLS", nil, good, "check THE_SWITCH"},
		{"nothing wrong", server(authority.Issue("127.0.0.1", time.Hour)), good, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if c.server == nil {
					io.WriteString(conn, "HTTP/1.0 400 Bad Request\r\n\r\n")
				} else {
					conn = tls.Server(conn, c.server)
					io.WriteString(conn, "hello")
				}
				io.Copy(io.Discard, conn)
			}()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			client := tls.Client(conn, c.client)
			_, err = client.Read(make([]byte, 5)) // TLS 1.3 tells a client of its certificate only now
			client.Close()
			<-served
			got := certs.Explain(err, "the server", settings)
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%v: got %q, want it to say %q", err, got, c.want)
			}
		})
	}
}

func TestAuthorities(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, empty + "x"} {
		_, err := certs.Authorities(certs.File{Setting: "THE_CA", Path: path})
		if !errors.Is(err, certs.ErrFile) || !strings.HasPrefix(err.Error(), "THE_CA: ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want an error that names THE_CA", err)
		}
	}
	if _, err := certs.Authorities(certs.File{Setting: "THE_CA", Path: certstest.New(t).File()}); err != nil {
		t.Error(err)
	}
}
