package query

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// TestLogHoldsNoPerson asks for people in every place a request has, and looks
// for them in the log and in the metrics.
func TestLogHoldsNoPerson(t *testing.T) {
	d := bare(t, func(o *Options) {
		o.Rows = &shelf{rows: []*event.Row{row(event.Request, "e", "secret-row", "secret-org", time.Minute)}}
	})
	d.get("officer", "/v1/events?user=secret-user&organization=secret-org")
	d.get("investigator", "/v1/subjects/user:secret-path/events")
	d.get("officer", "/v1/subjects/user:secret-path/export", granted...)
	d.get("officer", "/v1/subjects/secret@example.com/export", "X-Request-Id", "secret-id", "User-Agent", "secret-agent", "Referer", "http://secret-referer/")
	d.get("officer", "/secret-nowhere?secret=1")
	d.get("", "/v1/events", "Authorization", "Bearer secret-token")
	d.ask("SECRET", "officer", "/v1/events", "")
	d.ask(http.MethodPost, "officer", "/v1/subject-keys", `{"email":"secret@example.com"}`)
	log := d.log.String()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"log": log, "metrics": fmt.Sprint(families)} {
		for _, s := range []string{"secret", "SECRET", "127.0.0.1", "staff:", d.tokens["officer"]} {
			if strings.Contains(text, s) {
				t.Errorf("the %s holds %q: %s", place, s, text)
			}
		}
	}
	type line struct{ Msg, Route, Method, Status, Role, Request, Problem string }
	var lines []line
	for _, l := range strings.Split(strings.TrimSpace(log), "\n") {
		var v line
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatal(err)
		}
		if v.Msg == "request" {
			lines = append(lines, v)
		}
	}
	if len(lines) != 8 {
		t.Fatalf("got %d lines, want one per request: %s", len(lines), log)
	}
	if l := lines[1]; l.Route != pathSubjectEvents || l.Method != http.MethodGet || l.Status != "200" || l.Role != "investigator" || len(l.Request) != 24 {
		t.Errorf("got %+v", l)
	}
	if l := lines[6]; l.Method != "other" || l.Problem != "method_not_allowed" {
		t.Errorf("a made-up method: got %+v", l)
	}
	if got := d.counter("lethe_query_requests_total", "route", pathExport, "status", "400"); got != 1 {
		t.Errorf("requests: got %g, want 1", got)
	}
}

func TestHeaders(t *testing.T) {
	d := bare(t, nil)
	for _, path := range []string{"/", "/v1/events", "/v1/retention", "/nowhere"} {
		a := d.get("officer", path)
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s: got %q, want %q", path, name, got, want)
			}
		}
		if !strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none'") || a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: got %v", path, a.header)
		}
	}
}

func TestErrorsOfTheStore(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"too large", storeError{large: true}, "query_too_large"},
		{"out of time", context.DeadlineExceeded, "query_too_large"},
		{"transient", storeError{}, "storage_unavailable"},
		{"permanent", storeError{permanent: true}, "internal"},
		{"unforeseen", errBroken, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := bare(t, func(o *Options) {
				o.Rows, o.Facts = &shelf{err: fmt.Errorf("wrapped: %w", tt.err)}, &shelf{err: tt.err}
			})
			for _, path := range []string{"/v1/events", "/v1/retention"} {
				if a := d.get("officer", path); a.problem() != tt.want || strings.Contains(string(a.body), "secret") {
					t.Errorf("%s: got %s, want %s", path, a.body, tt.want)
				}
			}
			if strings.Contains(d.log.String(), "secret") {
				t.Errorf("the log repeats the error: %s", d.log)
			}
		})
	}
}

func TestPanicCutsTheConnection(t *testing.T) {
	d := bare(t, func(o *Options) { o.Rows = &shelf{during: func() { panic("u_secret") }} })
	if a, err := d.try(http.MethodGet, "officer", "/v1/events", ""); err == nil {
		t.Errorf("got %d %s, want a broken connection", a.status, a.body)
	}
	if strings.Contains(d.log.String(), "u_secret") || !strings.Contains(d.log.String(), "a handler panicked") {
		t.Errorf("log: %s", d.log)
	}
}

// TestStopWaits shows that a stop lets a request end, and answers no new one.
func TestStopWaits(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	d := &desk{}
	o := d.options(t)
	o.Rows = &shelf{during: func() { close(entered); <-release }}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run without Listen returns no error")
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	d.Server, d.url, d.spec = s, "http://"+s.Addr(), description(t)
	d.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()
	answered := make(chan reply, 1)
	go func() {
		a, err := d.try(http.MethodGet, "officer", "/v1/events", "")
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	<-entered
	cancel()
	// The listener closes first; the request is still under way.
	for {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("the stop did not wait: %v", err)
	default:
	}
	close(release)
	if a := <-answered; a.status != http.StatusOK {
		t.Errorf("got %d %s, want the answer", a.status, a.body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
}

func TestTLS(t *testing.T) {
	authority := certstest.New(t)
	first, renewed := authority.Issue("127.0.0.1", -time.Hour), authority.Issue("127.0.0.1", time.Hour)
	pair, err := certs.LoadPair(certs.File{Setting: "HTTP_TLS_CERT", Path: first.CertFile}, certs.File{Setting: "HTTP_TLS_KEY", Path: first.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	d := bare(t, func(o *Options) { o.Certificate = pair })
	d.url = strings.Replace(d.url, "http:", "https:", 1)
	d.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}}
	t.Cleanup(d.client.CloseIdleConnections)
	var expired x509.CertificateInvalidError
	if _, err := d.client.Get(d.url); !errors.As(err, &expired) || expired.Reason != x509.Expired {
		t.Errorf("got %v, want the expired certificate", err)
	}
	// New files under the same names, as a renewal leaves them.
	if err := errors.Join(os.WriteFile(first.CertFile, []byte(renewed.CertPEM), 0o600), os.WriteFile(first.KeyFile, []byte(renewed.KeyPEM), 0o600), pair.Reload()); err != nil {
		t.Fatal(err)
	}
	if a := d.get("officer", "/v1/events"); a.status != http.StatusOK || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("got %d, %v", a.status, a.header)
	}
	if got, want := d.gauge("lethe_query_certificate_not_after_seconds"), float64(renewed.TLS.Leaf.NotAfter.Unix()); got != want {
		t.Errorf("got an expiry of %f in the metrics, want %f", got, want)
	}
	// The message of a failed handshake names the client's address; ours does not.
	if _, err := http.Get(d.url); err == nil {
		t.Error("a client that does not trust the certificate is served")
	}
	address := strings.TrimPrefix(d.url, "https://")
	if _, err := tls.Dial("tcp", address, &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("a client of TLS 1.1 is served")
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatalf("TLS 1.2: %v", err)
	}
	conn.Close()
	if strings.Contains(d.log.String(), "127.0.0.1") {
		t.Errorf("the log names an address: %s", d.log)
	}
}

// gauge returns the value of a gauge without labels; 0 where there is none.
func (d *desk) gauge(name string) float64 {
	d.t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return 0
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"a policy without a class for consultation records", func(o *Options) { o.Policy = &policy.Policy{} }, "consultation records"},
		{"no auditor", func(o *Options) { o.Audit = nil }, "required"},
		{"no book of facts", func(o *Options) { o.Book = nil }, "required"},
		{"no place for requests", func(o *Options) { o.Requests = nil }, "required"},
		{"no tokens", func(o *Options) { o.Tokens = nil }, "required"},
		{"no description", func(o *Options) { o.OpenAPI = nil }, "OpenAPI"},
		{"a short secret", func(o *Options) { o.Secret = []byte("short") }, "32"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &desk{}
			o := d.options(t)
			tt.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
}

// TestExamplePolicies starts on each policy that ships.
func TestExamplePolicies(t *testing.T) {
	for _, name := range []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			d := bare(t, func(o *Options) { o.Policy = p })
			if a := d.get("officer", "/v1/retention"); a.status != http.StatusOK || !bytes.Contains(a.body, []byte(`"policy":"`+name+`"`)) {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if a := d.get("officer", "/v1/subjects/user:u/export", granted...); a.status != http.StatusOK {
				t.Errorf("export: got %d %s", a.status, a.body)
			}
		})
	}
}
