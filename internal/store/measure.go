package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// clocks are the columns that say how old a row of one of our tables is.
var clocks = map[string]string{
	"request_events": "retained_from", "audit_events": "retained_from", "security_events": "retained_from",
	"ingest_ledger": "received_at", "ingest_progress": "updated_at", "dead_letters": "received_at", "verified_buckets": "verified_at",
	"retention_classes": "registered_at", "schema_migrations": "applied_at",
	"anchors": "received_at", "erasures": "updated_at", "holds": "placed_at", "retention_sweeps": "began_at", "retention_moves": "planned_at",
}

// measure runs a query of a proof and calls f for each row of the answer.
func (s *Store) measure(ctx context.Context, op, text string, params []any, f func(driver.Rows) error) error {
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), text, params...)
	if err != nil {
		return wrap(op, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return wrap(op, err)
		}
	}
	return wrap(op, rows.Err())
}

// MeasureTables returns what the system tables say of every table of the database. A
// view holds nothing and is none.
func (s *Store) MeasureTables(ctx context.Context) ([]measured.Table, error) {
	const op = "measure tables"
	var all []measured.Table
	defaults, err := s.serverSettings(ctx)
	if err != nil {
		return nil, err
	}
	err = s.measure(ctx, op, `SELECT t.name, t.engine_full, c.expires_at, c.people, ifNull(t.total_rows, 0), ifNull(t.total_bytes, 0),
			countSubstrings(t.create_table_query, ' TTL ') > countSubstrings(t.engine_full, ' TTL ')
		FROM system.tables AS t
		LEFT JOIN (SELECT table, anyIf(default_expression, name = 'expires_at' AND default_kind = 'ALIAS') AS expires_at,
				max(name IN ('subject_keys', 'subject', 'subjects', 'user_id', 'user_email', 'session_id', 'device_id', 'target_id', 'target_owner_id', 'actor_on_behalf_of_id')) AS people
			FROM system.columns WHERE database = currentDatabase() GROUP BY table) AS c ON c.table = t.name
		WHERE t.database = currentDatabase() AND t.engine != 'View' ORDER BY t.name`, nil, func(rows driver.Rows) error {
		var t measured.Table
		var engine string
		var people, columnTTL uint8
		if err := rows.Scan(&t.Name, &engine, &t.ExpiresAt, &people, &t.Rows, &t.Bytes, &columnTTL); err != nil {
			return err
		}
		t.People, t.ColumnTTL = people > 0, columnTTL > 0
		t.TTL, t.Settings = takeApart(engine)
		for name, value := range defaults {
			if _, ok := t.Settings[name]; !ok {
				t.Settings[name] = value
			}
		}
		all = append(all, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*measured.Table, len(all))
	for i := range all {
		byName[all[i].Name] = &all[i]
	}
	err = s.measure(ctx, op, "SELECT table, name, ifNull(reason, ''), bytes_on_disk FROM system.detached_parts WHERE database = currentDatabase() ORDER BY table, name", nil,
		func(rows driver.Rows) error {
			var table string
			var p measured.Part
			if err := rows.Scan(&table, &p.Name, &p.Reason, &p.Bytes); err != nil {
				return err
			}
			if t := byName[table]; t != nil {
				t.Detached = append(t.Detached, p)
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	for i := range all {
		t := &all[i]
		clock := clocks[t.Name]
		if clock == "" || t.Rows == 0 {
			continue
		}
		var oldest int64
		// Both names are our own.
		err := s.conn.QueryRow(s.bounded(ctx, unhurried), "SELECT toInt64(toUnixTimestamp(toDateTime(min("+clock+"), 'UTC'))) FROM "+t.Name).Scan(&oldest)
		if err != nil {
			return nil, wrap(op, err)
		}
		t.Oldest = unix(oldest)
	}
	return all, nil
}

// serverSettings are those of tables that the server's configuration changes for all.
func (s *Store) serverSettings(ctx context.Context) (map[string]string, error) {
	settings := map[string]string{}
	err := s.measure(ctx, "read settings", "SELECT name, value FROM system.merge_tree_settings WHERE changed", nil, func(rows driver.Rows) error {
		var name, value string
		err := rows.Scan(&name, &value)
		settings[name] = value
		return err
	})
	return settings, err
}

// takeApart finds the TTL and the settings in the definition of a table.
func takeApart(engine string) (ttl string, settings map[string]string) {
	engine, list, _ := strings.Cut(engine, " SETTINGS ")
	_, ttl, _ = strings.Cut(engine, " TTL ")
	settings = map[string]string{}
	for s := range strings.SplitSeq(list, ", ") {
		if name, value, ok := strings.Cut(s, " = "); ok {
			settings[name] = strings.Trim(value, "'")
		}
	}
	return ttl, settings
}

// unix is zero for the instant 0, which is how ClickHouse writes that there is none.
func unix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// Formatted returns an expression in the form in which the system tables print it.
func (s *Store) Formatted(ctx context.Context, expression string) (text string, err error) {
	err = s.conn.QueryRow(s.bounded(ctx, nil), "SELECT formatQuerySingleLine({e:String})", clickhouse.Named("e", "SELECT "+expression)).Scan(&text)
	return strings.TrimPrefix(text, "SELECT "), wrap("format expression", err)
}

// Expiries returns what an expression of an expiry, as MeasureTables found it, says of
// an unmoved row of each class whose period counts from an instant.
func (s *Store) Expiries(ctx context.Context, expression string, classes []string, from time.Time) (map[string]time.Time, error) {
	all := make(map[string]time.Time, len(classes))
	err := s.measure(ctx, "evaluate expiry", "SELECT retention_class, toInt64(toUnixTimestamp("+expression+`)) FROM
		(SELECT arrayJoin({classes:Array(String)}) AS retention_class, toDateTime({from:UInt32}, 'UTC') AS retained_from, toUInt32(0) AS expires_override)`,
		[]any{clickhouse.Named("classes", classes), clickhouse.Named("from", seconds(from))}, func(rows driver.Rows) error {
			var class string
			var at int64
			if err := rows.Scan(&class, &at); err != nil {
				return err
			}
			all[class] = time.Unix(at, 0).UTC()
			return nil
		})
	return all, err
}

// MeasureClasses measures every stored class of every table of events. It takes the
// expiry from the scope and not from the tables, so that it tells what is past its
// expiry even where the tables' own has been changed.
func (s *Store) MeasureClasses(ctx context.Context, scope measured.Scope) ([]measured.Class, error) {
	params := []any{
		clickhouse.Named("now", seconds(scope.Now)),
		clickhouse.Named("sentinel", strconv.Itoa(sentinel)), clickhouse.Named("ahead", strconv.Itoa(int(scope.Ahead/time.Second))),
		clickhouse.Named("daily", scope.Daily),
	}
	var all []measured.Class
	for _, kind := range event.Kinds {
		err := s.measure(ctx, "measure classes", `SELECT retention_class, count(),
				toInt64(toUnixTimestamp(min(retained_from))), toInt64(toUnixTimestamp(max(retained_from))),
				toInt64(minIf(expiry, expiry > {now:UInt32} AND expiry < {sentinel:UInt32})), countIf(expiry >= {sentinel:UInt32}),
				countIf(expiry <= {now:UInt32}), countIf(expires_override > 0),
				countIf(bucket != if(has({daily:Array(String)}, retention_class), toDate(retained_from, 'UTC'), toStartOfMonth(retained_from, 'UTC'))),
				countIf(retained_from != toDateTime(if(occurred_at > received_at + toIntervalSecond({ahead:UInt32}), received_at, occurred_at), 'UTC'))
			FROM (SELECT toString(retention_class) AS retention_class, retained_from, expires_override, bucket, occurred_at, received_at,
				toUInt32(`+scope.Expires+`) AS expiry FROM `+kind.Table()+`)
			GROUP BY retention_class ORDER BY retention_class`, params, func(rows driver.Rows) error {
			c := measured.Class{Table: kind.Table()}
			var oldest, newest, next int64
			if err := rows.Scan(&c.Retention, &c.Rows, &oldest, &newest, &next, &c.Waiting, &c.Past, &c.Moved, &c.Misplaced, &c.Misdated); err != nil {
				return err
			}
			c.Oldest, c.Newest, c.NextExpiry = unix(oldest), unix(newest), unix(next)
			all = append(all, c)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, s.lateness(ctx, scope, all)
}

// lateness measures how long the rows that are past their expiry could have been gone.
// An expiry that was moved into the past holds from the move on, and one that a shorter
// promise brought there from that promise on.
func (s *Store) lateness(ctx context.Context, scope measured.Scope, all []measured.Class) error {
	shortened, since := make([]string, 0, len(scope.Since)), make([]uint32, 0, len(scope.Since))
	for class, at := range scope.Since {
		shortened, since = append(shortened, class), append(since, uint32(at.Unix()))
	}
	for _, kind := range event.Kinds {
		if !slices.ContainsFunc(all, func(c measured.Class) bool { return c.Table == kind.Table() && c.Past > 0 }) {
			continue
		}
		err := s.measure(ctx, "measure lateness", `
SELECT toString(r.retention_class) AS class, countIf(since <= {due:UInt32}), toInt64(min(greatest(expiry, m.planned, toUInt32(transform(class, {shortened:Array(String)}, {since:Array(UInt32)}, toUInt32(0)))) AS since))
FROM
(
    SELECT retention_class, bucket, src_topic, src_partition, src_offset, `+digest+` AS digest, toUInt32(`+scope.Expires+`) AS expiry
    FROM `+kind.Table()+` WHERE expiry <= {now:UInt32}
) AS r
LEFT JOIN (SELECT * REPLACE (toUInt32(toUnixTimestamp(planned)) AS planned) FROM `+moved+`) AS m
USING (retention_class, bucket, src_topic, src_partition, src_offset, digest)
GROUP BY class`, []any{
			clickhouse.Named("table", kind.Table()), clickhouse.Named("now", seconds(scope.Now)), clickhouse.Named("due", seconds(scope.Now.Add(-scope.Grace))),
			clickhouse.Named("shortened", shortened), clickhouse.Named("since", since),
		}, func(rows driver.Rows) error {
			var class string
			var pastGrace uint64
			var overdue int64
			if err := rows.Scan(&class, &pastGrace, &overdue); err != nil {
				return err
			}
			for i := range all {
				if all[i].Table == kind.Table() && all[i].Retention == class {
					all[i].PastGrace, all[i].Overdue = pastGrace, unix(overdue)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Groups counts the rows of a kind by class and by the attributes that decide the
// class: of compared their values, of present whether they are there. More than limit
// groups are an error.
func (s *Store) Groups(ctx context.Context, kind event.Kind, compared, present []event.Attr, version string, limit int) ([]measured.Group, error) {
	const op = "count rows by class"
	// The columns are grouped as they are, most of them dictionaries, and joined to arrays after.
	var columns, values, there []string
	key := func(expression string, list *[]string) {
		name := "k" + strconv.Itoa(len(columns))
		columns = append(columns, expression+" AS "+name)
		*list = append(*list, "toString("+name+")")
	}
	for _, a := range compared {
		key(textColumn(kind, a), &values)
	}
	for _, a := range present {
		key(presence(kind, a), &there)
	}
	action := "''"
	if event.Texts[event.TAction].Kinds.Has(kind) {
		action = "event_action"
	}
	array := func(list []string) string { return "CAST([" + strings.Join(list, ", ") + "], 'Array(String)')" }
	inner := strings.Join(append([]string{"retention_class", action + " AS action", "policy_version = {version:String} AS current"}, columns...), ", ")
	var all []measured.Group
	err := s.measure(ctx, op, "SELECT toString(retention_class) AS class, toString(action) AS act, current, "+array(values)+" AS compared, "+array(there)+
		" AS present, n FROM (SELECT "+inner+", count() AS n FROM "+kind.Table()+" GROUP BY ALL) ORDER BY act, class, compared, present, current LIMIT {limit:UInt32}",
		[]any{clickhouse.Named("version", version), clickhouse.Named("limit", strconv.Itoa(limit+1))}, func(rows driver.Rows) error {
			g := measured.Group{Kind: kind}
			var current uint8
			if err := rows.Scan(&g.Retention, &g.Action, &current, &g.Compared, &g.Present, &g.Rows); err != nil {
				return err
			}
			g.Current = current > 0
			all = append(all, g)
			return nil
		})
	if err == nil && len(all) > limit {
		return nil, fmt.Errorf("%s: %s has more than %d groups", op, kind.Table(), limit)
	}
	return all, err
}

// textColumn returns the column of an attribute that is stored as it was published.
func textColumn(kind event.Kind, a event.Attr) string {
	for _, f := range event.Texts {
		if f.From == a && f.Name == event.Attributes[a].Name && f.Kinds.Has(kind) {
			return f.Column()
		}
	}
	return "''"
}

// presence returns an expression that is empty where a row's event lacked the
// attribute, "@" where an e-mail stood in its place, else "x".
func presence(kind event.Kind, a event.Attr) string {
	said := func(condition string) string { return "if(" + condition + ", 'x', '')" }
	switch a {
	case event.ClientAddress:
		return said("client_country != ''")
	case event.UserAgent:
		return said("concat(user_agent_name, user_agent_version, user_agent_os) != ''")
	case event.UserEmail:
		return said("user_email != ''")
	case event.SessionID:
		return said("session_id != ''")
	case event.TraceID:
		return said("trace_id != toFixedString('', 16)")
	case event.SpanID:
		return said("span_id != toFixedString('', 8)")
	case event.Metadata:
		return said("notEmpty(metadata)")
	case event.TargetOwner:
		return "multiIf(empty(target_owner_id), '', arrayAll(o -> startsWith(o, 'email:'), target_owner_id), '@', 'x')"
	}
	for _, f := range event.Numbers {
		if f.From == a && f.Kinds.Has(kind) {
			if strings.HasPrefix(f.ClickHouse, "Nullable") {
				return said("isNotNull(" + f.Column() + ")")
			}
			return said(f.Column() + " != 0")
		}
	}
	c := textColumn(kind, a)
	return "multiIf(" + c + " = '', '', startsWith(" + c + ", 'email:'), '@', 'x')"
}
