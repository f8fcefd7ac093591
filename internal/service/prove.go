package service

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/budget"
	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/proof"
	"github.com/lethe-audit/lethe/internal/publish"
	"github.com/lethe-audit/lethe/internal/store"
	"github.com/lethe-audit/lethe/internal/verify"
)

// ProveOptions say what a proof is made of and where it goes.
type ProveOptions struct {
	Full bool // verify every bucket, whatever was verified before
	Seed uint64
	// Document is the file that the JSON document is written to, its signature beside
	// it; "-" is the output, and "" is none.
	Document string
	// SignedOff is an earlier document whose mapping a person has signed off; "": none.
	SignedOff string
}

// Prove holds what is stored against the policy of the ingester that runs with these
// settings, and prints the report. It returns whether nothing is broken.
func Prove(ctx context.Context, cfg config.Ingest, o ProveOptions, out, notes io.Writer) (ok bool, err error) {
	p, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return false, err
	}
	signer, err := loadSigner(cfg.ProofKeyFile)
	if err != nil {
		return false, err
	}
	var ask proof.Ask
	if o.SignedOff != "" {
		if ask.Signed, err = signedOff(o.SignedOff); err != nil {
			return false, err
		}
	}
	db, err := open(ctx, cfg.ClickHouse)
	if err != nil {
		return false, err
	}
	defer db.Close()
	transport, _, err := publish.Connect(cfg.Kafka)
	if err != nil {
		return false, err
	}
	defer transport.CloseIdleConnections()
	prover, err := newProver(p, db, topicsOf(p, cfg.Kafka, cfg.TopicBudget, func(ctx context.Context) ([]budget.Topic, error) {
		return budget.Read(ctx, cfg.Kafka.Brokers, transport, topicNames(cfg.Kafka)...)
	}))
	if err != nil {
		return false, err
	}
	found, err := verifyLedger(ctx, cfg, p, db, o.Full, o.Seed)
	if err != nil {
		return false, err
	}
	ask.Verified = verification(found)
	report, err := prover.Prove(ctx, ask)
	if err != nil {
		return false, err
	}
	if o.Document != "-" {
		if err := report.Print(out); err != nil {
			return false, err
		}
	}
	return report.OK(), writeDocument(report, signer, o.Document, out, notes)
}

// Receipts says what expired on the days from and to, both included, and returns whether
// nothing of it is left.
func Receipts(ctx context.Context, cfg config.Ingest, from, to time.Time, document string, out, notes io.Writer) (ok bool, err error) {
	p, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return false, err
	}
	signer, err := loadSigner(cfg.ProofKeyFile)
	if err != nil {
		return false, err
	}
	db, err := open(ctx, cfg.ClickHouse)
	if err != nil {
		return false, err
	}
	defer db.Close()
	prover, err := newProver(p, db, nil)
	if err != nil {
		return false, err
	}
	receipts, err := prover.Receipts(ctx, db, from, to)
	if err != nil {
		return false, err
	}
	if document != "-" {
		if err := receipts.Print(out); err != nil {
			return false, err
		}
	}
	return receipts.OK(), writeDocument(receipts, signer, document, out, notes)
}

// signedOff reads the mapping of an earlier document.
func signedOff(file string) ([]proof.Mapping, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	earlier, err := proof.Read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return append([]proof.Mapping{}, earlier.Mapping...), nil
}

// writeDocument writes the document, where there is a file to write it to, and with a
// key its signature in a file beside it.
func writeDocument(r interface{ JSON() ([]byte, error) }, signer *proof.Signer, file string, out, notes io.Writer) error {
	if file == "" {
		return nil
	}
	document, err := r.JSON()
	if err != nil {
		return err
	}
	if file == "-" {
		if _, err := out.Write(document); err != nil {
			return err
		}
	} else if err := os.WriteFile(file, document, 0o644); err != nil {
		return err
	}
	switch {
	case signer == nil:
		_, err = fmt.Fprintln(notes, "the document is not signed: PROOF_KEY_FILE is not set")
	case file == "-":
		_, err = fmt.Fprintf(notes, "signature (Ed25519, base64): %s\n%s", base64.StdEncoding.EncodeToString(signer.Sign(document)), signer.PublicKey())
	default:
		if err := os.WriteFile(file+".sig", signer.Sign(document), 0o644); err != nil {
			return err
		}
		_, err = fmt.Fprintf(notes, "signature of %s (Ed25519) in %s.sig; the key that checks it:\n%s", file, file, signer.PublicKey())
	}
	return err
}

// newProver makes a prover of a policy and a database.
func newProver(p *policy.Policy, db *store.Store, topics func(context.Context) ([]proof.Topic, error)) (*proof.Prover, error) {
	return proof.New(proof.Options{
		Policy: p, Tables: db, Account: db, Topics: topics, MergeTimeout: migrate.MergeTimeout(p.Grace),
		Registered: func(ctx context.Context) ([]policy.StoredClass, error) { return registeredClasses(ctx, db) },
		Shortened: func(ctx context.Context) (map[string]time.Time, error) {
			classes, err := registeredClasses(ctx, db)
			since := map[string]time.Time{}
			for _, c := range classes {
				if c.ShortenedBy != "" {
					since[c.Key] = c.ShortenedAt
				}
			}
			return since, err
		},
	})
}

// newWatchdog makes the watchdog of an ingester. It looks as often as expired rows can
// wait for a merge, so that most of the grace is left when it sees that they stay.
func newWatchdog(p *policy.Policy, db *store.Store, cfg config.Ingest, topics func(context.Context) ([]budget.Topic, error), metrics prometheus.Registerer, log *slog.Logger) (*proof.Watchdog, error) {
	prover, err := newProver(p, db, topicsOf(p, cfg.Kafka, cfg.TopicBudget, topics))
	if err != nil {
		return nil, err
	}
	return proof.NewWatchdog(proof.WatchdogOptions{
		Prover: prover, Every: time.Duration(migrate.MergeTimeout(p.Grace)) * time.Second, Metrics: metrics, Log: log,
	})
}

// topicsOf tells a proof what read says of the topics; nil where nobody may look at them.
func topicsOf(p *policy.Policy, c config.Kafka, mode string, read func(context.Context) ([]budget.Topic, error)) func(context.Context) ([]proof.Topic, error) {
	if mode == budget.Off {
		return nil
	}
	kinds := map[string]event.KindSet{c.TopicDead: event.AllKinds, c.TopicRequest: 1 << event.Request, c.TopicAudit: 1 << event.Audit, c.TopicSecurity: 1 << event.Security}
	return func(ctx context.Context) ([]proof.Topic, error) {
		ctx, cancel := context.WithTimeout(ctx, settingsTimeout)
		defer cancel()
		live, err := read(ctx)
		if err != nil {
			return nil, publish.Diagnose(err)
		}
		var all []proof.Topic
		for _, b := range bounds(p, c) {
			t := proof.Topic{Name: b.Topic, Kinds: kinds[b.Topic], Under: b.Under, Promise: b.Promise}
			i := slices.IndexFunc(live, func(l budget.Topic) bool { return l.Name == b.Topic })
			if t.Missing = i < 0; !t.Missing {
				t.Worst, t.Ends = live[i].WorstAge()
				if err := live[i].Exceeds(b); err != nil {
					t.Exceeds = err.Error()
				}
			}
			all = append(all, t)
		}
		return all, nil
	}
}

// verification tells the proof what a verification found.
func verification(r *verify.Report) *proof.Verification {
	v := &proof.Verification{At: time.Now().UTC().Truncate(time.Second), Rows: r.Rows, Believed: r.Believed.Rows}
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, proof.Finding{Kind: f.Kind, Classes: f.Class, Text: f.Words()})
	}
	return v
}

// documents makes the proofs that the query service answers with.
type documents struct {
	prover *proof.Prover
	signer *proof.Signer // nil: they are not signed
}

func newDocuments(p *policy.Policy, db *store.Store, cfg config.Query, topics func(context.Context) ([]budget.Topic, error)) (d documents, err error) {
	if d.signer, err = loadSigner(cfg.ProofKeyFile); err != nil {
		return d, err
	}
	d.prover, err = newProver(p, db, topicsOf(p, cfg.Kafka, cfg.TopicBudget, topics))
	return d, err
}

func (d documents) Prove(ctx context.Context) (document, signature []byte, err error) {
	r, err := d.prover.Prove(ctx, proof.Ask{})
	if err != nil {
		return nil, nil, err
	}
	if document, err = r.JSON(); err != nil || d.signer == nil {
		return document, nil, err
	}
	return document, d.signer.Sign(document), nil
}

func (d documents) PublicKey() []byte {
	if d.signer == nil {
		return nil
	}
	return d.signer.PublicKey()
}

// loadSigner reads the key of PROOF_KEY_FILE; nil where there is none.
func loadSigner(file string) (*proof.Signer, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // without a key, documents are not signed
	}
	s, err := proof.LoadSigner(file)
	if err != nil {
		return nil, fmt.Errorf("PROOF_KEY_FILE: %w", err)
	}
	return s, nil
}
