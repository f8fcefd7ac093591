// Command publish sends events from files to Kafka: CloudEvents, one a line, and
// access logs as Apache and nginx write them, plain or gzipped.
//
//	publish access.log                      request events from an access log
//	publish -kind audit audit.ndjson        CloudEvents
//	tail -F access.log | publish -          as the lines come
//	publish -resume access.log              go on where the last run stopped
//	publish -shift-to now access.log.1.gz   an old log, moved to the present
//	publish -from-dead -reason unclassified dead letters, once their cause is mended
//
// It exits with 0 when every line was published; 1 when it could not start or
// go on; 2 when the flags are wrong; 3 when it came to the end but refused
// lines, or could not replay letters; 130 when it was interrupted.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/publish/feed"
)

// What the process says to its caller.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitInterrupted = 130
)

// checkTime is how long the brokers may take to name their topics.
const checkTime = 15 * time.Second

// batch is the number of messages of one batch: large, because there are many.
const batch = 2000

func main() {
	ctx, cancel := daemon.Signals(context.Background())
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

// flags are what the command line says.
type flags struct {
	kind, topic, format    string
	source, service        string
	shiftTo, state         string
	resume, restart, quiet bool
	patience               time.Duration
	fromDead, dryRun       bool
	reason, sourceTopic    string
	since                  time.Time
	inputs                 []string
}

func parseFlags(args []string, stderr io.Writer) (flags, error) {
	var f flags
	set := flag.NewFlagSet("publish", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		_, _ = fmt.Fprint(stderr, "usage: publish [flags] FILE...\n       publish -from-dead [-reason R] [-source-topic T] [-since TIME] [-dry-run]\n\nFILE is an access log or holds one CloudEvent a line; - is standard input. gzip is recognised.\nBrokers, login and topics come from the environment: KAFKA_BROKERS and so on, see docs/config.md.\n\n")
		set.PrintDefaults()
	}
	set.StringVar(&f.kind, "kind", "", "`kind` of the CloudEvents: request, audit or security (default: the one of -topic)")
	set.StringVar(&f.topic, "topic", "", "`topic` to write to (default: the one of the kind)")
	set.StringVar(&f.format, "format", "auto", "what the lines are: auto, `combined` (common too) or cloudevents")
	set.StringVar(&f.source, "source", "", "CloudEvents source of access-log lines, one per server or site (default /access-log, with -service /access-log/SERVICE)")
	set.StringVar(&f.service, "service", "", "service.name of access-log lines")
	set.StringVar(&f.shiftTo, "shift-to", "", "move all times so that the newest one becomes `time`: now, or such as 2026-01-31T10:00:00Z; remembered, so that a repeated run repeats no event")
	set.StringVar(&f.state, "state", "", "`file` that remembers progress and shift (default: one per set of inputs in the user's cache folder)")
	set.BoolVar(&f.resume, "resume", false, "go on where the last run of these inputs stopped")
	set.BoolVar(&f.restart, "restart", false, "forget progress and shift of earlier runs")
	set.BoolVar(&f.quiet, "quiet", false, "show no progress, only what was refused and the result")
	set.DurationVar(&f.patience, "patience", 30*time.Second, "how long to try again while no broker answers")
	set.BoolVar(&f.fromDead, "from-dead", false, "publish dead letters again, to the topics they came from; a repeated run goes on behind the last one")
	set.StringVar(&f.reason, "reason", "", "with -from-dead: only letters of this `reason`, such as unclassified")
	set.StringVar(&f.sourceTopic, "source-topic", "", "with -from-dead: only letters of events from this `topic`")
	set.Func("since", "with -from-dead: only letters written at this `time` or later, such as 2026-01-31T10:00:00Z", func(s string) (err error) {
		f.since, err = time.Parse(time.RFC3339, s)
		return err
	})
	set.BoolVar(&f.dryRun, "dry-run", false, "with -from-dead: only count")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	f.inputs = set.Args()
	complain := func(text string) (flags, error) {
		_, _ = fmt.Fprintf(stderr, "publish: %s\n", text)
		return f, errors.New(text)
	}
	only := f.reason != "" || f.sourceTopic != "" || !f.since.IsZero() || f.dryRun
	ofFiles := f.kind != "" || f.topic != "" || f.shiftTo != "" || f.resume || len(f.inputs) > 0
	switch {
	case f.fromDead && ofFiles:
		return complain("-from-dead reads the dead topic: it takes no file, and of the other flags -state, -restart, -quiet and -patience")
	case !f.fromDead && only:
		return complain("-reason, -source-topic, -since and -dry-run need -from-dead")
	case f.fromDead:
		return f, nil
	case len(f.inputs) == 0:
		set.Usage()
		return f, errors.New("no input")
	case f.resume && f.restart:
		return complain("-resume and -restart exclude each other")
	}
	if _, ok := event.ParseKind(f.kind); f.kind != "" && !ok {
		return complain("-kind must be request, audit or security")
	}
	switch f.format {
	case "auto", "combined", "common", "cloudevents":
	default:
		return complain("-format must be auto, combined or cloudevents")
	}
	if f.source == "" {
		f.source = strings.TrimSuffix("/access-log/"+f.service, "/")
	}
	return f, nil
}

// options turns flags and settings into what the feed needs.
func (f flags) options(c config.Kafka) (feed.Options, error) {
	o := feed.Options{
		Topics: [event.NumKinds]string{event.Request: c.TopicRequest, event.Audit: c.TopicAudit, event.Security: c.TopicSecurity},
		Source: f.source, Service: f.service, ShiftTo: f.shiftTo, Resume: f.resume, Forget: f.restart,
		Patience: f.patience, Now: time.Now,
	}
	switch f.format {
	case "combined", "common":
		o.Format = feed.AccessLog
	case "cloudevents":
		o.Format = feed.Events
	}
	o.Kind, o.HasKind = event.ParseKind(f.kind)
	if f.topic != "" {
		for _, k := range event.Kinds {
			if !o.HasKind && o.Topics[k] == f.topic {
				o.Kind, o.HasKind = k, true
			}
		}
		// Without a kind only access logs can be read, and those are requests.
		o.Topics[o.Kind] = f.topic
	}
	var err error
	o.StatePath, err = f.statePath(c, o)
	return o, err
}

// statePath names the state file of these inputs and this destination.
func (f flags) statePath(c config.Kafka, o feed.Options) (string, error) {
	if f.state != "" {
		return f.state, nil
	}
	if f.inputs[0] == feed.Stdin {
		if f.resume {
			return "", errors.New("continue standard input: name the state file with -state")
		}
		return "", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; name the state file with -state", err)
	}
	parts := append([]string{f.source, f.service, f.format, o.Topics[o.Kind]}, c.Brokers...)
	for _, name := range f.inputs {
		path, err := filepath.Abs(name)
		if err != nil {
			return "", fmt.Errorf("name input: %w", err)
		}
		parts = append(parts, path)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return filepath.Join(cache, "lethe", "publish", hex.EncodeToString(sum[:8])+".json"), nil
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage
	}
	var code int
	if f.fromDead {
		code, err = again(ctx, f, environ, stdout, stderr)
	} else {
		code, err = send(ctx, f, environ, stdin, stdout, stderr)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "publish: %v\n", err)
		if hint := hint(err); hint != "" {
			_, _ = fmt.Fprintf(stderr, "publish: %s\n", hint)
		}
	}
	return code
}

// send connects, checks and feeds.
func send(ctx context.Context, f flags, environ []string, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	c, err := config.LoadPublish(environ)
	if err != nil {
		return exitFailed, err
	}
	opts, err := f.options(c.Kafka)
	if err != nil {
		return exitFailed, err
	}
	transport, _, err := publish.Connect(c.Kafka)
	if err != nil {
		return exitFailed, err
	}
	p, err := publish.New(publish.Options{Brokers: c.Kafka.Brokers, Transport: transport, Batch: batch})
	if err != nil {
		return exitFailed, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	shown := newProgress(f, stderr)
	opts.Publisher, opts.Stdin, opts.Progress, opts.Refused = p, stdin, shown.at, shown.refused
	fd, err := feed.New(opts)
	if err != nil {
		return exitUsage, err
	}
	checking, cancel := context.WithTimeout(ctx, checkTime)
	err = p.Check(checking, opts.Topics[opts.Kind])
	cancel()
	if ctx.Err() != nil {
		return exitInterrupted, errors.New("interrupted")
	}
	if err != nil {
		return exitFailed, err
	}
	at, err := fd.Run(ctx, f.inputs...)
	shown.end()
	if shift, when := fd.Shift(); shift != 0 {
		_, _ = fmt.Fprintf(stdout, "times moved by %s, as decided at %s\n", shift, when.Format(time.RFC3339))
	}
	if err == nil || at.Input != "" {
		_, _ = fmt.Fprintln(stdout, shown.summary(at))
	}
	switch {
	case err != nil && at.Input != "":
		where := fmt.Sprintf("stopped in %s behind line %d, byte %d", at.Input, at.Line, at.Offset)
		if opts.StatePath != "" {
			where += "; the same command with -resume goes on there"
		}
		_, _ = fmt.Fprintln(stdout, where)
	case err == nil && at.Counts.Refused > 0:
		return exitRefused, nil
	}
	if ctx.Err() != nil && err != nil {
		return exitInterrupted, errors.New("interrupted")
	}
	if err != nil {
		return exitFailed, err
	}
	return exitDone, nil
}

// hint says what to do about an error.
func hint(err error) string {
	switch {
	case errors.Is(err, publish.ErrUnknownTopic):
		return "create the topic, or name another one with -topic or KAFKA_TOPIC_REQUEST, _AUDIT, _SECURITY"
	case errors.Is(err, publish.ErrUnreachable):
		return "is Kafka running there? KAFKA_BROKERS says where to look"
	case errors.Is(err, feed.ErrNoKind):
		return "say what they are with -kind request, -kind audit or -kind security"
	}
	return ""
}
