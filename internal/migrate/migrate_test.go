package migrate

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.uber.org/goleak"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, name string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("../../schemas/policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func dial(t *testing.T, dsn string) driver.Conn {
	t.Helper()
	conn, err := connect(context.Background(), Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func exec(t *testing.T, conn driver.Conn, statement string) {
	t.Helper()
	if err := conn.Exec(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func scalar[T any](t *testing.T, conn driver.Conn, statement string) (v T) {
	t.Helper()
	if err := conn.QueryRow(context.Background(), statement).Scan(&v); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}

func TestApplyTwice(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/") + "-absent`\\"
	u.Path = "/" + name
	t.Cleanup(func() { exec(t, dial(t, dsn), "DROP DATABASE IF EXISTS "+quote(name)+" SYNC") })

	for _, name := range []string{"abstra", "bstrapr", "daestro", "infratrace", "itskode"} {
		p := load(t, name)
		o := Options{DSN: u.String(), Policy: p, Shortens: p.Version} // their classes share names
		steps, err := apply(context.Background(), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if steps == 0 {
			t.Errorf("%s: nothing was applied", name)
		}
		if steps, err = apply(context.Background(), o); err != nil || steps != 0 {
			t.Errorf("%s again: got %d steps and %v, want none", name, steps, err)
		}
	}
	if err := Apply(context.Background(), Options{DSN: u.String()}); err == nil {
		t.Error("no policy: got no error")
	}
}

func TestDriftIsRepaired(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	o := Options{DSN: dsn, Policy: load(t, "bstrapr")}
	if err := Apply(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, dsn)
	for _, drift := range []string{
		"ALTER TABLE audit_events REMOVE TTL",
		"ALTER TABLE audit_events MODIFY TTL retained_from + INTERVAL 1 DAY",
		"ALTER TABLE request_events MODIFY COLUMN expires_at DateTime('UTC') ALIAS retained_from",
		"ALTER TABLE security_events MODIFY SETTING merge_with_ttl_timeout = 86400",
		"ALTER TABLE security_events RESET SETTING merge_with_ttl_timeout",
	} {
		exec(t, conn, drift)
		if steps, err := apply(context.Background(), o); err != nil || steps != 1 {
			t.Errorf("after %q: got %d steps and %v, want 1", drift, steps, err)
		}
		if steps, err := apply(context.Background(), o); err != nil || steps != 0 {
			t.Errorf("repaired after %q: got %d steps and %v, want none", drift, steps, err)
		}
	}
}

func TestConcurrentStarters(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	classes := []string{"a", "b", "c", "d", "e", "a", "c"}
	errs := make([]error, len(classes))
	policies := make([]*policy.Policy, len(classes))
	for i, class := range classes {
		policies[i] = promising(t, class, "2y", "keep 90d")
	}
	var group sync.WaitGroup
	for i, p := range policies {
		group.Go(func() { errs[i] = Apply(context.Background(), Options{DSN: dsn, Policy: p}) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, dsn)
	for _, name := range expiring {
		live, err := describe(context.Background(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range policies {
			for _, c := range p.Stored() {
				if !strings.Contains(live.ttl, "'"+c.Key+"'") || !strings.Contains(live.alias, "'"+c.Key+"'") {
					t.Errorf("%s does not know %s of %s", name, c.Key, p.Name)
				}
			}
		}
	}
}

// TestExpiry runs the TTL as ClickHouse does: rows past their expiry go, others stay.
func TestExpiry(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	for _, name := range []string{"itskode", "bstrapr"} { // the classes of the first stay known
		p := load(t, name)
		if err := Apply(context.Background(), Options{DSN: dsn, Policy: p, Shortens: p.Version}); err != nil {
			t.Fatal(err)
		}
	}
	conn := dial(t, dsn)
	cases := []struct {
		name, class, from, override string
		gone                        bool
	}{
		{"month not over", "request/pro@30d", "now() - INTERVAL 29 DAY", "0", false},
		{"month over", "request/pro@30d", "now() - INTERVAL 31 DAY", "0", true},
		{"years not over", "usage@2y", "now() - INTERVAL 23 MONTH", "0", false},
		{"years over", "usage@2y", "now() - INTERVAL 25 MONTH", "0", true},
		{"waits for its anchor", "account@90d-after-account.deleted", "now() - INTERVAL 10 YEAR", "0", false},
		{"anchored and over", "account@90d-after-account.deleted", "now() - INTERVAL 10 YEAR", "toUnixTimestamp(now()) - 10", true},
		{"anchored and not over", "usage@2y", "now() - INTERVAL 10 YEAR", "toUnixTimestamp(now()) + 1000", false},
		{"unknown class", "invented@1d", "now() - INTERVAL 10 YEAR", "0", false},
		{"no class", "", "now() - INTERVAL 10 YEAR", "0", false},
	}
	for _, table := range expiring {
		exec(t, conn, "SYSTEM STOP MERGES "+table)
		for i, c := range cases {
			exec(t, conn, fmt.Sprintf("INSERT INTO %s (id, retention_class, bucket, occurred_at, retained_from, expires_override) SELECT '%d', '%s', toDate('2026-01-01'), %s, %s, %s",
				table, i, c.class, c.from, c.from, c.override))
		}
		hidden := scalar[[]string](t, conn, "SELECT arraySort(groupArray(id)) FROM "+table+" WHERE expires_at <= now()")
		exec(t, conn, "SYSTEM START MERGES "+table)
		exec(t, conn, "OPTIMIZE TABLE "+table+" FINAL")
		left := scalar[[]string](t, conn, "SELECT groupArray(id) FROM "+table)
		for i, c := range cases {
			id := fmt.Sprint(i)
			if got := slices.Contains(hidden, id); got != c.gone {
				t.Errorf("%s, %s: hidden by expires_at: got %v, want %v", table, c.name, got, c.gone)
			}
			if got := !slices.Contains(left, id); got != c.gone {
				t.Errorf("%s, %s: removed by the TTL: got %v, want %v", table, c.name, got, c.gone)
			}
		}
		if got := scalar[uint32](t, conn, "SELECT toUInt32(max(expires_at)) FROM "+table+" WHERE retention_class = 'invented@1d'"); got != policy.SentinelUnix {
			t.Errorf("%s: unknown class expires at %d, want the sentinel", table, got)
		}
	}
}

func TestFilesNeverChange(t *testing.T) {
	ctx := context.Background()
	dsn := embeddedtest.ClickHouse(t)
	conn := dial(t, dsn)
	const first, second = "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY (number, name, checksum);\n",
		"CREATE TABLE IF NOT EXISTS two (a UInt8) ENGINE = MergeTree ORDER BY a;\n"
	run := func(texts ...string) (int, error) {
		fsys := fstest.MapFS{}
		for i, text := range texts {
			fsys[fmt.Sprintf("sql/%04d_step.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
		}
		list, err := files(fsys, "sql")
		if err != nil {
			t.Fatal(err)
		}
		return migrate(ctx, conn, list)
	}
	if steps, err := run(first); steps != 1 || err != nil {
		t.Fatalf("first: got %d steps and %v, want 1", steps, err)
	}
	if steps, err := run(first, second); steps != 1 || err != nil {
		t.Fatalf("one more: got %d steps and %v, want 1", steps, err)
	}
	if steps, err := run(first, second); steps != 0 || err != nil {
		t.Fatalf("again: got %d steps and %v, want 0", steps, err)
	}
	_, err := run(first, second+"-- changed\n")
	if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "0002_step.sql") {
		t.Errorf("changed file: got %v, want ErrChanged that names the file", err)
	}
	if _, err := run(first); err == nil || !strings.Contains(err.Error(), "older than the database") {
		t.Errorf("missing file: got %v, want a sentence that says the program is older", err)
	}
}

func TestFileNames(t *testing.T) {
	for name, list := range map[string][]string{
		"gap":        {"0001_a.sql", "0003_b.sql"},
		"twice":      {"0001_a.sql", "0001_b.sql"},
		"no number":  {"a.sql"},
		"other file": {"0001_a.sql", "notes.txt"},
	} {
		fsys := fstest.MapFS{}
		for _, f := range list {
			fsys["sql/"+f] = &fstest.MapFile{Data: []byte("SELECT 1;")}
		}
		if _, err := files(fsys, "sql"); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if _, err := files(schemas.ClickHouse, "clickhouse"); err != nil {
		t.Error(err)
	}
}

func TestSplit(t *testing.T) {
	got := split("-- about\nCREATE a\n(x);\n\n-- more\nCREATE b;\nCREATE c")
	if want := []string{"CREATE a\n(x)", "CREATE b", "CREATE c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTables holds what the rows and the reader rely on.
func TestTables(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	if err := Apply(context.Background(), Options{DSN: dsn, Policy: load(t, "bstrapr")}); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, dsn)
	for _, kind := range event.Kinds {
		want := map[string]string{
			"occurred_at": "DateTime64(3, 'UTC')", "received_at": "DateTime64(3, 'UTC')", "source": "LowCardinality(String)", "id": "String",
			"type": "LowCardinality(String)", "retention_class": "LowCardinality(String)", "bucket": "Date", "retained_from": "DateTime('UTC')",
			"expires_override": "UInt32", "expires_at": "DateTime('UTC')", "policy_version": "LowCardinality(String)", "src_topic": "LowCardinality(String)",
			"src_partition": "Int32", "src_offset": "Int64", "subject_keys": "Array(String)", "target_owner_id": "Array(String)",
			"trace_id": "FixedString(16)", "span_id": "FixedString(8)", "metadata": "Map(String, String)",
		}
		for _, f := range event.Texts {
			if f.Kinds.Has(kind) {
				want[f.Column()] = map[bool]string{true: "LowCardinality(String)", false: "String"}[f.Dictionary]
			}
		}
		for _, f := range event.Numbers {
			if f.Kinds.Has(kind) {
				want[f.Column()] = f.ClickHouse
			}
		}
		rows, err := conn.Query(context.Background(), "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = '"+kind.Table()+"'")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var name, typ string
			if err := rows.Scan(&name, &typ); err != nil {
				t.Fatal(err)
			}
			if want[name] != typ {
				t.Errorf("%s.%s: got %s, want %q", kind.Table(), name, typ, want[name])
			}
			delete(want, name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		for name := range want {
			t.Errorf("%s.%s is missing", kind.Table(), name)
		}
		engine := scalar[string](t, conn, "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '"+kind.Table()+"'")
		for _, part := range []string{
			"ReplacingMergeTree PARTITION BY (retention_class, bucket) PRIMARY KEY (organization_id, user_id, occurred_at) ORDER BY (organization_id, user_id, occurred_at, source, id, src_topic, src_partition, src_offset) TTL if(",
			"index_granularity = 2048", "auto_statistics_types = ''", "fsync_after_insert = 1", "fsync_part_directory = 1",
			"non_replicated_deduplication_window = ", "merge_with_ttl_timeout = 3600",
		} {
			if !strings.Contains(engine, part) {
				t.Errorf("%s: the table lacks %q:\n%s", kind.Table(), part, engine)
			}
		}
	}
}

func TestMergeTimeout(t *testing.T) {
	for _, c := range []struct {
		grace time.Duration
		want  int
	}{{24 * time.Hour, 3600}, {4 * time.Hour, 1800}, {time.Hour, 450}, {time.Second, 1}} {
		got := MergeTimeout(c.grace)
		if got != c.want || time.Duration(got)*time.Second > c.grace {
			t.Errorf("grace %s: got %d s, want %d", c.grace, got, c.want)
		}
	}
}
