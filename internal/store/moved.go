package store

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// moved is where each delivery is by its last move. An expiry that was moved into the
// past holds from the move on.
const moved = `(SELECT retention_class, bucket, src_topic, src_partition, src_offset, digest,
		argMax(to_override, sweep) AS override, argMax(planned_at, sweep) AS planned, argMax(cause, sweep) AS cause, any(day) AS day,
		greatest(override, toUInt32(toUnixTimestamp(planned))) AS holds
	FROM retention_moves WHERE table = {table:String}
	GROUP BY retention_class, bucket, src_topic, src_partition, src_offset, digest)`

// MeasureOverrides holds the moved rows against the account of moves. A move that was
// planned after settled may still be under way. Of every row two numbers are read, and
// the rest of those few whose partition and offset a move names.
func (s *Store) MeasureOverrides(ctx context.Context, settled time.Time) ([]measured.Overrides, error) {
	var all []measured.Overrides
	for _, kind := range event.Kinds {
		err := s.measure(ctx, "compare moves", `
SELECT toString(r.retention_class) AS class, countIf(r.expires_override > 0 AND m.planned = 0),
    countIf(m.planned > 0 AND m.override != r.expires_override AND m.planned < fromUnixTimestamp64Milli({settled:Int64}))
FROM
(
    SELECT retention_class, bucket, src_topic, src_partition, src_offset, `+digest+` AS digest, expires_override FROM `+kind.Table()+`
    WHERE expires_override > 0 OR (src_partition, src_offset) IN (SELECT src_partition, src_offset FROM retention_moves WHERE table = {table:String})
) AS r
LEFT JOIN `+moved+` AS m
USING (retention_class, bucket, src_topic, src_partition, src_offset, digest)
GROUP BY class ORDER BY class`,
			[]any{clickhouse.Named("table", kind.Table()), clickhouse.Named("settled", millis(settled))}, func(rows driver.Rows) error {
				o := measured.Overrides{Table: kind.Table()}
				if err := rows.Scan(&o.Retention, &o.Unexplained, &o.Unmoved); err != nil {
					return err
				}
				all = append(all, o)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MeasureMoves counts the deliveries that were moved, by class and cause.
func (s *Store) MeasureMoves(ctx context.Context, now time.Time, grace time.Duration) ([]measured.Moves, error) {
	var all []measured.Moves
	for _, kind := range event.Kinds {
		err := s.measure(ctx, "count moves", `
SELECT toString(retention_class), toString(cause), count(), countIf(override > 0 AND holds <= {due:UInt32}),
    toInt64(minIf(override, override > {due:UInt32} AND override < {sentinel:UInt32}))
FROM `+moved+` GROUP BY retention_class, cause ORDER BY retention_class, cause`,
			[]any{clickhouse.Named("table", kind.Table()), clickhouse.Named("due", seconds(now.Add(-grace))), clickhouse.Named("sentinel", seconds(time.Unix(sentinel, 0)))},
			func(rows driver.Rows) error {
				m := measured.Moves{Table: kind.Table()}
				var next int64
				if err := rows.Scan(&m.Retention, &m.Cause, &m.Deliveries, &m.Due, &next); err != nil {
					return err
				}
				m.Next = unix(next)
				all = append(all, m)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// MeasureAnchors counts by action the events that are anchors, whomever they are about
// and however often that is kept.
func (s *Store) MeasureAnchors(ctx context.Context) ([]measured.Anchors, error) {
	var all []measured.Anchors
	err := s.measure(ctx, "count anchors", "SELECT toString(action), uniqExact(occurred_at, source, id), toInt64(toUnixTimestamp(toDateTime(min(occurred_at), 'UTC'))) FROM anchors GROUP BY action ORDER BY action", nil,
		func(rows driver.Rows) error {
			var a measured.Anchors
			var oldest int64
			if err := rows.Scan(&a.Action, &a.Count, &oldest); err != nil {
				return err
			}
			a.Oldest = unix(oldest)
			all = append(all, a)
			return nil
		})
	return all, err
}

// MeasureErasures counts the erasures by how far they are at an instant.
func (s *Store) MeasureErasures(ctx context.Context, now time.Time) (e measured.Erasures, err error) {
	var next int64
	err = s.conn.QueryRow(s.bounded(ctx, unhurried), `
SELECT countIf(state = 'done'), countIf(state != 'done'), countIf(state NOT IN ('removed', 'done') AND deadline <= toDateTime({now:UInt32}, 'UTC')),
    countIf(state != 'done' AND everywhere <= toDateTime({now:UInt32}, 'UTC')),
    toInt64(toUnixTimestamp(minIf(deadline, state NOT IN ('removed', 'done') AND deadline > toDateTime({now:UInt32}, 'UTC'))))
FROM (SELECT argMax(e.state, e.updated_at) AS state, argMax(e.deadline, e.updated_at) AS deadline, argMax(e.everywhere, e.updated_at) AS everywhere
    FROM erasures AS e GROUP BY e.erasure)`, clickhouse.Named("now", seconds(now))).Scan(&e.Done, &e.Open, &e.Late, &e.NotAllGone, &next)
	e.NextDeadline = unix(next)
	return e, wrap("count erasures", err)
}

// Accounted sums the ledger's cells by table, class and day. What was delivered twice
// counts once, within whatever bounds: where entries of a partition overlap, their
// counts come one by one, and ledger.Least takes them together.
func (s *Store) Accounted(ctx context.Context) (all []ledger.Cell, err error) {
	err = s.measure(ctx, "sum the ledger's cells", `
SELECT t, r, d, sumIf(rows, NOT overlap), groupArrayIf(firsts, overlap), groupArrayIf(lasts, overlap), groupArrayIf(counts, overlap)
FROM
(
    SELECT t, r, d, arraySort(groupUniqArray((first, last, n))) AS parts, parts.1 AS firsts, parts.2 AS lasts, parts.3 AS counts, arraySum(counts) AS rows,
        arrayExists((l, f) -> f <= l, arrayPopBack(lasts), arrayPopFront(firsts)) AS overlap
    FROM
    (
        SELECT cluster, topic, epoch, partition, first, last, toString(c.table) AS t, toString(c.retention) AS r, toInt32(c.day) AS d, c.rows AS n
        FROM ingest_ledger ARRAY JOIN cells AS c
    )
    GROUP BY t, r, d, cluster, topic, epoch, partition
)
GROUP BY t, r, d ORDER BY t, r, d`, nil, func(rows driver.Rows) error {
		var c ledger.Cell
		var firsts, lasts [][]int64
		var counts [][]uint64
		if err := rows.Scan(&c.Table, &c.Retention, &c.Day, &c.Rows, &firsts, &lasts, &counts); err != nil {
			return err
		}
		for i := range firsts {
			parts := make([]ledger.Part, len(firsts[i]))
			for j := range parts {
				parts[j] = ledger.Part{Range: ledger.Range{First: firsts[i][j], Last: lasts[i][j]}, Rows: counts[i][j]}
			}
			c.Rows += ledger.Least(parts)
		}
		all = append(all, c)
		return nil
	})
	return all, err
}

// Kept counts the deliveries that are in the tables and were not moved, by table,
// class and day.
func (s *Store) Kept(ctx context.Context) (all []ledger.Cell, err error) {
	for _, kind := range event.Kinds {
		cells, err := s.cells(ctx, "count deliveries", "SELECT '"+kind.Table()+"', toString(retention_class) AS r, "+day+` AS d, uniqExact(src_topic, src_partition, src_offset, source, id)
			FROM `+kind.Table()+` WHERE expires_override = 0 GROUP BY r, d ORDER BY r, d`)
		if err != nil {
			return nil, err
		}
		all = append(all, cells...)
	}
	return all, nil
}

// MovedAway counts the deliveries whose expiry is not that of their period, by table,
// class and day.
func (s *Store) MovedAway(ctx context.Context) (all []ledger.Cell, err error) {
	for _, kind := range event.Kinds {
		cells, err := s.cells(ctx, "count moves", "SELECT {table:String}, toString(retention_class) AS r, toInt32(day) AS d, countIf(override > 0) AS n FROM "+moved+
			" GROUP BY r, d HAVING n > 0 ORDER BY r, d", clickhouse.Named("table", kind.Table()))
		if err != nil {
			return nil, err
		}
		all = append(all, cells...)
	}
	return all, nil
}

// MovedDue counts the deliveries whose moved expiry and the grace are over, by the day
// from which it held: what was erased expired when it was moved.
func (s *Store) MovedDue(ctx context.Context, now time.Time, grace time.Duration) ([]measured.Expired, error) {
	var all []measured.Expired
	for _, kind := range event.Kinds {
		err := s.measure(ctx, "count moves", `
SELECT toString(retention_class) AS r, toString(cause) AS c, toInt32(intDiv(holds, 86400)) AS d, count(),
    countIf((retention_class, bucket, src_topic, src_partition, src_offset) IN
        (SELECT retention_class, bucket, src_topic, src_partition, src_offset FROM `+kind.Table()+` WHERE expires_override > 0))
FROM `+moved+` WHERE override > 0 AND holds <= {due:UInt32}
GROUP BY r, c, d ORDER BY r, d, c`,
			[]any{clickhouse.Named("table", kind.Table()), clickhouse.Named("due", seconds(now.Add(-grace)))},
			func(rows driver.Rows) error {
				e := measured.Expired{Table: kind.Table()}
				if err := rows.Scan(&e.Retention, &e.Cause, &e.Day, &e.Deliveries, &e.Left); err != nil {
					return err
				}
				all = append(all, e)
				return nil
			})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Store) cells(ctx context.Context, op, text string, params ...any) (all []ledger.Cell, err error) {
	err = s.measure(ctx, op, text, params, func(rows driver.Rows) error {
		var c ledger.Cell
		if err := rows.Scan(&c.Table, &c.Retention, &c.Day, &c.Rows); err != nil {
			return err
		}
		all = append(all, c)
		return nil
	})
	return all, err
}
