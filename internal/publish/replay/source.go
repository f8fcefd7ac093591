package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/fetch"
)

// source reads single records of the topics that letters came from. It keeps
// the last answer of each partition: bad records come in rows.
type source struct {
	fetch  func(ctx context.Context, p place, offset int64) (fetch.Answer, error)
	places map[place]*opened
}

// opened is an answer that is read forward.
type opened struct {
	answer fetch.Answer
	reader fetch.Reader
	record fetch.Record
}

// read returns the record at an offset, valid until the next call; false: there
// is none any more.
func (s *source) read(ctx context.Context, p place, offset int64) (*fetch.Record, bool, error) {
	o := s.places[p]
	if o == nil {
		o = &opened{}
		s.places[p] = o
	}
	o.reader.Recycle()
	if offset < o.reader.Offset() || offset >= o.answer.Next {
		o.answer.Release()
		a, err := s.fetch(ctx, p, offset)
		if errors.Is(err, kafka.OffsetOutOfRange) || errors.Is(err, kafka.UnknownTopicOrPartition) {
			o.answer = fetch.Answer{}
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		o.answer = a
		o.reader.Reset(&o.answer, offset)
	}
	for o.reader.Offset() <= offset {
		more, err := o.reader.Next(&o.record)
		if err != nil {
			return nil, false, fmt.Errorf("read %s/%d: %w", p.topic, p.partition, err)
		}
		if !more {
			return nil, false, nil
		}
	}
	return &o.record, o.record.Offset == offset, nil
}

func (s *source) close() {
	for _, o := range s.places {
		o.answer.Release()
	}
	clear(s.places)
}
