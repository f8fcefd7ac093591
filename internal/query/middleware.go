package query

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's. Their labels come from closed sets: no label holds
// a path, a person or a tenant.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	records  *prometheus.CounterVec
	rows     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_query_requests_total",
			Help: "Requests by route template and status; the status of an answer that was cut off is aborted."}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lethe_query_request_duration_seconds",
			Help: "Time from the request's header to the answer's last byte.", Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 10, 30, 120}}, []string{"route"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_query_access_records_total",
			Help: "Consultation records by outcome: acknowledged, or refused, in which case nothing was sent."}, []string{"outcome"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_query_rows_total",
			Help: "Personal rows sent, by route template."}, []string{"route"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.records, m.rows} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, o := range []string{"acknowledged", "refused"} {
		m.records.WithLabelValues(o) // shown from the start, so that an alarm can see the first failure
	}
	return m, nil
}

// answer remembers what was sent.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// wrap is everything that all routes share. What it logs holds the route's
// template and the role: no path, no query, no name and no address.
func (s *Server) wrap(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := newRequestID() // never the client's, which could hold anything
		a := &answer{ResponseWriter: w}
		s.secure(w.Header())
		w.Header().Set("X-Request-Id", id)

		var c caller
		var failure error
		defer func() {
			status := strconv.Itoa(a.status)
			if v := recover(); v != nil {
				defer panic(http.ErrAbortHandler) // cuts the connection: the client must see that the answer is broken
				status = "aborted"
				if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					s.o.Log.Error("a handler panicked", "request", id, "route", rt.path, "stack", string(debug.Stack()))
				}
			}
			took := time.Since(began)
			s.metrics.requests.WithLabelValues(rt.path, status).Inc()
			s.metrics.duration.WithLabelValues(rt.path).Observe(took.Seconds())
			attrs := []any{"request", id, "method", knownMethod(r.Method), "route", rt.path, "status", status,
				"role", string(c.Role), "bytes", a.bytes, "took", took}
			if failure != nil {
				attrs = append(attrs, "problem", answerTo(failure).name)
			}
			s.o.Log.Info("request", attrs...)
		}()

		c, failure = s.authorize(rt, r)
		if failure == nil && rt.rows && !s.o.Complete() {
			failure = errRestoring.because("The database came back from a backup, and the ingesters have not read again what came after it. Try again later.")
		}
		if failure == nil {
			failure = rt.handle(a, r, c)
		}
		if failure == nil {
			return
		}
		p := answerTo(failure)
		if p.status >= http.StatusInternalServerError {
			s.o.Log.Error("a request failed", "request", id, "route", rt.path, "problem", p.name, "cause", cause(p.err))
		}
		if a.status != 0 {
			panic(http.ErrAbortHandler)
		}
		p.write(a, id)
	})
}

func (s *Server) secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if s.tls != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// knownMethod keeps a made-up method, which could hold anything, out of the log.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// cause says what went wrong. Only errors that promise to hold no value speak
// for themselves; a foreign one could quote a query, and with it a person.
func cause(err error) string {
	if err == nil {
		return "none"
	}
	var n net.Error
	var coded interface{ Code() int }
	switch {
	case errors.As(err, &coded):
		return fmt.Sprintf("database error %d", coded.Code())
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline exceeded"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &n):
		return fmt.Sprintf("network, timeout %t", n.Timeout())
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}
