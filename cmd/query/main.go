// Command query answers a privacy officer and a security investigator over
// HTTP: events, a person's events, a person's export, and what retention does.
// Its settings are environment variables, listed in docs/config.md; its routes
// are described in schemas/openapi.yaml, which it also serves.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/service"
)

func main() {
	healthcheck := flag.Bool("healthcheck", false, "ask the query service that runs with the same settings whether it lives, and end")
	flag.Parse()
	if err := run(*healthcheck); err != nil {
		fmt.Fprintln(os.Stderr, "query:", err)
		os.Exit(1)
	}
}

func run(healthcheck bool) error {
	cfg, err := config.LoadQuery(os.Environ())
	if err != nil {
		return err
	}
	if healthcheck {
		return service.Healthy(context.Background(), cfg.MetricsAddr)
	}
	return service.Run(cfg.Log, cfg.MetricsAddr, cfg.StopTimeout, service.QueryParts,
		func(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
			return service.Query(ctx, d, cfg, log)
		})
}
