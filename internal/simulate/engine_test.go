//go:build simulation

package main

import (
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// TestEngineFollowsItsClock executes a TTL of years in seconds, and not before.
func TestEngineFollowsItsClock(t *testing.T) {
	ctx := t.Context()
	e, err := startEngine(ctx, t.TempDir(), begin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}()
	options, err := clickhouse.ParseDSN("http://" + e.addr + "/default")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range []string{
		"CREATE TABLE one (at DateTime('UTC')) ENGINE = MergeTree ORDER BY at TTL at + INTERVAL 2 YEAR SETTINGS merge_with_ttl_timeout = 1",
		"INSERT INTO one VALUES (1583000000)", // 2020-02-29
	} {
		if err := conn.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	var made time.Time
	if err := conn.QueryRow(ctx, "SELECT modification_time FROM system.parts WHERE table = 'one' AND database = 'default' AND active").Scan(&made); err != nil {
		t.Fatal(err)
	}
	if d := made.Sub(begin); d < 0 || d > time.Minute {
		t.Errorf("the engine takes it to be %s, want about %s", made, begin)
	}
	rows := func() (n uint64) {
		if err := conn.QueryRow(ctx, "SELECT count() FROM one").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	due := time.Date(2022, time.February, 28, 18, 13, 20, 0, time.UTC)
	if err := e.set(due.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		time.Sleep(time.Second)
		if err := conn.Exec(ctx, nudge+"one"); err != nil {
			t.Fatal(err)
		}
	}
	if rows() != 1 {
		t.Error("an hour before its end: the row is gone")
	}
	if err := e.set(due); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for rows() > 0 {
		if time.Since(began) > time.Minute {
			t.Fatal("a minute after its end: the row is still there")
		}
		if err := conn.Exec(ctx, nudge+"one"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Log("gone after", time.Since(began))
}
