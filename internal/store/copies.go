package store

import (
	"context"
	"fmt"
	"iter"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// deliveries adds the condition that a row is one of these deliveries, in its class and bucket.
func (q *query) deliveries(rows []*event.Row) {
	n := len(rows)
	classes, buckets, topics := make([]string, n), make([]int32, n), make([]string, n)
	partitions, offsets, digests := make([]int32, n), make([]int64, n), make([]uint64, n)
	for i, r := range rows {
		classes[i], buckets[i], topics[i] = r.Retention, r.Bucket, r.Topic
		partitions[i], offsets[i], digests[i] = r.Partition, r.Offset, ledger.Digest(r.Source, r.ID, r.Offset)
	}
	q.params = append(q.params, clickhouse.Named("classes", classes), clickhouse.Named("buckets", buckets), clickhouse.Named("topics", topics),
		clickhouse.Named("partitions", partitions), clickhouse.Named("offsets", offsets), clickhouse.Named("digests", digests))
	// The first part alone can be looked up: it is the partition.
	q.add(`(retention_class, bucket) IN (SELECT c, toDate(b) FROM (SELECT {classes:Array(String)} AS c, {buckets:Array(Int32)} AS b) ARRAY JOIN c, b)
		AND (retention_class, src_topic, src_partition, src_offset, ` + digest + `) IN (SELECT c, t, p, o, d FROM
			(SELECT {classes:Array(String)} AS c, {topics:Array(String)} AS t, {partitions:Array(Int32)} AS p, {offsets:Array(Int64)} AS o, {digests:Array(UInt64)} AS d)
			ARRAY JOIN c, t, p, o, d)`)
}

// Rows reads the deliveries that these rows name, whole and whether expired or not.
// Repeats of a delivery come too.
func (s *Store) Rows(ctx context.Context, kind event.Kind, of []*event.Row) iter.Seq2[*event.Row, error] {
	return func(yield func(*event.Row, error) bool) {
		if len(of) == 0 {
			return
		}
		q := query{}
		q.deliveries(of)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		more := true
		err := s.each(ctx, kind, q.text(selected[kind], kind, ""), q.params, unhurried, func(r *event.Row) bool {
			more = yield(r, nil)
			return more
		})
		if err != nil && more {
			yield(nil, wrap("read rows", err))
		}
	}
}

// WriteCopies stores copies of rows, all of one kind, under the class that they name, with the expiry that they
// carry, and reads them back. They may be there already: of one delivery in one
// class there is one row.
func (s *Store) WriteCopies(ctx context.Context, w event.Sweep, copies []*event.Row) error {
	if len(copies) == 0 {
		return nil
	}
	b := s.NewBatch()
	digests := make(map[uint64]bool)
	var want uint64
	for _, r := range copies {
		b.Add(r)
		if d := ledger.Digest(r.Source, r.ID, r.Offset); !digests[d] {
			digests[d] = true
			want += d
		}
	}
	kind := copies[0].Kind
	if err := s.Insert(ctx, b, fmt.Sprintf("copies of sweep %d, %016x", w.Number, want)); err != nil {
		return err
	}
	q := query{}
	q.deliveries(copies)
	var found, sum uint64
	err := s.conn.QueryRow(s.bounded(ctx, unhurried), "SELECT count(), sumWithOverflow(d) FROM (SELECT DISTINCT "+digest+" AS d FROM "+kind.Table()+
		" WHERE "+q.conditions()+")", q.params...).Scan(&found, &sum)
	if err != nil {
		return wrap("read copies back", err)
	}
	if found != uint64(len(digests)) || sum != want {
		return fmt.Errorf("read copies back: %d of %d are there, with digest %016x instead of %016x", found, len(digests), sum, want)
	}
	return nil
}
