package retention

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/redact"
)

// learned is an erasure as its record tells it: without identifiers.
func learned(id string, state event.ErasureState, subjects ...string) event.Erasure {
	e := event.Erasure{ID: id, Scope: "subject", State: state, Until: now, Deadline: now.AddDate(0, 0, 30), Everywhere: now.AddDate(0, 0, 90),
		UpdatedAt: now, ForgetAt: now.AddDate(0, 0, 91)}
	for _, k := range subjects {
		e.Hashes = append(e.Hashes, marked(k)...)
	}
	return e
}

func (w *world) writeErasures(all ...event.Erasure) {
	w.t.Helper()
	for _, e := range all {
		if err := w.WriteErasure(context.Background(), e); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) erasure(id string) event.Erasure {
	w.t.Helper()
	all, err := w.Erasures(context.Background())
	i := slices.IndexFunc(all, func(e event.Erasure) bool { return e.ID == id })
	if err != nil || i < 0 {
		w.t.Fatalf("no erasure %s: %v", id, err)
	}
	return all[i]
}

// left is what is not erased, or not gone yet.
func (w *world) left(why string, want map[string]time.Time) {
	w.t.Helper()
	got := w.expiries()
	maps.DeleteFunc(got, func(_ string, at time.Time) bool { return at.Unix() == event.ErasedOverride })
	if !maps.EqualFunc(got, want, time.Time.Equal) {
		w.t.Errorf("%s: got %v, want %v", why, got, want)
	}
}

func (w *world) search(s *Sweeper, fresh bool) []string {
	w.t.Helper()
	found, err := s.Search(context.Background(), fresh)
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

// TestSearchFindsByHashes knows erasures and a hold by hashes alone, as a restored
// database does.
func TestSearchFindsByHashes(t *testing.T) {
	w := newWorld(t, "bstrapr")
	old := now.AddDate(0, -1, 0)
	mine, log, held, other := row("usage@2y", "u", old), row("usage@2y", "v", old), row("usage@2y", "suspect", old), row("usage@2y", "w", old)
	back := row("usage@2y", "back", now.Add(time.Minute)) // occurred after the erasure
	log.Text[event.TDeployment], log.Text[event.TDataCategory] = "d_1", "build"
	w.store(mine, log, held, other, back)
	w.writeErasures(learned("e", event.ErasureRequested, "user:u", "email:k1:gone"), learned("l", event.ErasureRequested, "log:d_1/build"),
		learned("back", event.ErasureDone, "user:back"))
	if err := w.WriteHold(t.Context(), event.Hold{ID: "h", Hashes: marked("user:suspect"), PlacedAt: now, UpdatedAt: now, ForgetAt: policy.Sentinel}); err != nil {
		t.Fatal(err)
	}
	if got := w.sweep(); got != 0 {
		t.Fatalf("without a search %d rows are found: it has nothing to do", got)
	}
	w.writeErasures(learned("e", event.ErasureRequested, "user:u", "email:k1:gone")) // as if no sweep had been
	for _, id := range []string{"e", "l"} {
		e := w.erasure(id)
		e.State, e.UpdatedAt = event.ErasureRequested, e.UpdatedAt.Add(time.Second)
		w.writeErasures(e)
	}
	s := w.sweeper(w)
	if got := w.search(s, true); !slices.Equal(got, []string{"log:d_1/build", "user:suspect", "user:u"}) {
		t.Errorf("found %q", got)
	}
	w.sweep()
	w.left("erased and held", map[string]time.Time{held.ID: policy.Sentinel, other.ID: old.AddDate(2, 0, 0), back.ID: back.RetainedFrom.AddDate(2, 0, 0)})
	if e := w.erasure("e"); e.State != event.ErasureMoved || e.ErasedRows != 1 {
		t.Errorf("got %+v, want one row moved", e)
	}
	holds, err := w.Holds(t.Context())
	if err != nil || !slices.Equal(holds[0].Subjects, []string{"user:suspect"}) || !holds[0].UpdatedAt.Before(now.Add(time.Second)) {
		t.Errorf("got %+v, %v: a release of this moment would not be newer", holds, err)
	}
	for _, fresh := range []bool{true, false} {
		if got := w.search(s, fresh); len(got) > 0 {
			t.Errorf("fresh %t: found %q again", fresh, got)
		}
	}
}

// TestWhatComesBackIsErasedAgain restores rows of an erasure that is done and whose
// identifiers are gone with its deadline.
func TestWhatComesBackIsErasedAgain(t *testing.T) {
	w := newWorld(t, "bstrapr")
	past := learned("e", event.ErasureDone, "user:u")
	past.Deadline = now.AddDate(0, 0, -1)
	w.writeErasures(past)
	mine, other := row("usage@2y", "u", now.AddDate(0, -1, 0)), row("usage@2y", "v", now.AddDate(0, -1, 0))
	w.store(mine, other)
	if got := w.search(w.sweeper(w), true); len(got) > 0 {
		t.Errorf("a search for fresh erasures found %q", got)
	}
	log := new(strings.Builder)
	k, err := NewKeeper(Options{Storage: w, Policy: w.policy, Hash: marked, Now: time.Now, Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.look(t.Context()); err != nil { // the first look of an ingester that starts
		t.Fatal(err)
	}
	w.left("come back", map[string]time.Time{other.ID: other.RetainedFrom.AddDate(2, 0, 0)})
	if e := w.erasure("e"); e.State != event.ErasureMoved || !strings.Contains(log.String(), "have come back") {
		t.Errorf("got %+v and the log %s", e, log)
	}
	if strings.Contains(log.String(), "user:u") {
		t.Errorf("the log names somebody: %s", log)
	}
	if subjects, err := w.ErasureSubjects(t.Context(), "e"); err != nil || !slices.Equal(subjects, []string{"user:u"}) {
		t.Errorf("got %q, %v", subjects, err)
	}
}

// BenchmarkSearch hashes a million people to find one.
func BenchmarkSearch(b *testing.B) {
	w := newWorld(b, "bstrapr")
	const people = 1_000_000
	w.exec(fmt.Sprintf(`INSERT INTO audit_events (source, id, occurred_at, received_at, retention_class, bucket, retained_from, src_topic, src_offset, user_id, subject_keys)
		SELECT '/svc/api', toString(number), now64(3) - 86400, now64(3), 'usage@2y', toStartOfMonth(now()), now() - 86400, 'lethe.audit', number, concat('u_', toString(number)),
			[concat('user:u_', toString(number)), concat('email:k1:', lower(hex(MD5(toString(number)))))] FROM numbers(%d)`, people/2))
	keys, err := redact.ParseKeys("k1=" + strings.Repeat("ab", 32))
	if err != nil {
		b.Fatal(err)
	}
	e := learned("e", event.ErasureDone)
	e.Hashes = keys.Fingerprints("user:u_4711")
	s := NewSweeper(Options{Storage: w, Policy: w.policy, Hash: keys.Fingerprints, HashOnce: keys.FingerprintsOnce, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
	for b.Loop() {
		w.writeErasures(e)
		w.exec("TRUNCATE TABLE erasure_keys")
		w.exec("TRUNCATE TABLE erasures")
		w.writeErasures(e)
		if got, err := s.Search(b.Context(), false); err != nil || len(got) != 1 {
			b.Fatalf("found %q, %v", got, err)
		}
	}
}
