package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

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

// LedgerEntries returns every entry of every cluster and epoch, in order of
// partition and offset. An entry that was written twice may come twice.
func (s *Store) LedgerEntries(ctx context.Context) ([]ledger.Entry, error) {
	const op = "read ledger"
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `SELECT cluster, topic, epoch, partition, first, last, generation,
			toUnixTimestamp64Milli(received_at), policy_version, stored, dead, expired, suppressed, lost, absent,
			other.first, other.last, arrayMap(o -> toString(o), other.outcome),
			arrayMap(t -> toString(t), cells.table), arrayMap(r -> toString(r), cells.retention),
			arrayMap(d -> toInt32(d), cells.day), cells.rows, cells.digest
		FROM ingest_ledger ORDER BY cluster, topic, epoch, partition, first, last, generation, received_at`)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var entries []ledger.Entry
	for rows.Next() {
		var e ledger.Entry
		var received int64
		var firsts, lasts []int64
		var outcomes, tables, classes []string
		var days []int32
		var counts, digests []uint64
		if err := rows.Scan(&e.Cluster, &e.Topic, &e.Epoch, &e.Partition.Partition, &e.First, &e.Last, &e.Generation, &received, &e.PolicyVersion,
			&e.Counts[ledger.Stored], &e.Counts[ledger.Dead], &e.Counts[ledger.Expired],
			&e.Counts[ledger.Suppressed], &e.Counts[ledger.Lost], &e.Counts[ledger.Absent],
			&firsts, &lasts, &outcomes, &tables, &classes, &days, &counts, &digests); err != nil {
			return nil, wrap(op, err)
		}
		e.ReceivedAt = time.UnixMilli(received).UTC()
		for i := range firsts {
			o, ok := ledger.ParseOutcome(outcomes[i])
			if !ok {
				return nil, fmt.Errorf("%s: an entry holds an unknown outcome", op)
			}
			e.Other = append(e.Other, ledger.Run{First: firsts[i], Last: lasts[i], Outcome: o})
		}
		for i := range tables {
			e.Cells = append(e.Cells, ledger.Cell{Table: tables[i], Retention: classes[i], Day: days[i], Rows: counts[i], Digest: digests[i]})
		}
		entries = append(entries, e)
	}
	return entries, wrap(op, rows.Err())
}

// Class is a stored retention class as the database knows it.
type Class struct {
	Retention    string
	Months, Days int
	Sentinel     bool // ends at no known time
}

// Classes returns every class that any policy file ever produced.
func (s *Store) Classes(ctx context.Context) ([]Class, error) {
	rows, err := s.conn.Query(s.bounded(ctx, nil), "SELECT DISTINCT retention_class, months, days, sentinel FROM retention_classes ORDER BY retention_class")
	if err != nil {
		return nil, wrap("read classes", err)
	}
	defer rows.Close()
	var all []Class
	for rows.Next() {
		var c Class
		var months, days uint32
		if err := rows.Scan(&c.Retention, &months, &days, &c.Sentinel); err != nil {
			return nil, wrap("read classes", err)
		}
		c.Months, c.Days = int(months), int(days)
		all = append(all, c)
	}
	return all, wrap("read classes", rows.Err())
}

// Bucket is one partition of one table: a retention class and the days or the
// month that fall due together.
type Bucket struct {
	Kind      event.Kind
	Retention string
	First     int32 // days since 1970-01-01
}

// Buckets returns the buckets that hold rows.
func (s *Store) Buckets(ctx context.Context) ([]Bucket, error) {
	var all []Bucket
	for _, kind := range event.Kinds {
		rows, err := s.conn.Query(s.bounded(ctx, unhurried), "SELECT toString(retention_class), toInt32(bucket) FROM "+kind.Table()+" GROUP BY retention_class, bucket ORDER BY retention_class, bucket")
		if err != nil {
			return nil, wrap("list buckets", err)
		}
		for rows.Next() {
			b := Bucket{Kind: kind}
			if err := rows.Scan(&b.Retention, &b.First); err != nil {
				rows.Close()
				return nil, wrap("list buckets", err)
			}
			all = append(all, b)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, wrap("list buckets", err)
		}
	}
	return all, nil
}

const (
	digest = `xxHash64(concat(source, '\0', id, '\0', toString(src_offset)))`
	day    = "toInt32(intDiv(toUInt32(retained_from), 86400))"
	// rowEra is the last era of the row's topic that had begun when the row came, counted from 1.
	rowEra = "arrayLastIndex((t, f) -> t = src_topic AND f <= toUnixTimestamp64Milli(received_at), {topics:Array(String)}, {from:Array(Int64)})"
)

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

// Find counts the rows of a bucket between the bounds of the ledger's entries,
// expired ones included: what is in the table is counted, whoever may read it. Eras MUST be in order of
// time for each topic.
func (s *Store) Find(ctx context.Context, b Bucket, eras []ledger.Era) ([]ledger.Found, error) {
	const op = "count rows"
	q := query{}
	q.bind("class", b.Retention)
	q.bind("bucket", strconv.Itoa(int(b.First)))
	q.eras(eras)
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), `
SELECT toInt32(r.era) - 1, r.src_partition, r.day, count(), sumWithOverflow(r.digest), min(r.src_offset), max(r.src_offset)
FROM
(
    SELECT `+rowEra+` AS era, src_partition, src_offset, `+day+` AS day, `+digest+` AS digest
    FROM `+b.Kind.Table()+` WHERE retention_class = {class:String} AND bucket = toDate({bucket:Int32})
) AS r
ASOF LEFT JOIN
(
    SELECT DISTINCT era, partition, arrayJoin([first, last + 1]) AS bound
    FROM (SELECT partition, first, last, arrayFirstIndex((c, t, e) -> c = cluster AND t = topic AND e = epoch,
        {clusters:Array(String)}, {topics:Array(String)}, {epochs:Array(UInt32)}) AS era FROM ingest_ledger)
) AS l
ON r.era = l.era AND r.src_partition = l.partition AND r.src_offset >= l.bound
GROUP BY r.era, r.src_partition, r.day, l.bound
ORDER BY r.era, r.src_partition, min(r.src_offset)`, q.params...)
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	var all []ledger.Found
	for rows.Next() {
		f := ledger.Found{Cell: ledger.Cell{Table: b.Kind.Table(), Retention: b.Retention}}
		var era int64
		if err := rows.Scan(&era, &f.Partition, &f.Day, &f.Rows, &f.Digest, &f.First, &f.Last); err != nil {
			return nil, wrap(op, err)
		}
		f.Era = int(era)
		all = append(all, f)
	}
	return all, wrap(op, rows.Err())
}

// Deliveries returns the deliveries of one partition in one era whose offsets
// lie in the range, of all tables, each once.
func (s *Store) Deliveries(ctx context.Context, eras []ledger.Era, era int, partition int32, r ledger.Range) iter.Seq2[ledger.Delivery, error] {
	return func(yield func(ledger.Delivery, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, kind := range event.Kinds {
			more, err := s.deliveries(ctx, kind, eras, era, partition, r, yield)
			if err != nil {
				yield(ledger.Delivery{}, wrap("read deliveries", err))
			}
			if err != nil || !more {
				return
			}
		}
	}
}

func (s *Store) deliveries(ctx context.Context, kind event.Kind, eras []ledger.Era, era int, partition int32, r ledger.Range, yield func(ledger.Delivery, error) bool) (bool, error) {
	q := query{}
	q.equal("src_topic", "topic", eras[era].Topic)
	q.add("src_partition = {partition:Int32} AND src_offset BETWEEN {first:Int64} AND {last:Int64} AND " + rowEra + " = {era:UInt32}")
	q.bind("partition", strconv.Itoa(int(partition)))
	q.bind("first", strconv.FormatInt(r.First, 10))
	q.bind("last", strconv.FormatInt(r.Last, 10))
	q.bind("era", strconv.Itoa(era+1))
	q.eras(eras)
	rows, err := s.conn.Query(s.bounded(ctx, unhurried), q.text("DISTINCT src_offset, "+digest+", toString(retention_class), "+day, kind, ""), q.params...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		d := ledger.Delivery{Cell: ledger.Cell{Table: kind.Table()}}
		if err := rows.Scan(&d.Offset, &d.Digest, &d.Cell.Retention, &d.Cell.Day); err != nil {
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
func (s *Store) Repeats(ctx context.Context, b Bucket) (n uint64, err error) {
	q := query{}
	q.bind("class", b.Retention)
	q.bind("bucket", strconv.Itoa(int(b.First)))
	err = s.conn.QueryRow(s.bounded(ctx, unhurried), "SELECT toUInt64(count() - uniqExact(source, id, occurred_at)) FROM "+b.Kind.Table()+
		" WHERE retention_class = {class:String} AND bucket = toDate({bucket:Int32})", q.params...).Scan(&n)
	return n, wrap("count repeats", err)
}
