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
	"github.com/lethe-audit/lethe/internal/certs"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ingest"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/query"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/schemas"
)

// QueryParts are what the query service's readiness depends on.
var QueryParts = []string{"api", partRecords, partComplete}

// partRecords is whether consultation records can be written: without them
// nothing is answered.
const partRecords = "records"

// checkTimeout bounds one question whether they can be.
const checkTimeout = 10 * time.Second

// Query starts the query service in d. It waits for ClickHouse and returns once
// it listens.
func Query(ctx context.Context, d *daemon.Daemon, cfg config.Query, log *slog.Logger) error {
	p, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return err
	}
	if err := checkRegions(p, cfg.Regions); err != nil {
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
	var certificate *certs.Pair
	if cfg.TLSCert != "" {
		certificate, err = certs.LoadPair(certs.File{Setting: "HTTP_TLS_CERT", Path: cfg.TLSCert}, certs.File{Setting: "HTTP_TLS_KEY", Path: cfg.TLSKey})
		if err != nil {
			return err
		}
		warnInvalid(certificate, log)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	d.Go("token file", time.Second, func(ctx context.Context) error {
		defer signal.Stop(hangup)
		reread(ctx, hangup, tokens, certificate, log)
		return nil
	})
	roots, err := authorities(cfg.ClickHouse)
	if err != nil {
		return err
	}
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
		db, err = store.Open(ctx, store.Options{DSN: string(cfg.ClickHouse.DSN), Authorities: roots, LedgerAge: 10 * time.Second})
		return err
	}); err != nil {
		return err
	}
	d.OnStop("database connections of the API", 5*time.Second, func(context.Context) error { return db.Close() })

	var topics []budget.Topic
	if cfg.TopicBudget != budget.Off {
		asking, cancel := context.WithTimeout(ctx, settingsTimeout)
		topics, err = budget.Read(asking, cfg.Kafka.Brokers, transport, topicNames(cfg.Kafka)...)
		cancel()
		if err != nil {
			log.Warn("exports will say that the greatest age of data in topics is unknown", "error", publish.Diagnose(err))
		}
	}
	topicAge, deadAge := topicAges(cfg.Kafka, topics)
	failed := make(chan struct{}, 1)
	d.Go("watch of consultation records", time.Second, func(ctx context.Context) error {
		watchRecords(ctx, d.Health(), records, cfg.Kafka.TopicAudit, failed)
		return nil
	})
	whole := &completeness{health: d.Health(), log: log, behind: func(ctx context.Context) ([]ledger.Partition, error) {
		s, err := ingest.NewSurvey(ctx, ingest.SurveyOptions{
			Brokers: cfg.Kafka.Brokers, Transport: transport, Group: cfg.Group, DeadTopic: cfg.Kafka.TopicDead, Topics: eventTopics(cfg.Kafka),
		})
		if err != nil {
			return nil, err
		}
		return s.Behind(ctx, db.LedgerEnds)
	}}
	whole.look(ctx)
	d.Go("watch of completeness", time.Second, func(ctx context.Context) error { whole.watch(ctx); return nil })
	prover, err := newDocuments(p, db, cfg, func(ctx context.Context) ([]budget.Topic, error) {
		return budget.Read(ctx, cfg.Kafka.Brokers, transport, topicNames(cfg.Kafka)...)
	})
	if err != nil {
		return err
	}
	server, err := query.New(query.Options{
		Rows: db, Facts: db, Requests: db, Book: retention.NewBook(facts{db}, p, keys.Fingerprints), Prover: prover, Complete: whole.complete.Load, Audit: auditor{records, cfg.Kafka.TopicAudit, failed},
		Policy: p, Keys: keys, Tokens: tokens, Secret: secret,
		OpenAPI: schemas.OpenAPI, TopicAge: topicAge, DeadLetterAge: deadAge,
		Log: log, Metrics: d.Metrics(), Addr: cfg.HTTPAddr, Certificate: certificate,
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

// reread reads the token file and the certificate again on a signal, so that a
// token can be revoked and a certificate renewed without a restart. A broken file
// changes nothing. There may be no certificate.
func reread(ctx context.Context, hangup <-chan os.Signal, tokens *query.Tokens, certificate *certs.Pair, log *slog.Logger) {
	for {
		select {
		case <-hangup:
			if err := tokens.Reload(); err != nil {
				log.Error("the token file was not read again", "error", err)
			} else {
				log.Info("the token file was read again")
			}
			if certificate == nil {
				continue
			}
			if err := certificate.Reload(); err != nil {
				log.Error("the certificate was not read again", "error", err)
				continue
			}
			log.Info("the certificate was read again")
			warnInvalid(certificate, log)
		case <-ctx.Done():
			return
		}
	}
}

// warnInvalid tells of a certificate that clients will refuse. It is served all
// the same: a new one can come at any time, with SIGHUP.
func warnInvalid(c *certs.Pair, log *slog.Logger) {
	if err := c.Valid(time.Now()); err != nil {
		log.Error("clients will refuse the API's certificate; SIGHUP reads a new one", "error", err)
	}
}

// watchRecords reports whether consultation records can be written. After one
// that could not, it asks the brokers until they answer.
func watchRecords(ctx context.Context, h *daemon.Health, p *publish.Publisher, topic string, failed <-chan struct{}) {
	for {
		err := await(ctx, h, partRecords, "nothing is answered that cannot be recorded", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			return p.Check(ctx, topic)
		})
		if err != nil {
			return // ctx is over
		}
		h.Report(partRecords, daemon.Ready, "")
		select {
		case <-failed:
		case <-ctx.Done():
			return
		}
	}
}

// auditor publishes consultation records as audit events.
type auditor struct {
	publisher *publish.Publisher
	topic     string
	failed    chan<- struct{} // has room for one
}

func (a auditor) Record(ctx context.Context, organization string, events ...[]byte) error {
	msgs := make([]publish.Message, len(events))
	for i, e := range events {
		msgs[i] = publish.Message{Topic: a.topic, Key: organization, Value: e}
	}
	err := a.publisher.Publish(ctx, msgs...)
	if err != nil {
		select {
		case a.failed <- struct{}{}:
		default: // it is known already
		}
	}
	return err
}
