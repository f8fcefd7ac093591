package store

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// Contents returns the buckets that have parts, and what their parts are. It
// reads no row: ClickHouse keeps a hash of the files of every part.
func (s *Store) Contents(ctx context.Context) ([]ledger.Content, error) {
	const op = "list buckets"
	tables := make([]string, 0, event.NumKinds)
	for _, kind := range event.Kinds {
		tables = append(tables, kind.Table())
	}
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `
SELECT table, key.1, toInt32(key.2), lower(hex(sipHash128(arraySort(groupArray(hash_of_all_files))))), sum(rows)
FROM
(
    SELECT table, CAST(partition, 'Tuple(String, Date)') AS key, hash_of_all_files, rows
    FROM system.parts WHERE database = currentDatabase() AND active AND has({tables:Array(String)}, table)
)
GROUP BY table, key ORDER BY table, key`, clickhouse.Named("tables", tables))
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []ledger.Content
	for rows.Next() {
		var c ledger.Content
		if err := rows.Scan(&c.Table, &c.Retention, &c.First, &c.Parts, &c.Rows); err != nil {
			return nil, wrap(op, err)
		}
		all = append(all, c)
	}
	return all, wrap(op, rows.Err())
}

// Sums returns what the ledger says of the cells of each table, class and day.
func (s *Store) Sums(ctx context.Context) ([]ledger.Sum, error) {
	const op = "sum the ledger"
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `
SELECT toString(c.table), toString(c.retention), toInt32(c.day) AS d, count(),
    sumWithOverflow(sipHash64(cluster, topic, epoch, partition, first, last, other.first, other.last, other.outcome, d, c.rows, c.digest))
FROM ingest_ledger ARRAY JOIN cells AS c
GROUP BY c.table, c.retention, d ORDER BY c.table, c.retention, d`)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []ledger.Sum
	for rows.Next() {
		var c ledger.Sum
		if err := rows.Scan(&c.Table, &c.Retention, &c.Day, &c.Cells, &c.Hash); err != nil {
			return nil, wrap(op, err)
		}
		all = append(all, c)
	}
	return all, wrap(op, rows.Err())
}

// Stamps returns the newest stamp of each bucket.
func (s *Store) Stamps(ctx context.Context) ([]ledger.Stamp, error) {
	const op = "read stamps"
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `
SELECT toString(table), toString(retention_class), toInt32(bucket), (argMax((parts, ledger), verified_at) AS newest).1, newest.2, toUnixTimestamp64Milli(max(verified_at))
FROM verified_buckets GROUP BY table, retention_class, bucket`)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []ledger.Stamp
	for rows.Next() {
		var t ledger.Stamp
		var at int64
		if err := rows.Scan(&t.Table, &t.Retention, &t.First, &t.Parts, &t.Ledger, &at); err != nil {
			return nil, wrap(op, err)
		}
		t.At = time.UnixMilli(at).UTC()
		all = append(all, t)
	}
	return all, wrap(op, rows.Err())
}

// WriteStamps records what was verified; the newest stamp of a bucket counts.
func (s *Store) WriteStamps(ctx context.Context, stamps []ledger.Stamp) error {
	return s.write(ctx, "verified_buckets", "table, retention_class, bucket, parts, ledger, verified_at", len(stamps), func(b driver.Batch, i int) error {
		t := &stamps[i]
		return b.Append(t.Table, t.Retention, time.Unix(int64(t.First)*86400, 0).UTC(), t.Parts, t.Ledger, t.At.UTC())
	})
}
