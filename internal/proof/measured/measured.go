// Package measured is what storage tells the proof: facts about tables and counts of
// rows, never a row. Storage fills these types and the proof judges them.
package measured

import (
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// Table is one table of the database, as the system tables describe it.
type Table struct {
	Name string
	// TTL and ExpiresAt are the expressions of its TTL and of its column expires_at,
	// in ClickHouse's own form; empty: there is none.
	TTL, ExpiresAt string
	// Settings are those that stand in the table's definition.
	Settings map[string]string
	People   bool // it has a column that names people as ours do
	// ColumnTTL says that a column has a TTL of its own, by which values go before their row.
	ColumnTTL bool
	Rows      uint64
	Bytes     uint64    // on disk, of active parts
	Oldest    time.Time // the oldest row, where the table has a time; zero: unknown or empty
	Detached  []Part
}

// Part is a part that was taken out of a table. Nothing in it expires.
type Part struct {
	Name   string
	Reason string // "": somebody detached it
	Bytes  uint64
}

// Scope says how rows are measured.
type Scope struct {
	// Expires is the expression of the expiry that the policy file asks for. It
	// becomes part of a statement and MUST come from the policy, never from a caller.
	Expires string
	Now     time.Time
	Grace   time.Duration
	Ahead   time.Duration // how far an event's time may be ahead of its arrival
	// Since is, of each stored class that a later policy file has shortened, the instant
	// from which its expiry holds.
	Since map[string]time.Time
	Daily []string // the stored classes whose buckets are days; those of all others are months
}

// Class is what one table holds of one stored class.
type Class struct {
	Table, Retention string
	Rows             uint64    // repeats included
	Oldest, Newest   time.Time // the instants that the periods count from
	NextExpiry       time.Time // zero: none is known
	Waiting          uint64    // rows whose expiry is not known yet
	Past, PastGrace  uint64    // rows past their expiry, and past the grace as well
	Overdue          time.Time // the earliest expiry that has passed, or instant from which it holds; zero: none
	Moved            uint64    // rows whose expiry was moved
	Misplaced        uint64    // rows in a bucket that is not that of their period
	Misdated         uint64    // rows whose period counts from another instant than their event's
}

// Overrides are the moved rows of one table and class that the account of moves
// does not explain.
type Overrides struct {
	Table, Retention string
	Unexplained      uint64 // moved, and no move says so
	Unmoved          uint64 // a move says otherwise, and had the time
}

// Ended says which rows of a stored class must have been moved: those of whom all that
// they hang on was deleted, and not restored since, so long ago that they are over.
type Ended struct {
	Retention, KeyedBy string
	// Begins and Clears are the actions that begin the period and take that back.
	Begins, Clears []string
	After, AtLeast policy.Period // from the deletion, and from the instant that the row counts from
	Due            time.Time     // by which both are over
	Settled        time.Time     // what was stored, told or released later may not have been swept yet
}

// Moves counts the deliveries of one table and class by what moved them last.
type Moves struct {
	Table, Retention, Cause string
	Deliveries              uint64
	Due                     uint64    // those whose new expiry and the grace are over
	Next                    time.Time // the earliest new expiry that is not; zero: none
}

// Anchors counts the audit events of one action that move expiries.
type Anchors struct {
	Action string
	Count  uint64
	Oldest time.Time
}

// Erasures counts the erasures by how far they are.
type Erasures struct {
	Done, Open   uint64
	Late         uint64    // past their deadline, and rows of them may be left in the tables
	NotAllGone   uint64    // past the time in which nothing may be left anywhere, and not done
	NextDeadline time.Time // of those that are not late; zero: none
}

// Group is what rows of one kind have in common, of what the policy's rules ask.
type Group struct {
	Kind      event.Kind
	Action    string
	Retention string
	Current   bool // stored under the policy file in force
	// Compared and Present are aligned with the attributes that were asked for. A
	// present one is "x", or "@" where an e-mail stands in its place.
	Compared, Present []string
	Rows              uint64
}

// Expired counts the deliveries of one table and class that were moved and whose new
// expiry was on one day.
type Expired struct {
	Table, Retention, Cause string
	Day                     int32 // days since 1970-01-01
	Deliveries              uint64
	Left                    uint64 // of them, still in the tables
}
