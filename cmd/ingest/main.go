// Command ingest reads events from Kafka, turns addresses into countries, tags
// every record with its retention class and writes it to ClickHouse, whose TTLs
// are the policy's periods. Its settings are environment variables, listed in
// docs/config.md.
//
//	ingest                    run until a signal
//	ingest -healthcheck       ask the one that runs whether it lives
//	ingest verify [--full]    compare the ledger with the rows and with Kafka
//	ingest replay TOPIC/PARTITION FROM-TO   take these offsets through the route again
//	ingest ledger new-epoch TOPIC   account anew for a topic that was made anew
//	ingest policy check --text FILE   hold the policy file against the published text
//	ingest policy diff OLD NEW        say what a new policy file changes, and for how many rows
//	ingest policy prove       hold what is stored against the policy file
//	ingest policy receipts    how many rows of each class expired on which day
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
	"strconv"
	"strings"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ledger"
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
  ingest replay TOPIC/PARTITION FROM-TO
                            take offsets that were consumed before through the route
                            again, both ends included, and end
  ingest ledger new-epoch TOPIC
                            account anew for a topic that was made anew or lost its
                            end, from the start of its log. Stop the ingesters first.
  ingest policy check --text FILE
                            hold the policy file against the published text, and end;
                            POLICY_FILE is the only setting it needs
  ingest policy diff OLD NEW
                            say what a new policy file changes, and for how many stored
                            rows where CLICKHOUSE_DSN is set, and end
  ingest policy prove [--json FILE|-] [--signed-off FILE] [--full] [--seed N]
                            hold what is stored against the policy file, and end
  ingest policy receipts [--from DAY] [--to DAY] [--json FILE|-]
                            say how many rows of each class expired on which day, and end

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

const usageReplay = `Usage: ingest replay TOPIC/PARTITION FROM-TO

Reads offsets that were consumed before again, both ends included, and takes
them through the ingester's route: rows, dead letters and ledger. Its use is to bring
back what ingest verify calls missing, while Kafka still has it. It leaves the
consumer group alone and may run beside ingesters, be interrupted and be
repeated: rows that are there collapse with their repeats, and dead letters that
are there are not published again.

What a changed policy decides otherwise now, ingest verify names as a conflict.
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
	case "replay":
		return replay(flags.Args()[1:], environ, out)
	case "ledger":
		if flags.NArg() != 3 || flags.Arg(1) != "new-epoch" {
			return errors.New("ledger: want ingest ledger new-epoch TOPIC")
		}
		return newEpoch(flags.Arg(2), environ, out)
	case "policy":
		return policyCommand(flags.Args()[1:], environ, out)
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
	debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	ok, err := service.Verify(ctx, cfg, *full, *seed, out)
	if err == nil && !ok {
		err = errors.New("the ledger is not verified")
	}
	return err
}

func replay(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usageReplay) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("replay: want ingest replay TOPIC/PARTITION FROM-TO")
	}
	topic, partition, err := parsePartition(flags.Arg(0))
	if err != nil {
		return err
	}
	offsets, err := parseOffsets(flags.Arg(1))
	if err != nil {
		return err
	}
	cfg, err := config.LoadIngest(environ)
	if err != nil {
		return err
	}
	log, err := daemon.NewLogger(os.Stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	return service.Replay(ctx, cfg, topic, partition, offsets, out, log)
}

// parsePartition reads TOPIC/PARTITION, as ingest verify prints it.
func parsePartition(text string) (topic string, partition int32, err error) {
	topic, number, ok := strings.Cut(text, "/")
	n, err := strconv.ParseInt(number, 10, 32)
	if !ok || topic == "" || err != nil || n < 0 {
		return "", 0, fmt.Errorf("replay: %q is no partition: want TOPIC/PARTITION", text)
	}
	return topic, int32(n), nil
}

// parseOffsets reads FROM-TO, or one offset, as ingest verify prints them.
func parseOffsets(text string) (r ledger.Range, err error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		to = from
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if err1 != nil || err2 != nil || first > last {
		return r, fmt.Errorf("replay: %q are no offsets: want FROM-TO, both ends included", text)
	}
	return ledger.Range{First: first, Last: last}, nil
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
