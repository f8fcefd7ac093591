package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ingest"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
)

// Replay takes offsets of a partition through the ingester's route again, and
// says how far it is.
func Replay(ctx context.Context, cfg config.Ingest, topic string, partition int32, offsets ledger.Range, out io.Writer, log *slog.Logger) (err error) {
	r, err := loadRoute(cfg)
	if err != nil {
		return err
	}
	survey, end, err := survey(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	transport, dialer, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	roots, err := authorities(cfg.ClickHouse)
	if err != nil {
		return err
	}
	// The classes that rows may get must be known before there are such rows.
	if err := migrate.Apply(ctx, migrate.Options{DSN: string(cfg.ClickHouse.DSN), Authorities: roots, Policy: r.policy, Shortens: cfg.PolicyShortens}); err != nil {
		return store.Diagnose("migrate", err)
	}
	db, err := open(ctx, cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer db.Close()
	dead, err := publish.New(publish.Options{Brokers: cfg.Kafka.Brokers, Transport: transport})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dead.Close()) }()
	keeper, err := retention.NewKeeper(retention.Options{
		Storage: facts{db}, Policy: r.policy, Hash: r.keys.Fingerprints, HashOnce: r.keys.FingerprintsOnce, Now: time.Now, Metrics: prometheus.NewRegistry(), Log: log,
	})
	if err != nil {
		return err
	}
	if err := keeper.Load(ctx); err != nil {
		return err
	}
	in, err := ingest.New(r.options(cfg, ingest.Options{
		Transport: transport, Dialer: dialer, Dead: dead, Storage: storage{db}, Known: keeper,
		Health: unreported{}, Metrics: prometheus.NewRegistry(), Log: log,
	}))
	if err != nil {
		return err
	}
	total, said := offsets.Last-offsets.First+1, time.Now()
	done, err := in.Replay(ctx, ingest.Reread{
		Topic: topic, Partition: partition, Range: offsets, Survey: survey,
		Progress: func(next int64) {
			if time.Since(said) >= sayEvery {
				said = time.Now()
				fmt.Fprintf(out, "%d of %d offsets\n", next-offsets.First, total)
			}
		},
	})
	if done.Next == offsets.First {
		return err
	}
	fmt.Fprintf(out, "%s/%d: %d of %d offsets are in the ledger again:", topic, partition, done.Next-offsets.First, total)
	for o, n := range done.Counts {
		if n > 0 {
			fmt.Fprintf(out, " %d %s", n, ledger.Outcome(o))
		}
	}
	fmt.Fprintln(out)
	if err != nil {
		err = fmt.Errorf("%w; go on with ingest replay %s/%d %d-%d", err, topic, partition, done.Next, offsets.Last)
	}
	return err
}

// sayEvery is how often a replay says how far it is.
const sayEvery = 2 * time.Second

// unreported is the health of a process that nobody asks for it: what it waits
// for is in its log.
type unreported struct{}

func (unreported) Report(string, daemon.State, string) {}
