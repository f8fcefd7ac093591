package store

import (
	"context"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store on a fresh database with all tables.
func open(t testing.TB) *Store {
	t.Helper()
	s, _ := openDSN(t)
	return s
}

func openDSN(t testing.TB) (*Store, string) {
	t.Helper()
	dsn := embeddedtest.ClickHouse(t)
	for _, name := range []string{"bstrapr", "itskode"} {
		p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := migrate.Apply(context.Background(), migrate.Options{DSN: dsn, Policy: p, Shortens: p.Version}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(context.Background(), Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dsn
}

// now is the clock of the tests: what they store has not expired before the
// engine's own clock says so, and readers are told this instant.
var now = time.Now().UTC().Truncate(time.Second)

const usage, pro, account = "usage@2y", "request/pro@30d", "account@90d-after-account.deleted"

// newRow is a row with the fields every row has.
func newRow(kind event.Kind, class string, id string, at time.Time) *event.Row {
	r := new(event.Row)
	r.Reset()
	r.Kind, r.ID, r.Source, r.Type = kind, id, "/svc/api", "com.example.test.v1"
	r.OccurredAt, r.ReceivedAt = at.UTC().Truncate(time.Millisecond), at.UTC().Truncate(time.Millisecond).Add(time.Second)
	r.Retention, r.RetainedFrom = class, at.UTC().Truncate(time.Second)
	first := time.Date(at.UTC().Year(), at.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	r.Bucket = int32(first.Unix() / 86400)
	r.PolicyVersion, r.Topic = "test-00000001", "lethe."+kind.String()
	return r
}

// insert stores the rows under a token of their own.
func insert(t testing.TB, s *Store, rows ...*event.Row) {
	t.Helper()
	insertAs(t, s, strconv.FormatUint(rand.Uint64(), 36), rows...)
}

func insertAs(t testing.TB, s *Store, token string, rows ...*event.Row) {
	t.Helper()
	b := s.NewBatch()
	for _, r := range rows {
		b.Add(r)
	}
	if err := s.Insert(context.Background(), b, token); err != nil {
		t.Fatal(err)
	}
}

// sameNumber treats two absent numbers as equal.
func sameNumber(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
