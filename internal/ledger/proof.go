package ledger

import "time"

// Span says when the entries of one life of a topic were received: the first
// and the last of them.
type Span struct {
	Cluster     string
	Topic       string
	Epoch       uint32
	First, Last time.Time
}

// Era is one life of a topic: its cluster and epoch. Rows do not hold it, so it
// is told by when they came: From is the instant since which they belong to it.
type Era struct {
	Cluster string
	Topic   string
	Epoch   uint32
	From    time.Time
}

// Bucket is one partition of one table: a retention class and the days or the
// month that fall due together.
type Bucket struct {
	Table     string
	Retention string
	First     int32 // days since 1970-01-01
}

// Days are the cells of one table and class whose day is in First to End − 1.
type Days struct {
	Table      string
	Retention  string
	First, End int32
}

// Content identifies the rows of a bucket without reading them.
type Content struct {
	Bucket
	Parts string // equal only where the data of all parts is
	Rows  uint64
}

// Sum is what all entries together say of the cells of one table, class and day.
type Sum struct {
	Table     string
	Retention string
	Day       int32
	Cells     uint64
	Hash      uint64 // of everything that the entries of these cells say; sums of them are a hash of several
}

// Stamp says that a bucket was verified with this content and these cells.
// One without Parts takes an earlier one back.
type Stamp struct {
	Bucket
	Parts  string
	Ledger uint64 // the sum of Sum.Hash
	At     time.Time
}

// Found counts the rows that lie between two bounds of ledger entries, in one
// cell. Repeats that ClickHouse has not merged yet are counted each, unless
// deliveries were asked for.
type Found struct {
	Cell
	Era         int // index into the eras that were asked for; −1: of none
	Partition   int32
	First, Last int64 // the lowest and the highest offset of the rows
}

// Delivery is one stored row as the proof sees it; repeats of it are one.
type Delivery struct {
	Offset int64
	Digest uint64
	Cell   Cell // without Rows and Digest
}

// Bounds are the first offset that a Kafka partition still has and the one after its last.
type Bounds struct{ Start, End int64 }

// Letters are the coordinates of the dead letters that the dead topic still holds.
type Letters struct {
	Offsets map[Partition]map[int64]bool
	Read    int
	// Since is the instant since which every letter must still be there: the
	// topic's retention has taken none that is younger. Zero: it has taken none.
	Since time.Time
}
