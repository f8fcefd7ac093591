package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/policy/sentences"
	"github.com/lethe-audit/lethe/internal/service"
)

const usagePolicyCheck = `Usage: ingest policy check --text FILE

Holds POLICY_FILE against the text that was published, as plain text in English, and
ends with status 0 where they agree and 1 where not. It needs no other setting, and
neither Kafka nor ClickHouse.

Every sentence with a number and a unit of time, with an age, or with a vague period
(reasonable, promptly, as long as, at any time, ...) must have an entry in the file's
sentences: by the SHA-256 of its words, with single spaces between them. The entry
names the values that the sentence binds, or why it binds none (waived), or both where
a part of it binds none. A period must be one that the sentence says, and count from
the anchor that it names; where the sentence is vague, an operator's value decides. The
SHA-256 of the whole text, with single spaces, must be text.sha256.

What is wrong is named with the line of the text, or of the file, and the sums to
enter. Changing a digit or a word of the text, or a period in the file, fails; so does
a place that the bound sentences do not name, and a no to what they say.

  --text FILE   the published text
`

const usagePolicyDiff = `Usage: ingest policy diff OLD NEW

Says what the policy file NEW changes of the file OLD, and ends with status 0: each
promise by class and tier, as shorter, longer, the same or different, and what of it rows
follow that are stored already; then the rules, the sentences and every value.

With CLICKHOUSE_DSN it asks the database about the classes of every policy file there
was: how many rows would end earlier, and how many of them would be past their expiry
at once, counted by ClickHouse with the expression that NEW would put into the tables.
Rows whose expiry was moved before, by an anchor for instance, are counted by what is
known of that.
Without it, no rows are counted. It changes nothing.

A longer promise is for new rows alone. A shorter one applies to the stored rows as
well, and destroys those past it: the ingester starts with such a file only when
POLICY_SHORTENS is the version of NEW, which is printed.
`

const usagePolicyProve = `Usage: ingest policy prove [--json FILE|-] [--signed-off FILE] [--full] [--seed N]

Holds what is stored against POLICY_FILE: for every sentence of the published text
what binds it, how old the oldest row is, how many rows are past their expiry, and
a verdict. It reads the system tables of ClickHouse, the rows, the settings of the
topics, and verifies the ledger as ingest verify does. docs/retention.md says how
to read it.

It ends with status 1 where something is broken, or could not be read, and with 0
otherwise: what is untested yet, left open by the text, or cannot be seen from inside
is no failure. It may run beside an ingester and changes nothing but the stamps of the
verification.

  --json FILE        write the document too, and with PROOF_KEY_FILE its signature to
                     FILE.sig; - writes the document alone to the output
  --signed-off FILE  an earlier document whose mapping of actions to classes a person
                     has signed off: what is not in it is broken
  --full             verify every bucket
  --seed N           draw as the run did that printed this seed
`

const usagePolicyReceipts = `Usage: ingest policy receipts [--from DAY] [--to DAY] [--json FILE|-]

Says for each day how many rows of each class expired on it, by the ledger and by the
account of what was moved, and how many of them are still there. Days count in UTC, and a
day is listed when its grace is over. It ends with status 1 where something is still
there, or could not be read.

  --from DAY   the first day, such as 2026-02-01; otherwise 31 days before the last
  --to DAY     the last day; otherwise today
  --json FILE  write the document too, and with PROOF_KEY_FILE its signature to
               FILE.sig; - writes the document alone to the output
`

// policyCommand runs what is about the policy file.
func policyCommand(args, environ []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "check":
			return policyCheck(args[1:], environ, out)
		case "diff":
			return policyDiff(args[1:], environ, out)
		case "prove":
			return policyProve(args[1:], environ, out)
		case "receipts":
			return policyReceipts(args[1:], environ, out)
		}
	}
	return errors.New("policy: want ingest policy check --text FILE, ingest policy diff OLD NEW, ingest policy prove or ingest policy receipts")
}

func policyCheck(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("policy check", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usagePolicyCheck) }
	name := flags.String("text", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *name == "" {
		return errors.New("policy check: want ingest policy check --text FILE")
	}
	file, err := config.LoadPolicyFile(environ)
	if err != nil {
		return err
	}
	p, err := policy.Load(file)
	if err != nil {
		return err
	}
	text, err := sentences.ReadText(*name)
	if err != nil {
		return err
	}
	report := sentences.Check(p, text)
	if err := report.Write(out, *name, file); err != nil {
		return err
	}
	if !report.OK() {
		return errors.New("the policy file and the published text do not agree")
	}
	return nil
}

func policyDiff(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("policy diff", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usagePolicyDiff) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("policy diff: want ingest policy diff OLD NEW")
	}
	database, err := config.LoadClickHouse(environ)
	if err != nil {
		return err
	}
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	return service.PolicyDiff(ctx, database, flags.Arg(0), flags.Arg(1), out)
}

func policyProve(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("policy prove", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usagePolicyProve) }
	var o service.ProveOptions
	flags.StringVar(&o.Document, "json", "", "")
	flags.StringVar(&o.SignedOff, "signed-off", "", "")
	flags.BoolVar(&o.Full, "full", false, "")
	flags.Uint64Var(&o.Seed, "seed", rand.Uint64(), "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("policy prove: unknown argument %q: see --help", flags.Arg(0))
	}
	cfg, err := config.LoadIngest(environ)
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	ok, err := service.Prove(ctx, cfg, o, out, os.Stderr)
	if err == nil && !ok {
		err = errors.New("the policy is not proved")
	}
	return err
}

func policyReceipts(args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("policy receipts", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usagePolicyReceipts) }
	first, last, document := flags.String("from", "", ""), flags.String("to", "", ""), flags.String("json", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("policy receipts: unknown argument %q: see --help", flags.Arg(0))
	}
	to, err := parseDay("--to", *last, time.Now().UTC())
	if err != nil {
		return err
	}
	from, err := parseDay("--from", *first, to.AddDate(0, 0, -31))
	if err != nil {
		return err
	}
	if to.Before(from) {
		return errors.New("policy receipts: --to is before --from")
	}
	cfg, err := config.LoadIngest(environ)
	if err != nil {
		return err
	}
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	ok, err := service.Receipts(ctx, cfg, from, to, *document, out, os.Stderr)
	if err == nil && !ok {
		err = errors.New("rows are left although their time is over")
	}
	return err
}

func parseDay(name, text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise.Truncate(24 * time.Hour), nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return day, fmt.Errorf("policy receipts: %s: %q is no day: want one such as 2026-02-01", name, text)
	}
	return day, nil
}
