package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
)

const needle = "user:u_needle"

// haystack stores rows in unmerged parts; one person has 1,000 of them, spread
// over all parts and four classes.
func haystack(t testing.TB, s *Store, total, perBatch int) {
	t.Helper()
	ctx := context.Background()
	if err := s.conn.Exec(ctx, "SYSTEM STOP MERGES request_events"); err != nil {
		t.Fatal(err)
	}
	g := newGenerator()
	b := s.NewBatch()
	for i := range total {
		r := g.next()
		if i%(total/1000) == 0 {
			r.Text[event.TUserID], r.Text[event.TOrganization] = "u_needle", "org_7"
			r.SubjectKeys = append(r.SubjectKeys[:0], needle)
		}
		b.Add(r)
		if b.Rows() == perBatch {
			if err := s.Insert(ctx, b, fmt.Sprint("haystack-", i)); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
}

func countSubject(t testing.TB, s *Store, key string, visible func(*event.Row) bool) (n int) {
	t.Helper()
	for _, err := range s.SubjectRows(context.Background(), []string{key}, now, visible) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestSubjectReadsLittle bounds the rows that a lookup reads by letting the
// server refuse more.
func TestSubjectReadsLittle(t *testing.T) {
	_, dsn := openDSN(t)
	// 40 parts, one or two blocks of 2,048 rows of each, and the index's one
	// false answer in a hundred.
	const rows, bound = 1_000_000, 150_000
	s, err := Open(context.Background(), Options{DSN: dsn, MaxQueryRows: bound})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	haystack(t, s, rows, 100_000)
	if got := scalar[uint64](t, s, "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'request_events'"); got != 40 {
		t.Errorf("got %d parts, want 40 unmerged", got)
	}
	if got := countSubject(t, s, needle, nil); got != 1000 {
		t.Errorf("got %d rows, want 1000", got)
	}
	if got := countSubject(t, s, "user:nobody", nil); got != 0 {
		t.Errorf("nobody: got %d rows, want none", got)
	}
	hour := event.Filter{From: now.Add(-2 * time.Hour), To: now, Now: now, User: "u_needle"}
	if page, err := s.Events(context.Background(), hour, nil, 100); err != nil || len(page) != 100 {
		t.Errorf("by user without an organization: got %d rows and %v, want 100", len(page), err)
	}
	// The trace of one row: no row of its neighbours is read.
	for r, err := range s.SubjectRows(context.Background(), []string{needle}, now, nil) {
		if err != nil {
			t.Fatal(err)
		}
		trace := event.Filter{From: now.Add(-2 * time.Hour), To: now, Now: now, TraceID: r.TraceID}
		if page, err := s.Events(context.Background(), trace, nil, 100); err != nil || len(page) != 1 {
			t.Errorf("by trace: got %d rows and %v, want 1", len(page), err)
		}
		break
	}
	// The bound is one: without an index to help, the server refuses.
	all := event.Filter{From: now.Add(-2 * time.Hour), To: now, Now: now, Status: 404}
	if _, err := s.Events(context.Background(), all, nil, 100); err == nil {
		t.Error("a scan of everything stayed under the bound: it bounds nothing")
	}
}

// BenchmarkSubject reports the median time of a lookup of 1,000 rows among 10
// million, in 40 unmerged parts, through the one reader: with the facts that decide
// of each row as fresh as they are (median-ms), and without asking (unasked-ms).
func BenchmarkSubject(b *testing.B) {
	s := open(b)
	haystack(b, s, 10_000_000, 1_000_000)
	book := crowdedBook(b, s)
	var times, unasked []time.Duration
	var used time.Duration
	for b.Loop() {
		start := time.Now()
		if got := countSubject(b, s, needle, nil); got != 1000 {
			b.Fatalf("got %d rows, want 1000", got)
		}
		unasked = append(unasked, time.Since(start))
		start, began := time.Now(), cpu()
		facts, err := book.Facts(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if got := countSubject(b, s, needle, func(r *event.Row) bool { return facts.Fate(r).Visible(now, false) }); got != 1000 {
			b.Fatalf("got %d rows, want 1000", got)
		}
		times, used = append(times, time.Since(start)), used+cpu()-began
	}
	slices.Sort(times)
	slices.Sort(unasked)
	b.ReportMetric(float64(unasked[len(unasked)/2].Microseconds())/1000, "unasked-ms")
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, "max-ms")
	b.ReportMetric(float64(used.Microseconds())/1000/float64(len(times)), "cpu-ms")
}

// crowdedBook knows of 100 erasures, 1,000 deleted accounts and a hold, none of them
// of the needle.
func crowdedBook(b *testing.B, s *Store) *retention.Book {
	b.Helper()
	p, err := policy.Load("../../schemas/policies/bstrapr.yaml")
	if err != nil {
		b.Fatal(err)
	}
	keys, err := redact.ParseKeys("k1=" + strings.Repeat("ab", 32) + ",k2=" + strings.Repeat("cd", 32))
	if err != nil {
		b.Fatal(err)
	}
	ctx, far := context.Background(), now.AddDate(1, 0, 0)
	var facts []event.Fact
	for i := range 1000 {
		facts = append(facts, event.Fact{Subject: fmt.Sprint("user:gone_", i), Action: "account.deleted", OccurredAt: now, ReceivedAt: now, ForgetAt: far})
	}
	err = s.WriteFacts(ctx, facts)
	for i := 0; i < 100 && err == nil; i++ {
		err = s.WriteErasure(ctx, event.Erasure{ID: fmt.Sprint(i), State: event.ErasureDone, Hashes: keys.Fingerprints(fmt.Sprint("user:erased_", i))[:1], Until: now, Deadline: far, Everywhere: far, UpdatedAt: now, ForgetAt: far})
	}
	if err == nil {
		err = s.WriteHold(ctx, event.Hold{ID: "h", Subjects: []string{"user:held"}, PlacedAt: now, UpdatedAt: now, ForgetAt: far})
	}
	if err != nil {
		b.Fatal(err)
	}
	return retention.NewBook(promised{s, p}, p, keys.Fingerprints)
}

// promised joins the facts of the database with the promises of a policy.
type promised struct {
	*Store
	policy *policy.Policy
}

func (p promised) Promises(context.Context) ([]policy.StoredClass, error) {
	return p.policy.Stored(), nil
}
