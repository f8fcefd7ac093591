package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
)

// TestPolicyDiff counts what a shorter promise would take, and takes nothing.
func TestPolicyDiff(t *testing.T) {
	const old = "../../schemas/policies/bstrapr.yaml"
	text, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	now := filepath.Join(t.TempDir(), "bstrapr.yaml")
	shorter := strings.NewReplacer("support:            {keep: 3y", "support:            {keep: 1y",
		"workspace_metadata: {keep: 1y", "workspace_metadata: {keep: 6m", "billing:            {keep: 7y", "billing:            {keep: 8y").Replace(string(text))
	if err := os.WriteFile(now, []byte(shorter), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(old)
	if err != nil {
		t.Fatal(err)
	}
	dsn := embeddedtest.ClickHouse(t)
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: dsn, Policy: p}); err != nil {
		t.Fatal(err)
	}
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, row := range []struct {
		class, age, workspace string
		moved                 string
	}{
		{"support@3y", "6 MONTH", "", "0"}, {"support@3y", "18 MONTH", "", "0"}, {"support@3y", "30 MONTH", "", "0"},
		{"support@3y", "18 MONTH", "held", "4291660800"}, {"billing@7y", "6 YEAR", "", "0"},
		{"workspace_metadata@1y-after-workspace.deleted", "5 YEAR", "there", "0"},
		// Deleted eight months ago: kept for four more, and over by the new file.
		{"workspace_metadata@1y-after-workspace.deleted", "5 YEAR", "gone", "toUInt32(now() + INTERVAL 4 MONTH)"},
		{"workspace_metadata@1y-after-workspace.deleted", "5 YEAR", "held", "4291660800"},
	} {
		if err := db.Exec(t.Context(), fmt.Sprintf("INSERT INTO audit_events (id, retention_class, bucket, occurred_at, retained_from, workspace_id, expires_override) "+
			"SELECT '%d', '%s', toDate('2026-01-01'), now() - INTERVAL %s, now() - INTERVAL %s, '%s', %s", i, row.class, row.age, row.age, row.workspace, row.moved)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{
		"INSERT INTO anchors SELECT concat('workspace:', arrayJoin(['gone', 'held'])), 'workspace.deleted', now64() - INTERVAL 8 MONTH, '', '/svc', '1', now64(), now() + INTERVAL 9 YEAR",
		"INSERT INTO holds SELECT 'h', ['workspace:held'], [], 'case', now64(), toDateTime64(0, 3), now64(), now() + INTERVAL 9 YEAR",
	} {
		if err := db.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	diff := func(c config.ClickHouse, old, now string) string {
		t.Helper()
		var b strings.Builder
		if err := PolicyDiff(context.Background(), c, old, now, &b); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	q, err := policy.Load(now)
	if err != nil {
		t.Fatal(err)
	}
	database := config.ClickHouse{DSN: config.Secret(dsn)}
	for range 2 { // nothing moved in between
		got := diff(database, old, now)
		for _, want := range []string{
			"support@3y to 1y audit_events 4 rows 2 past their expiry at once 1 whose expiry has been moved before",
			"workspace_metadata@1y-after-workspace.deleted to 6m after workspace.deleted audit_events 3 rows 1 past their expiry at once 2 whose expiry has been moved before",
			"POLICY_SHORTENS=" + q.Version,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		if strings.Contains(got, "billing@7y to") {
			t.Errorf("a longer promise is counted:\n%s", got)
		}
	}
	if got := diff(database, now, old); !strings.Contains(got, "nothing was moved none") || strings.Contains(got, "POLICY_SHORTENS") {
		t.Errorf("the other way round: got\n%s", got)
	}
	if got := diff(config.ClickHouse{}, old, now); !strings.Contains(got, "Rows were not counted: CLICKHOUSE_DSN is not set") || !strings.Contains(got, "POLICY_SHORTENS="+q.Version) {
		t.Errorf("without a database: got\n%s", got)
	}
	if err := migrate.Apply(t.Context(), migrate.Options{DSN: dsn, Policy: q, Shortens: q.Version}); err != nil {
		t.Fatal(err)
	}
	if got := diff(database, old, now); !strings.Contains(got, "nothing was moved none") {
		t.Errorf("once it is in force: got\n%s", got)
	}
	st, err := open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	all, err := registeredClasses(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, c := range q.Known(all) {
		switch c.Key {
		case "support@3y":
			if c.Period != (policy.Period{Months: 12}) || c.Promised != (policy.Period{Months: 36}) || c.ShortenedBy != q.Version || time.Since(c.ShortenedAt) > time.Minute {
				t.Errorf("got %+v", c)
			}
		case "workspace_metadata@1y-after-workspace.deleted":
			if c.Anchor != "workspace.deleted" || c.KeyedBy != "workspace" || c.After != (policy.Period{Months: 6}) || c.From != "workspace.deleted" {
				t.Errorf("got %+v", c)
			}
		case "billing@7y":
			if c.Erasable || c.Reason != "tax" || c.Period != c.Promised || c.ShortenedBy != "" {
				t.Errorf("got %+v", c)
			}
		default:
			continue
		}
		known++
	}
	if known != 3 {
		t.Errorf("%d of the three older classes are known", known)
	}
	if err := PolicyDiff(context.Background(), config.ClickHouse{DSN: config.Secret(embeddedtest.ClickHouse(t))}, old, now, &strings.Builder{}); err == nil {
		t.Error("a database without tables: got no error")
	}
}

// What a shortened class has kept is in the buckets of its own promise, and ends with
// the one in force.
func TestKept(t *testing.T) {
	k := kept{holds: policy.Period{Days: 14}, promised: policy.Period{Months: 24}}
	from := time.Date(2026, 3, 17, 12, 0, 0, 0, time.UTC)
	if end := k.End(from); !end.Equal(from.AddDate(0, 0, 14)) {
		t.Errorf("ends at %s", end)
	}
	if day := time.Unix(int64(k.Bucket(from))*86400, 0).UTC().Format(time.DateOnly); day != "2026-03-01" {
		t.Errorf("in the bucket of %s", day)
	}
}
