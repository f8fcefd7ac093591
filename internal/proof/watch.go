package proof

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WatchdogOptions are what a Watchdog needs; all are required.
type WatchdogOptions struct {
	Prover  *Prover
	Every   time.Duration // between two looks
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Watchdog looks again and again at what a proof can tell cheaply, and sets metrics:
// above all how long rows are past their expiry, so that somebody is called before
// the grace is over.
type Watchdog struct {
	o                       WatchdogOptions
	sentences, faults, late *prometheus.GaugeVec
	grace, made             prometheus.Gauge
}

// NewWatchdog checks the options and registers the metrics. It starts nothing.
func NewWatchdog(o WatchdogOptions) (*Watchdog, error) {
	if o.Prover == nil || o.Every <= 0 || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("new watchdog: Prover, Every, Metrics and Log are required")
	}
	vector := func(name, label, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	w := &Watchdog{
		o:         o,
		sentences: vector("lethe_proof_sentences", "verdict", "Sentences of the published text, and operator's values, by verdict. An alarm where one is broken, or fewer are enforced than a day ago."),
		faults:    vector("lethe_proof_faults", "kind", "What is not as the policy file has it, by kind; ingest policy prove names it."),
		late:      vector("lethe_retention_late_seconds", "class", "How long the oldest row past its expiry is past it, by stored class; 0: there is none. ClickHouse needs some of the grace to remove it."),
		grace:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_retention_grace_seconds", Help: "Longest time between an expiry and the row's last byte, by the policy file."}),
		made:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_proof_made_seconds", Help: "When these were measured, in seconds since 1970; 0: not yet."}),
	}
	w.grace.Set(o.Prover.o.Policy.Grace.Seconds())
	for _, c := range []prometheus.Collector{w.sentences, w.faults, w.late, w.grace, w.made} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return w, nil
}

// Run looks at once and then every so often, until ctx is done. It stops nothing: what
// cannot be measured is logged, and the metric of when it last could grows old.
func (w *Watchdog) Run(ctx context.Context) {
	tick := time.NewTicker(w.o.Every)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.o.Log.Error("watchdog of retention", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookTimeout bounds one look.
const lookTimeout = 10 * time.Minute

func (w *Watchdog) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	r, err := w.o.Prover.Prove(ctx, Ask{Cheap: true})
	if err != nil {
		return err
	}
	for _, v := range Verdicts {
		w.sentences.WithLabelValues(string(v)).Set(float64(r.Verdicts[v]))
	}
	counts := map[string]float64{}
	for _, f := range r.Faults {
		counts[f.Kind]++
		w.o.Log.Error("the policy is not kept", "fault", f.Kind, "what", f.Text)
	}
	for _, k := range Kinds {
		w.faults.WithLabelValues(k).Set(counts[k])
	}
	seconds := map[string]float64{}
	for _, c := range r.Classes {
		seconds[c.Stored] = max(seconds[c.Stored], float64(c.Late))
	}
	w.late.Reset() // a class whose last row has gone is late no more
	for class, s := range seconds {
		w.late.WithLabelValues(class).Set(s)
	}
	w.made.Set(float64(r.At.Unix()))
	return nil
}
