package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

const canary = "canary-u_42@example.com"

func TestErrorClasses(t *testing.T) {
	server := func(code int32) error {
		return fmt.Errorf("insert: %w", &clickhouse.HTTPError{StatusCode: 500, Err: &clickhouse.Exception{Code: code, Message: canary}})
	}
	for _, c := range []struct {
		name                string
		err                 error
		permanent, tooLarge bool
		text                string
	}{
		{"too many parts", server(252), false, false, "TOO_MANY_PARTS (code 252)"},
		{"memory", server(241), false, true, "MEMORY_LIMIT_EXCEEDED"},
		{"timeout", server(159), false, true, "TIMEOUT_EXCEEDED"},
		{"too many rows", server(158), false, true, "TOO_MANY_ROWS"},
		{"disk full", server(243), false, false, "NOT_ENOUGH_SPACE"},
		{"read-only table", server(242), false, false, "TABLE_IS_READ_ONLY"},
		{"no table", server(60), false, false, "UNKNOWN_TABLE"},
		{"no database", server(81), false, false, "UNKNOWN_DATABASE"},
		{"password", server(516), false, false, "AUTHENTICATION_FAILED"},
		{"unknown code", server(99999), false, false, "code 99999"},
		{"wrong data", server(117), true, false, "INCORRECT_DATA"},
		{"wrong data, native protocol", &ch.Exception{Code: proto.ErrIncorrectData, Message: canary}, true, false, "INCORRECT_DATA"},
		{"network", &url.Error{Op: "Post", URL: "http://h/?param_subject=" + canary, Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}}, false, false, "dial tcp: refused"},
		{"status of a proxy", &clickhouse.HTTPError{StatusCode: 502, Err: errors.New(canary)}, false, false, "HTTP status 502"},
		{"anything else", errors.New(canary), false, false, "no usable answer"},
	} {
		err := wrap("insert request_events", c.err)
		var e interface{ Permanent() bool }
		if !errors.As(err, &e) || e.Permanent() != c.permanent {
			t.Errorf("%s: permanent: got %v, want %v", c.name, !c.permanent, c.permanent)
		}
		var l interface{ TooLarge() bool }
		if !errors.As(err, &l) || l.TooLarge() != c.tooLarge || errors.Is(err, ErrTooLarge) != c.tooLarge {
			t.Errorf("%s: too large: got %v, want %v", c.name, !c.tooLarge, c.tooLarge)
		}
		if text := err.Error(); !strings.Contains(text, c.text) || !strings.HasPrefix(text, "insert request_events: ") {
			t.Errorf("%s: got %q, want it to say %q", c.name, text, c.text)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, canary) {
				t.Errorf("%s: the error shows a value: %s", c.name, text)
			}
		}
	}
	for code, want := range map[int32]bool{516: true, 192: true, 497: true, 252: false, 60: false} {
		var e interface{ NeedsPerson() bool }
		err := Diagnose("migrate", server(code))
		if got := errors.As(err, &e) && e.NeedsPerson(); got != want || got != strings.Contains(err.Error(), "check user and password in CLICKHOUSE_DSN") {
			t.Errorf("code %d: %v: needs a person: got %t, want %t", code, err, got, want)
		}
	}
	if err := wrap("read", fmt.Errorf("x: %w", context.DeadlineExceeded)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want it to match context.DeadlineExceeded", err)
	}
	if wrap("read", nil) != nil {
		t.Error("nil became an error")
	}
}

// TestServerErrors lets the engine itself refuse.
func TestServerErrors(t *testing.T) {
	s, dsn := openDSN(t)
	ctx := context.Background()
	f := event.Filter{From: now.Add(-time.Hour), To: now.Add(time.Hour), Now: now, Subjects: []string{"user:" + canary}}
	b := s.NewBatch()
	for i := range 5000 {
		r := newRow(event.Request, usage, fmt.Sprint(i), now)
		r.SubjectKeys = []string{"user:" + canary}
		b.Add(r)
	}
	if err := s.Insert(ctx, b, "t"); err != nil {
		t.Fatal(err)
	}
	check := func(name string, err error, permanent, large bool) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: got %v, want an *Error", name, err)
		}
		if e.Permanent() != permanent || e.TooLarge() != large {
			t.Errorf("%s: %v: got permanent %v, too large %v; want %v, %v", name, err, e.Permanent(), e.TooLarge(), permanent, large)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, err), canary) {
			t.Errorf("%s: the error shows a value: %v", name, err)
		}
	}

	small, err := Open(ctx, Options{DSN: dsn, MaxQueryRows: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	_, err = small.Events(ctx, f, nil, 10)
	check("rows over the bound", err, false, true)
	_, err = small.Withheld(ctx, f, nil)
	check("count over the bound", err, false, true)

	stopped, cancel := context.WithCancel(ctx)
	cancel()
	check("cancelled insert", s.Insert(stopped, b, "t2"), false, false)

	for name, code := range map[string]int{"readonly=1": 164, "max_memory_usage=1000": 241} {
		limited, err := Open(ctx, Options{DSN: dsn + "?" + name})
		if err != nil {
			t.Fatal(err)
		}
		err = limited.Insert(ctx, b, name)
		check(name, err, false, code == 241)
		if got := code; got != errorCode(err) {
			t.Errorf("%s: got code %d, want %d", name, errorCode(err), code)
		}
		limited.Close()
	}

	// Each column fails on the row with the id 7 or, of the last, on any row.
	one := s.NewBatch()
	one.Add(newRow(event.Request, usage, "7", now))
	execute := func(statement string) {
		t.Helper()
		if err := s.conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for _, c := range []struct {
		column string
		code   int
	}{
		{"UInt8 MATERIALIZED throwIf(id = '7')", 395},
		{"UInt8 MATERIALIZED intDiv(1, id != '7')", 153},
		{"Date MATERIALIZED toDate(id)", 38},
		{"UUID MATERIALIZED toUUID(id)", 376},
		{"IPv4 MATERIALIZED toIPv4(id)", 675},
		{"Decimal32(9) MATERIALIZED toDecimal32(id, 9)", 69},
		{"Enum8('q' = 1) MATERIALIZED CAST(id, 'Enum8(''q'' = 1)')", 691},
		{"FixedString(1) MATERIALIZED toFixedString(source, 1)", 131},
		{"String MATERIALIZED CAST(nullIf(id, '7'), 'String')", 349},
	} {
		execute("ALTER TABLE request_events ADD COLUMN spoilt " + c.column)
		err := s.Insert(ctx, one, c.column)
		check(c.column, err, true, false)
		if got := errorCode(err); got != c.code {
			t.Errorf("%s: got code %d, want %d", c.column, got, c.code)
		}
		execute("ALTER TABLE request_events DROP COLUMN spoilt")
	}

	execute("ALTER TABLE request_events ADD CONSTRAINT c CHECK id != '7'")
	check("refused row", s.Insert(ctx, b, "t3"), true, false)
	execute("DROP TABLE request_events SYNC")
	check("table gone", s.Insert(ctx, b, "t4"), false, false)

	if _, err := Open(ctx, Options{DSN: "http://127.0.0.1:1/x"}); err == nil {
		t.Error("no server: got no error")
	} else {
		check("no server", err, false, false)
	}
	for _, dsn := range []string{"", "http://user:" + canary + "@[::1", "\x00"} {
		if _, err := Open(ctx, Options{DSN: dsn}); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("malformed DSN: got %v", err)
		}
	}
}

func errorCode(err error) int {
	var e *Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.Code()
}
