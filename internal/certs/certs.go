// Package certs reads certificates and keys from the PEM files that settings
// name, and says in a sentence why a TLS connection failed. Its errors name the
// setting and never hold a key.
//
// It opens no connection: who is trusted, and what a failure means for a
// service, is decided by the rooms that connect and listen.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// ErrFile says that a file is missing, unreadable or not what its setting wants.
var ErrFile = errors.New("a file of certificates cannot be used")

// File is a setting and the path that it holds.
type File struct{ Setting, Path string }

func (f File) read() ([]byte, error) {
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", f.Setting, ErrFile, err)
	}
	return data, nil
}

// Authorities reads the certificates of those who may sign.
func Authorities(f File) (*x509.CertPool, error) {
	data, err := f.read()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: %w: no certificate in %s", f.Setting, ErrFile, f.Path)
	}
	return pool, nil
}

// Pair is a certificate and its key. Its methods may be called from any goroutine.
type Pair struct {
	cert, key File
	current   atomic.Pointer[tls.Certificate]
}

// LoadPair reads a certificate, with the chain below it, and its key.
func LoadPair(cert, key File) (*Pair, error) {
	p := &Pair{cert: cert, key: key}
	if err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// Reload reads both files again. After an error the old pair stays.
func (p *Pair) Reload() error {
	cert, err := p.cert.read()
	if err != nil {
		return err
	}
	key, err := p.key.read()
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w: %w", p.cert.Setting, p.key.Setting, ErrFile, err)
	}
	p.current.Store(&pair)
	return nil
}

// Certificate returns what was read last.
func (p *Pair) Certificate() *tls.Certificate { return p.current.Load() }

// Valid says why the certificate is not valid at an instant, or returns nil.
func (p *Pair) Valid(at time.Time) error {
	leaf := p.Certificate().Leaf
	switch {
	case at.After(leaf.NotAfter):
		return fmt.Errorf("%s: the certificate expired at %s", p.cert.Setting, leaf.NotAfter.UTC().Format(time.RFC3339))
	case at.Before(leaf.NotBefore):
		return fmt.Errorf("%s: the certificate is not valid before %s", p.cert.Setting, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// Settings are the names that a sentence about a failure points at; empty where
// there is no such setting.
type Settings struct{ CA, ServerName, Cert, On string }

// Explain says why a TLS connection failed and which setting to look at; "" for
// any other error. The peer is the other side, such as "the broker".
func Explain(err error, peer string, s Settings) string {
	var (
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		other     *tls.CertificateVerificationError
		header    tls.RecordHeaderError
		network   *net.OpError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of %s has expired or is not valid yet: %s", peer, invalid.Detail)
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate of %s is for another host (%v)%s", peer, host, look(s.ServerName))
	case errors.As(err, &authority):
		return fmt.Sprintf("the certificate of %s is signed by nobody who is trusted%s", peer, look(s.CA))
	case errors.As(err, &other):
		return fmt.Sprintf("the certificate of %s cannot be verified: %v", peer, other.Err)
	case errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("%s does not speak TLS at this port%s", peer, look(s.On))
	case errors.As(err, &network) && network.Op == "remote error":
		return fmt.Sprintf("%s ended the TLS handshake (%v)%s", peer, network.Err, look(s.Cert))
	case errors.Is(err, ErrFile):
		return err.Error()
	}
	return ""
}

func look(setting string) string {
	if setting == "" {
		return ""
	}
	return ": check " + setting
}
