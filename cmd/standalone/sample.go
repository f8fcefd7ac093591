package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/publish/feed"
	"github.com/lethe-audit/lethe/internal/store"
)

// bundled is the sample: one file of each kind of event.
//
//go:embed sample/access.log sample/audit.ndjson sample/security.ndjson
var bundled embed.FS

// load is one file to publish. A second start continues where the first one
// stopped, so that nothing is published twice.
type load struct {
	file   string
	kind   event.Kind
	format feed.Format
	state  string
}

// loads lists what this start publishes: the user's access log, or the bundled
// sample, unpacked into the data folder.
func (s *stack) loads() ([]load, error) {
	dir := s.files.sample()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if s.cfg.AccessLog != "" {
		file, err := filepath.Abs(s.cfg.AccessLog)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("LOG: %w", err)
		}
		return []load{{file, event.Request, feed.AccessLog, filepath.Join(dir, "log.state")}}, nil
	}
	list := []load{
		{"access.log", event.Request, feed.AccessLog, "access.state"},
		{"audit.ndjson", event.Audit, feed.Events, "audit.state"},
		{"security.ndjson", event.Security, feed.Events, "security.state"},
	}
	for i := range list {
		text, err := fs.ReadFile(bundled, "sample/"+list[i].file)
		if err != nil {
			return nil, err
		}
		list[i].file = filepath.Join(dir, list[i].file)
		list[i].state = filepath.Join(dir, list[i].state)
		if err := os.WriteFile(list[i].file, text, 0o600); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// sample publishes, waits until the last event can be queried, and says what to
// open. It ends with the word "ready" on a line of its own.
func (s *stack) sample(ctx context.Context) error {
	cfg, err := config.LoadPublish(s.environ)
	if err != nil {
		return err
	}
	list, err := s.loads()
	if err != nil {
		return fmt.Errorf("load sample: %w", err)
	}
	transport, _, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	p, err := publish.New(publish.Options{Brokers: cfg.Kafka.Brokers, Transport: transport, Batch: 2000})
	if err != nil {
		return err
	}
	for _, l := range list {
		if err := s.publish(ctx, p, cfg.Kafka, l); err != nil {
			return errors.Join(fmt.Errorf("load sample: %w", err), p.Close())
		}
	}
	if err := p.Close(); err != nil {
		return err
	}
	db, err := store.Open(ctx, store.Options{DSN: "http://" + s.cfg.ClickHouseAddr + "/lethe"})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := s.awaitComplete(ctx, db, time.Now()); err != nil {
		return err
	}
	return s.welcome(ctx, db)
}

// publish sends one file, with its times moved so that the newest event is of
// now: an old log would have expired before it arrived.
func (s *stack) publish(ctx context.Context, p *publish.Publisher, cfg config.Kafka, l load) error {
	told := time.Now()
	f, err := feed.New(feed.Options{
		Publisher: p,
		Topics:    [event.NumKinds]string{event.Request: cfg.TopicRequest, event.Audit: cfg.TopicAudit, event.Security: cfg.TopicSecurity},
		Kind:      l.kind, HasKind: true, Format: l.format,
		Source: "/sample/" + l.kind.String(), Service: "web",
		ShiftTo: "now", StatePath: l.state, Resume: true,
		Patience: 30 * time.Second, Now: time.Now,
		Progress: func(at feed.Progress) {
			if time.Since(told) > 2*time.Second {
				told = time.Now()
				s.say("             %s: %d events so far", filepath.Base(l.file), at.Counts.Published)
			}
		},
	})
	if err != nil {
		return err
	}
	at, err := f.Run(ctx, l.file)
	if err != nil {
		return err
	}
	c := at.Counts
	switch {
	case c.Published == 0 && c.Refused == 0:
		s.say("%-12s %s: published before, nothing new", l.kind, filepath.Base(l.file))
	case c.Refused > 0:
		s.say("%-12s %s: %d events published, %d lines were no events", l.kind, filepath.Base(l.file), c.Published, c.Refused)
	default:
		s.say("%-12s %s: %d events published", l.kind, filepath.Base(l.file), c.Published)
	}
	return nil
}

// awaitComplete waits until everything that Kafka had at the instant has an
// outcome, which the ingester writes down every few seconds.
func (s *stack) awaitComplete(ctx context.Context, db *store.Store, at time.Time) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		h, err := db.Horizon(ctx)
		if err != nil {
			return fmt.Errorf("wait for the sample: %w", err)
		}
		if !h.CompleteUntil.Before(at) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// welcome says what is there and what to open.
func (s *stack) welcome(ctx context.Context, db *store.Store) error {
	facts, err := db.ClassFacts(ctx, time.Now())
	if err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	rows := map[string]uint64{}
	for _, f := range facts {
		rows[f.Table] += f.Rows
	}
	api, token := "http://"+s.cfg.HTTPAddr, s.files.token()
	value, err := os.ReadFile(token)
	if err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	s.say("")
	for _, k := range event.Kinds {
		s.say("  %-24s %d rows", k.Table(), rows[k.Table()])
	}
	s.say("")
	s.say("  API                      %s/", api)
	s.say("  what is kept how long    %s/v1/retention", api)
	s.say("  metrics                  http://%s/metrics", s.daemon.OpsAddr())
	s.say("  Kafka                    %s", s.cfg.KafkaAddr)
	s.say("  ClickHouse               http://%s/?database=lethe", s.cfg.ClickHouseAddr)
	s.say("  token (role officer)     %s", strings.TrimSpace(string(value)))
	s.say("  the token's file         %s", token)
	s.say("  logs                     %s", s.files.logs())
	s.say("")
	s.say("Try, in another terminal:")
	s.say("")
	auth := fmt.Sprintf(`-H "Authorization: Bearer $(cat %s)"`, token)
	s.say(`  curl -s %s '%s/v1/events?limit=3'`, auth, api)
	s.say(`  curl -s %s '%s/v1/retention'`, auth, api)
	s.say(`  curl -s %s -H 'Lethe-Purpose: %s' -H 'Lethe-Identity-Verified: in person' -o export.zip '%s/v1/subjects/%s/export'`, auth, "access_request", api, "user:u_1")
	s.say("")
	s.say("ready")
	return nil
}
