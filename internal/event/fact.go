package event

import (
	"strings"
	"time"
)

// Fact is what one audit event says about retention: something that rows hang on
// was deleted, restored, or changed its plan.
type Fact struct {
	Subject    string // what it is about, such as "user:u_42", "workspace:w_7" or a Member
	Action     string
	OccurredAt time.Time
	Tier       string // the new plan, of plan.changed

	// Where it came from; readers of facts leave these empty.
	Source, ID string
	ReceivedAt time.Time
	ForgetAt   time.Time // when no row can come any more that it speaks of
}

// Member is the subject of a person, who has a subject key, in an organization. A slash of
// the organization's is doubled: no two members have one subject.
func Member(organization, person string) string {
	return "member:" + strings.ReplaceAll(organization, "/", "//") + "/" + person
}

// Erasure is what somebody asked to be erased. It names nobody: the identifiers
// are keyed hashes.
type Erasure struct {
	ID     string
	Scope  string // what the identifiers are of, such as "subject" or "workspace"
	State  ErasureState
	Hashes []string
	// Until is the request's instant: what occurred later is about somebody new.
	Until time.Time
	// Deadline and Everywhere are when the primary systems, and all systems with
	// their backups, must hold nothing.
	Deadline, Everywhere time.Time
	// ErasedRows and KeptRows count deliveries; KeptReason says what keeps them.
	ErasedRows, KeptRows uint64
	KeptReason           string
	PolicyVersion        string
	UpdatedAt            time.Time
	ForgetAt             time.Time // when nothing can bring its rows back any more
}

// ErasureState is how far an erasure is.
type ErasureState string

// The states. Readers see nothing from ErasureRequested on; moved rows wait for
// their removal; removed rows are in no active part; done: in no part at all.
const (
	ErasureRequested ErasureState = "requested"
	ErasureMoved     ErasureState = "moved"
	ErasureRemoved   ErasureState = "removed"
	ErasureDone      ErasureState = "done"
)

// Hold keeps the rows of subjects, whatever a period or an erasure says.
type Hold struct {
	ID         string
	Subjects   []string // as rows carry them; those that are known
	Hashes     []string // keyed, of all of them
	Reason     string
	PlacedAt   time.Time
	ReleasedAt time.Time // zero while it holds
	UpdatedAt  time.Time
	ForgetAt   time.Time
}

// Sweep is one run that moves expiries.
type Sweep struct {
	Number  uint64 // a later run has a higher one
	Full    bool   // over all rows, not those of some subjects
	BeganAt time.Time
}

// Move is one row whose expiry moves.
type Move struct {
	Row   *Row // its coordinates and its expiry until now
	To    uint32
	Cause string
}
