package replay

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/publish"
)

// headerReplayed says on a replayed event which dead letter it was:
// topic/partition/offset. It is for people; the ingester believes the seal only.
const headerReplayed = "lethe-replayed"

// unknown is the publisher of a letter that does not tell.
const unknown = "unknown"

// letter is what the headers of a dead letter say, and what its value adds.
type letter struct {
	reason   string
	received time.Time
	redacted bool
	cluster  string
	from     place
	offset   int64

	publisher    string // the event's source; redacted letters only
	organization string
	length       int // of the record; letters without payload only
}

// parse reads a dead letter; false: it is none.
func parse(rec *fetch.Record) (letter, bool) {
	h := make(map[string]string, len(rec.Headers))
	for _, x := range rec.Headers {
		h[x.Key] = string(x.Value)
	}
	l := letter{
		reason: h["lethe-reason"], redacted: h["lethe-form"] == "redacted",
		cluster: h["lethe-cluster"], from: place{topic: h["lethe-topic"]}, publisher: unknown,
	}
	partition, err := strconv.ParseInt(h["lethe-partition"], 10, 32)
	if err != nil {
		return l, false
	}
	l.from.partition = int32(partition)
	if l.offset, err = strconv.ParseInt(h["lethe-offset"], 10, 64); err != nil || l.offset < 0 {
		return l, false
	}
	if l.received, err = time.Parse(time.RFC3339Nano, h["lethe-received-at"]); err != nil {
		return l, false
	}
	var value struct {
		Length int    `json:"length"`
		Source string `json:"source"`
		Data   struct {
			Organization string `json:"organization.id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(rec.Value, &value); err != nil {
		return l, false
	}
	l.length = value.Length
	if l.redacted {
		l.organization = value.Data.Organization
		if value.Source != "" {
			l.publisher = value.Source
		}
	}
	return l, l.reason != "" && l.from.topic != ""
}

// matches reports whether a filter lets the letter through.
func (l *letter) matches(reason, topic string, since time.Time) bool {
	return (reason == "" || reason == l.reason) && (topic == "" || topic == l.from.topic) && !l.received.Before(since)
}

// message is a redacted letter as an event of its topic; false: it has no seal,
// without which the ingester would redact it a second time.
func (l *letter) message(rec *fetch.Record) (publish.Message, bool) {
	m := publish.Message{Topic: l.from.topic, Key: l.organization, Value: bytes.Clone(rec.Value)}
	sealed := false
	for _, h := range rec.Headers {
		if h.Key == "lethe-seal" || h.Key == "content-type" {
			m.Headers = append(m.Headers, publish.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
			sealed = sealed || h.Key == "lethe-seal"
		}
	}
	return m, sealed
}

// copied is a record as it was published.
func copied(topic string, rec *fetch.Record) publish.Message {
	m := publish.Message{Topic: topic, Key: string(rec.Key), Value: bytes.Clone(rec.Value)}
	for _, h := range rec.Headers {
		if h.Key != headerReplayed {
			m.Headers = append(m.Headers, publish.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
		}
	}
	return m
}

func size(m publish.Message) int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
