package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
)

// naiveEvent is what a first version of an ingester would decode into.
type naiveEvent struct {
	ID     string    `json:"id"`
	Source string    `json:"source"`
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	Data   struct {
		Method       string  `json:"http.request.method"`
		Route        string  `json:"http.route"`
		Path         string  `json:"url.path"`
		Status       uint16  `json:"http.response.status_code"`
		Duration     float64 `json:"http.server.request.duration"`
		Client       string  `json:"client.address"`
		Agent        string  `json:"user_agent.original"`
		User         string  `json:"user.id"`
		Session      string  `json:"session.id"`
		Organization string  `json:"organization.id"`
		Service      string  `json:"service.name"`
		Trace        string  `json:"trace_id"`
		Tier         string  `json:"plan.tier"`
	} `json:"data"`
}

const naiveTable = `CREATE TABLE IF NOT EXISTS naive_events (
	id String, source LowCardinality(String), type LowCardinality(String), time DateTime64(3),
	method LowCardinality(String), route LowCardinality(String), path String, status UInt16, duration Float64,
	client String, agent String, user String, session String, organization LowCardinality(String),
	service LowCardinality(String), trace String, tier LowCardinality(String)
) ENGINE = MergeTree PARTITION BY toYYYYMM(time) ORDER BY (organization, user, time)`

// naive is the loop that the ingester is compared with: kafka-go's Reader,
// encoding/json and a row at a time into clickhouse-go's batch. It redacts
// nothing, classifies nothing and accounts for nothing.
func naive(ctx context.Context, broker, dsn string, events int) error {
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		return err
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Exec(ctx, naiveTable); err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{broker}, Topic: topic, GroupID: "naive-" + options.Auth.Database,
		MinBytes: 1 << 20, MaxBytes: 8 << 20, MaxWait: 100 * time.Millisecond, QueueCapacity: 1000,
	})
	defer reader.Close()
	for done := 0; done < events; {
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO naive_events")
		if err != nil {
			return fmt.Errorf("prepare batch: %w", err)
		}
		var last []kafka.Message
		for n := 0; n < 100_000 && done < events; n++ {
			m, err := reader.FetchMessage(ctx)
			if err != nil {
				return fmt.Errorf("fetch: %w", err)
			}
			var e naiveEvent
			if err := json.Unmarshal(m.Value, &e); err != nil {
				return fmt.Errorf("decode: %w", err)
			}
			d := e.Data
			if err := batch.Append(e.ID, e.Source, e.Type, e.Time, d.Method, d.Route, d.Path, d.Status, d.Duration,
				d.Client, d.Agent, d.User, d.Session, d.Organization, d.Service, d.Trace, d.Tier); err != nil {
				return fmt.Errorf("append: %w", err)
			}
			m.Value = nil
			last = append(last, m)
			done++
		}
		if err := batch.Send(); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := reader.CommitMessages(ctx, last...); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	return nil
}
