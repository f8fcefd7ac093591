package store

import (
	"context"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
)

// query is one SELECT while it is put together: conditions of our own making,
// and values that are only ever bound to them.
type query struct {
	where  []string
	params []any
}

func (q *query) add(condition string) { q.where = append(q.where, condition) }

// bind adds a named value. All are sent as text and typed by the statement.
func (q *query) bind(name, value string) { q.params = append(q.params, clickhouse.Named(name, value)) }

// equal adds column = value where there is one.
func (q *query) equal(column, name, value string) {
	if value == "" {
		return
	}
	q.add(column + " = {" + name + ":String}")
	q.bind(name, value)
}

// visibility says which side of their expiry the rows are on.
type visibility bool

const (
	readable visibility = true
	expired  visibility = false // still in the tables, hidden from every reader
)

// read is the one place where the WHERE of every read of events is made: it
// hides what has expired, what is of another tenant, and what came after the
// ceiling. ok is false where the kind has no column for something the filter asks for:
// no row of it can match.
func read(f event.Filter, kind event.Kind, v visibility) (q query, ok bool) {
	if f.Kinds != 0 && !f.Kinds.Has(kind) {
		return q, false
	}
	switch {
	case f.Action != "" && !event.Texts[event.TAction].Kinds.Has(kind),
		f.Outcome != "" && !event.Texts[event.TOutcome].Kinds.Has(kind),
		f.Status != 0 && !event.Numbers[event.NStatus].Kinds.Has(kind):
		return q, false
	}

	// A row is readable until its expiry and unreadable from that second on.
	side := ">"
	if v == expired {
		side = "<="
	}
	q.add("expires_at " + side + " toDateTime({now:UInt32}, 'UTC')")
	q.bind("now", seconds(f.Now))
	if f.Tenant != "" {
		q.equal("organization_id", "tenant", f.Tenant)
	}
	if !f.Ceiling.IsZero() {
		q.add("received_at <= " + instant("ceiling"))
		q.bind("ceiling", millis(f.Ceiling))
	}

	if !f.From.IsZero() {
		q.add("occurred_at >= " + instant("from"))
		q.bind("from", millis(ceilMilli(f.From)))
	}
	if !f.To.IsZero() {
		q.add("occurred_at < " + instant("to"))
		q.bind("to", millis(ceilMilli(f.To)))
	}
	q.equal("organization_id", "organization", f.Organization)
	if f.User != "" {
		// The subject keys hold every user.id: their index finds the rows
		// where the organization is not known.
		q.equal("user_id", "user", f.User)
		q.add("has(subject_keys, concat('user:', {user:String}))")
	}
	q.equal("event_action", "action", f.Action)
	q.equal("event_outcome", "outcome", f.Outcome)
	q.equal("client_country", "country", f.Country)
	if f.Status != 0 {
		q.add("http_response_status_code = {status:UInt16}")
		q.bind("status", strconv.Itoa(int(f.Status)))
	}
	if f.TraceID != ([16]byte{}) {
		q.add("trace_id = toFixedString(unhex({trace:String}), 16)")
		q.bind("trace", hex.EncodeToString(f.TraceID[:]))
	}
	switch len(f.Subjects) {
	case 0:
	case 1:
		q.add("has(subject_keys, {subject:String})")
		q.bind("subject", f.Subjects[0])
	default:
		q.add("hasAny(subject_keys, {subjects:Array(String)})")
		q.params = append(q.params, clickhouse.Named("subjects", f.Subjects))
	}
	return q, true
}

// conditions returns the WHERE.
func (q *query) conditions() string { return strings.Join(q.where, " AND ") }

// text returns the statement.
func (q *query) text(columns string, kind event.Kind, rest string) string {
	return "SELECT " + columns + " FROM " + kind.Table() + " WHERE " + q.conditions() + rest
}

// instant is a bound time: milliseconds, because they mean the same in every zone and protocol.
func instant(name string) string { return "fromUnixTimestamp64Milli({" + name + ":Int64}, 'UTC')" }

// seconds is a bound DateTime, held within its 32 bits.
func seconds(t time.Time) string {
	return strconv.FormatInt(min(max(t.Unix(), 0), math.MaxUint32), 10)
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// ceilMilli rounds up: stored times are whole milliseconds, so both t < x and
// t >= x hold for the same rows after it.
func ceilMilli(t time.Time) time.Time {
	if r := t.Truncate(time.Millisecond); !r.Equal(t) {
		return r.Add(time.Millisecond)
	}
	return t
}

// bounded gives a read its limits; ClickHouse stops it beyond them.
func (s *Store) bounded(ctx context.Context, more clickhouse.Settings) context.Context {
	settings := clickhouse.Settings{
		"readonly":              2,
		"max_execution_time":    s.options.MaxQueryTime.Seconds(),
		"max_memory_usage":      s.options.MaxQueryMemory,
		"max_rows_to_read":      s.options.MaxQueryRows,
		"read_overflow_mode":    "throw",
		"timeout_overflow_mode": "throw",
		// Wrong rows without an error with ORDER BY ... DESC LIMIT, in engines that have it.
		"use_top_k_dynamic_filtering": 0,
		// Only with FINAL would a filter on the expiry be wrong before it; no read uses FINAL.
		"optimize_move_to_prewhere":          1,
		"optimize_move_to_prewhere_if_final": 0,
	}
	for name, value := range more {
		settings[name] = value
	}
	return clickhouse.Context(ctx, clickhouse.WithSettings(settings))
}
