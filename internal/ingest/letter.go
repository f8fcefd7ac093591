package ingest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/lethe-audit/lethe/internal/publish"
)

// Reasons of dead letters beside codec's.
const (
	reasonUnclassified = "unclassified"
	reasonUndecided    = "undecided"          // an error that neither codec nor policy names
	reasonRegion       = "region"             // its organization chose another region than this deployment's
	reasonRefused      = "refused_by_storage" // ClickHouse does not take the row
)

// maxLetter leaves room for headers below what a broker takes.
const maxLetter = 900 << 10

// letter is one dead letter. Its value is either the redacted event or, where
// nothing of the payload can be trusted, what coordinates returns.
type letter struct {
	offset            int64
	received          time.Time
	reason, attribute string
	value             []byte
	redacted          bool
	seal              string // of a redacted one
}

// headerSeal is beside a redacted letter and beside its replay.
const headerSeal = "lethe-seal"

// coordinates says where the record is and nothing of what it holds. A replay
// reads it again from its topic.
func (w *worker) coordinates(p *partition, l *letter, value []byte) []byte {
	text, err := json.Marshal(struct {
		Cluster   string `json:"cluster"`
		Topic     string `json:"topic"`
		Epoch     uint32 `json:"epoch"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Length    int    `json:"length"`
		Reason    string `json:"reason"`
		Attribute string `json:"attribute,omitempty"`
		Digest    string `json:"digest"`
		Received  string `json:"received_at"`
	}{p.id.Cluster, p.topic, p.id.Epoch, p.partition, l.offset, len(value), l.reason, l.attribute,
		w.o.Digest(value), l.received.Format(time.RFC3339Nano)})
	if err != nil {
		return []byte(`{}`) // strings and numbers always marshal
	}
	return text
}

// message returns the letter as it is published.
func (l *letter) message(topic string, p *partition) publish.Message {
	form := "coordinates"
	if l.redacted {
		form = "redacted"
	}
	h := []publish.Header{
		{Key: "lethe-reason", Value: []byte(l.reason)},
		{Key: "lethe-topic", Value: []byte(p.topic)},
		{Key: "lethe-partition", Value: strconv.AppendInt(nil, int64(p.partition), 10)},
		{Key: "lethe-offset", Value: strconv.AppendInt(nil, l.offset, 10)},
		{Key: "lethe-epoch", Value: strconv.AppendUint(nil, uint64(p.id.Epoch), 10)},
		{Key: "lethe-cluster", Value: []byte(p.id.Cluster)},
		{Key: "lethe-received-at", Value: l.received.AppendFormat(nil, time.RFC3339Nano)},
		{Key: "lethe-form", Value: []byte(form)},
	}
	if l.attribute != "" {
		h = append(h, publish.Header{Key: "lethe-attribute", Value: []byte(l.attribute)})
	}
	if l.redacted {
		h = append(h, publish.Header{Key: headerSeal, Value: []byte(l.seal)},
			publish.Header{Key: "content-type", Value: []byte("application/cloudevents+json")})
	} else {
		h = append(h, publish.Header{Key: "content-type", Value: []byte("application/json")})
	}
	return publish.Message{Topic: topic, Value: l.value, Headers: h}
}
