// Package policy reads a policy file and says of every event which class of it
// holds, from which instant, and until when. It also generates the expression
// with which ClickHouse enforces the same periods.
//
// It moves no expiry, reads no clock and touches no table: anchors, holds and
// erasures are another room's work.
//
// Route: codec.Decode → policy.Decide → redact.Row.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// ErrUnclassified says that no rule of the policy matches an event, or that its
// tier is not one the policy lists. Such an event is never stored under a guess.
var ErrUnclassified = errors.New("the policy has no class for it")

var errNoRule = fmt.Errorf("%w: no rule matches", ErrUnclassified)

// MaxAhead is how far an event's time may be ahead of the ingester's clock
// before its period counts from the clock instead.
const MaxAhead = 5 * time.Minute

// Policy is one policy file that has been loaded. It never changes, so any
// number of goroutines may use it.
type Policy struct {
	Name string
	// Version is the date of the published text, or the name where the text has
	// no date, and the first 8 hex digits of the file's SHA-256.
	Version string
	// Dated is when the published text took effect; zero where it does not say.
	Dated time.Time
	// TextSHA256 is the checksum of the whole published text, white space folded.
	TextSHA256 string

	// Grace is the longest time between an expiry and the last byte of the row.
	Grace time.Duration
	// Primary and Everywhere are the longest times from a request to erase until
	// the primary systems, and all systems with their backups, hold nothing.
	Primary, Everywhere Period
	// SharedRows says what one person's erasure takes of a row that belongs to a
	// team as well: the "row", or that person's "identity".
	SharedRows string
	// BackupAge is the oldest a backup may get; it delays every expiry.
	BackupAge Period

	Rights         []string // offered by the text, from a closed list
	Respond        Period   // a request is answered within it
	VerifyIdentity bool     // before any request is fulfilled
	Agents         bool     // requests by an authorised agent are foreseen

	Purposes   map[string][]string // class → what it is used for
	Recipients []string
	Safeguards []string // for transfers to other countries
	Regions    Regions
	Minors     Minors
	Complaint  string // where a person can complain

	Sentences []Sentence
	// Operator holds what the text leaves open, in order of name.
	Operator []Operator

	content map[event.Attr][]string
	facts   map[string]fact // by event.action
	tiers   map[string]bool
	rules   [event.NumKinds][]rule
	stored  []StoredClass
	listed  []Rule
}

// Regions says where data may lie, as the text puts it. All empty: it is silent.
type Regions struct {
	Only, Never []string // country codes, or EU
	PerTenant   bool     // a tenant may choose its region
}

// Minors says below which age the service is not meant to be used, and how soon
// data of a minor is removed. Under is 0 where the text is silent.
type Minors struct {
	Under  int
	Within Period
}

// Sentence is one sentence of the published text that promises something.
type Sentence struct {
	Section string
	About   string // in our own words
	SHA256  string // of the sentence, white space folded, without the bullet before it
	Binds   []string
	Waived  string // why it, or a part of it, binds nothing
	Line    int    // in the policy file
	Values  []Value
}

// Value is a period, an age or a list of places of the policy file that a sentence stands
// behind, or a no.
type Value struct {
	Path string
	Line int
	// Period is zero for what is none, and where the file leaves the period to the operator.
	Period Period
	Age    int
	// From is the anchor that a class's period counts from; "" for the event and elsewhere.
	From string
	// Bound says that it is the shortest or the longest that the text allows.
	Bound bool
	// Operator says that an operator's value fills or reads the text.
	Operator bool
	// Denied says that the file says no to what the sentence can only say yes to.
	Denied bool
	// Places are where data may lie, or may not.
	Places []string
}

// Operator is one value that the published text leaves open.
type Operator struct {
	Name, Value, Basis, Owner string
	Review                    time.Time
}

// Decision is what the policy says of one event.
type Decision struct {
	// Retention is the key of the stored class.
	Retention string
	// Bucket is the first day of the partition, in days since 1970-01-01.
	Bucket int32
	// RetainedFrom is the instant the period counts from; UTC, whole seconds.
	RetainedFrom time.Time
	// ExpiresAt is Sentinel while the class waits for its anchor.
	ExpiresAt time.Time
	// Expired says that the period was over on arrival.
	Expired bool
	// Skewed says that the event's time is too far ahead, so that the period
	// counts from its arrival.
	Skewed bool
}

// Load reads a policy file. See Parse.
func Load(path string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy file: %w", err)
	}
	return Parse(filepath.Base(path), data)
}

// Parse loads a policy from the text of its file; name stands in its errors.
// The error joins everything that is wrong, each an *Error with its line.
func Parse(name string, data []byte) (*Policy, error) {
	p, err := load(name, data)
	if err != nil {
		return nil, fmt.Errorf("load policy: %w", err)
	}
	sum := sha256.Sum256(data)
	p.Version = p.Name
	if !p.Dated.IsZero() {
		p.Version = p.Dated.Format(time.DateOnly)
	}
	p.Version += "-" + hex.EncodeToString(sum[:4])
	return p, nil
}

// Decide returns what the policy says of an event that arrived at received. Its
// only errors wrap ErrUnclassified. The event's time MUST be set, as codec does.
func (p *Policy) Decide(e *event.Event, received time.Time) (Decision, error) {
	rules := p.rules[e.Kind]
	for i := range rules {
		if !rules[i].matches(e) {
			continue
		}
		s, err := rules[i].class.choose(e)
		if err != nil {
			return Decision{}, err
		}
		return s.decide(e.Time, received), nil
	}
	return Decision{}, errNoRule
}

func (s *StoredClass) decide(at, received time.Time) Decision {
	d := Decision{Retention: s.Key, Skewed: at.Sub(received) > MaxAhead}
	if d.Skewed {
		at = received
	}
	d.RetainedFrom = time.Unix(at.Unix(), 0).UTC()
	d.Bucket = s.Bucket.bucket(d.RetainedFrom)
	d.ExpiresAt = s.Period.End(d.RetainedFrom)
	d.Expired = !d.ExpiresAt.After(received)
	return d
}

// Stored returns every class that rows can be stored under, in the order of the
// file. The caller may keep and change the slice.
func (p *Policy) Stored() []StoredClass { return append([]StoredClass(nil), p.stored...) }

// IsContent reports whether the policy declares an attribute of events about
// this target type to be customers' own content, in which addresses of their
// own devices may stand.
func (p *Policy) IsContent(a event.Attr, targetType string) bool {
	for _, t := range p.content[a] {
		if t == targetType {
			return true
		}
	}
	return false
}
