package store

import (
	"context"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// ended are the subjects whose last deletion is long enough ago and was told in time, kept
// those that a hold is of, or was of until a moment ago.
const (
	ended = `(SELECT a.subject FROM anchors AS a WHERE has({begins:Array(String)}, a.action) OR has({clears:Array(String)}, a.action)
	GROUP BY a.subject HAVING maxIf(a.occurred_at, has({begins:Array(String)}, a.action)) > maxIf(a.occurred_at, has({clears:Array(String)}, a.action))
		AND addDays(addMonths(toDateTime(maxIf(a.occurred_at, has({begins:Array(String)}, a.action)), 'UTC'), {months:Int32}), {days:Int32}) <= toDateTime({due:UInt32}, 'UTC')
		AND max(a.received_at) <= fromUnixTimestamp64Milli({settled:Int64}, 'UTC'))`
	kept = `(SELECT arrayJoin(held) FROM (SELECT argMax(h.subjects, h.updated_at) AS held, argMax(h.released_at, h.updated_at) AS released FROM holds AS h GROUP BY h.hold)
	WHERE toUnixTimestamp64Milli(released) = 0 OR released > fromUnixTimestamp64Milli({settled:Int64}, 'UTC'))`
)

// persons are the subjects that one of a row's people, k, is by what the row hangs on, see event.Member.
var persons = map[string]string{"user": "k", "member": "concat('member:', replaceAll(organization_id, '/', '//'), '/', k)"}

// MeasureEnded counts, by table, the rows that must have been moved and were not. It
// knows less than what moves them: of a row with several people it counts only that
// which hangs on nobody any more.
func (s *Store) MeasureEnded(ctx context.Context, e measured.Ended) (map[string]uint64, error) {
	all := map[string]uint64{}
	for _, kind := range event.Kinds {
		q := query{}
		q.add("retention_class = {class:String} AND expires_override = 0")
		q.add("expires_at > toDateTime({due:UInt32}, 'UTC') AND received_at <= fromUnixTimestamp64Milli({settled:Int64}, 'UTC')")
		q.add("addDays(addMonths(toDateTime64(retained_from, 0, 'UTC'), {least_months:Int32}), {least_days:Int32}) <= toDateTime({due:UInt32}, 'UTC')")
		q.add("NOT arrayExists(k -> k IN " + kept + ", subject_keys)")
		if person, is := persons[e.KeyedBy]; is {
			q.add("arrayExists(k -> startsWith(k, 'user:'), subject_keys) AND arrayAll(k -> NOT startsWith(k, 'user:') OR " + person + " IN " + ended + ", subject_keys)")
		}
		for _, b := range belongs {
			of := "concat('" + b.prefix + "', " + b.column + ")"
			q.add(of + " NOT IN " + kept)
			if b.prefix == e.KeyedBy+":" {
				q.add(of + " IN " + ended)
			}
		}
		q.bind("class", e.Retention)
		q.bind("due", seconds(e.Due))
		q.bind("settled", millis(e.Settled))
		for name, n := range map[string]int{"months": e.After.Months, "days": e.After.Days, "least_months": e.AtLeast.Months, "least_days": e.AtLeast.Days} {
			q.bind(name, strconv.Itoa(n))
		}
		q.params = append(q.params, clickhouse.Named("begins", e.Begins), clickhouse.Named("clears", e.Clears))
		err := s.measure(ctx, "count what must have been moved", q.text("count()", kind, ""), q.params, func(rows driver.Rows) error {
			var n uint64
			err := rows.Scan(&n)
			all[kind.Table()] = n
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MeasureOverdue counts the rows of a table of our own that its TTL, given as the
// migrations wrote it, should have removed before an instant.
func (s *Store) MeasureOverdue(ctx context.Context, table, ttl string, due time.Time) (n uint64, err error) {
	// Both are our own.
	err = s.conn.QueryRow(s.bounded(ctx, unhurried), "SELECT countIf("+ttl+" <= toDateTime({due:UInt32}, 'UTC')) FROM "+table, clickhouse.Named("due", seconds(due))).Scan(&n)
	return n, wrap("measure lateness", err)
}
