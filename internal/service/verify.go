package service

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/ingest"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/internal/verify"
)

// Verify proves the ledger of the ingester that runs with these settings and
// prints the report. It returns whether nothing was found. A run that is not full
// takes the word of stamps, but for those that the seed chooses.
func Verify(ctx context.Context, cfg config.Ingest, full bool, seed uint64, out io.Writer) (ok bool, err error) {
	p, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return false, err
	}
	db, err := open(ctx, cfg.ClickHouse)
	if err != nil {
		return false, err
	}
	defer db.Close()
	report, err := verifyLedger(ctx, cfg, p, db, full, seed)
	if err != nil {
		return false, err
	}
	return report.OK(), report.Print(out)
}

// verifyLedger holds the ledger against Kafka and the rows.
func verifyLedger(ctx context.Context, cfg config.Ingest, p *policy.Policy, db *store.Store, full bool, seed uint64) (*verify.Report, error) {
	survey, end, err := survey(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer end()
	classes, err := registeredClasses(ctx, db)
	if err != nil {
		return nil, err
	}
	periods := make(map[string]kept, len(classes))
	for _, c := range classes {
		periods[c.Key] = kept{c.Period, c.Promised, c.ShortenedAt}
	}
	report, err := verify.Run(ctx, verify.Options{
		Ledger: db, Moves: db, Rows: db, Stamps: db, Kafka: survey, Grace: p.Grace, Now: time.Now, Full: full, Seed: seed,
		Period: func(class string) verify.Period {
			if k, ok := periods[class]; ok {
				return k
			}
			return policy.Period{Sentinel: true} // as the tables' own expiry has it
		},
		Since: func(class string) time.Time { return periods[class].since },
	})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return report, nil
}

// kept is how long rows of a class are kept: until what holds of the class now, in
// the buckets of its own promise.
type kept struct {
	holds, promised policy.Period
	since           time.Time
}

// End is when what is retained from an instant expires.
func (k kept) End(from time.Time) time.Time { return k.holds.End(from) }

// Bucket is the first day of the bucket that holds it.
func (k kept) Bucket(from time.Time) int32 { return k.promised.Bucket(from) }

// survey looks at the topics and the group of these settings. The caller calls end.
func survey(ctx context.Context, cfg config.Ingest) (s *ingest.Survey, end func(), err error) {
	transport, _, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return nil, nil, err
	}
	s, err = ingest.NewSurvey(ctx, ingest.SurveyOptions{
		Brokers: cfg.Kafka.Brokers, Transport: transport, Group: cfg.Group, DeadTopic: cfg.Kafka.TopicDead,
		Topics: eventTopics(cfg.Kafka),
	})
	if err != nil {
		transport.CloseIdleConnections()
		return nil, nil, publish.Diagnose(err)
	}
	return s, transport.CloseIdleConnections, nil
}

// open opens the database of these settings.
func open(ctx context.Context, c config.ClickHouse) (*store.Store, error) {
	roots, err := authorities(c)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Options{DSN: string(c.DSN), Authorities: roots})
}

// NewEpoch begins a new epoch of a topic in the ledger.
func NewEpoch(ctx context.Context, cfg config.Ingest, topic string, out io.Writer) error {
	survey, end, err := survey(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	db, err := open(ctx, cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer db.Close()
	ends, err := db.LedgerEnds(ctx, survey.Cluster())
	if err != nil {
		return err
	}
	entries, err := survey.NewEpoch(ctx, topic, ends, time.Now().UTC())
	if err != nil {
		return err
	}
	if err := db.WriteLedger(ctx, entries); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s begins epoch %d: %d partitions are read from the start of their logs\n", topic, entries[0].Epoch, len(entries))
	return err
}
