package codec

import (
	"strings"
)

// context is one of CloudEvents' own attributes.
type context uint8

// The context attributes: those an event must have, then those that are known
// and ignored. subject must name no person and is not stored.
const (
	ctxSpecVersion context = iota
	ctxID
	ctxSource
	ctxType
	ctxTime
	ctxData
	ctxContentType
	ctxSchema
	ctxSubject

	numRequired = ctxData + 1
)

// contextNames names the context attributes by their bit.
var contextNames = [...]string{
	ctxSpecVersion: "specversion",
	ctxID:          "id",
	ctxSource:      "source",
	ctxType:        "type",
	ctxTime:        "time",
	ctxData:        "data",
	ctxContentType: "datacontenttype",
	ctxSchema:      "dataschema",
	ctxSubject:     "subject",
}

func contextByName(name string) (context, bool) {
	switch name {
	case "specversion":
		return ctxSpecVersion, true
	case "id":
		return ctxID, true
	case "source":
		return ctxSource, true
	case "type":
		return ctxType, true
	case "time":
		return ctxTime, true
	case "data":
		return ctxData, true
	case "datacontenttype":
		return ctxContentType, true
	case "dataschema":
		return ctxSchema, true
	case "subject":
		return ctxSubject, true
	}
	return 0, false
}

// contextPrefix begins the headers that carry context attributes in binary mode.
const contextPrefix = "ce_"

func isContext(header string) bool { return strings.HasPrefix(header, contextPrefix) }

// isBinary tells the two content modes apart as the Kafka binding says: by the
// content type where it names CloudEvents, else by the ce_ headers.
func isBinary(headers []Header) bool {
	const structured = "application/cloudevents"
	binary := false
	for _, h := range headers {
		switch {
		case h.Key == "ce_specversion" || h.Key == "ce_id":
			binary = true
		case len(h.Value) >= len(structured) && strings.EqualFold(h.Key, "content-type") &&
			strings.EqualFold(string(h.Value[:len(structured)]), structured):
			return false
		}
	}
	return binary
}

// envelope reads the members of the event in structured mode; i is behind its
// brace. It returns the index behind the closing one, or -1.
func (d *Decoder) envelope(i int) int {
	other := &d.seen[1]
	other.reset()
	for first := true; ; first = false {
		key, at, more := d.member(i, first)
		if !more {
			return at
		}
		i = at
		c, known := contextByName(key)
		if !known {
			if !other.add(key) {
				return d.fatal(DuplicateKey)
			}
			if i = d.dropped(key, i, 1); i < 0 {
				return i
			}
			continue
		}
		if d.published&(1<<c) != 0 {
			return d.fatal(DuplicateKey)
		}
		d.published |= 1 << c
		switch {
		case c == ctxData && d.b[i] == '{':
			d.context |= 1 << ctxData
			i = d.data(i+1, 2)
		case c < ctxData && d.b[i] == '"':
			var v string
			if v, i = d.str(i); i >= 0 {
				d.setContext(c, v)
			}
		default:
			// The JSON format says that null means unset.
			if c < numRequired && d.b[i] != 'n' {
				d.fail(WrongType, contextNames[c])
			}
			i = d.skip(i, 1, false)
		}
		if i < 0 {
			return i
		}
	}
}

// setContext checks and keeps one of the required context attributes.
func (d *Decoder) setContext(c context, v string) {
	if v == "" || c >= numRequired {
		return // an empty one is a missing one
	}
	d.context |= 1 << c
	switch c {
	case ctxSpecVersion:
		if v != "1.0" {
			d.fail(WrongValue, contextNames[c])
		}
	case ctxID:
		d.e.ID = d.bounded(c, v, MaxID)
	case ctxSource:
		d.e.Source = d.bounded(c, v, MaxSource)
	case ctxType:
		d.e.Type = d.bounded(c, v, MaxType)
	case ctxTime:
		t, ok := parseTime(v)
		if ok {
			d.e.Time = t
		}
		if !ok || t.Before(earliest) || !t.Before(latest) {
			d.fail(TimeOutOfRange, contextNames[c])
		}
	}
}

// bounded returns v, or nothing where it is longer than limit bytes.
func (d *Decoder) bounded(c context, v string, limit int) string {
	if len(v) > limit {
		d.fail(AttributeTooLong, contextNames[c])
		return ""
	}
	return v
}
