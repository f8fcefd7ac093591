package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

// batch is what one insert stores, with the account of every offset it came from.
type batch struct {
	rows    Batch
	spans   []*span // of the partitions that have something in it
	byIndex []*span // by the partition's index in the route; nil: nothing yet
	spare   []*span
	letters []publish.Message
	facts   []event.Fact
	asked   []asked
	moves   []event.Move
	size    int          // bytes of the letters and moves
	held    atomic.Int64 // bytes of all of it, for the metric
	tallies map[tally]counts
	opened  time.Time
}

// span is a range of offsets of one partition.
type span struct {
	part    *partition
	builder ledger.Builder
}

func newBatch(rows Batch) *batch {
	return &batch{rows: rows, tallies: make(map[tally]counts)}
}

func (b *batch) reset() {
	b.rows.Reset()
	for _, s := range b.spans {
		s.part = nil
		b.spare = append(b.spare, s)
	}
	b.spans = b.spans[:0]
	clear(b.byIndex)
	b.byIndex = b.byIndex[:0]
	clear(b.letters) // they hold payloads
	b.letters, b.size = b.letters[:0], 0
	b.facts, b.asked, b.moves = b.facts[:0], b.asked[:0], b.moves[:0]
	clear(b.tallies)
	b.hold()
}

// moveBytes is about what a move takes: a row without columns.
const moveBytes = 1 << 10

// bytes returns about how many bytes of memory the rows, letters and moves take.
func (b *batch) bytes() int { return b.rows.Bytes() + b.size }

func (b *batch) hold() { b.held.Store(int64(b.bytes())) }

func (b *batch) empty() bool { return len(b.spans) == 0 }

func (b *batch) span(p *partition) *span {
	for len(b.byIndex) <= p.index {
		b.byIndex = append(b.byIndex, nil)
	}
	if s := b.byIndex[p.index]; s != nil {
		return s
	}
	s := new(span)
	if n := len(b.spare); n > 0 {
		s, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	s.part = p
	s.builder.Reset(p.id)
	b.byIndex[p.index] = s
	b.spans = append(b.spans, s)
	return s
}

// add takes a chunk over. An error says that the account has a hole, which a
// restart of the route cures.
func (b *batch) add(p *partition, c *chunk, deadTopic string) error {
	if b.empty() {
		b.opened = c.now
	}
	s := b.span(p)
	for _, r := range c.runs {
		if err := s.builder.Add(r.First, r.Last, r.Outcome); err != nil {
			return fmt.Errorf("account for %s: %w", p.place, err)
		}
	}
	for _, cell := range c.cells {
		s.builder.Count(cell)
	}
	for n := range c.stored {
		b.rows.Add(&c.rows[n])
	}
	for n := range c.letters {
		b.letter(c.letters[n].message(deadTopic, p))
	}
	b.facts = append(b.facts, c.facts...)
	b.asked = append(b.asked, c.asked...)
	b.moves = append(b.moves, c.moves...)
	b.size += len(c.moves) * moveBytes
	for _, t := range c.tallies {
		b.tallies[t.tally] = b.tallies[t.tally].plus(t.counts)
	}
	b.hold()
	return nil
}

func (b *batch) letter(m publish.Message) {
	b.letters = append(b.letters, m)
	b.size += len(m.Value) + 256
}

func (r *route) isFull(b *batch) bool {
	return b.rows.Rows()+len(b.letters) >= r.o.BatchRows || b.bytes() >= r.o.BatchBytes
}

// put adds a chunk to the batch that fills. When that is full and the one before
// is not stored yet, put waits, and with it the workers and the fetching.
func (r *route) put(ctx context.Context, p *partition, c *chunk) error {
	var b *batch
	select {
	case b = <-r.open:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := b.add(p, c, r.o.DeadTopic); err != nil {
		r.open <- b
		return err
	}
	if !r.isFull(b) {
		r.open <- b
		return nil
	}
	select {
	case r.full <- b:
		r.open <- <-r.free // the inserter gives the other back before it takes this one
	case <-ctx.Done():
		r.open <- b // the chunk is in it: run stores it on the way out
	}
	return nil
}

// closeOld closes the batch at its age. While the one before is being stored it
// goes on filling.
func (r *route) closeOld(ctx context.Context) {
	for sleep(ctx, max(r.o.BatchAge/8, 5*time.Millisecond)) {
		select {
		case b := <-r.open:
			if !b.empty() && time.Since(b.opened) >= r.o.BatchAge {
				select {
				case r.full <- b:
					b = <-r.free
				default:
				}
			}
			r.open <- b
		case <-ctx.Done():
			return
		}
	}
}

func newRoute(i *Ingester, gen committer, id generationID, parts []*partition) *route {
	r := &route{
		Ingester: i, gen: gen, id: id, parts: parts, places: make(map[place]*partition, len(parts)),
		budget: newBudget(i.o.FetchBytes), ready: make(chan *partition, len(parts)),
		open: make(chan *batch, 1), full: make(chan *batch), free: make(chan *batch, len(i.batches)),
	}
	for _, p := range parts {
		r.places[p.place] = p
	}
	for _, b := range i.batches {
		b.reset()
	}
	r.open <- i.batches[0]
	r.free <- i.batches[1]
	return r
}

// entries returns the finished ledger entries.
func (b *batch) entries(generation generationID, policyVersion string) []ledger.Entry {
	entries := make([]ledger.Entry, len(b.spans))
	for n, s := range b.spans {
		entries[n] = s.builder.Entry(generation, b.opened, policyVersion)
	}
	return entries
}

// token names the batch for ClickHouse's deduplication: this process, the exact
// offsets, and the digests of the rows in each class. It makes a repeated try of
// one batch store nothing twice, and nothing more. A token that outlived the
// process would swallow rows that have gone since (a dropped partition, a
// restored table, another policy) while the ledger says that they are stored;
// repeats after a restart collapse by themselves.
func token(process string, entries []ledger.Entry) string {
	h := sha256.New()
	number := func(n uint64) { _, _ = h.Write(binary.BigEndian.AppendUint64(nil, n)) }
	text := func(s string) {
		number(uint64(len(s)))
		_, _ = io.WriteString(h, s)
	}
	text(process)
	for _, e := range entries {
		text(e.Cluster)
		text(e.Topic)
		number(uint64(e.Epoch))
		number(uint64(e.Partition.Partition))
		number(uint64(e.First))
		number(uint64(e.Last))
		for _, c := range e.Cells {
			text(c.Table)
			text(c.Retention)
			number(uint64(c.Day))
			number(c.Rows)
			number(c.Digest)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
