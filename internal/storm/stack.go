package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded"
	"github.com/lethe-audit/lethe/internal/embedded/fetch"
	"github.com/lethe-audit/lethe/internal/embedded/kafkatest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/query"
)

const (
	deadTopic  = "lethe.dead"
	partitions = 4
)

var topics = [event.NumKinds]string{event.Request: "lethe.request", event.Audit: "lethe.audit", event.Security: "lethe.security"}

// topicSettings are what the policy allows.
var topicSettings = map[string]string{"retention.ms": "43200000", "segment.ms": "21600000", "message.timestamp.type": "LogAppendTime"}

// stack is everything that runs, and where it is.
type stack struct {
	dir     string // logs, data and the journal
	cluster *kafkatest.Cluster
	world   world
	token   string
	ready   map[string]string // process → address of its /readyz

	processes []*process // in the order of their start
}

// prepare makes the stack's folder and starts Apache Kafka; failed hears of
// processes that end without being asked.
func prepare(ctx context.Context, o options, dir string, g generator, failed func(error)) (_ *stack, err error) {
	s := &stack{dir: dir, ready: make(map[string]string)}
	if s.cluster, err = kafkatest.Begin(ctx, kafkatest.Options{}); err != nil {
		return nil, fmt.Errorf("start Apache Kafka: %w", err)
	}
	defer func() {
		if err != nil {
			s.cluster.End()
		}
	}()
	var all []embedded.Topic
	for _, name := range append(topics[:], deadTopic) {
		all = append(all, embedded.Topic{Name: name, Partitions: partitions, Configs: topicSettings})
	}
	if err := kafkatest.Create(ctx, s.cluster.Addrs(), all...); err != nil {
		return nil, err
	}
	addr := make(map[string]string)
	for _, name := range []string{clickhouse, "api", ingest1, ingest2, querying} {
		if addr[name], err = freeAddr(); err != nil {
			return nil, err
		}
	}
	s.world = world{broker: s.cluster.Addr(), cluster: s.cluster.ClusterID(), dsn: "http://" + addr[clickhouse] + "/lethe", api: "http://" + addr["api"]}
	common, err := s.settings()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	add := func(name string, l life) {
		s.processes = append(s.processes, &process{name: name, life: l, failed: failed})
	}
	run := func(name, path string, args []string, env ...string) {
		add(name, &program{path: path, args: args, env: env, log: filepath.Join(dir, name+".log")})
	}
	ours := func(name, program string, env ...string) {
		s.ready[name] = addr[name]
		run(name, filepath.Join(o.bin, program), nil, append(append([]string{"METRICS_ADDR=" + addr[name]}, common...), env...)...)
	}
	add(kafka, broker{s.cluster.Nodes[0]})
	run(clickhouse, filepath.Join(o.bin, "standalone"), []string{"-only", "clickhouse"},
		"DATA_DIR="+filepath.Join(dir, "data"), "CLICKHOUSE_ADDR="+addr[clickhouse], "METRICS_ADDR=127.0.0.1:0")
	// One keeps the settings that decide about memory; the other has batches so
	// small that a fault finds one half done.
	ours(ingest1, "ingest")
	ours(ingest2, "ingest", "BATCH_ROWS=500", "BATCH_AGE=200ms")
	run(publishing, self, []string{
		"-publish", s.world.broker, "-journal", s.journal(), "-seed", strconv.FormatUint(g.seed, 10),
		"-begin", strconv.FormatInt(g.begin.UnixMilli(), 10), "-rate", strconv.Itoa(o.rate),
	})
	ours(querying, "query", "HTTP_ADDR="+addr["api"])
	s.process(kafka).watch()
	return s, nil
}

// settings makes the files of the services and returns their common settings.
func (s *stack) settings() ([]string, error) {
	cache, err := embedded.CacheDir()
	if err != nil {
		return nil, err
	}
	var sum string
	s.token, sum = query.NewToken()
	tokens := filepath.Join(s.dir, "tokens.yaml")
	if err := os.WriteFile(tokens, []byte("tokens:\n  - {name: storm, role: officer, sha256: "+sum+"}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write tokens: %w", err)
	}
	policy, err := filepath.Abs(policyFile)
	if err != nil {
		return nil, err
	}
	var key [32]byte
	rand.Read(key[:])
	return []string{
		"KAFKA_BROKERS=" + s.world.broker, "CLICKHOUSE_DSN=" + s.world.dsn, "POLICY_FILE=" + policy,
		"GEOIP_DB=" + filepath.Join(cache, fetch.CountryFile), "SUBJECT_KEYS=storm=" + hex.EncodeToString(key[:]),
		"TOKENS_FILE=" + tokens, "KAFKA_SESSION_TIMEOUT=" + sessionTimeout.String(), "STOP_TIMEOUT=10s", "LOG_FORMAT=text",
	}, nil
}

func (s *stack) journal() string { return filepath.Join(s.dir, "journal") }

func (s *stack) process(name string) *process {
	for _, p := range s.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

// awaitReady waits until /readyz of a service says so.
func (s *stack) awaitReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpIn)
	defer cancel()
	for {
		text, err := readyz(ctx, s.ready[name])
		if err == nil {
			return nil
		}
		if pause(ctx, time.Second); ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w", name, errors.Join(context.Cause(ctx), err, errors.New(text)))
		}
	}
}

func readyz(ctx context.Context, addr string) (text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// keepOutput copies what Kafka wrote to the logs.
func (s *stack) keepOutput() {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(s.cluster.Nodes[0].DataDir()), "output"))
	if err == nil {
		_ = os.WriteFile(filepath.Join(s.dir, kafka+".log"), text, 0o600)
	}
}

// end kills what still runs.
func (s *stack) end() {
	for _, p := range s.processes {
		if p.asked != nil {
			p.kill()
		}
	}
	s.cluster.End()
}

// freeAddr returns a loopback address that nobody listens on. It lies below the
// ports that the system gives to connections: one of those could be taken while
// a process is down for minutes.
func freeAddr() (string, error) {
	for range 1000 {
		var b [2]byte
		rand.Read(b[:])
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+(int(b[0])<<8|int(b[1]))%20_000)
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("find a free port: none")
}
