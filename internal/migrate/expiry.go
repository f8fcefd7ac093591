package migrate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/policy"
)

// expiry is what the policy asks of the tables.
type expiry struct {
	version string
	classes []policy.StoredClass
	grace   time.Duration
}

// expiring are the tables that the expiry stands in.
var expiring = []string{"request_events", "audit_events", "security_events"}

// maxRounds bounds how often the expiry is written again because another
// program registered a class in between.
const maxRounds = 10

// apply registers the policy's classes and writes the expiry of all classes
// ever registered into the tables where it is not there yet. It returns how
// many tables it changed.
//
// The order matters: a class is registered before any table knows it, and
// after the tables were written the register is read again. So whoever writes
// last has seen every class, and no class is ever missing for long.
func (x expiry) apply(ctx context.Context, conn driver.Conn) (steps int, err error) {
	for range maxRounds {
		all, err := registered(ctx, conn)
		if err != nil {
			return steps, fmt.Errorf("read retention_classes: %w", err)
		}
		if err := x.register(ctx, conn, all); err != nil {
			return steps, fmt.Errorf("register retention classes: %w", err)
		}
		if all, err = registered(ctx, conn); err != nil {
			return steps, fmt.Errorf("read retention_classes: %w", err)
		}
		changed, err := x.write(ctx, conn, policy.ExpiresExpr(all))
		if err != nil {
			return steps, err
		}
		steps += changed
		if changed == 0 {
			return steps, nil
		}
	}
	return steps, errors.New("write expiry: other programs keep changing it; start them one after the other")
}

// register records the classes of the policy that are not there yet.
func (x expiry) register(ctx context.Context, conn driver.Conn, all []policy.StoredClass) error {
	known := make(map[string]policy.Period, len(all))
	for _, c := range all {
		known[c.Key] = c.Period
	}
	for _, c := range x.classes {
		old, ok := known[c.Key]
		if ok && old != c.Period {
			return fmt.Errorf("%s is registered with another period; a class's period is part of its key and cannot change", c.Key)
		}
		if ok {
			continue
		}
		err := conn.Exec(insert(ctx), `INSERT INTO retention_classes (retention_class, months, days, sentinel, policy_version, registered_at)
			SELECT {key:String}, {months:UInt32}, {days:UInt32}, {sentinel:Bool}, {version:String}, now64(3, 'UTC')`,
			clickhouse.Named("key", c.Key), clickhouse.Named("months", strconv.Itoa(c.Period.Months)), clickhouse.Named("days", strconv.Itoa(c.Period.Days)),
			clickhouse.Named("sentinel", strconv.FormatBool(c.Period.Sentinel)), clickhouse.Named("version", x.version))
		if err != nil {
			return err
		}
	}
	return nil
}

// registered returns every class that any policy has produced, in order of key.
func registered(ctx context.Context, conn driver.Conn) ([]policy.StoredClass, error) {
	rows, err := conn.Query(ctx, "SELECT DISTINCT retention_class, months, days, sentinel FROM retention_classes ORDER BY retention_class")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []policy.StoredClass
	for rows.Next() {
		var c policy.StoredClass
		var months, days uint32
		if err := rows.Scan(&c.Key, &months, &days, &c.Period.Sentinel); err != nil {
			return nil, err
		}
		c.Period.Months, c.Period.Days = int(months), int(days)
		if n := len(all); n > 0 && all[n-1].Key == c.Key {
			return nil, fmt.Errorf("%s has two periods", c.Key)
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// write puts the expression into each table that does not have it, as its TTL
// and as the alias expires_at in one statement.
func (x expiry) write(ctx context.Context, conn driver.Conn, expr string) (changed int, err error) {
	// ClickHouse prints expressions in a form of its own: ask it for that form.
	var normal string
	err = conn.QueryRow(ctx, "SELECT formatQuerySingleLine({expr:String})", clickhouse.Named("expr", "SELECT "+expr)).Scan(&normal)
	if err != nil {
		return 0, fmt.Errorf("check expiry: %w", err)
	}
	normal = strings.TrimPrefix(normal, "SELECT ")
	timeout := MergeTimeout(x.grace)
	for _, table := range expiring {
		live, err := describe(ctx, conn, table)
		if err != nil {
			return changed, fmt.Errorf("describe %s: %w", table, err)
		}
		wrong := false
		if live.ttl != normal || live.alias != normal {
			wrong = true
			// The expression is generated from the policy; an expression cannot be a bound value.
			err := conn.Exec(ctx, "ALTER TABLE "+table+" MODIFY COLUMN expires_at DateTime('UTC') ALIAS "+expr+", MODIFY TTL "+expr)
			if err != nil {
				return changed, fmt.Errorf("write expiry of %s: %w", table, err)
			}
		}
		if live.timeout != timeout {
			wrong = true
			err := conn.Exec(ctx, "ALTER TABLE "+table+" MODIFY SETTING merge_with_ttl_timeout = "+strconv.Itoa(timeout))
			if err != nil {
				return changed, fmt.Errorf("write settings of %s: %w", table, err)
			}
		}
		if wrong {
			changed++
		}
	}
	return changed, nil
}

// MergeTimeout is how long ClickHouse may wait between two merges that remove
// expired rows of a part, in seconds: an eighth of the grace, at most an hour.
// The rest of the grace is for the merges themselves.
func MergeTimeout(grace time.Duration) int {
	return int(min(time.Hour, max(time.Second, grace/8)) / time.Second)
}

type table struct {
	ttl, alias string
	timeout    int
}

// describe returns what a table has now.
func describe(ctx context.Context, conn driver.Conn, name string) (table, error) {
	var t table
	var engine string
	err := conn.QueryRow(ctx, `SELECT engine_full,
			(SELECT default_expression FROM system.columns WHERE database = currentDatabase() AND table = {table:String} AND name = 'expires_at')
		FROM system.tables WHERE database = currentDatabase() AND name = {table:String}`, clickhouse.Named("table", name)).Scan(&engine, &t.alias)
	if err != nil {
		return t, err
	}
	engine, settings, _ := strings.Cut(engine, " SETTINGS ")
	_, t.ttl, _ = strings.Cut(engine, " TTL ")
	for s := range strings.SplitSeq(settings, ", ") {
		if value, ok := strings.CutPrefix(s, "merge_with_ttl_timeout = "); ok {
			if t.timeout, err = strconv.Atoi(value); err != nil {
				return t, fmt.Errorf("read merge_with_ttl_timeout: %w", err)
			}
		}
	}
	return t, nil
}
