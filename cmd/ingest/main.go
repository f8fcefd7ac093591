// Command ingest reads events from Kafka, turns addresses into countries, tags
// every record with its retention class and writes it to ClickHouse, whose TTLs
// are the policy's periods. Its settings are environment variables, listed in
// docs/config.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/service"
)

func main() {
	healthcheck := flag.Bool("healthcheck", false, "ask the ingester that runs with the same settings whether it lives, and end")
	flag.Parse()
	if err := run(*healthcheck); err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

func run(healthcheck bool) error {
	cfg, err := config.LoadIngest(os.Environ())
	if err != nil {
		return err
	}
	if healthcheck {
		return service.Healthy(context.Background(), cfg.MetricsAddr)
	}
	debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	return service.Run(cfg.Log, cfg.MetricsAddr, cfg.StopTimeout, service.IngestParts,
		func(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
			return service.Ingest(ctx, d, cfg, log)
		})
}
