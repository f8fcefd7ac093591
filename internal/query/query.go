// Package query answers privacy officers and security investigators over HTTP:
// events by filter, a person's events, a person's export, and what retention
// does. It takes the requests to erase and to hold. It authenticates callers, decides what their role and tenant may see,
// and records every consultation of personal rows before the first byte of the
// answer leaves.
//
// It reads ClickHouse through small interfaces and holds no SQL; the shape of a
// row and the archive belong to package export; what may be seen, package
// retention decides. It changes no event that is stored.
//
// The route of a page: authenticate → authorize → parse → facts → read →
// render in memory → record the consultation, acknowledged by Kafka → send.
package query

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/redact"
)

// rows reads events, all through the one place that hides what must be hidden.
type rows interface {
	// Events returns at most limit rows after a position, newest first.
	Events(ctx context.Context, f event.Filter, after *event.Position, limit int) ([]event.Row, error)
	// SubjectRows streams a person's rows by kind and time. A row is valid until the next.
	SubjectRows(ctx context.Context, keys []string, now time.Time, visible func(*event.Row) bool) iter.Seq2[*event.Row, error]
	// Withheld counts the rows of a filter that are hidden because their period is over or
	// they were erased, and those of the leaving classes that wait for their removal.
	Withheld(ctx context.Context, f event.Filter, leaving []string) ([event.NumKinds]event.Withheld, error)
	// Concealed counts the rows of a filter that are of the subjects and of which concealed says yes.
	Concealed(ctx context.Context, f event.Filter, subjects []string, concealed func(*event.Row) bool) ([event.NumKinds]uint64, error)
}

// facts tells what the tables can know at all.
type facts interface {
	Horizon(ctx context.Context) (ledger.Horizon, error)
	ClassFacts(ctx context.Context, now time.Time) ([]event.ClassFacts, error)
	// TTL returns the expression of each table as ClickHouse reports it.
	TTL(ctx context.Context) (map[string]string, error)
}

// requests keeps what officers ask for.
type requests interface {
	erasures
	holds
}

// auditor publishes consultation records.
type auditor interface {
	// Record returns nil when Kafka has acknowledged the audit events, each a
	// CloudEvent in structured mode. organization is the key of the messages.
	Record(ctx context.Context, organization string, events ...[]byte) error
}

// Options are what a Server needs. All are required but those that say so.
type Options struct {
	Rows   rows
	Facts  facts
	Book   book
	Audit  auditor
	Prover prover
	// Complete reports whether the ledger has all that Kafka says was stored. While it
	// has not, the database came back from a backup: who was erased since would be shown.
	Complete func() bool
	// Requests is where erasures and holds are kept.
	Requests requests
	Policy   *policy.Policy
	Keys     *redact.Keys
	Tokens   *Tokens
	// Secret, of at least 32 bytes, is what the key of the cursors is derived
	// from. Query services that answer for each other MUST have the same.
	Secret []byte
	// OpenAPI is the description that /openapi.yaml answers with.
	OpenAPI []byte
	// TopicAge and DeadLetterAge are the ages at which data is gone from the source
	// topics and from the topic of dead letters, which an export does not search;
	// optional, 0 is shown as unknown.
	TopicAge, DeadLetterAge time.Duration

	Log *slog.Logger
	// Metrics is where the server's metrics are registered.
	Metrics prometheus.Registerer
	// Addr is where Listen listens, host:port; port 0 picks a free one.
	Addr string
	// Certificate is what the API shows; it may be reloaded. Optional: without it
	// the API speaks plain HTTP.
	Certificate *certs.Pair
	// StopTimeout is how long a stop waits for requests before it cuts them off; optional, 20 s.
	StopTimeout time.Duration
	// Now is the clock that decides what has expired; optional, time.Now.
	Now func() time.Time
}

// Server is the HTTP API.
type Server struct {
	o        Options
	cursors  *cursors
	flags    flags
	proving  chan struct{} // has room for one
	metrics  *metrics
	notice   export.Notice
	handler  http.Handler
	http     *http.Server
	tls      *tls.Config
	listener net.Listener
}

// recordTimeout is how long a consultation may wait for its acknowledgement.
const recordTimeout = 2 * time.Second

// queryTimeout bounds what a page or a report may read.
const queryTimeout = 30 * time.Second

// New returns a Server; it listens nowhere and starts nothing. It refuses a
// policy that has no class for consultation records, because nothing may be
// read that cannot be recorded.
func New(o Options) (*Server, error) {
	switch {
	case o.Rows == nil, o.Facts == nil, o.Book == nil, o.Audit == nil, o.Prover == nil, o.Complete == nil, o.Requests == nil, o.Policy == nil, o.Keys == nil, o.Tokens == nil, o.Log == nil, o.Metrics == nil:
		return nil, errors.New("new query server: Rows, Facts, Book, Audit, Prover, Complete, Requests, Policy, Keys, Tokens, Log and Metrics are required")
	case len(o.OpenAPI) == 0:
		return nil, errors.New("new query server: OpenAPI is required")
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 20 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := checkRecords(o.Policy, o.Now()); err != nil {
		return nil, fmt.Errorf("new query server: %w", err)
	}
	s := &Server{o: o, proving: make(chan struct{}, 1), notice: noticeOf(o.Policy, o.TopicAge, o.DeadLetterAge)}
	var err error
	if s.cursors, err = newCursors(o.Secret); err != nil {
		return nil, fmt.Errorf("new query server: %w", err)
	}
	if s.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("new query server: %w", err)
	}
	if o.Certificate != nil {
		s.tls = &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.Certificate.Certificate(), nil },
		}
		if err := o.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lethe_query_certificate_not_after_seconds",
			Help: "Unix time at which the API's certificate expires. An alarm some days before."},
			func() float64 { return float64(o.Certificate.Certificate().Leaf.NotAfter.Unix()) })); err != nil {
			return nil, fmt.Errorf("new query server: register metrics: %w", err)
		}
	}
	s.handler = s.mux()
	return s, nil
}

// Handler returns the API without a listener.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) now() time.Time { return s.o.Now().UTC().Truncate(time.Millisecond) }
