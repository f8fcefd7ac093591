// Package service wires the rooms into the two services, each in one straight
// line. cmd/ingest and cmd/query run one of them, cmd/standalone both in one
// process. It decides nothing that a room could decide.
package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/migrate"
)

// Run is the life of a service that has a process of its own: signals, logger,
// operators' server, start and stop. start wires the service into the Daemon.
func Run(log config.Log, opsAddr string, stop time.Duration, parts []string, start func(context.Context, *daemon.Daemon, *slog.Logger) error) error {
	logger, err := daemon.NewLogger(os.Stderr, log.Level, log.Format)
	if err != nil {
		return err
	}
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	d, err := daemon.New(daemon.Options{Log: logger, OpsAddr: opsAddr, StopTimeout: stop + 5*time.Second, Parts: parts})
	if err != nil {
		return err
	}
	return d.Run(ctx, func(ctx context.Context) error { return start(ctx, d, logger) })
}

// Healthy asks the operators' server of a running service whether it lives, for
// the health check of a container that has no shell.
func Healthy(ctx context.Context, opsAddr string) error {
	host, port, err := net.SplitHostPort(opsAddr)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("check health: the service answers %s", resp.Status)
	}
	return nil
}

// await repeats f until it succeeds, reporting the part paused meanwhile: a
// service that starts before its database waits for it. A refused login or
// certificate makes the part broken and is tried again all the same: it may be
// mended on the other side. An error that another try does not cure ends it.
func await(ctx context.Context, h *daemon.Health, part, verb string, f func(context.Context) error) error {
	const most = 5 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, most) {
		err := f(ctx)
		if err == nil {
			return nil
		}
		var refused interface{ Permanent() bool }
		if errors.As(err, &refused) && refused.Permanent() || errors.Is(err, migrate.ErrChanged) || errors.Is(err, migrate.ErrOlder) {
			return err
		}
		h.Report(part, daemon.Trouble(err), verb+": "+err.Error())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// authorities reads who may sign the database's certificate; nil: the system's.
func authorities(c config.ClickHouse) (*x509.CertPool, error) {
	if c.Authorities == "" {
		return nil, nil //nolint:nilnil // nil is how crypto/tls spells "the system's"
	}
	return certs.Authorities(certs.File{Setting: "CLICKHOUSE_TLS_CA", Path: c.Authorities})
}
