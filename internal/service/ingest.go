package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/geo"
	"github.com/lethe-audit/lethe/internal/ingest"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
)

// IngestParts are what the ingester's readiness depends on.
var IngestParts = ingest.Parts

// reloadEvery is how often the country database's file is looked at.
const reloadEvery = time.Minute

// lookEvery is how often the settings of topics are looked at.
const lookEvery = 5 * time.Minute

// Ingest starts the ingester in d. It waits for ClickHouse and returns once the
// consumer runs.
func Ingest(ctx context.Context, d *daemon.Daemon, cfg config.Ingest, log *slog.Logger) error {
	r, err := loadRoute(cfg)
	if err != nil {
		return err
	}
	if cfg.SweepEvery >= r.policy.Grace {
		return fmt.Errorf("SWEEP_EVERY: %s is not shorter than the policy's grace, %s", cfg.SweepEvery, r.policy.Grace)
	}
	tellTenants(log, cfg.Tenants, r.elsewhere)
	roots, err := authorities(cfg.ClickHouse)
	if err != nil {
		return err
	}
	transport, dialer, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return err
	}
	d.OnStop("Kafka connections", time.Second, func(context.Context) error { transport.CloseIdleConnections(); return nil })
	d.Go("country database", time.Second, func(ctx context.Context) error {
		r.countries.Watch(ctx, reloadEvery, func(err error) {
			if err != nil {
				log.Error("a new country database was not taken into use", "error", err)
				return
			}
			log.Info("a new country database is in use", "built", r.countries.Built())
		})
		return nil
	})

	var db *store.Store
	if err := await(ctx, d.Health(), "clickhouse", "prepare the database", func(ctx context.Context) (err error) {
		if err = migrate.Apply(ctx, migrate.Options{DSN: string(cfg.ClickHouse.DSN), Authorities: roots, Policy: r.policy, Shortens: cfg.PolicyShortens}); err != nil {
			return store.Diagnose("migrate", err)
		}
		db, err = store.Open(ctx, store.Options{DSN: string(cfg.ClickHouse.DSN), Authorities: roots})
		return err
	}); err != nil {
		return err
	}
	d.OnStop("database connections", 5*time.Second, func(context.Context) error { return db.Close() })

	topics, err := budget.New(budget.Options{
		Brokers: cfg.Kafka.Brokers, Transport: transport, Bounds: bounds(r.policy, cfg.Kafka), Mode: cfg.TopicBudget, Metrics: d.Metrics(), Log: log,
	})
	if err != nil {
		return err
	}
	if err := await(ctx, d.Health(), "kafka", "hold the topics against the policy", func(ctx context.Context) error {
		return publish.Diagnose(topics.Enforce(ctx))
	}); err != nil {
		return err
	}
	d.Go("topic budget", time.Second, func(ctx context.Context) error { topics.Watch(ctx, lookEvery); return nil })

	keeper, err := retention.NewKeeper(retention.Options{
		Storage: facts{db}, Policy: r.policy, Hash: r.keys.Fingerprints, HashOnce: r.keys.FingerprintsOnce, Now: time.Now, Every: cfg.SweepEvery, Metrics: d.Metrics(), Log: log,
	})
	if err != nil {
		return err
	}
	if err := await(ctx, d.Health(), "clickhouse", "read what was erased, deleted and held", keeper.Load); err != nil {
		return err
	}
	d.Go("retention", 5*time.Second, keeper.Run)
	watchdog, err := newWatchdog(r.policy, db, cfg, func(ctx context.Context) ([]budget.Topic, error) {
		return budget.Read(ctx, cfg.Kafka.Brokers, transport, topicNames(cfg.Kafka)...)
	}, d.Metrics(), log)
	if err != nil {
		return err
	}
	d.Go("watchdog of retention", time.Second, func(ctx context.Context) error { watchdog.Run(ctx); return nil })

	dead, err := publish.New(publish.Options{Brokers: cfg.Kafka.Brokers, Transport: transport})
	if err != nil {
		return err
	}
	d.OnStop("dead letters", 5*time.Second, func(context.Context) error { return dead.Close() })

	in, err := ingest.New(r.options(cfg, ingest.Options{
		Transport: transport, Dialer: dialer, Dead: dead, Storage: storage{db}, Known: keeper,
		Health: d.Health(), Metrics: d.Metrics(), Log: log,
	}))
	if err != nil {
		return err
	}
	// Run bounds its own stop; this limit is only for one that ignores it.
	d.Go("ingester", cfg.StopTimeout+2*time.Second, in.Run)
	return nil
}

// route is what decides about events on their way.
type route struct {
	policy    *policy.Policy
	keys      *redact.Keys
	countries *geo.DB
	elsewhere map[string]bool // organizations
}

// options adds to an ingester's options what the settings and the route decide.
func (r route) options(cfg config.Ingest, o ingest.Options) ingest.Options {
	o.Brokers, o.Group = cfg.Kafka.Brokers, cfg.Group
	o.Topics = [event.NumKinds]string{
		event.Request: cfg.Kafka.TopicRequest, event.Audit: cfg.Kafka.TopicAudit, event.Security: cfg.Kafka.TopicSecurity,
	}
	o.DeadTopic, o.Digest = cfg.Kafka.TopicDead, r.keys.Digest
	o.Policy, o.PolicyVersion, o.Elsewhere = r.policy, r.policy.Version, r.elsewhere
	o.NewRedactor = func() (ingest.Redactor, error) {
		return redact.New(redact.Options{Keys: r.keys, Countries: r.countries, PolicyVersion: r.policy.Version})
	}
	o.BatchRows, o.BatchBytes, o.BatchAge, o.FetchBytes = cfg.BatchRows, int(cfg.BatchBytes), cfg.BatchAge, int(cfg.FetchBytes)
	o.SessionTimeout, o.StopTimeout = cfg.SessionTimeout, cfg.StopTimeout
	return o
}

// loadRoute reads what decides about events.
func loadRoute(cfg config.Ingest) (r route, err error) {
	if r.policy, err = policy.Load(cfg.PolicyFile); err != nil {
		return r, err
	}
	if err = errors.Join(checkRegions(r.policy, cfg.Regions), checkTenants(r.policy, cfg.Regions, cfg.Tenants)); err != nil {
		return r, err
	}
	r.elsewhere = elsewhere(cfg.Regions, cfg.Tenants)
	if r.keys, err = redact.ParseKeys(string(cfg.SubjectKeys)); err != nil {
		return r, fmt.Errorf("SUBJECT_KEYS: %w", err)
	}
	r.countries, err = geo.Open(cfg.GeoIPDB)
	return r, err
}

// facts gives retention what the database knows.
type facts struct{ *store.Store }

func (f facts) Promises(ctx context.Context) ([]policy.StoredClass, error) {
	return registeredClasses(ctx, f.Store)
}

// storage gives the ingester its batches in the store's own type.
type storage struct{ *store.Store }

func (s storage) NewBatch() ingest.Batch { return s.Store.NewBatch() }

func (s storage) Insert(ctx context.Context, b ingest.Batch, token string) error {
	batch, ok := b.(*store.Batch)
	if !ok {
		return fmt.Errorf("insert batch: %T is not one of this store", b)
	}
	return s.Store.Insert(ctx, batch, token)
}

func (s storage) InsertRows(ctx context.Context, b ingest.Batch, part, from, to int, token string) error {
	batch, ok := b.(*store.Batch)
	if !ok {
		return fmt.Errorf("insert rows: %T is not one of this store", b)
	}
	return s.Store.InsertRows(ctx, batch, part, from, to, token)
}
