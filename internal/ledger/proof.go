package ledger

import "time"

// Era is one life of a topic: its cluster and epoch. Rows do not hold it, so it
// is told by when they came: From is the instant since which they belong to it.
type Era struct {
	Cluster string
	Topic   string
	Epoch   uint32
	From    time.Time
}

// Found counts the rows that lie between two bounds of ledger entries, in one
// cell. Repeats that ClickHouse has not merged yet are counted each.
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
