package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
)

// stack is the broker and the engine, in a process of their own.
type stack struct {
	bin, dir          string
	kafka, clickhouse string // host:port
	proc              *exec.Cmd
}

func startStack(ctx context.Context, bin, dir string) (*stack, error) {
	s := &stack{bin: bin, dir: dir}
	for _, addr := range []*string{&s.kafka, &s.clickhouse} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*addr = l.Addr().String()
		l.Close()
	}
	s.proc = exec.CommandContext(ctx, filepath.Join(bin, "standalone"), "-only", "kafka,clickhouse")
	s.proc.Env = append(os.Environ(), "DATA_DIR="+filepath.Join(dir, "data"), "KAFKA_ADDR="+s.kafka, "CLICKHOUSE_ADDR="+s.clickhouse)
	s.proc.Stderr = os.Stderr
	out, err := s.proc.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.proc.Start(); err != nil {
		return nil, fmt.Errorf("start the embedded stack: %w", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return s, nil
		}
	}
	return nil, errors.Join(errors.New("the embedded stack ended before it was ready"), s.proc.Wait())
}

func (s *stack) stop() {
	_ = s.proc.Process.Signal(syscall.SIGTERM)
	_ = s.proc.Wait()
}

// publish writes n generated events over the partitions and returns their bytes.
func publish(ctx context.Context, broker string, n int) (bytes int64, err error) {
	conn, err := kafka.DialContext(ctx, "tcp", broker)
	if err != nil {
		return 0, err
	}
	err = conn.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1})
	conn.Close()
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return 0, err
	}
	w := &kafka.Writer{
		Addr: kafka.TCP(broker), Topic: topic, Balancer: &kafka.RoundRobin{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 5000, BatchBytes: 4 << 20, BatchTimeout: 10 * time.Millisecond, Compression: kafka.Lz4,
	}
	defer w.Close()
	now := time.Now().UTC()
	g := newGenerator(1, time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC))
	batch := make([]kafka.Message, 0, 20_000)
	for i := range n {
		value := g.next()
		bytes += int64(len(value))
		batch = append(batch, kafka.Message{Value: append([]byte(nil), value...)})
		if len(batch) == cap(batch) || i == n-1 {
			if err := w.WriteMessages(ctx, batch...); err != nil {
				return bytes, err
			}
			batch = batch[:0]
		}
	}
	return bytes, nil
}

// ingest runs the ingester over the topic into a database of its own.
func (s *stack) ingest(ctx context.Context, run, events int) (measure, error) {
	database := fmt.Sprintf("lethe_%d", run)
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "ingest"))
	cmd.Env = append(os.Environ(),
		"KAFKA_BROKERS="+s.kafka, "KAFKA_GROUP="+database, "KAFKA_TOPIC_BUDGET=off",
		"CLICKHOUSE_DSN=http://"+s.clickhouse+"/"+database,
		"POLICY_FILE="+env("POLICY_FILE", "schemas/policies/bstrapr.yaml"),
		"GEOIP_DB="+env("GEOIP_DB", ".cache/country.mmdb"),
		"SUBJECT_KEYS=bench="+hex.EncodeToString([]byte("a key that is for the bench only")),
		"METRICS_ADDR=127.0.0.1:0", "LOG_LEVEL=warn")
	return s.measure(ctx, cmd, database+".request_events", events, true)
}

// naive runs the naive loop over the topic into a database of its own.
func (s *stack) naive(ctx context.Context, run, events int) (measure, error) {
	database := fmt.Sprintf("naive_%d", run)
	if _, err := s.query(ctx, "CREATE DATABASE "+database); err != nil {
		return measure{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return measure{}, err
	}
	cmd := exec.CommandContext(ctx, self, "-naive", "-broker", s.kafka, "-dsn", "http://"+s.clickhouse+"/"+database, "-events", strconv.Itoa(events))
	return s.measure(ctx, cmd, database+".naive_events", events, false)
}

// measure starts cmd, waits until the table holds every event, asks an endless
// cmd to stop, and returns what the process has used by its end.
func (s *stack) measure(ctx context.Context, cmd *exec.Cmd, table string, events int, endless bool) (measure, error) {
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return measure{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	count := "SELECT sum(rows) FROM system.parts WHERE active AND database || '.' || table = '" + table + "'"
	asked := false
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		select {
		case err := <-ended:
			if err != nil {
				return measure{}, err
			}
			usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				return measure{}, errors.New("this system does not report what a process used")
			}
			return measure{
				wall: time.Since(began), events: events, peak: uint64(usage.Maxrss) << 10,
				cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
			}, nil
		default:
		}
		answer, err := s.query(ctx, count)
		if err != nil {
			return measure{}, err
		}
		rows, _ := strconv.Atoi(answer)
		if endless && !asked && rows >= events {
			_ = cmd.Process.Signal(syscall.SIGTERM) // a clean stop is part of the cost
			asked = true
		}
		if time.Since(began) > 10*time.Minute {
			_ = cmd.Process.Kill()
			return measure{}, fmt.Errorf("only %d of %d rows after ten minutes", rows, events)
		}
	}
}

// query asks the engine and returns its answer without the line end.
func (s *stack) query(ctx context.Context, sql string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.clickhouse+"/?"+url.Values{"query": {sql}}.Encode(), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return strings.TrimSpace(string(body)), nil
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
