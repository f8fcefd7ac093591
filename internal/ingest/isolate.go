package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// maxRefused is how many rows of a batch may become dead letters because
// ClickHouse refuses them, and how many of a table without one stored in between.
// One more, and the fault is not the rows': their partitions stop instead.
const maxRefused = 32

// isolation looks for the rows of a batch that ClickHouse refuses. Each part is
// inserted again, in halves where it is refused, so that a row costs about twice
// as many inserts as the part can be halved. Nothing of it is in the ledger before
// all rows are found: a kill in between repeats the whole batch, which collapses.
type isolation struct {
	*route
	batch   *batch
	first   map[string]map[int]int64 // for the fence
	token   string
	refused []event.Row // only what Batch.Origin fills
	parts   int         // inserted
}

// isolate stores what ClickHouse takes of a batch it has refused and makes the
// other rows dead letters, in the batch and in its entries. It returns how many
// parts were made.
func (r *route) isolate(ctx context.Context, b *batch, entries []ledger.Entry, first map[string]map[int]int64, token string) (parts int, err error) {
	s := &isolation{route: r, batch: b, first: first, token: token}
	for part := range b.rows.Parts() {
		if err := s.store(ctx, part, 0, b.rows.PartRows(part)); err != nil {
			return s.parts, s.judge(ctx, err)
		}
	}
	for i := range s.refused {
		if err := r.bury(ctx, b, entries, &s.refused[i]); err != nil {
			return s.parts, err
		}
	}
	return s.parts, nil
}

// store inserts rows of one part, all but those that are refused on their own.
func (s *isolation) store(ctx context.Context, part, from, to int) error {
	err := s.insert(ctx, s.first, func(ctx context.Context) error {
		return s.o.Storage.InsertRows(ctx, s.batch.rows, part, from, to, s.token)
	})
	var row event.Row
	s.batch.rows.Origin(part, from, &row)
	switch {
	case err == nil:
		s.parts++
		delete(s.refusals, row.Kind.Table())
		return nil
	case !permanent(err) || ctx.Err() != nil:
		return err
	case to-from > 1:
		middle := from + (to-from)/2
		if err := s.store(ctx, part, from, middle); err != nil {
			return err
		}
		return s.store(ctx, part, middle, to)
	}
	s.refused = append(s.refused, row)
	s.refusals[row.Kind.Table()]++
	if len(s.refused) > maxRefused || s.refusals[row.Kind.Table()] > maxRefused {
		return fmt.Errorf("%w: too many rows for it to be their fault", err)
	}
	s.log.Warn("ClickHouse refuses a row, which becomes a dead letter", "partition", place{row.Topic, row.Partition}.String(), "offset", row.Offset, "error", err)
	return nil
}

// judge stops the partitions whose rows were refused when the rows were too many.
func (s *isolation) judge(ctx context.Context, err error) error {
	if !permanent(err) || ctx.Err() != nil {
		return err
	}
	spans := slices.DeleteFunc(slices.Clone(s.batch.spans), func(x *span) bool {
		return !slices.ContainsFunc(s.refused, func(row event.Row) bool { return x.part.place == place{row.Topic, row.Partition} })
	})
	return s.stopAll(spans, err)
}

// bury makes a refused row a dead letter.
func (r *route) bury(ctx context.Context, b *batch, entries []ledger.Entry, row *event.Row) error {
	n := slices.IndexFunc(b.spans, func(s *span) bool { return s.part.place == place{row.Topic, row.Partition} })
	if n < 0 || !entries[n].Refuse(row.Offset, cellOf(row)) {
		return fmt.Errorf("account for a refused row: %s/%d has no row at offset %d", row.Topic, row.Partition, row.Offset)
	}
	b.moves = slices.DeleteFunc(b.moves, func(m event.Move) bool {
		return m.Row.Topic == row.Topic && m.Row.Partition == row.Partition && m.Row.Offset == row.Offset
	})
	p := b.spans[n].part
	if err := r.again.read(ctx, r, p, row); err != nil {
		return err
	}
	// What the worker gathers for a chunk: one letter, and its count. A replay has
	// neither where the dead topic has the letter already.
	c := &r.again.chunk
	if len(c.letters) == 0 {
		return nil
	}
	b.letter(c.letters[0].message(r.o.DeadTopic, p))
	b.hold()
	dead := c.tallies[0].tally
	stored := tally{index: dead.index, publisher: dead.publisher, outcome: ledger.Stored}
	if t := b.tallies[stored]; t.events > 0 {
		t.events--
		b.tallies[stored] = t
	}
	b.tallies[dead] = b.tallies[dead].plus(counts{events: 1}) // its attributes are counted already
	return nil
}

// read fetches the record of a refused row again and makes its dead letter, as it
// is made of any other: the columns of a row do not give the event back. Where
// the topic has it no longer, the letter says only where it was.
func (w *worker) read(ctx context.Context, r *route, p *partition, row *event.Row) error {
	w.chunk.reset()
	w.chunk.now = row.ReceivedAt
	var a fetch.Answer
	err := r.retry(ctx, partKafka, "read a refused record again", func(ctx context.Context) error {
		answers, err := w.fetch.Fetch(ctx, []fetch.Want{{Topic: p.topic, Partition: p.partition, Offset: row.Offset}}, 1, 1) // a whole batch comes all the same
		if err != nil {
			return err
		}
		if len(answers) != 1 {
			return errors.New("the broker did not answer for its partition")
		}
		a = answers[0]
		switch {
		case errors.Is(a.Err, kafka.OffsetOutOfRange):
			return nil
		case a.Err == nil && a.Bytes() == 0:
			err = errors.New("the broker gave no records")
		default:
			err = a.Err
		}
		if err != nil {
			a.Release()
		}
		return err
	})
	if err != nil {
		return err
	}
	defer a.Release()
	defer w.reader.Recycle()
	w.reader.Reset(&a, row.Offset)
	name, l := w.names.of(row.Source), letter{reason: reasonRefused}
	more, err := w.reader.Next(&w.record)
	if err != nil || !more || w.record.Offset != row.Offset {
		w.record = fetch.Record{Offset: row.Offset}
	} else if w.decode(p) == nil {
		name, l = w.names.of(w.event.Source), w.redacted(l)
	}
	w.dead(p, name, l)
	return nil
}
