package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// WriteLedger records the entries and returns when they are on disk. Writing an
// entry again changes nothing.
func (s *Store) WriteLedger(ctx context.Context, entries []ledger.Entry) error {
	return s.write(ctx, "ingest_ledger", `cluster, topic, epoch, partition, first, last, generation, received_at, policy_version,
		stored, dead, expired, suppressed, lost, absent, other.first, other.last, other.outcome,
		cells.table, cells.retention, cells.day, cells.rows, cells.digest`, len(entries), func(b driver.Batch, i int) error {
		e := &entries[i]
		n, m := len(e.Other), len(e.Cells)
		firsts, lasts, outcomes := make([]int64, n), make([]int64, n), make([]string, n)
		for j, r := range e.Other {
			firsts[j], lasts[j], outcomes[j] = r.First, r.Last, r.Outcome.String()
		}
		tables, classes, days := make([]string, m), make([]string, m), make([]time.Time, m)
		counts, digests := make([]uint64, m), make([]uint64, m)
		for j, c := range e.Cells {
			tables[j], classes[j], days[j] = c.Table, c.Retention, time.Unix(int64(c.Day)*86400, 0).UTC()
			counts[j], digests[j] = c.Rows, c.Digest
		}
		return b.Append(e.Cluster, e.Topic, e.Epoch, e.Partition.Partition, e.First, e.Last, e.Generation, e.ReceivedAt.UTC(), e.PolicyVersion,
			e.Counts[ledger.Stored], e.Counts[ledger.Dead], e.Counts[ledger.Expired],
			e.Counts[ledger.Suppressed], e.Counts[ledger.Lost], e.Counts[ledger.Absent],
			firsts, lasts, outcomes, tables, classes, days, counts, digests)
	})
}

// WriteProgress records how far partitions are processed; the newest counts.
func (s *Store) WriteProgress(ctx context.Context, progress []ledger.Progress) error {
	return s.write(ctx, "ingest_progress", "cluster, topic, epoch, partition, next, high_watermark, complete_until, updated_at",
		len(progress), func(b driver.Batch, i int) error {
			p := &progress[i]
			return b.Append(p.Cluster, p.Topic, p.Epoch, p.Partition.Partition, p.Next, p.HighWatermark, p.CompleteUntil.UTC(), p.UpdatedAt.UTC())
		})
}

// WriteDead records how many offsets became dead letters and why. Writing the
// counts of an entry again replaces them.
func (s *Store) WriteDead(ctx context.Context, counts []ledger.DeadCount) error {
	return s.write(ctx, "dead_letters", "cluster, topic, epoch, partition, first, last, reason, attribute, publisher, count, received_at",
		len(counts), func(b driver.Batch, i int) error {
			d := &counts[i]
			return b.Append(d.Cluster, d.Topic, d.Epoch, d.Partition.Partition, d.First, d.Last, d.Reason, d.Attribute, d.Publisher, d.Count, d.ReceivedAt.UTC())
		})
}

// write inserts n small rows.
func (s *Store) write(ctx context.Context, table, columns string, n int, row func(driver.Batch, int) error) error {
	if n == 0 {
		return nil
	}
	op := "write " + table
	settings := insertSettings()
	settings["wait_end_of_query"] = 1
	if s.native {
		delete(settings, "wait_end_of_query") // a parameter of HTTP, no setting
	}
	b, err := s.conn.PrepareBatch(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), "INSERT INTO "+table+" ("+columns+")")
	if err != nil {
		return wrap(op, err)
	}
	for i := range n {
		if err := row(b, i); err != nil {
			b.Abort()
			return wrap(op, err)
		}
	}
	return wrap(op, b.Send())
}

// islands unites the ranges of the ledger in ClickHouse: one row per stretch of
// offsets without a gap, whatever overlaps in it. Only a topic's newest epoch counts.
const islands = `
SELECT cluster, topic, epoch, partition, min(first) AS start, max(last) AS end
FROM
(
    SELECT cluster, topic, epoch, partition, first, last,
        sum(opens) OVER (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS island
    FROM
    (
        SELECT cluster, topic, epoch, partition, first, last,
            row_number() OVER before = 1 OR first - 1 > max(last) OVER before_this AS opens
        FROM ingest_ledger
        WHERE %s (cluster, topic, epoch) IN (SELECT cluster, topic, max(epoch) FROM ingest_ledger GROUP BY cluster, topic)
        WINDOW
            before AS (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS UNBOUNDED PRECEDING),
            before_this AS (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
)
GROUP BY cluster, topic, epoch, partition, island
ORDER BY cluster, topic, epoch, partition, start
LIMIT {limit:UInt64}`

// maxIslands bounds the answer. A ledger in more pieces than this is broken, and
// the first pieces say where.
const maxIslands = 100_000

type island struct {
	ledger.Partition
	ledger.Range
}

func (s *Store) islands(ctx context.Context, cluster string) ([]island, error) {
	q := query{}
	q.bind("limit", strconv.Itoa(maxIslands))
	only := ""
	if cluster != "" {
		only = "cluster = {cluster:String} AND"
		q.bind("cluster", cluster)
	}
	rows, err := s.conn.Query(s.bounded(ctx, nil), fmt.Sprintf(islands, only), q.params...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []island
	for rows.Next() {
		var i island
		if err := rows.Scan(&i.Cluster, &i.Topic, &i.Epoch, &i.Partition.Partition, &i.First, &i.Last); err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, rows.Err()
}

// LedgerEnds returns, for each partition of the cluster that the ledger knows in
// its topic's newest epoch, the next offset after the contiguous start.
func (s *Store) LedgerEnds(ctx context.Context, cluster string) ([]ledger.End, error) {
	list, err := s.islands(ctx, cluster)
	if err != nil {
		return nil, wrap("read ledger", err)
	}
	var ends []ledger.End
	for _, i := range list {
		if n := len(ends); n > 0 && ends[n-1].Partition == i.Partition {
			continue // after a gap
		}
		ends = append(ends, ledger.End{Partition: i.Partition, Next: i.Last + 1})
	}
	return ends, nil
}

// Horizon returns how much of what was published can be known: since when, until
// when every partition is processed, and the gaps between the two.
func (s *Store) Horizon(ctx context.Context) (ledger.Horizon, error) {
	var h ledger.Horizon
	var entries, partitions uint64
	var since, until int64
	err := s.conn.QueryRow(s.bounded(ctx, nil), "SELECT count(), toUnixTimestamp64Milli(min(received_at)) FROM ingest_ledger").Scan(&entries, &since)
	if err != nil {
		return h, wrap("read horizon", err)
	}
	if entries > 0 {
		h.Since = time.UnixMilli(since).UTC()
	}
	err = s.conn.QueryRow(s.bounded(ctx, nil), `SELECT count(), toUnixTimestamp64Milli(min(until)) FROM (
			SELECT argMax(complete_until, updated_at) AS until FROM ingest_progress
			WHERE (cluster, topic, epoch) IN (SELECT cluster, topic, max(epoch) FROM ingest_progress GROUP BY cluster, topic)
			GROUP BY cluster, topic, epoch, partition)`).Scan(&partitions, &until)
	if err != nil {
		return h, wrap("read horizon", err)
	}
	if partitions > 0 && until > 0 {
		h.CompleteUntil = time.UnixMilli(until).UTC()
	}
	list, err := s.islands(ctx, "")
	if err != nil {
		return h, wrap("read horizon", err)
	}
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; a.Partition == b.Partition {
			h.Gaps = append(h.Gaps, ledger.Gap{Partition: a.Partition, First: a.Last + 1, Last: b.First - 1})
		}
	}
	return h, nil
}
