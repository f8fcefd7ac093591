package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// methods are the compressions that clickhouse-go has for HTTP.
var methods = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD,
	"gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate, "br": clickhouse.CompressionBrotli,
}

func withMethod(method clickhouse.CompressionMethod) func(*clickhouse.Options) {
	return func(o *clickhouse.Options) { o.Compression = &clickhouse.Compression{Method: method, Level: 1} }
}

func TestDriverHello(t *testing.T) {
	conn := openDriver(t, nil)
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	version, err := conn.ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := version.Version.Major, uint64(26); got < want {
		t.Errorf("got major version %d, want at least %d", got, want)
	}
	if got, want := version.Timezone.String(), scalar[string](t, conn, "SELECT timezone()"); got != want {
		t.Errorf("got time zone %s, want %s", got, want)
	}
}

func TestDriverTypesRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891_000_000, time.UTC)
	nothing := (*string)(nil)
	something := "x"
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			conn := openDriver(t, withMethod(method))
			execute(t, conn, `CREATE TABLE kinds (
				word LowCardinality(String), words Array(LowCardinality(String)), tags Map(String, String),
				maybe Nullable(String), at DateTime64(3, 'UTC'), day Date, id FixedString(16), n UInt64, f Float64,
				e Enum8('a' = 1, 'b' = 2), u UUID, ip IPv6, b Bool, d Decimal(18, 4), pair Tuple(a UInt8, b String)
			) ENGINE = MergeTree ORDER BY n`)
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO kinds")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				maybe := nothing
				if i == 1 {
					maybe = &something
				}
				if err := batch.Append("w", []string{"a", "b", "a"}, map[string]string{"k;\n\n": "v"}, maybe, at, at, strings.Repeat("\x00;", 8), uint64(i), 1.5,
					"b", "9f1c3f5e-6f5c-4c57-9f36-0a6c5a3a4e11", "2001:db8::1", true, "1.2500", []any{uint8(7), "p"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			rows, err := conn.Query(t.Context(), `SELECT word, words, tags, maybe, at, toString(day), id, n, f, toString(e), toString(u), toString(ip), b, toString(d), toString(pair) FROM kinds ORDER BY n`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var got []string
			for rows.Next() {
				var (
					word, day, id, e, u, ip, d, pair string
					words                            []string
					tags                             map[string]string
					maybe                            *string
					when                             time.Time
					n                                uint64
					f                                float64
					b                                bool
				)
				if err := rows.Scan(&word, &words, &tags, &maybe, &when, &day, &id, &n, &f, &e, &u, &ip, &b, &d, &pair); err != nil {
					t.Fatal(err)
				}
				text := "nil"
				if maybe != nil {
					text = *maybe
				}
				got = append(got, fmt.Sprintf("%s %q %q %s %v %s %q %d %v %s %s %s %v %s %s", word, words, tags, text, when.Equal(at), day, id, n, f, e, u, ip, b, d, pair))
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			line := func(n int, maybe string) string {
				return fmt.Sprintf(`w ["a" "b" "a"] map["k;\n\n":"v"] %s true 2026-03-04 %q %d 1.5 b 9f1c3f5e-6f5c-4c57-9f36-0a6c5a3a4e11 2001:db8::1 true 1.25 (7,'p')`,
					maybe, strings.Repeat("\x00;", 8), n)
			}
			want := []string{line(0, "nil"), line(1, "x"), line(2, "nil")}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestDriverBatchOfAMillion(t *testing.T) {
	const n = 1_000_000
	for _, name := range []string{"none", "lz4"} {
		t.Run(name, func(t *testing.T) {
			conn := openDriver(t, withMethod(methods[name]))
			execute(t, conn, "CREATE TABLE many (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO many (n, s)")
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if err := batch.Append(uint64(i), ";\n\n"); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			if got, want := scalar[uint64](t, conn, "SELECT count() FROM many WHERE s = ';\n\n'"), uint64(n); got != want {
				t.Errorf("got %d rows, want %d", got, want)
			}
			if got, want := scalar[uint64](t, conn, "SELECT sum(n) FROM many"), uint64(n*(n-1)/2); got != want {
				t.Errorf("got sum %d, want %d", got, want)
			}
		})
	}
}

func TestDriverParameters(t *testing.T) {
	conn := openDriver(t, nil)
	execute(t, conn, "CREATE TABLE p (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
	execute(t, conn, "INSERT INTO p VALUES ({n:UInt64}, {s:String})", clickhouse.Named("n", "7"), clickhouse.Named("s", "it's; a \\ tab\t"))
	execute(t, conn, "INSERT INTO p VALUES (8, ?)", "bound by the driver")
	ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"t": "p", "n": "7"}))
	var s string
	if err := conn.QueryRow(ctx, "SELECT s FROM {t:Identifier} WHERE n = {n:UInt64}").Scan(&s); err != nil {
		t.Fatal(err)
	}
	if got, want := s, "it's; a \\ tab\t"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := scalar[string](t, conn, "SELECT s FROM p WHERE n = 8"), "bound by the driver"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDriverErrors(t *testing.T) {
	conn := openDriver(t, nil)
	execute(t, conn, "CREATE TABLE e (n UInt64, CONSTRAINT small CHECK n < 10) ENGINE = MergeTree ORDER BY n")
	query := func(text string) func() error {
		return func() error {
			rows, err := conn.Query(t.Context(), text)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		}
	}
	send := func(values ...uint64) func() error {
		return func() error {
			batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO e")
			if err != nil {
				return err
			}
			for _, v := range values {
				if err := batch.Append(v); err != nil {
					return err
				}
			}
			return batch.Send()
		}
	}
	for name, c := range map[string]struct {
		do   func() error
		code int32
	}{
		"unknown table":         {query("SELECT * FROM nowhere"), 60},
		"syntax":                {query("SELEC 1"), 62},
		"unknown function":      {query("SELECT nonsense(1)"), 46},
		"two statements":        {query("SELECT 1; SELECT 2"), 62},
		"in the first block":    {query("SELECT throwIf(number = 0) FROM numbers(1)"), 395},
		"in the middle":         {query("SELECT throwIf(number = 300000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1"), 395},
		"in the middle, inside": {query("SELECT n, throwIf(n = 1) FROM (SELECT number AS n FROM numbers(3)) SETTINGS max_block_size = 1"), 395},
		"statement":             {func() error { return conn.Exec(t.Context(), "DROP TABLE nowhere") }, 60},
		"setting": {func() error {
			return conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 1})), "SELECT 1")
		}, 115},
		"value of a setting": {func() error {
			return conn.Exec(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_threads": "many"})), "SELECT 1")
		}, 27},
		"insert": {send(1, 11), 469},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.do()
			var exception *clickhouse.Exception
			if !errors.As(err, &exception) {
				t.Fatalf("got %v, want an exception with code %d", err, c.code)
			}
			if got, want := exception.Code, c.code; got != want {
				t.Errorf("got code %d (%v), want %d", got, err, want)
			}
		})
	}
	if got := scalar[uint64](t, conn, "SELECT count() FROM e"); got != 0 {
		t.Errorf("got %d rows of a failed insert, want 0", got)
	}
}

// A failure in the middle must be seen in every compression, and as what it was.
func TestDriverErrorInTheMiddleOfPackedAnswers(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			conn := openDriver(t, withMethod(method))
			rows, err := conn.Query(t.Context(), "SELECT number, randomString(20), throwIf(number = 50000) FROM numbers(100000) SETTINGS max_block_size = 1000, max_threads = 1")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			read := 0
			for rows.Next() {
				read++
			}
			var exception *clickhouse.Exception
			if err := rows.Err(); !errors.As(err, &exception) || exception.Code != 395 {
				t.Errorf("got %v after %d rows, want an exception with code 395", err, read)
			}
			if read == 0 || read > 50_000 {
				t.Errorf("got %d rows before the error, want some and at most 50000", read)
			}
		})
	}
}

func TestDriverCancelsALongQuery(t *testing.T) {
	conn := openDriver(t, func(o *clickhouse.Options) { o.MaxOpenConns = 4 })
	const text = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		var n uint64
		ended <- conn.QueryRow(ctx, text).Scan(&n)
	}()
	running := func() uint64 {
		return scalar[uint64](t, conn, "SELECT count() FROM system.processes WHERE query LIKE 'SELECT count() FROM numbers(1000000000000)%'")
	}
	until(t, "the query runs", func() bool { return running() == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	until(t, "the query is gone from the engine", func() bool { return running() == 0 })
}

func TestDriverConcurrentQueries(t *testing.T) {
	const clients, each = 16, 10
	conn := openDriver(t, func(o *clickhouse.Options) { o.MaxOpenConns = clients; o.MaxIdleConns = clients })
	execute(t, conn, "CREATE TABLE c (who UInt64, n UInt64) ENGINE = MergeTree ORDER BY (who, n)")
	var group sync.WaitGroup
	failed := make(chan error, clients)
	for who := range uint64(clients) {
		group.Go(func() { failed <- oneClient(t.Context(), conn, who, each) })
	}
	group.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
}

func oneClient(ctx context.Context, conn driver.Conn, who uint64, each int) error {
	for i := range each {
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO c")
		if err != nil {
			return err
		}
		if err := batch.Append(who, uint64(i)); err != nil {
			return err
		}
		if err := batch.Send(); err != nil {
			return err
		}
		// A setting of one request is not seen by another.
		ctx := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 1000 + who}))
		var n, size uint64
		if err := conn.QueryRow(ctx, "SELECT count(), toUInt64(getSetting('max_block_size')) FROM c WHERE who = ?", who).Scan(&n, &size); err != nil {
			return err
		}
		if n != uint64(i+1) || size != 1000+who {
			return fmt.Errorf("client %d: got %d rows and block size %d, want %d and %d", who, n, size, i+1, 1000+who)
		}
	}
	return nil
}
