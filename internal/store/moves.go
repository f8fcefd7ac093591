package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// landed joins moves with when their sweeps were done, seconds since 1970; 0: they are not known to be.
const landed = "LEFT ANY JOIN (SELECT sweep, toUnixTimestamp(max(updated_at)) AS at FROM retention_sweeps WHERE state = 'done' GROUP BY sweep) AS s USING (sweep)"

// Sweeps returns which runs that move expiries are done.
func (s *Store) Sweeps(ctx context.Context) (w ledger.Sweeps, err error) {
	err = s.conn.QueryRow(s.bounded(ctx, unhurried), `SELECT max(sweep), groupArrayIf(sweep, NOT done)
		FROM (SELECT sweep, max(state = 'done') AS done FROM retention_sweeps GROUP BY sweep)`).Scan(&w.Last, &w.Open)
	return w, wrap("read sweeps", err)
}

// MoveSums returns what the moves say of each table, class and bucket, and which of
// them are overdue: Day is the bucket's first, Cells the number of moves.
func (s *Store) MoveSums(ctx context.Context, due time.Time) ([]ledger.Sum, error) {
	q := query{}
	q.bind("due", seconds(due))
	return collect(ctx, s, "sum moves", `SELECT toString(table), toString(retention_class), toInt32(bucket) AS first, count(),
			sumWithOverflow(sipHash64(src_topic, src_partition, src_offset, digest, day, received_at, from_override, to_override, sweep, s.at,
				greatest(to_override, if(s.at > 0, s.at, toUnixTimestamp(planned_at))) <= {due:UInt32}))
		FROM retention_moves `+landed+`
		GROUP BY table, retention_class, bucket ORDER BY table, retention_class, first`, q.params, func(rows driver.Rows) (c ledger.Sum, err error) {
		return c, rows.Scan(&c.Table, &c.Retention, &c.Day, &c.Cells, &c.Hash)
	})
}

// Moved counts the deliveries of a bucket whose expiry was moved, as Find counts rows.
func (s *Store) Moved(ctx context.Context, bucket, days ledger.Days, v ledger.View) ([]ledger.Moved, error) {
	q := query{}
	q.eras(v.Eras)
	q.bind("now", seconds(v.Now))
	q.bind("due", seconds(v.Due))
	q.bind("table", bucket.Table)
	text := `
SELECT toInt32(r.era) - 1, r.src_partition, r.day, r.term, count(), sumWithOverflow(` + share("r.digest", "r.target") + `), min(r.src_offset), max(r.src_offset), l.bound,
    sumWithOverflowIf(r.digest, NOT r.copied), countIf(r.since <= {due:UInt32}), countIf(r.copied)
FROM
(
    SELECT era, src_partition, src_offset, on_day AS day, digest, argMax(to_override, sweep) AS target, ` + term("target") + ` AS term,
        greatest(target, argMax(since_step, sweep)) AS since, argMin(cause, sweep) = 'anonymised' AS copied
    FROM
    (
        SELECT ` + rowEra + ` AS era, src_partition, src_offset, toInt32(day) AS on_day, digest, to_override, cause, sweep,
            if(s.at > 0, s.at, toUnixTimestamp(planned_at)) AS since_step
        FROM retention_moves ` + landed + ` WHERE table = {table:String} AND ` + q.bucket(bucket) + `
    )
    GROUP BY era, src_partition, src_offset, on_day, digest
) AS r` + fmt.Sprintf(bounds, q.touches(days))
	return collect(ctx, s, "count moves", text, q.params, func(rows driver.Rows) (ledger.Moved, error) {
		m := ledger.Moved{Found: ledger.Found{Cell: ledger.Cell{Table: bucket.Table, Retention: bucket.Retention}}}
		var era int64
		err := rows.Scan(&era, &m.Partition, &m.Day, (*uint8)(&m.Term), &m.Rows, &m.Digest, &m.First, &m.Last, &m.Bound, &m.Taken, &m.Overdue, &m.Copied)
		m.Era = int(era)
		return m, err
	})
}

// Moves returns the deliveries of one partition in one era whose expiry was moved
// and whose offsets lie in the range, of these buckets.
func (s *Store) Moves(ctx context.Context, buckets []ledger.Bucket, v ledger.View, era int, partition int32, r ledger.Range) iter.Seq2[ledger.Move, error] {
	return func(yield func(ledger.Move, error) bool) {
		const op = "read moves"
		q := query{}
		tables, classes, firsts := make([]string, len(buckets)), make([]string, len(buckets)), make([]int32, len(buckets))
		for i, b := range buckets {
			tables[i], classes[i], firsts[i] = b.Table, b.Retention, b.First
		}
		q.params = append(q.params, clickhouse.Named("tables", tables), clickhouse.Named("classes", classes), clickhouse.Named("firsts", firsts),
			clickhouse.Named("open", v.Sweeps.Open))
		q.bind("last_sweep", strconv.FormatUint(v.Sweeps.Last, 10))
		q.entries(v.Eras, era, partition, r)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		rows, err := s.conn.Query(s.bounded(ctx, unhurried), `
SELECT toString(table), toString(retention_class), toInt32(day), src_offset, digest, from_override, to_override, cause = 'anonymised',
    s.at > 0 AND sweep <= {last_sweep:UInt64} AND NOT has({open:Array(UInt64)}, sweep) AS done, toInt64(if(done, s.at, toUnixTimestamp(planned_at)))
FROM retention_moves `+landed+`
WHERE (table, retention_class, bucket) IN (SELECT t, c, toDate(f) FROM (SELECT {tables:Array(String)} AS t, {classes:Array(String)} AS c, {firsts:Array(Int32)} AS f) ARRAY JOIN t, c, f)
    AND `+q.conditions()+` ORDER BY table, retention_class, day, src_offset, digest, sweep`, q.params...)
		if err != nil {
			yield(ledger.Move{}, wrap(op, err))
			return
		}
		defer rows.Close()
		var m ledger.Move // being put together
		for rows.Next() {
			var d ledger.Delivery
			var step ledger.Step
			var at int64
			var copied bool
			if err := rows.Scan(&d.Cell.Table, &d.Cell.Retention, &d.Cell.Day, &d.Offset, &d.Digest, &step.From, &step.To, &copied, &step.Done, &at); err != nil {
				yield(m, wrap(op, err))
				return
			}
			step.At = time.Unix(at, 0).UTC()
			if m.Delivery != d {
				if m.Steps != nil && !yield(m, nil) {
					return
				}
				m = ledger.Move{Delivery: d, Copied: copied}
			}
			m.Steps = append(m.Steps, step)
		}
		if err := rows.Err(); err != nil {
			yield(m, wrap(op, err))
			return
		}
		if m.Steps != nil {
			yield(m, nil)
		}
	}
}

// entries adds the condition that an offset of a partition in an era lies in the range.
func (q *query) entries(eras []ledger.Era, era int, partition int32, r ledger.Range) {
	q.equal("src_topic", "topic", eras[era].Topic)
	q.add("src_partition = {partition:Int32} AND src_offset BETWEEN {first:Int64} AND {last:Int64} AND " + rowEra + " = {era:UInt32}")
	q.bind("partition", strconv.Itoa(int(partition)))
	q.bind("first", strconv.FormatInt(r.First, 10))
	q.bind("last", strconv.FormatInt(r.Last, 10))
	q.bind("era", strconv.Itoa(era+1))
	q.eras(eras)
}
