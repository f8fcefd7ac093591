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
	policy   *policy.Policy
	shortens string // the version of the policy that may shorten older promises
}

// expiring are the tables that the expiry stands in.
var expiring = []string{"request_events", "audit_events", "security_events"}

// maxRounds bounds how often the expiry is written again because another
// program registered a class in between.
const maxRounds = 10

// apply registers the policy's classes, and what it shortens of older ones where
// that is allowed, and writes the expiry of all classes ever registered into the
// tables where it is not there yet. It returns how many tables it changed.
//
// The order matters: a class or a shortening is registered before any table knows it, and
// after the tables were written the register is read again. The register only grows, and
// what holds by it depends on no order. So whoever writes last has seen everything, and
// no class is ever missing for long.
func (x expiry) apply(ctx context.Context, conn driver.Conn) (steps int, err error) {
	for range maxRounds {
		all, err := registered(ctx, conn)
		if err != nil {
			return steps, fmt.Errorf("read retention_classes: %w", err)
		}
		if err := x.check(all); err != nil {
			return steps, err
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
	timeout := MergeTimeout(x.policy.Grace)
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
