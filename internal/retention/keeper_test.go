package retention

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/policy"
)

// TestARestorationDoesNotWait restores an account minutes before its rows end: the next
// sweep over all rows would come too late.
func TestARestorationDoesNotWait(t *testing.T) {
	w := newWorld(t, "bstrapr")
	const class = "account@90d-after-account.deleted"
	mine, other := row(class, "u", now.AddDate(0, -5, 0)), row(class, "v", now.AddDate(0, -5, 0))
	w.store(mine, other)
	end := now.Add(20 * time.Minute)
	for _, user := range []string{"user:u", "user:v", "user:gone"} {
		w.fact(user, "account.deleted", end.AddDate(0, 0, -90))
	}
	w.fact("user:new", "account.created", now) // of whom nothing was deleted
	w.sweep()
	k, err := NewKeeper(Options{Storage: w, Policy: w.policy, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	look := func(why string, sweeps int, mine time.Time) {
		t.Helper()
		before := w.count("SELECT count() FROM retention_sweeps")
		if err := k.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.count("SELECT count() FROM retention_sweeps") - before; (got > 0) != (sweeps > 0) {
			t.Errorf("%s: got %d entries of sweeps, want %d sweeps", why, got, sweeps)
		}
		w.want(why, map[string]time.Time{"e1": mine, "e2": end})
	}
	look("deleted", 0, end)
	w.fact("user:u", "account.restored", now.Add(-time.Hour))
	look("restored", 1, policy.Sentinel)
	look("nothing new", 0, policy.Sentinel)

	// An ingester that starts does not know what one before it has done.
	w.fact("user:v", "account.restored", now.Add(-time.Minute))
	if k, err = NewKeeper(Options{Storage: w, Policy: w.policy, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}); err != nil {
		t.Fatal(err)
	}
	if err := k.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("started", map[string]time.Time{"e1": policy.Sentinel, "e2": policy.Sentinel})
}

func (w *world) count(text string) (n uint64) {
	w.t.Helper()
	if err := w.conn.QueryRow(w.t.Context(), text).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}
