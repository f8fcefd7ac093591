package feed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/lethe-audit/lethe/internal/accesslog"
	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
)

// eventType is the CloudEvents type of an access-log line.
const eventType = "lethe.access_log.v1"

// maxEvent leaves room for the key and Kafka's own bytes in a batch.
const maxEvent = publish.MaxBytes - 4096

// earliest is the first time an event may have.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// chunk is a part of an input, ready to publish.
type chunk struct {
	topic     string
	bytes     []byte // the values, one behind the other
	events    []part
	refused   []Refusal
	blank     int64
	shortened int64
	read      int64 // bytes of the file up to here, before decompression
	end       position
}

// part is one event of a chunk.
type part struct {
	key string
	end int // of its value
}

func (c *chunk) reset() {
	*c = chunk{bytes: c.bytes[:0], events: c.events[:0], refused: c.refused[:0]}
}

func (c *chunk) empty() bool { return len(c.events) == 0 && len(c.refused) == 0 && c.blank == 0 }

func (c *chunk) room() bool {
	return len(c.events) < chunkEvents && len(c.bytes) < chunkBytes && len(c.refused) < chunkEvents
}

func (c *chunk) messages() []publish.Message {
	list := make([]publish.Message, len(c.events))
	from := 0
	for i, e := range c.events {
		list[i] = publish.Message{Topic: c.topic, Key: e.key, Value: c.bytes[from:e.end:e.end]}
		from = e.end
	}
	return list
}

// converter makes events from the lines of one input.
type converter struct {
	format  Format
	kind    event.Kind
	topic   string
	prefix  []byte // of an access-log event, after its id
	service []byte
	shift   time.Duration

	first, last identity
	line        accesslog.Line
	decoder     *codec.Decoder
	event       event.Event
}

func newConverter(opts Options, format Format, shift time.Duration) *converter {
	c := &converter{format: format, kind: event.Request, shift: shift, decoder: codec.NewDecoder()}
	if format == Events {
		c.kind = opts.Kind
	}
	c.topic = opts.Topics[c.kind]
	c.prefix = appendQuoted([]byte(`","source":`), opts.Source)
	c.prefix = append(c.prefix, `,"type":"`+eventType+`","time":"`...)
	if opts.Service != "" {
		c.service = appendQuoted([]byte(`,"service.name":`), opts.Service)
	}
	return c
}

// appendQuoted appends an option as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	dst, _ = appendText(dst, []byte(s), len(s))
	return dst
}

// resume moves to a position after it made sure that the input begins as it did.
func (c *converter) resume(in *input, from position) error {
	if !in.next() {
		if in.err != nil {
			return in.err
		}
		return errChanged
	}
	_ = c.parse(in) // a first line that is no event has an identity too
	c.identify(in)
	if c.first != from.First {
		return errChanged
	}
	if err := in.seekTo(from.Offset); err != nil {
		return err
	}
	in.number, in.offset, c.last = from.Line, from.Offset, from.Last
	return nil
}

// read sends the lines as chunks until the input or ctx ends, and closes chunks.
func (c *converter) read(ctx context.Context, in *input, chunks chan<- *chunk, back <-chan *chunk) error {
	defer close(chunks)
	for more := true; more; {
		ch := &chunk{}
		select {
		case ch = <-back:
			ch.reset()
		default:
		}
		ch.topic = c.topic
		for ch.room() && (ch.empty() || !in.waits()) {
			if more = in.next(); !more {
				break
			}
			c.add(ch, in)
		}
		if in.number == 0 {
			break
		}
		ch.read = in.raw.n
		ch.end = position{Line: in.number, Offset: in.offset, First: c.first, Last: c.last}
		select {
		case chunks <- ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in.err
}

// add converts one line into an event of the chunk, or a refusal.
func (c *converter) add(ch *chunk, in *input) {
	refuse := func(reason string) {
		ch.refused = append(ch.refused, Refusal{Line: in.number, Reason: reason})
	}
	err := c.parse(in)
	c.identify(in)
	if in.long {
		refuse("longer than an event may be")
		return
	}
	if len(bytes.TrimSpace(in.line)) == 0 {
		ch.blank++
		return
	}
	if err != nil {
		refuse(err.Error())
		return
	}
	before := len(ch.bytes)
	var key string
	if c.format == Events {
		key = c.event.Text[event.OrganizationID]
		ch.bytes, err = c.appendShifted(ch.bytes, in.line)
		if err != nil {
			refuse(err.Error())
			return
		}
	} else {
		if c.line.Time.Add(c.shift).Before(earliest) {
			refuse("the time is before 2000")
			return
		}
		if len(c.line.User) > event.Attributes[event.UserID].Max || len(c.line.Client) > event.Attributes[event.ClientAddress].Max {
			refuse("the user or the client is longer than an event may hold")
			return
		}
		var cut bool
		ch.bytes, cut = c.appendEvent(ch.bytes)
		if cut {
			ch.shortened++
		}
	}
	if len(ch.bytes)-before > maxEvent {
		ch.bytes = ch.bytes[:before]
		refuse("longer than a message may be")
		return
	}
	ch.events = append(ch.events, part{key: key, end: len(ch.bytes)})
}

// parse reads the line into c.line or c.event.
func (c *converter) parse(in *input) error {
	if in.long {
		in.line = nil
	}
	if c.format == Events {
		return c.decoder.Decode(c.kind, in.line, nil, &c.event)
	}
	return accesslog.Parse(in.line, &c.line)
}

// time returns the time of the line that was parsed.
func (c *converter) time() time.Time {
	if c.format == Events {
		return c.event.Time
	}
	return c.line.Time
}

// identify moves the identity on to the line that was parsed. It covers all
// lines before, so equal lines differ, a file that grew keeps its identities,
// and so does one that was renamed or gzipped.
//
// Only lengths, times, statuses and sizes go in. An address must not: the
// identity becomes the event's id, which is stored, and a hash of an address is
// an address to anyone who tries them all.
func (c *converter) identify(in *input) {
	var b [len(identity{}) + 8 + 8 + 8 + 2]byte
	n := copy(b[:], c.last[:])
	binary.BigEndian.PutUint64(b[n:], uint64(len(in.line)))
	if c.format == AccessLog {
		binary.BigEndian.PutUint64(b[n+8:], uint64(c.line.Time.Unix()))
		binary.BigEndian.PutUint64(b[n+16:], uint64(c.line.Size))
		binary.BigEndian.PutUint16(b[n+24:], uint16(c.line.Status))
	}
	sum := sha256.Sum256(b[:])
	copy(c.last[:], sum[:])
	if in.number == 1 {
		c.first = c.last
	}
}

// appendShifted appends a CloudEvent, unchanged without a shift.
func (c *converter) appendShifted(dst, line []byte) ([]byte, error) {
	if c.shift == 0 {
		return append(dst, line...), nil
	}
	t := c.event.Time.Add(c.shift)
	if t.Before(earliest) {
		return dst, errBefore2000{}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return dst, errNotShifted{} // the codec accepted it, so this is not reached
	}
	members["time"] = t.AppendFormat([]byte{'"'}, time.RFC3339Nano+`"`)
	text, err := json.Marshal(members)
	if err != nil {
		return dst, errNotShifted{}
	}
	return append(dst, text...), nil
}

type (
	errBefore2000 struct{}
	errNotShifted struct{}
)

func (errBefore2000) Error() string { return "the time is before 2000" }
func (errNotShifted) Error() string { return "the time could not be shifted" }

// appendEvent appends the CloudEvent of c.line; cut says that a text was longer
// than an event may hold.
func (c *converter) appendEvent(dst []byte) (_ []byte, cut bool) {
	l := &c.line
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = hex.AppendEncode(dst, c.last[:])
	dst = append(dst, c.prefix...)
	dst = l.Time.Add(c.shift).AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","datacontenttype":"application/json","data":{"http.response.status_code":`...)
	dst = strconv.AppendInt(dst, int64(l.Status), 10)
	dst = append(dst, `,"http.response.body.size":`...)
	dst = strconv.AppendInt(dst, l.Size, 10)
	texts := [...]struct {
		name  string
		value []byte
		attr  event.Attr
	}{
		{`,"http.request.method":`, l.Method, event.HTTPMethod},
		{`,"url.path":`, l.Path, event.URLPath},
		{`,"network.protocol.version":`, l.Version, event.ProtocolVersion},
		{`,"client.address":`, l.Client, event.ClientAddress},
		{`,"user.id":`, l.User, event.UserID},
		{`,"user_agent.original":`, l.UserAgent, event.UserAgent},
	}
	for _, t := range texts {
		if len(t.value) == 0 {
			continue
		}
		dst = append(dst, t.name...)
		var c bool
		dst, c = appendText(dst, t.value, event.Attributes[t.attr].Max)
		cut = cut || c
	}
	dst = append(dst, c.service...)
	return append(dst, `}}`...), cut
}

const hexDigits = "0123456789abcdef"

// appendText appends b as a JSON string of at most limit bytes. Bytes that are
// not UTF-8 become U+FFFD.
func appendText(dst, b []byte, limit int) (_ []byte, cut bool) {
	dst = append(dst, '"')
	used := 0
	for i := 0; i < len(b); {
		if ch := b[i]; ch < utf8.RuneSelf {
			if used++; used > limit {
				cut = true
				break
			}
			i++
			switch {
			case ch == '"' || ch == '\\':
				dst = append(dst, '\\', ch)
			case ch < ' ' || ch == 0x7f:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[ch>>4], hexDigits[ch&15])
			default:
				dst = append(dst, ch)
			}
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if used += utf8.RuneLen(r); used > limit {
			cut = true
			break
		}
		dst = utf8.AppendRune(dst, r)
		i += size
	}
	return append(dst, '"'), cut
}
