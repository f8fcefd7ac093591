// Command standalone is the whole of Lethe on one machine: an embedded Kafka,
// an embedded ClickHouse, the ingester and the query service in one process,
// with a sample loaded. It is for trying Lethe out and for its tests; for
// production there is docker-compose.yml.
//
//	standalone                          everything, and the sample
//	standalone -only kafka,clickhouse   a part of it, without the sample
//	standalone -fetch                   bring the engine and the country database, and end
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/fetch"
	"github.com/lethe-audit/lethe/internal/service"
)

func main() {
	ctx, cancel := daemon.Signals(context.Background())
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout)
	cancel()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "standalone:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it.
func run(ctx context.Context, args, environ []string, out io.Writer) error {
	flags := flag.NewFlagSet("standalone", flag.ContinueOnError)
	only := flags.String("only", "", "start only these parts, of kafka,clickhouse,ingest,query, and load no sample")
	fetching := flags.Bool("fetch", false, "fetch the engine and the country database into .cache, and end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: see -help", flags.Arg(0))
	}
	if *fetching {
		cache, err := embedded.CacheDir()
		if err != nil {
			return err
		}
		return fetch.Files(ctx, cache, slog.New(slog.NewTextHandler(out, nil)))
	}
	start, err := parseParts(*only)
	if err != nil {
		return err
	}
	cfg, err := config.LoadStandalone(environ)
	if err != nil {
		return err
	}
	s, err := prepare(cfg, environ, start, out)
	if err != nil {
		return err
	}
	defer s.log.Close()
	d, err := daemon.New(daemon.Options{Log: s.logger, OpsAddr: cfg.MetricsAddr, StopTimeout: 50 * time.Second, Parts: s.readiness()})
	if err != nil {
		return err
	}
	s.daemon = d
	err = d.Run(ctx, s.start)
	fmt.Fprintln(out, "stopped")
	return err
}

// partitions is how many each topic of the embedded broker has.
const partitions = 4

// topicSettings are what an operator would set: values that every example
// policy allows, so that an ingester of its own starts on this broker too.
var topicSettings = map[string]string{"retention.ms": "43200000", "segment.ms": "21600000", "message.timestamp.type": "LogAppendTime"}

// parts says which of the four are started.
type parts struct{ kafka, clickhouse, ingest, query bool }

func parseParts(only string) (parts, error) {
	if only == "" {
		return parts{kafka: true, clickhouse: true, ingest: true, query: true}, nil
	}
	var p parts
	for name := range strings.SplitSeq(only, ",") {
		switch name {
		case "kafka":
			p.kafka = true
		case "clickhouse":
			p.clickhouse = true
		case "ingest":
			p.ingest = true
		case "query":
			p.query = true
		default:
			return p, fmt.Errorf("-only: %q is not one of kafka, clickhouse, ingest, query", name)
		}
	}
	return p, nil
}

// all reports whether nothing was left out; only then a sample makes sense.
func (p parts) all() bool { return p.kafka && p.clickhouse && p.ingest && p.query }

// stack is what one start of the program consists of.
type stack struct {
	cfg     config.Standalone
	parts   parts
	environ []string // for the services: what the user set, and what this stack decides
	files   files
	out     io.Writer
	log     *os.File
	logger  *slog.Logger
	daemon  *daemon.Daemon
}

// prepare makes the data folder and the settings of the services.
func prepare(cfg config.Standalone, environ []string, p parts, out io.Writer) (*stack, error) {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	f := files{dir: dir}
	for _, folder := range []string{f.dir, f.kafka(), f.clickhouse(), f.logs()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
	}
	// One file for each combination of parts: two processes never share one.
	log, err := os.OpenFile(filepath.Join(f.logs(), p.String()+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	logger, err := daemon.NewLogger(log, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return nil, err
	}
	s := &stack{cfg: cfg, parts: p, files: f, out: out, log: log, logger: logger, environ: environ}
	if err := s.decide(); err != nil {
		log.Close()
		return nil, err
	}
	return s, nil
}

// String names the parts, for the log file.
func (p parts) String() string {
	if p.all() {
		return "standalone"
	}
	var names []string
	for _, part := range []struct {
		on   bool
		name string
	}{{p.kafka, "kafka"}, {p.clickhouse, "clickhouse"}, {p.ingest, "ingest"}, {p.query, "query"}} {
		if part.on {
			names = append(names, part.name)
		}
	}
	return strings.Join(names, "-")
}

// readiness lists what /readyz waits for.
func (s *stack) readiness() []string {
	var names []string
	if s.parts.ingest {
		names = append(names, service.IngestParts...)
	}
	if s.parts.query {
		names = append(names, service.QueryParts...)
	}
	return names
}

// start brings the parts up, in the order in which they need each other.
func (s *stack) start(ctx context.Context) error {
	began := time.Now()
	if s.parts.clickhouse {
		if err := s.startClickHouse(ctx); err != nil {
			return err
		}
		s.say("ClickHouse   http://%s", s.cfg.ClickHouseAddr)
	}
	if s.parts.kafka {
		if err := s.startKafka(ctx); err != nil {
			return err
		}
		s.say("Kafka        %s", s.cfg.KafkaAddr)
	}
	if s.parts.ingest {
		cfg, err := config.LoadIngest(s.environ)
		if err != nil {
			return err
		}
		if err := service.Ingest(ctx, s.daemon, cfg, s.logger); err != nil {
			return err
		}
		s.say("ingester     policy %s", s.cfg.Policy)
	}
	if s.parts.query {
		cfg, err := config.LoadQuery(s.environ)
		if err != nil {
			return err
		}
		if err := service.Query(ctx, s.daemon, cfg, s.logger); err != nil {
			return err
		}
		s.say("query        http://%s", s.cfg.HTTPAddr)
	}
	s.logger.Info("started", "parts", s.parts.String(), "took", time.Since(began))
	if s.parts.all() {
		s.daemon.Go("sample", 10*time.Second, s.sample)
		return nil
	}
	s.say("ready")
	return nil
}

func (s *stack) startClickHouse(ctx context.Context) error {
	library, err := embedded.LibraryPath()
	if err != nil {
		return err
	}
	engine, err := embedded.OpenEngine(embedded.EngineOptions{Library: library, DataDir: s.files.clickhouse(), Backups: s.files.backups()})
	if err != nil {
		return err
	}
	s.daemon.OnStop("ClickHouse engine", 20*time.Second, func(context.Context) error { return engine.Close() })
	door, err := embedded.NewClickHouse(embedded.ClickHouseOptions{Engine: engine, Addr: s.cfg.ClickHouseAddr, Logger: s.logger})
	if err != nil {
		return err
	}
	if err := door.Start(ctx); err != nil {
		return err
	}
	s.daemon.OnStop("ClickHouse endpoint", 10*time.Second, door.Stop)
	return nil
}

func (s *stack) startKafka(ctx context.Context) error {
	cfg, err := config.LoadPublish(s.environ)
	if err != nil {
		return err
	}
	k := cfg.Kafka
	var topics []embedded.Topic
	for _, name := range []string{k.TopicRequest, k.TopicAudit, k.TopicSecurity, k.TopicDead} {
		topics = append(topics, embedded.Topic{Name: name, Partitions: partitions, Configs: topicSettings})
	}
	broker, err := embedded.NewKafka(embedded.KafkaOptions{Addr: s.cfg.KafkaAddr, DataDir: s.files.kafka(), Topics: topics, Logger: s.logger})
	if err != nil {
		return err
	}
	if err := broker.Start(ctx); err != nil {
		return err
	}
	s.daemon.OnStop("Kafka", 10*time.Second, func(context.Context) error { broker.Stop(); return nil })
	return nil
}

func (s *stack) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
