package service

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/query"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/schemas"
)

// QueryParts are what the query service's readiness depends on.
var QueryParts = []string{"api"}

// Query starts the query service in d. It waits for ClickHouse and returns once
// it listens.
func Query(ctx context.Context, d *daemon.Daemon, cfg config.Query, log *slog.Logger) error {
	p, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return err
	}
	keys, err := redact.ParseKeys(string(cfg.SubjectKeys))
	if err != nil {
		return fmt.Errorf("SUBJECT_KEYS: %w", err)
	}
	// Query services with the same subject keys understand each other's cursors.
	secret, err := hkdf.Key(sha256.New, []byte(cfg.SubjectKeys), nil, "lethe query cursors", 32)
	if err != nil {
		return fmt.Errorf("derive cursor key: %w", err)
	}
	tokens, err := query.LoadTokens(cfg.TokensFile)
	if err != nil {
		return err
	}
	d.Go("token file", time.Second, func(ctx context.Context) error { return rereadTokens(ctx, tokens, log) })
	transport, _, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return err
	}
	d.OnStop("Kafka connections of the API", time.Second, func(context.Context) error { transport.CloseIdleConnections(); return nil })
	records, err := publish.New(publish.Options{Brokers: cfg.Kafka.Brokers, Transport: transport})
	if err != nil {
		return err
	}
	d.OnStop("consultation records", 5*time.Second, func(context.Context) error { return records.Close() })

	var db *store.Store
	if err := await(ctx, d.Health(), "api", "open the database", func(ctx context.Context) (err error) {
		db, err = store.Open(ctx, store.Options{DSN: string(cfg.ClickHouse.DSN), LedgerAge: 10 * time.Second})
		return err
	}); err != nil {
		return err
	}
	d.OnStop("database connections of the API", 5*time.Second, func(context.Context) error { return db.Close() })

	var topics []budget.Topic
	if cfg.TopicBudget != budget.Off {
		asking, cancel := context.WithTimeout(ctx, settingsTimeout)
		topics, err = budget.Read(asking, cfg.Kafka.Brokers, transport, cfg.Kafka.TopicRequest, cfg.Kafka.TopicAudit, cfg.Kafka.TopicSecurity, cfg.Kafka.TopicDead)
		cancel()
		if err != nil {
			log.Warn("exports will say that the greatest age of data in topics is unknown", "error", err)
		}
	}
	topicAge, deadAge := topicAges(cfg.Kafka, topics)
	server, err := query.New(query.Options{
		Rows: db, Facts: db, Audit: auditor{records, cfg.Kafka.TopicAudit},
		Policy: p, Keys: keys, Tokens: tokens, Secret: secret,
		OpenAPI: schemas.OpenAPI, TopicAge: topicAge, DeadLetterAge: deadAge,
		Log: log, Metrics: d.Metrics(), Addr: cfg.HTTPAddr, TLSCert: cfg.TLSCert, TLSKey: cfg.TLSKey,
		StopTimeout: cfg.StopTimeout,
	})
	if err != nil {
		return err
	}
	if err := server.Listen(); err != nil {
		return err
	}
	d.Go("API", cfg.StopTimeout+2*time.Second, server.Run)
	d.Health().Report("api", daemon.Ready, "")
	return nil
}

// rereadTokens reads the token file again on SIGHUP, so that a token can be
// revoked without a restart. A broken file changes nothing.
func rereadTokens(ctx context.Context, tokens *query.Tokens, log *slog.Logger) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			if err := tokens.Reload(); err != nil {
				log.Error("the token file was not read again", "error", err)
				continue
			}
			log.Info("the token file was read again")
		case <-ctx.Done():
			return nil
		}
	}
}

// auditor publishes consultation records as audit events.
type auditor struct {
	publisher *publish.Publisher
	topic     string
}

func (a auditor) Record(ctx context.Context, organization string, events ...[]byte) error {
	msgs := make([]publish.Message, len(events))
	for i, e := range events {
		msgs[i] = publish.Message{Topic: a.topic, Key: organization, Value: e}
	}
	return a.publisher.Publish(ctx, msgs...)
}
