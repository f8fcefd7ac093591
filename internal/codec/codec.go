// Package codec turns a Kafka record into an event.Event: CloudEvents 1.0 in
// JSON, in structured mode (the value is the whole event) and in binary mode
// (ce_ headers, the value is data).
//
// It is strict about form and bounded in size and depth, it keeps what the
// table of attributes allows and counts the rest. It looks up no country,
// scrubs no text and hashes nothing: what it returns is as sensitive as what
// was published.
//
// Route: ingest → codec.Decode → policy.Decide → redact.Row.
package codec

import (
	"strings"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/event"
)

// Bounds of a record. Those of the attributes are in event.Attributes.
const (
	MaxValue  = 1 << 20 // bytes of the value and the ce_ headers together
	MaxDepth  = 8       // objects and arrays inside each other, the event itself included
	MaxID     = 256     // bytes of id
	MaxSource = 1024    // bytes of source
	MaxType   = 256     // bytes of type
)

// Reason is one of a closed list of words for what is wrong with a record. It
// is safe as a metric label.
type Reason string

// The reasons. With the first seven the record cannot be trusted in any part;
// with the others the rest of the event was decoded.
const (
	Empty        Reason = "empty"
	TooLarge     Reason = "too_large"
	NotUTF8      Reason = "not_utf8"
	NotJSON      Reason = "not_json"
	TooDeep      Reason = "too_deep"
	DuplicateKey Reason = "duplicate_key"
	NotObject    Reason = "not_object" // JSON, but not an object

	MissingAttribute Reason = "missing_attribute"
	WrongType        Reason = "wrong_type"
	WrongValue       Reason = "wrong_value"        // not in the enumeration, not hexadecimal, out of range
	AttributeTooLong Reason = "attribute_too_long" // more bytes or entries than its bound
	TimeOutOfRange   Reason = "time_out_of_range"
)

// Reasons lists every reason.
var Reasons = []Reason{
	Empty, TooLarge, NotUTF8, NotJSON, TooDeep, DuplicateKey, NotObject,
	MissingAttribute, WrongType, WrongValue, AttributeTooLong, TimeOutOfRange,
}

// Error says why a record is not an event. It never holds a published value.
type Error struct {
	Reason Reason
	// Attribute is the name from the table of attributes or of the envelope;
	// empty when the record as a whole is refused.
	Attribute string
}

// Error returns the reason and the attribute's name.
func (e *Error) Error() string {
	if e.Attribute == "" {
		return "decode event: " + string(e.Reason)
	}
	return "decode event: " + string(e.Reason) + ": " + e.Attribute
}

// Redactable reports whether the rest of the event was decoded, so that a
// redacted form of it can be kept as the dead letter.
func (e *Error) Redactable() bool {
	switch e.Reason {
	case MissingAttribute, WrongType, WrongValue, AttributeTooLong, TimeOutOfRange:
		return true
	}
	return false
}

// Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// Decoder decodes records one after the other and reuses its memory. It is not
// safe for concurrent use: one per goroutine.
type Decoder struct {
	b []byte // the value, scanned
	s string // the value as a string, then the ce_ headers; fields are parts of it
	// unescaped holds the strings of this record that had escapes.
	unescaped strings.Builder

	e         *event.Event
	kind      event.Kind
	published uint16 // context attributes seen, by 1<<context
	context   uint16 // those of them that have a value
	keys      uint64 // known attributes seen in data, by 1<<event.Attr

	broken    Reason // the record as a whole is refused
	problem   Reason // first problem of one attribute
	attribute string // of which

	seen  [MaxDepth + 1]keySet // other keys of the open objects, by depth
	names map[string]bool      // answers of refused
	name  []byte               // its scratch
}

// NewDecoder returns a Decoder.
func NewDecoder() *Decoder { return &Decoder{} }

// Decode resets e and fills it from one record of that kind's topic. The value
// and the headers are copied: e does not share their memory, and stays valid
// after the next Decode.
//
// The error is an *Error. When it is Redactable, e holds every attribute that
// was well-formed; otherwise e is empty.
func (d *Decoder) Decode(kind event.Kind, value []byte, headers []Header, e *event.Event) error {
	e.Reset(kind)
	d.b, d.e, d.kind = value, e, kind
	d.published, d.context, d.keys = 0, 0, 0
	d.broken, d.problem, d.attribute = "", "", ""
	d.decode(value, headers)
	d.b, d.s, d.e = nil, "", nil
	d.unescaped.Reset()
	if d.broken != "" {
		e.Reset(kind)
		return &Error{Reason: d.broken}
	}
	if d.problem != "" {
		return &Error{Reason: d.problem, Attribute: d.attribute}
	}
	return nil
}

func (d *Decoder) decode(value []byte, headers []Header) {
	if len(value) == 0 {
		d.broken = Empty
		return
	}
	binary := isBinary(headers)
	size := len(value)
	if binary {
		for _, h := range headers {
			if isContext(h.Key) {
				size += len(h.Key) + len(h.Value)
			}
		}
	}
	if size > MaxValue {
		d.broken = TooLarge
		return
	}
	if !utf8.Valid(value) {
		d.broken = NotUTF8
		return
	}
	if binary {
		d.binary(value, headers, size)
	} else {
		d.structured(value)
	}
	if d.broken == "" {
		d.checkRequired()
	}
}

// structured decodes a value that is the whole event.
func (d *Decoder) structured(value []byte) {
	d.s = string(value)
	i := d.space(0)
	if !d.open(i) {
		return
	}
	if i = d.envelope(i + 1); i >= 0 {
		d.end(i)
	}
}

// binary decodes ce_ headers and a value that is data.
func (d *Decoder) binary(value []byte, headers []Header, size int) {
	var all strings.Builder
	all.Grow(size)
	all.Write(value)
	for _, h := range headers {
		if isContext(h.Key) {
			all.Write(h.Value)
		}
	}
	d.s = all.String()

	other := &d.seen[0]
	other.reset()
	at := len(value)
	for _, h := range headers {
		if !isContext(h.Key) {
			continue
		}
		v := d.s[at : at+len(h.Value)]
		at += len(h.Value)
		if !utf8.ValidString(v) {
			d.broken = NotUTF8
			return
		}
		c, known := contextByName(h.Key[len(contextPrefix):])
		if c == ctxData {
			known = false // data is the value; a header of that name is an extension
		}
		if !known {
			if !other.add(h.Key) {
				d.broken = DuplicateKey
				return
			}
			d.drop(h.Key[len(contextPrefix):])
			continue
		}
		if d.published&(1<<c) != 0 {
			d.broken = DuplicateKey
			return
		}
		d.published |= 1 << c
		d.setContext(c, v)
	}

	i := d.space(0)
	if !d.open(i) {
		return
	}
	d.context |= 1 << ctxData
	if i = d.data(i+1, 1); i >= 0 {
		d.end(i)
	}
}

// open checks that the value is an object. A value that is other JSON is not
// read further than needed to tell.
func (d *Decoder) open(i int) bool {
	if i < len(d.b) && d.b[i] == '{' {
		return true
	}
	if i = d.skip(i, 0, false); i >= 0 && d.end(i) {
		d.broken = NotObject
	}
	return false
}

// end checks that nothing but space follows the value.
func (d *Decoder) end(i int) bool {
	if d.space(i) != len(d.b) {
		d.broken = NotJSON
		return false
	}
	return true
}

// fail keeps the first problem of an attribute.
func (d *Decoder) fail(r Reason, attribute string) {
	if d.problem == "" {
		d.problem, d.attribute = r, attribute
	}
}

// drop counts an attribute that is not kept.
func (d *Decoder) drop(name string) {
	if d.refused(name) {
		d.e.Refused++
	} else {
		d.e.Unknown++
	}
}

var required = func() (names [event.NumKinds]uint64) {
	for a, def := range event.Attributes {
		for _, k := range event.Kinds {
			if def.Required.Has(k) {
				names[k] |= 1 << a
			}
		}
	}
	return names
}()

func (d *Decoder) checkRequired() {
	for c := range numRequired {
		if d.context&(1<<c) == 0 {
			d.fail(MissingAttribute, contextNames[c])
		}
	}
	missing := required[d.kind] &^ d.e.Has
	if missing == 0 {
		return
	}
	for a := range event.Attributes {
		if missing&(1<<a) != 0 {
			d.fail(MissingAttribute, event.Attributes[a].Name)
		}
	}
}
