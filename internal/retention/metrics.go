package retention

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/event"
)

type metrics struct {
	sweeps   *prometheus.CounterVec
	moved    prometheus.Counter
	last     prometheus.Gauge
	erasures *prometheus.GaugeVec
	overdue  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lethe_retention_sweeps_total",
			Help: "Runs that compare rows with what anchors, erasures and holds say, by how they ended: done, failed, overtaken."}, []string{"result"}),
		moved: prometheus.NewCounter(prometheus.CounterOpts{Name: "lethe_retention_moved_rows_total",
			Help: "Rows whose expiry was moved."}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_retention_last_sweep_timestamp_seconds",
			Help: "When the newest run over all rows began that is done, of any instance, in seconds since 1970."}),
		erasures: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lethe_erasures",
			Help: "Erasures by how far they are: requested, moved, removed, done."}, []string{"state"}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lethe_erasures_overdue",
			Help: "Erasures that are past their deadline and not done."}),
	}
	for _, result := range []string{"done", "failed", "overtaken"} {
		m.sweeps.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{m.sweeps, m.moved, m.last, m.erasures, m.overdue} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of retention: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) count(erasures []event.Erasure, now time.Time) {
	states := map[event.ErasureState]int{event.ErasureRequested: 0, event.ErasureMoved: 0, event.ErasureRemoved: 0, event.ErasureDone: 0}
	overdue := 0
	for _, e := range erasures {
		states[e.State]++
		if e.State != event.ErasureDone && now.After(e.Deadline) {
			overdue++
		}
	}
	for state, n := range states {
		m.erasures.WithLabelValues(string(state)).Set(float64(n))
	}
	m.overdue.Set(float64(overdue))
}
