package proof

import (
	"encoding/json"
	"fmt"
	"time"
)

// Format names the form of the document, for those who read it in years to come.
const Format = "lethe-proof-1"

// Verdict is what is known of a sentence.
type Verdict string

// The verdicts, from what is proved to what is broken. A sentence that binds several
// values has the last of theirs.
const (
	Enforced   Verdict = "enforced"   // something has reached the limit, and nothing is beyond it
	Untested   Verdict = "untested"   // all is set up for it, and nothing has reached the limit yet
	Silent     Verdict = "silent"     // the text leaves it open; an operator's value decides
	Waived     Verdict = "waived"     // the sentence binds nothing here
	Unprovable Verdict = "unprovable" // it cannot be seen from inside
	Broken     Verdict = "broken"
)

// Verdicts lists them in that order.
var Verdicts = []Verdict{Enforced, Untested, Silent, Waived, Unprovable, Broken}

// Report is the proof at one instant.
type Report struct {
	Format   string          `json:"format"`
	At       time.Time       `json:"at"`
	Policy   Policy          `json:"policy"`
	Result   string          `json:"result"` // "green", "unsigned" or "broken"
	Verdicts map[Verdict]int `json:"verdicts"`
	// Partly says that the rules and the account of moves were not read.
	Partly    bool       `json:"partly"`
	Verified  Verified   `json:"verified"`
	Faults    []Fault    `json:"faults"`
	Sentences []Sentence `json:"sentences"`
	Operator  []Operator `json:"operator"`
	Classes   []Class    `json:"classes"`
	Rules     []Rule     `json:"rules"`
	Mapping   []Mapping  `json:"mapping"`
	Topics    []TopicRow `json:"topics"`
	// NoTopics says why nothing is known of the topics.
	NoTopics string  `json:"topics_unknown,omitempty"`
	Tables   []Table `json:"tables"`
}

// OK reports that nothing is broken.
func (r *Report) OK() bool { return r.Result != broken }

const green, broken = "green", "broken"

// Policy says which file was proved.
type Policy struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	TextDated  string `json:"text_dated,omitempty"`
	TextSHA256 string `json:"text_sha256"`
	Grace      string `json:"grace"`
	BackupAge  string `json:"backup_max_age"`
}

// Verified says what is known of rows that vanished early.
type Verified struct {
	Ran      bool       `json:"ran"`
	At       *time.Time `json:"at"`
	Rows     uint64     `json:"rows_read"`
	Believed uint64     `json:"rows_believed"`
	Findings int        `json:"findings"`
	Says     string     `json:"says"`
}

// Fault is one thing that is not as it must be.
type Fault struct {
	Kind    string   `json:"kind"`
	Table   string   `json:"table,omitempty"`
	Classes []string `json:"classes,omitempty"` // stored classes; none: all of the table
	Topic   string   `json:"topic,omitempty"`
	Text    string   `json:"text"`
}

// Sentence is one sentence of the published text.
type Sentence struct {
	Section string  `json:"section"`
	About   string  `json:"about"` // in our own words
	SHA256  string  `json:"sha256"`
	Line    int     `json:"line"` // in the policy file
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
	Binds   []Bound `json:"binds"`
}

// Bound is one value of the policy file that a sentence binds.
type Bound struct {
	Path    string  `json:"path"`
	Value   string  `json:"value"`
	From    string  `json:"from,omitempty"` // what a period counts from
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
	// TTL is what the tables' own expressions do to the classes that it is about.
	TTL []string `json:"ttl_in_force,omitempty"`
	// WorstCase is the longest that a byte can be anywhere, backups included.
	WorstCase string   `json:"worst_case,omitempty"`
	Operator  []string `json:"operator,omitempty"` // the operator's values that fill or read it
	*Counts
}

// Counts are the rows of the classes that a value is about.
type Counts struct {
	Rows      uint64     `json:"rows"`
	Oldest    *time.Time `json:"oldest"`
	Past      uint64     `json:"past_expiry"`
	PastGrace uint64     `json:"past_grace"`
	Vanished  *uint64    `json:"vanished_early"`    // findings of the verification; null: it has not run
	Reached   uint64     `json:"reached_the_limit"` // rows whose whole day, and the grace, is over
}

// Operator is one value that the text leaves open.
type Operator struct {
	Name    string  `json:"name"`
	Value   string  `json:"value"`
	Basis   string  `json:"basis"`
	Owner   string  `json:"owner"`
	Review  string  `json:"review"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
	*Counts
}

// Class is one stored class in one table.
type Class struct {
	Table     string     `json:"table"`
	Stored    string     `json:"stored"`
	Promise   string     `json:"promise"`
	Current   bool       `json:"current"` // the policy file in force makes this promise
	TTL       string     `json:"ttl"`     // what the table's own expression does to it
	Rows      uint64     `json:"rows"`
	Moved     uint64     `json:"moved"`
	Waiting   uint64     `json:"waiting"` // for their anchor, or held
	Oldest    *time.Time `json:"oldest"`
	Newest    *time.Time `json:"newest"`
	Next      *time.Time `json:"next_expiry"`
	Past      uint64     `json:"past_expiry"`
	PastGrace uint64     `json:"past_grace"`
	// Late is how long the row that should have gone first is past its expiry, in seconds.
	Late    int64  `json:"late_seconds"`
	Reached uint64 `json:"reached_the_limit"`
}

// Rule is one rule of the policy file and what it would choose of what is stored.
type Rule struct {
	Number int    `json:"rule"`
	Line   int    `json:"line"`
	When   string `json:"when"`
	Class  string `json:"class"`
	Rows   uint64 `json:"rows"`
}

// Mapping is what became of the events of one kind and action. A person signs it off:
// a rule that is wrong looks like any other.
type Mapping struct {
	Kind   string `json:"kind"`
	Action string `json:"action,omitempty"`
	Stored string `json:"stored"`
	Rule   int    `json:"rule"`  // that takes them today; 0: none
	Today  string `json:"today"` // the stored class that it chooses; "": none
	Rows   uint64 `json:"rows"`
	// Differs says that today's rules would choose another class.
	Differs bool `json:"differs"`
}

// TopicRow is one topic.
type TopicRow struct {
	Name    string `json:"name"`
	Worst   string `json:"worst_age"` // "unknown", "none" or a time
	Under   string `json:"must_be_under"`
	Promise string `json:"promise"`
	Says    string `json:"says"`
}

// Table is one table of the database.
type Table struct {
	Name     string     `json:"name"`
	TTL      string     `json:"ttl"`
	Rows     uint64     `json:"rows"`
	Oldest   *time.Time `json:"oldest"`
	Holds    string     `json:"holds"` // which personal data
	Kept     string     `json:"kept"`  // how long, in words
	Detached int        `json:"detached_parts"`
	Says     string     `json:"says"`
}

// JSON returns the document that is signed: these bytes and no others.
func (r *Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write proof: %w", err)
	}
	return append(b, '\n'), nil
}

// Read reads a document that JSON wrote.
func Read(document []byte) (*Report, error) {
	r := new(Report)
	if err := json.Unmarshal(document, r); err != nil {
		return nil, fmt.Errorf("read proof: %w", err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("read proof: the form of the document is %q, not %s", r.Format, Format)
	}
	return r, nil
}

// when is nil for an instant that there is not.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// count sums the verdicts up, and lets no list of the document be null. A rule that puts
// events into the wrong class looks like any other, so nothing is green whose mapping
// nobody has signed off.
func (r *Report) count(signed bool) {
	r.Faults, r.Sentences, r.Operator, r.Classes = some(r.Faults), some(r.Sentences), some(r.Operator), some(r.Classes)
	r.Rules, r.Mapping, r.Topics, r.Tables = some(r.Rules), some(r.Mapping), some(r.Topics), some(r.Tables)
	r.Verdicts = map[Verdict]int{}
	for _, v := range Verdicts {
		r.Verdicts[v] = 0
	}
	for i := range r.Sentences {
		r.Verdicts[r.Sentences[i].Verdict]++
	}
	for i := range r.Operator {
		r.Verdicts[r.Operator[i].Verdict]++
	}
	r.Result = green
	if len(r.Mapping) > 0 && !signed {
		r.Result = unsigned
	}
	if len(r.Faults) > 0 || r.Verdicts[Broken] > 0 {
		r.Result = broken
	}
}
