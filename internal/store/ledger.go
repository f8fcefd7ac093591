package store

import (
	"context"
	"errors"
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
			return wrap(op, errors.Join(err, b.Abort()))
		}
	}
	return wrap(op, b.Send())
}
