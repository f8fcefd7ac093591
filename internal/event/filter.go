package event

import "time"

// Filter is what a reader asks for. Zero fields do not filter.
type Filter struct {
	Kinds    KindSet   // zero: all
	From, To time.Time // From <= OccurredAt < To; both set by the caller
	// Now is the instant that decides what has expired. It is a parameter so
	// that tests can move the clock.
	Now time.Time
	// Ceiling hides rows received after it, so that the pages of one answer agree. Zero: none.
	Ceiling time.Time
	// Visible decides of each row whether the caller may see it, beyond what the
	// fields here say, and takes out of it what the caller may not; nil: all. It is
	// called by several goroutines.
	Visible func(*Row) bool

	Subjects []string // any of these subject keys
	Tenant   string   // the caller's organization, where a token is limited to one

	User, Organization, Action, Outcome, Country string
	Status                                       uint16
	TraceID                                      [16]byte
}

// Position is the place of a row in the order of the pages: newest first, then
// kind, source and id.
type Position struct {
	OccurredAt time.Time
	Kind       Kind
	Source, ID string
}

// Withheld counts what a filter would have found and may not show.
type Withheld struct {
	PastExpiry uint64 // hidden because their period is over, not yet merged away
	Erased     uint64 // hidden because somebody asked for it, not yet merged away
}

// ClassFacts is what ClickHouse measures of one stored retention class in one table.
type ClassFacts struct {
	Table          string
	Retention      string // the stored class, such as "usage@2y"
	Rows           uint64
	Oldest, Newest time.Time // OccurredAt
	NextExpiry     time.Time // the earliest expiry that has not passed; zero: none
	PastExpiry     uint64    // rows past their expiry, hidden from readers, not yet merged away
}
