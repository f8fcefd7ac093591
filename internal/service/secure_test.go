package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/certs/certstest"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/query"
	"github.com/lethe-audit/lethe/internal/service"
)

const policyFile = "../../schemas/policies/itskode.yaml"

var topics = []embedded.Topic{
	{Name: "lethe.request", Partitions: 1}, {Name: "lethe.audit", Partitions: 1},
	{Name: "lethe.security", Partitions: 1}, {Name: "lethe.dead", Partitions: 1},
}

func environ(more ...string) []string {
	return append([]string{
		"POLICY_FILE=" + policyFile, "SUBJECT_KEYS=k1=" + strings.Repeat("ab", 32), "KAFKA_TOPIC_BUDGET=off", "HTTP_ADDR=127.0.0.1:0",
	}, more...)
}

func runIngest(t *testing.T, more ...string) *process {
	t.Helper()
	cache, err := embedded.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadIngest(environ(append(more, "GEOIP_DB="+filepath.Join(cache, "country.mmdb"))...))
	if err != nil {
		t.Fatal(err)
	}
	return run(t, service.IngestParts, func(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
		return service.Ingest(ctx, d, cfg, log)
	})
}

// tokens writes a token file and returns its path and an investigator's token.
func tokens(t *testing.T) (path, token string) {
	t.Helper()
	token, sum := query.NewToken()
	path = filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte("tokens:\n  - {name: alice, role: investigator, sha256: "+sum+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, token
}

func loadQuery(t *testing.T, more ...string) config.Query {
	t.Helper()
	cfg, err := config.LoadQuery(environ(more...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func runQuery(t *testing.T, more ...string) *process {
	t.Helper()
	cfg := loadQuery(t, more...)
	return run(t, service.QueryParts, func(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
		return service.Query(ctx, d, cfg, log)
	})
}

// renewable is a server's certificate that a test can change.
type renewable struct {
	shown atomic.Pointer[tls.Certificate]
}

func (r *renewable) show(c certstest.Certificate) { r.shown.Store(&c.TLS) }

func (r *renewable) config() *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.shown.Load(), nil }}
}

// dsn is a way to the database behind a plain one.
func dsn(t *testing.T, plain, scheme, user, password, addr string) string {
	t.Helper()
	u, err := url.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.User, u.Host = scheme, url.UserPassword(user, password), addr
	return "CLICKHOUSE_DSN=" + u.String()
}

func TestClickHouseLoginAndTLS(t *testing.T) {
	authority := certstest.New(t)
	good, expired, elsewhere := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", -time.Minute), authority.Issue("db.example.com", time.Hour)
	const user, password = "canary-user", "canary-password"
	ca := "CLICKHOUSE_TLS_CA=" + authority.File()
	plain := embeddedtest.ClickHouse(t)
	brokers := "KAFKA_BROKERS=" + embeddedtest.Kafka(t, topics...)
	const login = "ClickHouse says AUTHENTICATION_FAILED (code 516): check user and password in CLICKHOUSE_DSN"
	for _, c := range []struct {
		name     string
		shown    *certstest.Certificate // nil: no TLS
		scheme   string
		user     string
		password string
		more     []string
		want     string // "": it works
	}{
		{"no TLS", nil, "http", user, password, nil, ""},
		{"TLS", &good, "https", user, password, []string{ca}, ""},
		{"wrong password", nil, "http", user, "canary-wrong", nil, login},
		{"wrong password inside TLS", &good, "https", user, "canary-wrong", []string{ca}, login},
		{"unknown user", &good, "https", "canary-nobody", password, []string{ca}, login},
		{"expired", &expired, "https", user, password, []string{ca}, "the certificate of ClickHouse has expired"},
		{"another host", &elsewhere, "https", user, password, []string{ca}, "check the host in CLICKHOUSE_DSN"},
		{"the system's authorities", &good, "https", user, password, nil, "check CLICKHOUSE_TLS_CA"},
		{"TLS where there is none", nil, "https", user, password, []string{ca}, "does not speak TLS at this port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var shown renewable
			o := embedded.ClickHouseOptions{Addr: "127.0.0.1:0", User: user, Password: password}
			if c.shown != nil {
				shown.show(*c.shown)
				o.TLS = shown.config()
			}
			door := embeddedtest.Door(t, o)
			p := runIngest(t, append(c.more, brokers, dsn(t, plain, c.scheme, c.user, c.password, door.Addr()))...)
			if c.want == "" {
				p.says("clickhouse: ready")
				return
			}
			p.says("clickhouse: broken: prepare the database: ", c.want)
			if !strings.Contains(p.ops("/metrics"), `lethe_part_state{part="clickhouse"} 2`) {
				t.Error("the metrics do not say broken")
			}
			if !strings.Contains(p.log.String(), `"level":"ERROR","msg":"state changed","part":"clickhouse","state":"broken"`) {
				t.Errorf("the log does not tell: %s", p.log)
			}
		})
	}
}

func TestClickHouseIsMended(t *testing.T) {
	authority := certstest.New(t)
	good, expired := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", -time.Minute)
	var shown renewable
	shown.show(expired)
	plain := embeddedtest.ClickHouse(t)
	o := embedded.ClickHouseOptions{Addr: "127.0.0.1:0", User: "canary-user", Password: "canary-old", TLS: shown.config()}
	door := embeddedtest.Door(t, o)
	p := runIngest(t, "KAFKA_BROKERS="+embeddedtest.Kafka(t, topics...), "CLICKHOUSE_TLS_CA="+authority.File(),
		dsn(t, plain, "https", "canary-user", "canary-new", door.Addr()))
	p.says("clickhouse: broken: ", "the certificate of ClickHouse has expired")
	shown.show(good)
	p.says("clickhouse: broken: ", "check user and password in CLICKHOUSE_DSN")
	if err := door.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Addr, o.Password = door.Addr(), "canary-new"
	embeddedtest.Door(t, o)
	p.says("clickhouse: ready")
	p.says("kafka: ready")
}

// client speaks to the API with a token and an authority.
type client struct {
	http  *http.Client
	token string
}

func newClient(t *testing.T, token string, roots *x509.CertPool) client {
	c := client{&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: time.Minute}, token}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func (c client) search(addr string) (status int, err error) {
	req, err := http.NewRequest(http.MethodGet, addr+"/v1/events", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	answer, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	answer.Body.Close()
	return answer.StatusCode, nil
}

// database returns the DSN of one that has its tables.
func database(t *testing.T) string {
	t.Helper()
	p, err := policy.Load(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	plain := embeddedtest.ClickHouse(t)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: plain, Policy: p}); err != nil {
		t.Fatal(err)
	}
	return plain
}

// freeAddr is a loopback address that nobody listens on at the moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	k := embeddedtest.Door(t, embedded.ClickHouseOptions{Addr: "127.0.0.1:0"})
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k.Addr()
}

// TestTheAPIsCertificate starts with an expired one and renews it with SIGHUP.
func TestTheAPIsCertificate(t *testing.T) {
	authority := certstest.New(t)
	shown, renewed := authority.Issue("127.0.0.1", -time.Minute), authority.Issue("127.0.0.1", time.Hour)
	path, token := tokens(t)
	addr := freeAddr(t)
	p := runQuery(t, "KAFKA_BROKERS="+embeddedtest.Kafka(t, topics...), "CLICKHOUSE_DSN="+database(t), "TOKENS_FILE="+path,
		"HTTP_ADDR="+addr, "HTTP_TLS_CERT="+shown.CertFile, "HTTP_TLS_KEY="+shown.KeyFile)
	p.says("api: ready")
	p.says("records: ready")
	c := newClient(t, token, authority.Pool())
	var invalid x509.CertificateInvalidError
	if _, err := c.search("https://" + addr); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("got %v, want the expired certificate", err)
	}
	if !strings.Contains(p.log.String(), `"level":"ERROR","msg":"clients will refuse the API's certificate; SIGHUP reads a new one","error":"HTTP_TLS_CERT: the certificate expired at `) {
		t.Errorf("the log does not warn: %s", p.log)
	}
	hangup := func(want string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string { return want + " in the log" }, func() bool { return strings.Contains(p.log.String(), want) })
	}
	if err := os.WriteFile(shown.CertFile, []byte(renewed.CertPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup(`"msg":"the certificate was not read again","error":"HTTP_TLS_CERT and HTTP_TLS_KEY: `)
	if err := os.WriteFile(shown.KeyFile, []byte(renewed.KeyPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup(`"msg":"the certificate was read again"`)
	if status, err := c.search("https://" + addr); status != http.StatusOK {
		t.Errorf("got %d %v, want 200", status, err)
	}
}

func TestTheAPIRefusesToStartWithoutItsCertificate(t *testing.T) {
	authority := certstest.New(t)
	one, other := authority.Issue("127.0.0.1", time.Hour), authority.Issue("127.0.0.1", time.Hour)
	path, _ := tokens(t)
	for _, c := range []struct{ name, cert, key, want string }{
		{"another one's key", one.CertFile, other.KeyFile, "HTTP_TLS_CERT and HTTP_TLS_KEY: "},
		{"no certificate", one.CertFile + "x", one.KeyFile, "HTTP_TLS_CERT: "},
		{"no key", one.CertFile, one.KeyFile + "x", "HTTP_TLS_KEY: "},
	} {
		d, err := daemon.New(daemon.Options{Log: slog.New(slog.DiscardHandler), StopTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		cfg := loadQuery(t, "TOKENS_FILE="+path, "HTTP_TLS_CERT="+c.cert, "HTTP_TLS_KEY="+c.key)
		err = d.Run(t.Context(), func(ctx context.Context) error { return service.Query(ctx, d, cfg, slog.New(slog.DiscardHandler)) })
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to begin with %q", c.name, err, c.want)
		}
	}
}

// TestNothingIsAnsweredThatCannotBeRecorded has a broker whose certificate has
// expired, and is renewed.
func TestNothingIsAnsweredThatCannotBeRecorded(t *testing.T) {
	authority := certstest.New(t)
	var shown renewable
	shown.show(authority.Issue("127.0.0.1", -time.Minute))
	broker, err := embedded.NewKafka(embedded.KafkaOptions{Addr: "127.0.0.1:0", DataDir: t.TempDir(), Topics: topics, TLS: shown.config()})
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	path, token := tokens(t)
	addr := freeAddr(t)
	p := runQuery(t, "KAFKA_BROKERS="+broker.Addr(), "KAFKA_TLS=true", "KAFKA_TLS_CA="+authority.File(),
		"CLICKHOUSE_DSN="+database(t), "TOKENS_FILE="+path, "HTTP_ADDR="+addr)
	p.says("api: ready")
	p.says("records: broken: nothing is answered that cannot be recorded", "the certificate of the broker has expired")
	c := newClient(t, token, nil)
	if status, err := c.search("http://" + addr); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %v, want 503", status, err)
	}
	shown.show(authority.Issue("127.0.0.1", time.Hour))
	p.says("records: ready")
	p.says("complete: ready")
	if status, err := c.search("http://" + addr); status != http.StatusOK {
		t.Errorf("got %d %v, want 200", status, err)
	}
	// While nobody asks, nobody notices; the next one who asks does.
	broker.Stop()
	if status, err := c.search("http://" + addr); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %v, want 503", status, err)
	}
	p.says("records: paused")
}
