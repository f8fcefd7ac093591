package policy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/embedded/embeddedtest"
)

// ask runs a query of one Int64 column and returns its numbers.
func ask(t *testing.T, dsn, sql string) []int64 {
	t.Helper()
	b := run(t, dsn, sql+" FORMAT RowBinary")
	if len(b)%8 != 0 {
		t.Fatalf("got %d bytes", len(b))
	}
	numbers := make([]int64, len(b)/8)
	for i := range numbers {
		numbers[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return numbers
}

// run sends a statement and returns the answer.
func run(t *testing.T, dsn, sql string) []byte {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Post(dsn[:strings.LastIndexByte(dsn, '/')], "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v: %s", err, b)
	}
	return b
}

// TestClickHouseAndItsTwinAgree compares the generated expression, run by the
// real engine, with Period.End: every day that a DateTime can hold, for every
// period of the five policies and the odd ones.
func TestClickHouseAndItsTwinAgree(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	var classes []StoredClass
	for _, p := range []Period{{Days: 1}, {Days: 35}, {Days: MaxDays}, {Months: 1}, {Months: 2}, {Months: 11}, {Months: 13}, {Months: MaxMonths}} {
		classes = append(classes, StoredClass{Key: "odd@" + p.String(), Period: p})
	}
	for _, name := range five {
		classes = append(classes, example(t, name).Stored()...)
	}
	expr := ExpiresExpr(classes)
	const lastDay = 1<<32/86400 - 1
	seen := map[Period]bool{}
	for _, c := range append(classes, StoredClass{Key: "never@heard", Period: Period{Sentinel: true}}) {
		if seen[c.Period] && c.Key != "never@heard" {
			continue
		}
		seen[c.Period] = true
		// The second of the day differs from day to day.
		got := ask(t, dsn, fmt.Sprintf(`SELECT toInt64(toUnixTimestamp(%s)) FROM (SELECT toLowCardinality(%s) AS retention_class,
			toUInt32(0) AS expires_override, toDateTime(number * 86400 + number * 7919 %% 86400, 'UTC') AS retained_from FROM numbers(%d))`, expr, quote(c.Key), lastDay))
		if len(got) != lastDay {
			t.Fatalf("%s: got %d days, want %d", c.Key, len(got), lastDay)
		}
		for day, end := range got {
			from := time.Unix(int64(day)*86400+int64(day)*7919%86400, 0).UTC()
			if want := c.Period.End(from); end != want.Unix() {
				t.Fatalf("%s from %v: ClickHouse says %v, the twin %v", c.Key, from, time.Unix(end, 0).UTC(), want)
			}
		}
	}
}

// TestMonthsOverFourHundredYears compares the calendar alone, from 1900 to the
// end of DateTime64 in 2299: far more than the 32 bits of an expiry can hold.
func TestMonthsOverFourHundredYears(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	first := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, months := range []int{1, 2, 12, 24, 84} {
		last := addMonths(time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC), -months)
		n := int((last.Unix() - first.Unix()) / 86400)
		got := ask(t, dsn, fmt.Sprintf(`SELECT toInt64(toUnixTimestamp64Second(addMonths(addDays(toDateTime64('1900-01-01 00:00:00', 0, 'UTC'), number), toUInt32(%d)))) FROM numbers(%d)`, months, n))
		if len(got) != n {
			t.Fatalf("%d months: got %d days, want %d", months, len(got), n)
		}
		for day, end := range got {
			from := first.AddDate(0, 0, day)
			if want := addMonths(from, months); end != want.Unix() {
				t.Fatalf("%d months from %v: ClickHouse says %v, the twin %v", months, from, time.Unix(end, 0).UTC(), want)
			}
		}
	}
}

// TestTheExpressionCanBeATTL runs each policy's expression where it will stand.
func TestTheExpressionCanBeATTL(t *testing.T) {
	dsn := embeddedtest.ClickHouse(t)
	database := dsn[strings.LastIndexByte(dsn, '/')+1:]
	for _, name := range five {
		expr := ExpiresExpr(example(t, name).Stored())
		table := database + "." + name
		run(t, dsn, "CREATE TABLE "+table+" (retention_class LowCardinality(String), retained_from DateTime('UTC'), expires_override UInt32, expires_at DateTime('UTC') ALIAS "+expr+
			") ENGINE = MergeTree ORDER BY retained_from TTL "+expr)
		run(t, dsn, "INSERT INTO "+table+" VALUES ('access_record@2y', '2050-02-28 00:00:00', 0), ('access_record@2y', '2050-02-28 00:00:00', 2600000000), ('nobody@knows', '2050-02-28 00:00:00', 0)")
		got := fmt.Sprint(ask(t, dsn, "SELECT toInt64(toUnixTimestamp(expires_at)) FROM "+table+" ORDER BY 1"))
		want := fmt.Sprint([]int64{time.Date(2052, 2, 28, 0, 0, 0, 0, time.UTC).Unix(), 2600000000, SentinelUnix})
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
