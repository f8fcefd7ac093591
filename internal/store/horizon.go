package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// newestEpoch keeps what counts: the offsets of older epochs belong to topics
// that are gone.
const newestEpoch = "(cluster, topic, epoch) IN (SELECT cluster, topic, max(epoch) FROM ingest_ledger GROUP BY cluster, topic)"

// spans measures each partition in one cheap pass: where it begins and ends, and
// whether the union of its ranges fills everything in between.
const spans = `
SELECT cluster, topic, epoch, partition, min(first), max(last),
    intervalLengthSum(first, last + 1) = toUInt64(max(last) + 1 - min(first)) AS whole
FROM ingest_ledger
WHERE %s
GROUP BY cluster, topic, epoch, partition
ORDER BY cluster, topic, epoch, partition`

// pieces unites the ranges of the partitions with gaps: one row per stretch of
// offsets without a gap, whatever overlaps in it. It sorts, and costs twenty
// times the pass above.
const pieces = `
SELECT cluster, topic, epoch, partition, min(first) AS start, max(last)
FROM
(
    SELECT cluster, topic, epoch, partition, first, last,
        sum(opens) OVER (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS UNBOUNDED PRECEDING) AS island
    FROM
    (
        SELECT cluster, topic, epoch, partition, first, last,
            row_number() OVER so_far = 1 OR first - 1 > max(last) OVER before AS opens
        FROM ingest_ledger
        WHERE %s AND (cluster, topic, epoch, partition) IN
        (
            SELECT cluster, topic, epoch, partition FROM ingest_ledger GROUP BY cluster, topic, epoch, partition
            HAVING intervalLengthSum(first, last + 1) != toUInt64(max(last) + 1 - min(first))
        )
        WINDOW
            so_far AS (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS UNBOUNDED PRECEDING),
            before AS (PARTITION BY cluster, topic, epoch, partition ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
)
GROUP BY cluster, topic, epoch, partition, island
ORDER BY cluster, topic, epoch, partition, start
LIMIT {limit:UInt64}`

// maxPieces bounds the answer. A ledger in more pieces than this is broken, and
// the first pieces say where.
const maxPieces = 100_000

// island is a stretch of offsets without a gap.
type island struct {
	ledger.Partition
	ledger.Range
}

// islands returns the stretches of every partition of the cluster, or of all
// clusters, in order.
func (s *Store) islands(ctx context.Context, cluster string) ([]island, error) {
	q := query{}
	q.add(newestEpoch)
	q.equal("cluster", "cluster", cluster)
	list, broken, err := s.readIslands(ctx, fmt.Sprintf(spans, q.conditions()), q.params, true)
	if err != nil || !broken {
		return list, err
	}
	q.bind("limit", strconv.Itoa(maxPieces))
	torn, _, err := s.readIslands(ctx, fmt.Sprintf(pieces, q.conditions()), q.params, false)
	if err != nil {
		return nil, err
	}
	inPieces := make(map[ledger.Partition]bool)
	for _, i := range torn {
		inPieces[i.Partition] = true
	}
	list = slices.DeleteFunc(list, func(i island) bool { return inPieces[i.Partition] })
	list = append(list, torn...)
	slices.SortStableFunc(list, func(a, b island) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Topic, b.Topic),
			cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Partition.Partition, b.Partition.Partition))
	})
	return list, nil
}

// readIslands runs one of the two statements. broken reports that a partition is not whole.
func (s *Store) readIslands(ctx context.Context, text string, params []any, measured bool) (list []island, broken bool, err error) {
	rows, err := s.conn.Query(s.bounded(ctx, nil), text, params...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var i island
		whole := true
		target := []any{&i.Cluster, &i.Topic, &i.Epoch, &i.Partition.Partition, &i.First, &i.Last}
		if measured {
			target = append(target, &whole)
		}
		if err := rows.Scan(target...); err != nil {
			return nil, false, err
		}
		list = append(list, i)
		broken = broken || !whole
	}
	return list, broken, rows.Err()
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
	h, err := s.ledger.get(ctx, s)
	if err != nil {
		return ledger.Horizon{}, wrap("read horizon", err)
	}
	var partitions uint64
	var until int64
	err = s.conn.QueryRow(s.bounded(ctx, nil), `SELECT count(), toUnixTimestamp64Milli(min(until)) FROM (
			SELECT argMax(complete_until, updated_at) AS until FROM ingest_progress
			WHERE (cluster, topic, epoch) IN (SELECT cluster, topic, max(epoch) FROM ingest_progress GROUP BY cluster, topic)
			GROUP BY cluster, topic, epoch, partition)`).Scan(&partitions, &until)
	if err != nil {
		return ledger.Horizon{}, wrap("read horizon", err)
	}
	if partitions > 0 && until > 0 {
		h.CompleteUntil = time.UnixMilli(until).UTC()
	}
	return h, nil
}

// ledgerView is the part of a horizon that the ledger tells, as it was at an
// instant. One caller measures, the others wait for it.
type ledgerView struct {
	mu sync.Mutex
	h  ledger.Horizon
	at time.Time
}

func (v *ledgerView) get(ctx context.Context, s *Store) (ledger.Horizon, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := s.now()
	if !v.at.IsZero() && now.Sub(v.at) < s.options.LedgerAge {
		return v.h, nil
	}
	h, err := s.measureLedger(ctx)
	if err != nil {
		return h, err
	}
	v.h, v.at = h, now
	return h, nil
}

// measureLedger reads all entries: since when there are any, and what they leave out.
func (s *Store) measureLedger(ctx context.Context) (h ledger.Horizon, err error) {
	var entries uint64
	var since int64
	err = s.conn.QueryRow(s.bounded(ctx, nil), "SELECT count(), toUnixTimestamp64Milli(min(received_at)) FROM ingest_ledger").Scan(&entries, &since)
	if err != nil {
		return h, err
	}
	if entries > 0 {
		h.Since = time.UnixMilli(since).UTC()
	}
	list, err := s.islands(ctx, "")
	if err != nil {
		return h, err
	}
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; a.Partition == b.Partition {
			h.Gaps = append(h.Gaps, ledger.Gap{Partition: a.Partition, First: a.Last + 1, Last: b.First - 1})
		}
	}
	return h, nil
}
