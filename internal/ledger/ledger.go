// Package ledger is the account of every Kafka offset: each has exactly one
// outcome, and the rows of each batch are counted and digested so that they can
// be found again. It is pure arithmetic; ingest writes entries, store keeps
// them, and the queries that prove them read the same types.
package ledger

import (
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Outcome is what became of one offset.
type Outcome uint8

// The outcomes. Every offset of an entry has exactly one.
const (
	Stored     Outcome = iota // a row in ClickHouse
	Dead                      // a dead letter
	Expired                   // its period was over when it arrived
	Suppressed                // erased, and not stored again
	Lost                      // below the log start: the topic's retention took it
	Absent                    // control record, aborted transaction or compaction

	NumOutcomes = 6
)

var outcomeNames = [NumOutcomes]string{"stored", "dead", "expired", "suppressed", "lost", "absent"}

// String returns the outcome's column name.
func (o Outcome) String() string { return outcomeNames[o] }

// ParseOutcome returns the outcome that a column's name stands for.
func ParseOutcome(name string) (Outcome, bool) {
	i := slices.Index(outcomeNames[:], name)
	return Outcome(max(i, 0)), i >= 0
}

// Partition identifies one Kafka partition. Epoch grows when a topic was made
// anew and its offsets started again.
type Partition struct {
	Cluster   string
	Topic     string
	Epoch     uint32
	Partition int32
}

// Run is a range of offsets, both ends included, with one outcome.
type Run struct {
	First, Last int64
	Outcome     Outcome
}

// Cell counts the rows of one table, stored retention class and UTC day of retained_from.
type Cell struct {
	Table     string
	Retention string
	Day       int32 // days since 1970-01-01
	Rows      uint64
	Digest    uint64 // sum modulo 2^64 of Digest over the rows
}

// Entry is one row of the ledger: a contiguous range of offsets of one
// partition, both ends included. The counts sum to Last − First + 1.
type Entry struct {
	Partition
	First, Last   int64
	Generation    int32
	ReceivedAt    time.Time // UTC
	PolicyVersion string
	Counts        [NumOutcomes]uint64
	Other         []Run // the offsets that were not stored
	Cells         []Cell
}

// End is how far the ledger reaches without a gap in one partition: the next
// offset that is not yet accounted for.
type End struct {
	Partition
	Next int64
}

// DeadCount says how many offsets of one entry became dead letters for one
// reason. It holds no payload. The same entry written again replaces it.
type DeadCount struct {
	Partition
	First, Last int64  // the entry's range
	Reason      string // from codec's closed list, or one of ingest's
	Attribute   string // the attribute at fault; "": none
	Publisher   string // the event's source as metrics name it, never an address
	Count       uint64
	ReceivedAt  time.Time // UTC
}

// Progress is what an ingester knows of one partition at one instant.
type Progress struct {
	Partition
	Next          int64     // the next offset to be processed
	HighWatermark int64     // of the last fetch
	CompleteUntil time.Time // every event received by Kafka before it has an outcome
	UpdatedAt     time.Time
}

// Gap is a range of offsets, both ends included, that no entry accounts for.
type Gap struct {
	Partition
	First, Last int64
}

// Horizon is how much of what was published can be known by reading the tables.
type Horizon struct {
	Since         time.Time // the first entry; zero: none
	CompleteUntil time.Time // the oldest CompleteUntil over all partitions; zero: unknown
	Gaps          []Gap
}

// Digest is a delivery's share of its cell. ClickHouse computes the same with
// xxHash64(concat(source, '\0', id, '\0', toString(src_offset))).
func Digest(source, id string, offset int64) uint64 {
	var space [256]byte
	b := append(space[:0], source...)
	b = append(b, 0)
	b = append(b, id...)
	b = append(b, 0)
	b = strconv.AppendInt(b, offset, 10)
	return xxhash.Sum64(b)
}
