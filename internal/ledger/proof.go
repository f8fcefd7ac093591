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

// View is how rows and moves are looked at.
type View struct {
	Eras   []Era // in order of time for each topic
	Sweeps Sweeps
	Now    time.Time
	Due    time.Time // what should have gone by then must have gone by now: Now less the grace
}

// Sweeps says which of the runs that move expiries were done at an instant: those
// up to Last, but for the Open ones.
type Sweeps struct {
	Last uint64
	Open []uint64
}

// Term says where the expiry of a row is.
type Term uint8

// The terms.
const (
	Own    Term = iota // where its class has it
	Past               // moved, to an instant before View.Now
	Future             // moved, to a later one
)

// Found counts the rows that lie between two bounds of ledger entries, in one
// cell and with one term. Repeats that ClickHouse has not merged yet are counted
// each, unless deliveries were asked for. The digest of rows with a moved expiry
// is one of their expiries too.
type Found struct {
	Cell
	Term        Term
	Era         int // index into the eras that were asked for; −1: of none
	Partition   int32
	First, Last int64 // the lowest and the highest offset of the rows
	Bound       int64 // the bound that they are behind
}

// Moved counts the deliveries whose expiry was moved, in the same way: where the
// last move of each has put it, and with the digest that its row then has.
type Moved struct {
	Found
	Taken   uint64 // their digest in the ledger's cells
	Overdue uint64 // of Rows: those that must be gone
	Copied  uint64 // of Rows: those that came as copies, and are in no cell
}

// Delivery is one stored row as the proof sees it; repeats of it are one.
type Delivery struct {
	Offset   int64
	Digest   uint64
	Cell     Cell   // without Rows and Digest
	Override uint32 // the expiry it was moved to, seconds since 1970; 0: its class's own
}

// Move is a delivery whose expiry was moved, in the order of the sweeps. Override
// is not set.
type Move struct {
	Delivery
	Steps  []Step
	Copied bool // it came with the first step, as a copy, and is in no cell of its class
}

// Step is one sweep's part in a move.
type Step struct {
	From, To uint32 // overrides
	Done     bool
	At       time.Time // when it was done, or else planned
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
