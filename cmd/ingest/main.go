// Command ingest reads events from Kafka, turns addresses into countries, tags
// every record with its retention class and writes it to ClickHouse, whose TTLs
// are the policy's periods. Its settings are environment variables, listed in
// docs/config.md.
//
//	ingest                    run until a signal
//	ingest -healthcheck       ask the one that runs whether it lives
//	ingest verify [--full]    compare the ledger with the rows and with Kafka
//	ingest ledger new-epoch TOPIC   account anew for a topic that was made anew
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/service"
)

func main() {
	err := run(os.Args[1:], os.Environ(), os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

const usage = `Usage:
  ingest                    run until a signal
  ingest -healthcheck       ask the ingester that runs with the same settings whether it lives, and end
  ingest verify [--full] [--seed N]
                            compare the ledger with the rows and with Kafka, and end
  ingest ledger new-epoch TOPIC
                            account anew for a topic that was made anew or lost its
                            end, from the start of its log. Stop the ingesters first.

Settings are environment variables: docs/config.md.
`

const usageVerify = `Usage: ingest verify [--full] [--seed N]

Compares the ledger of offsets with itself, with Kafka, with the rows and with
the dead letters, prints a table, and ends with status 0 where all agree and 1
where something was found or could not be read. It may run beside an ingester.

The whole ledger is read every time. Rows are read by bucket: what one retention
class keeps of one day or month in one table. A bucket that was right is stamped;
while neither its parts in ClickHouse nor the ledger's word on it change, later
runs take it on the word of the stamp, but for one in a hundred, drawn at
random. The report says what was read and what was not.

  --full     read every bucket
  --seed N   draw as the run did that printed this seed
`

func run(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("ingest", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage) }
	healthcheck := flags.Bool("healthcheck", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch flags.Arg(0) {
	case "":
		return serve(environ, *healthcheck)
	case "verify":
		return verify(flags.Args()[1:], environ, out)
	case "ledger":
		if flags.NArg() != 3 || flags.Arg(1) != "new-epoch" {
			return errors.New("ledger: want ingest ledger new-epoch TOPIC")
		}
		return newEpoch(flags.Arg(2), environ, out)
	}
	return fmt.Errorf("unknown command %q: see -help", flags.Arg(0))
}

func serve(environ []string, healthcheck bool) error {
	cfg, err := config.LoadIngest(environ)
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

func verify(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usageVerify) }
	full := flags.Bool("full", false, "")
	seed := flags.Uint64("seed", rand.Uint64(), "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("verify: unknown argument %q: see --help", flags.Arg(0))
	}
	cfg, err := config.LoadIngest(environ)
	if err != nil {
		return err
	}
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	ok, err := service.Verify(ctx, cfg, *full, *seed, out)
	if err == nil && !ok {
		err = errors.New("the ledger is not verified")
	}
	return err
}

func newEpoch(topic string, environ []string, out io.Writer) error {
	cfg, err := config.LoadIngest(environ)
	if err != nil {
		return err
	}
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	return service.NewEpoch(ctx, cfg, topic, out)
}
