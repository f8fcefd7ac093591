package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// unhurried lets a proof read everything, however long it takes; what does not
// fit in memory is grouped on disk.
var unhurried = clickhouse.Settings{
	"max_execution_time":                 0,
	"max_rows_to_read":                   0,
	"max_bytes_before_external_group_by": 256 << 20,
}

// LedgerSpans returns when the entries of each cluster, topic and epoch were received.
func (s *Store) LedgerSpans(ctx context.Context) ([]ledger.Span, error) {
	const op = "read ledger"
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `SELECT cluster, topic, epoch,
			toUnixTimestamp64Milli(min(received_at)), toUnixTimestamp64Milli(max(received_at))
		FROM ingest_ledger GROUP BY cluster, topic, epoch`)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []ledger.Span
	for rows.Next() {
		var l ledger.Span
		var first, last int64
		if err := rows.Scan(&l.Cluster, &l.Topic, &l.Epoch, &first, &last); err != nil {
			return nil, wrap(op, err)
		}
		l.First, l.Last = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
		all = append(all, l)
	}
	return all, wrap(op, rows.Err())
}

// Entries reads the entries of every cluster and epoch, in order of partition
// and offset, one after another and without their cells. With days it reads
// those that have a cell in them, and all cells of these. An entry that was written twice may come
// twice.
func (s *Store) Entries(ctx context.Context, days *ledger.Days) iter.Seq2[ledger.Entry, error] {
	return func(yield func(ledger.Entry, error) bool) {
		const op = "read ledger"
		q := query{}
		cells, where := "emptyArrayString(), emptyArrayString(), emptyArrayInt32(), emptyArrayUInt64(), emptyArrayUInt64()", ""
		if days != nil {
			cells = `arrayMap(t -> toString(t), cells.table), arrayMap(r -> toString(r), cells.retention),
			arrayMap(d -> toInt32(d), cells.day), cells.rows, cells.digest`
			where = " WHERE " + q.touches(*days)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		settings := maps.Clone(unhurried)
		settings["max_block_size"] = 8192 // what is in memory at a time: an entry holds arrays
		rows, err := s.conn.Query(s.bounded(ctx, settings), `SELECT cluster, topic, epoch, partition, first, last, generation,
			toUnixTimestamp64Milli(received_at), policy_version, stored, dead, expired, suppressed, lost, absent,
			other.first, other.last, arrayMap(o -> toString(o), other.outcome), `+cells+`
		FROM ingest_ledger`+where+` ORDER BY cluster, topic, epoch, partition, first, last, generation, received_at`, q.params...)
		if err != nil {
			yield(ledger.Entry{}, wrap(op, err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			e, err := scanEntry(rows)
			if err != nil {
				yield(e, fmt.Errorf("%s: %w", op, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(ledger.Entry{}, wrap(op, err))
		}
	}
}

func scanEntry(rows driver.Rows) (e ledger.Entry, err error) {
	var received int64
	var firsts, lasts []int64
	var outcomes, tables, classes []string
	var days []int32
	var counts, digests []uint64
	if err := rows.Scan(&e.Cluster, &e.Topic, &e.Epoch, &e.Partition.Partition, &e.First, &e.Last, &e.Generation, &received, &e.PolicyVersion,
		&e.Counts[ledger.Stored], &e.Counts[ledger.Dead], &e.Counts[ledger.Expired],
		&e.Counts[ledger.Suppressed], &e.Counts[ledger.Lost], &e.Counts[ledger.Absent],
		&firsts, &lasts, &outcomes, &tables, &classes, &days, &counts, &digests); err != nil {
		return e, err
	}
	e.ReceivedAt = time.UnixMilli(received).UTC()
	for i := range firsts {
		o, ok := ledger.ParseOutcome(outcomes[i])
		if !ok {
			return e, errors.New("an entry holds an unknown outcome")
		}
		e.Other = append(e.Other, ledger.Run{First: firsts[i], Last: lasts[i], Outcome: o})
	}
	for i := range tables {
		e.Cells = append(e.Cells, ledger.Cell{Table: tables[i], Retention: classes[i], Day: days[i], Rows: counts[i], Digest: digests[i]})
	}
	return e, nil
}

// touches returns the condition that an entry has a cell in the days, and binds it. A
// class of copies has what entries have in the class of their originals.
func (q *query) touches(d ledger.Days) string {
	q.bind("cell_table", d.Table)
	classes := []string{d.Retention}
	if base := event.Original(d.Retention); base != d.Retention {
		classes = append(event.Copies(base), base)
	}
	q.params = append(q.params, clickhouse.Named("cell_classes", classes))
	q.bind("cell_first", strconv.Itoa(int(d.First)))
	q.bind("cell_end", strconv.Itoa(int(d.End)))
	return `arrayExists((t, r, d) -> t = {cell_table:String} AND has({cell_classes:Array(String)}, r) AND toInt32(d) >= {cell_first:Int32} AND toInt32(d) < {cell_end:Int32},
		cells.table, cells.retention, cells.day)`
}

const (
	digest = `xxHash64(concat(source, '\0', id, '\0', toString(src_offset)))`
	day    = "toInt32(intDiv(toUInt32(retained_from), 86400))"
	// rowEra is the last era of the row's topic that had begun when the row came, counted from 1.
	rowEra = "arrayLastIndex((t, f) -> t = src_topic AND f <= toUnixTimestamp64Milli(received_at), {topics:Array(String)}, {from:Array(Int64)})"
	// bounds are those of the entries that have a cell in the days, and which one a row or a move is behind.
	bounds = `
ASOF LEFT JOIN
(
    SELECT DISTINCT era, partition, arrayJoin([first, last + 1]) AS bound
    FROM (SELECT partition, first, last, arrayFirstIndex((c, t, e) -> c = cluster AND t = topic AND e = epoch,
        {clusters:Array(String)}, {topics:Array(String)}, {epochs:Array(UInt32)}) AS era FROM ingest_ledger WHERE %s)
) AS l
ON r.era = l.era AND r.src_partition = l.partition AND r.src_offset >= l.bound
GROUP BY r.era, r.src_partition, r.day, r.term, l.bound
ORDER BY r.era, r.src_partition, min(r.src_offset)`
)

// term is the ledger.Term of an override.
func term(override string) string {
	return "multiIf(" + override + " = 0, 0, " + override + " <= {now:UInt32}, 1, 2)"
}

// share is a delivery's part of a digest: where its expiry was moved, with that.
func share(digest, override string) string {
	return "if(" + override + " = 0, " + digest + ", xxHash64(" + digest + ", " + override + "))"
}

// eras binds them: the clusters, topics and epochs, and when they began.
func (q *query) eras(eras []ledger.Era) {
	clusters, topics := make([]string, len(eras)), make([]string, len(eras))
	epochs, from := make([]uint32, len(eras)), make([]int64, len(eras))
	for i, e := range eras {
		clusters[i], topics[i], epochs[i], from[i] = e.Cluster, e.Topic, e.Epoch, e.From.UnixMilli()
	}
	q.params = append(q.params, clickhouse.Named("clusters", clusters), clickhouse.Named("topics", topics),
		clickhouse.Named("epochs", epochs), clickhouse.Named("from", from))
}

// Find counts the rows of a bucket between the bounds of the entries that have a
// cell in the days, expired ones included: what is in the table is counted, whoever
// may read it. With deliveries it counts each delivery once, which costs more.
func (s *Store) Find(ctx context.Context, bucket, days ledger.Days, v ledger.View, deliveries bool) ([]ledger.Found, error) {
	q := query{}
	q.eras(v.Eras)
	q.bind("now", seconds(v.Now))
	source := "SELECT " + rowEra + " AS era, src_partition, src_offset, " + day + " AS day, " + term("expires_override") + " AS term, " +
		share(digest, "expires_override") + " AS digest\n    FROM " + bucket.Table + " WHERE " + q.bucket(bucket)
	if deliveries {
		source += " GROUP BY era, src_partition, src_offset, day, term, digest" // unlike DISTINCT it can do it on disk
	}
	text := "SELECT toInt32(r.era) - 1, r.src_partition, r.day, r.term, count(), sumWithOverflow(r.digest), min(r.src_offset), max(r.src_offset), l.bound FROM (" +
		source + ") AS r" + fmt.Sprintf(bounds, q.touches(days))
	return collect(ctx, s, "count rows", text, q.params, func(rows driver.Rows) (ledger.Found, error) {
		f := ledger.Found{Cell: ledger.Cell{Table: bucket.Table, Retention: bucket.Retention}}
		var era int64
		err := rows.Scan(&era, &f.Partition, &f.Day, (*uint8)(&f.Term), &f.Rows, &f.Digest, &f.First, &f.Last, &f.Bound)
		f.Era = int(era)
		return f, err
	})
}

// bucket returns the condition that a row is in the bucket that begins with the days, and binds it.
func (q *query) bucket(d ledger.Days) string {
	q.bind("class", d.Retention)
	q.bind("bucket", strconv.Itoa(int(d.First)))
	return "retention_class = {class:String} AND bucket = toDate({bucket:Int32})"
}

// Deliveries returns the deliveries of one partition in one era whose offsets
// lie in the range, of these buckets, each once, or once for each expiry that its repeats have.
func (s *Store) Deliveries(ctx context.Context, buckets []ledger.Bucket, eras []ledger.Era, era int, partition int32, r ledger.Range) iter.Seq2[ledger.Delivery, error] {
	return func(yield func(ledger.Delivery, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, kind := range event.Kinds {
			more, err := s.deliveries(ctx, kind, buckets, eras, era, partition, r, yield)
			if err != nil {
				yield(ledger.Delivery{}, wrap("read deliveries", err))
			}
			if err != nil || !more {
				return
			}
		}
	}
}

func (s *Store) deliveries(ctx context.Context, kind event.Kind, buckets []ledger.Bucket, eras []ledger.Era, era int, partition int32, r ledger.Range, yield func(ledger.Delivery, error) bool) (bool, error) {
	var classes []string
	var firsts []int32
	for _, b := range buckets {
		if b.Table == kind.Table() {
			classes, firsts = append(classes, b.Retention), append(firsts, b.First)
		}
	}
	if len(classes) == 0 {
		return true, nil
	}
	q := query{}
	q.add("(retention_class, bucket) IN (SELECT c, toDate(f) FROM (SELECT {classes:Array(String)} AS c, {firsts:Array(Int32)} AS f) ARRAY JOIN c, f)")
	q.params = append(q.params, clickhouse.Named("classes", classes), clickhouse.Named("firsts", firsts))
	q.entries(eras, era, partition, r)
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), q.text("DISTINCT src_offset, "+digest+", toString(retention_class), "+day+", expires_override", kind, ""), q.params...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		d := ledger.Delivery{Cell: ledger.Cell{Table: kind.Table()}}
		if err := rows.Scan(&d.Offset, &d.Digest, &d.Cell.Retention, &d.Cell.Day, &d.Override); err != nil {
			return false, err
		}
		if !yield(d, nil) {
			return false, nil
		}
	}
	return true, rows.Err()
}

// Repeats counts the rows of a bucket whose event is there already: rows less
// distinct (source, id, time).
func (s *Store) Repeats(ctx context.Context, days ledger.Days) (n uint64, err error) {
	q := query{}
	text := "SELECT toUInt64(count() - uniqExact(source, id, occurred_at)) FROM " + days.Table + " WHERE " + q.bucket(days)
	err = s.conn.QueryRow(s.bounded(ctx, unhurried), text, q.params...).Scan(&n)
	return n, wrap("count repeats", err)
}
