package query

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of a connection. A request is small; an answer may be large, so the
// export moves its own deadline on while bytes flow.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// Listen binds the address, so that Addr is known and a taken port is an error
// of the start.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.o.Addr)
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	s.listener = l
	s.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		TLSConfig:         s.tls,
		ErrorLog:          log.New(quiet{s.o.Log}, "", 0),
	}
	return nil
}

// Addr returns the address that Listen bound, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends, then waits for the requests under way, at most
// StopTimeout, and cuts off the rest. An export that is cut off has no manifest.
// Listen MUST have been called.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		return errors.New("serve the API: Listen was not called")
	}
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	// A drain: the context of the run has ended.
	drain, cancel := context.WithTimeout(context.Background(), s.o.StopTimeout)
	defer cancel()
	err := s.http.Shutdown(drain)
	if err != nil {
		s.http.Close()
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", served)
	}
	if err != nil {
		return fmt.Errorf("wait for requests: %w", err)
	}
	return nil
}

// quiet replaces the messages of net/http, which name the client's address.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("a connection failed")
	return len(p), nil
}
