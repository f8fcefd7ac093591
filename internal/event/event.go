// Package event is the vocabulary every room shares: an Event as a service
// published it, a Row as ClickHouse stores it, the one table of attributes and
// their privacy tags, and what a reader may ask for.
//
// It holds no behaviour: decoding is codec's job, and only redact turns an
// Event into a Row. It imports the standard library only.
package event

import (
	"strings"
	"time"
)

// Kind says which of the three streams an event belongs to. The Kafka topic
// decides it, never the event itself.
type Kind uint8

// The kinds, in the order in which they are listed everywhere.
const (
	Request Kind = iota
	Audit
	Security

	NumKinds = 3
)

// Kinds lists every kind.
var Kinds = [NumKinds]Kind{Request, Audit, Security}

var kindNames = [NumKinds]string{"request", "audit", "security"}

// String returns the name used in topics, queries and policy files.
func (k Kind) String() string { return kindNames[k] }

// Table returns the ClickHouse table that stores the kind.
func (k Kind) Table() string { return kindNames[k] + "_events" }

// ParseKind returns the kind of that name; ok is false for any other word.
func ParseKind(name string) (k Kind, ok bool) {
	for i, n := range kindNames {
		if n == name {
			return Kind(i), true
		}
	}
	return 0, false
}

// KindSet is a set of kinds.
type KindSet uint8

// AllKinds holds every kind.
const AllKinds = onRequest | onAudit | onSecurity

const (
	onRequest  KindSet = 1 << Request
	onAudit    KindSet = 1 << Audit
	onSecurity KindSet = 1 << Security
)

// Has reports whether k is in the set.
func (s KindSet) Has(k Kind) bool { return s&(1<<k) != 0 }

// Pair is one entry of the metadata map.
type Pair struct{ Key, Value string }

// Event is one event as it was published: decoded and checked, not yet
// redacted. Its strings may hold addresses, e-mails and session ids, so it
// MUST NOT reach a log line, an error or a disk; redact turns it into a Row.
//
// The strings share the memory of the decoded record. Reset makes an Event
// ready for the next record.
type Event struct {
	Kind   Kind
	ID     string
	Source string
	Type   string
	Time   time.Time // UTC; zero where it could not be read

	// Text holds the string attributes, indexed by Attr; "" means absent.
	Text [NumAttrs]string
	// Number holds the numeric and boolean (0 or 1) attributes; read it through Num.
	Number [NumAttrs]float64
	// Has is the set of attributes that are present, by 1<<Attr.
	Has uint64

	// Owners are the values of target.owner.id, which may be a list.
	Owners   []string
	Metadata []Pair

	// Stored is set where the event was published before and is a dead letter's
	// redacted form: its texts are as they are stored.
	Stored *Stored

	// Unknown counts attributes that are not in the table, Refused those that
	// are dropped by name. Neither is kept.
	Unknown, Refused int
}

// Stored is what a redacted dead letter holds beyond the attributes.
type Stored struct {
	Country                          string
	AgentName, AgentVersion, AgentOS string
	SubjectKeys                      []string
}

// Restore makes a decoded event the dead letter that s belongs to.
func (e *Event) Restore(s *Stored) {
	e.Stored = s
	e.Unknown, e.Refused = 0, 0 // a letter has only what we put there
	// Under these names rules ask whether there was such an attribute.
	if s.Country != "" {
		e.Set(ClientAddress, s.Country)
	}
	if s.AgentName+s.AgentVersion+s.AgentOS != "" {
		e.Set(UserAgent, s.AgentName)
	}
}

// Reset empties the event for reuse and keeps the slices' memory.
func (e *Event) Reset(k Kind) {
	*e = Event{Kind: k, Owners: e.Owners[:0], Metadata: e.Metadata[:0]}
}

// Set stores a string attribute.
func (e *Event) Set(a Attr, v string) { e.Text[a] = v; e.Has |= 1 << a }

// SetNum stores a numeric attribute.
func (e *Event) SetNum(a Attr, v float64) { e.Number[a] = v; e.Has |= 1 << a }

// Num returns a numeric attribute and whether it was published.
func (e *Event) Num(a Attr) (float64, bool) { return e.Number[a], e.Has&(1<<a) != 0 }

// Action returns event.action for rules and readers.
func (e *Event) Action() string { return e.Text[EventAction] }

// ColumnName returns the ClickHouse column of a dotted attribute name.
func ColumnName(name string) string { return strings.ReplaceAll(name, ".", "_") }
