package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/policy"
)

// chunkRows is how many rows are made between two visits to the shared batch.
const chunkRows = 64

// worker turns records into rows, letters and outcomes. What it makes is
// gathered in a chunk: offsets of one partition without a gap.
type worker struct {
	*Ingester
	decoder *codec.Decoder
	redact  Redactor
	reader  fetch.Reader
	record  fetch.Record
	headers []codec.Header
	event   event.Event
	names   names
	chunk   chunk
}

type chunk struct {
	rows    [chunkRows]event.Row
	stored  int
	runs    []ledger.Run
	cells   []ledger.Cell
	letters []letter
	facts   []event.Fact
	asked   []asked
	moves   []event.Move // of rows that are stored with another expiry than their class's
	tallies []counted
	now     time.Time
}

func (c *chunk) reset() {
	c.stored = 0
	c.runs, c.cells, c.tallies = c.runs[:0], c.cells[:0], c.tallies[:0]
	clear(c.letters) // they hold payloads
	c.letters = c.letters[:0]
	c.facts, c.asked, c.moves = c.facts[:0], c.asked[:0], c.moves[:0]
}

// add gives the offsets first to last an outcome.
func (c *chunk) add(first, last int64, o ledger.Outcome) {
	if n := len(c.runs); n > 0 && c.runs[n-1].Outcome == o {
		c.runs[n-1].Last = last
		return
	}
	c.runs = append(c.runs, ledger.Run{First: first, Last: last, Outcome: o})
}

var tables = func() (t [event.NumKinds]string) {
	for _, k := range event.Kinds {
		t[k] = k.Table()
	}
	return t
}()

// cellOf returns the cell of one row.
func cellOf(row *event.Row) ledger.Cell {
	return ledger.Cell{
		Table: tables[row.Kind], Retention: row.Retention,
		Day:  int32(row.RetainedFrom.Unix() / 86400), // never before 1970: codec refuses what is older than 2000
		Rows: 1, Digest: ledger.Digest(row.Source, row.ID, row.Offset),
	}
}

// cell counts a stored row.
func (c *chunk) cell(row *event.Row) {
	one := cellOf(row)
	for i := len(c.cells) - 1; i >= 0; i-- {
		if x := &c.cells[i]; x.Day == one.Day && x.Retention == one.Retention && x.Table == one.Table {
			x.Rows++
			x.Digest += one.Digest
			return
		}
	}
	c.cells = append(c.cells, one)
}

func newWorker(i *Ingester) (*worker, error) {
	redactor, err := i.o.NewRedactor()
	if err != nil {
		return nil, fmt.Errorf("make redactor: %w", err)
	}
	return &worker{Ingester: i, decoder: codec.NewDecoder(), redact: redactor, names: newNames(i.metrics.publishers)}, nil
}

func (w *worker) run(ctx context.Context, r *route) {
	for {
		select {
		case p := <-r.ready:
			w.serve(ctx, r, p)
		case <-ctx.Done():
			return
		}
	}
}

// serve works on one answer of a partition and puts the partition back in line.
func (w *worker) serve(ctx context.Context, r *route, p *partition) {
	p.mu.Lock()
	if len(p.pending) == 0 { // set back meanwhile
		p.working = false
		p.mu.Unlock()
		return
	}
	a := p.pending[0]
	n := copy(p.pending, p.pending[1:])
	p.pending[n] = fetch.Answer{}
	p.pending = p.pending[:n]
	p.mu.Unlock()

	err := w.answer(ctx, r, p, &a)
	r.release(&a)
	if err != nil && ctx.Err() == nil {
		w.spoiled(r, p, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 && ctx.Err() == nil {
		r.ready <- p
		return
	}
	p.working = false
}

// maxDamaged is how often a batch is fetched again before its partition stops.
const maxDamaged = 5

// spoiled handles records that cannot be read.
func (w *worker) spoiled(r *route, p *partition, err error) {
	p.mu.Lock()
	p.damaged++
	again := errors.Is(err, fetch.ErrCorrupt) && p.damaged < maxDamaged
	p.mu.Unlock()
	if !again {
		if errors.Is(err, fetch.ErrCorrupt) {
			err = fmt.Errorf("%w; let another replica lead or, where none has the batch whole, delete the records up to its end, "+
				"which are entered as lost; then restart", err)
		}
		r.halt(p, err)
		return
	}
	r.metrics.retries.WithLabelValues(partKafka).Inc()
	r.log.Warn("trying again", "what", "read records", "partition", p.String(), "error", err)
	r.setBack(p, refused)
}

func (w *worker) answer(ctx context.Context, r *route, p *partition, a *fetch.Answer) error {
	c := &w.chunk
	c.reset()
	c.now = time.Now().UTC().Truncate(time.Millisecond)
	at := p.at
	if a.From != at { // would leave a hole, or count twice
		return fmt.Errorf("%w: records from offset %d came where those from %d were due", fetch.ErrCorrupt, a.From, at)
	}
	w.reader.Reset(a, at)
	for {
		more, err := w.reader.Next(&w.record)
		if err != nil {
			// What came before is whole. A partition that stops does so at the fault.
			return errors.Join(err, w.flush(ctx, r, p, at))
		}
		if !more || p.over(w.record.Offset) {
			break
		}
		at = c.gap(at, w.record.Offset, a.LogStart)
		w.one(p)
		at++
		if c.stored == chunkRows || len(c.letters) >= chunkRows || len(c.runs) >= 4*chunkRows {
			if err := w.flush(ctx, r, p, at); err != nil {
				return err
			}
		}
	}
	to := w.reader.Offset()
	if a.Bytes() == 0 { // nothing but the news that offsets are gone
		to = a.Next
	} else if to == a.From { // a broker gives at least one whole batch
		return fmt.Errorf("%w: no whole batch at offset %d", fetch.ErrFormat, to)
	}
	if p.over(to) {
		to = p.until
	}
	at = c.gap(at, to, a.LogStart)
	err := w.flush(ctx, r, p, at)
	if err == nil {
		p.mu.Lock()
		p.damaged = 0
		p.mu.Unlock()
	}
	return err
}

// gap accounts for offsets without a record: lost below the log start, absent
// above it.
func (c *chunk) gap(at, to, logStart int64) int64 {
	if lost := min(to, logStart); at < lost {
		c.add(at, lost-1, ledger.Lost)
		at = lost
	}
	if at < to {
		c.add(at, to-1, ledger.Absent)
		at = to
	}
	return at
}

// flush puts the chunk into the shared batch.
func (w *worker) flush(ctx context.Context, r *route, p *partition, at int64) error {
	c := &w.chunk
	if at > p.at {
		if err := r.put(ctx, p, c); err != nil {
			return err
		}
		p.at = at
	}
	c.reset()
	w.reader.Recycle()
	return nil
}

// decode reads the event of the record.
func (w *worker) decode(p *partition) error {
	rec := &w.record
	w.headers = w.headers[:0]
	var seal []byte
	for _, h := range rec.Headers {
		if h.Key == headerSeal {
			seal = h.Value
		}
		w.headers = append(w.headers, codec.Header(h))
	}
	var stored *event.Stored
	if len(seal) > 0 {
		if stored = w.redact.Open(p.kind, rec.Value, seal); stored != nil {
			w.headers = w.headers[:0] // the seal is on the value alone, which is the whole event
		}
	}
	err := w.decoder.Decode(p.kind, rec.Value, w.headers, &w.event)
	if stored != nil {
		w.event.Restore(stored)
	}
	return err
}

// one works on one record.
func (w *worker) one(p *partition) {
	if err := w.decode(p); err != nil {
		w.refused(p, err)
		return
	}
	c, rec, e := &w.chunk, &w.record, &w.event
	name := w.names.of(e.Source)
	if w.elsewhere(e) {
		w.dead(p, name, letter{reason: reasonRegion, attribute: organizationID})
		return
	}
	decision, err := w.o.Policy.Decide(e, c.now)
	switch {
	case errors.Is(err, policy.ErrUnclassified):
		w.dead(p, name, w.redacted(letter{reason: reasonUnclassified}))
		return
	case err != nil:
		w.dead(p, name, w.redacted(letter{reason: reasonUndecided}))
		return
	}
	row := &c.rows[c.stored]
	row.Reset()
	w.redact.Row(e, decision, row)
	row.Topic, row.Partition, row.Offset, row.ReceivedAt = p.topic, p.partition, rec.Offset, c.now
	if facts, ok := w.o.Policy.Fact(row); ok {
		if len(facts) == 0 {
			w.metrics.unnamed.WithLabelValues(name).Inc()
		}
		w.remember(facts)
	}
	w.learn(p, row)
	outcome := w.outcome(row, decision)
	if outcome == ledger.Stored {
		c.stored++
		c.cell(row)
		if row.ExpiresOverride > 0 {
			c.moves = append(c.moves, moved(row))
		}
	}
	c.add(rec.Offset, rec.Offset, outcome)
	c.count(tally{index: p.index, publisher: name, outcome: outcome}, e, decision.Skewed && outcome == ledger.Stored)
}

// consultation begins the actions of the query service's own records.
const consultation = "lethe.access."

var organizationID = event.Attributes[event.OrganizationID].Name

// elsewhere reports whether nothing of an event may lie here. What was looked up here, and
// by whom, is this deployment's own.
func (w *worker) elsewhere(e *event.Event) bool {
	return len(w.o.Elsewhere) > 0 && w.o.Elsewhere[e.Text[event.OrganizationID]] && !strings.HasPrefix(e.Action(), consultation)
}

// refused makes a dead letter of a record that is not a valid event.
func (w *worker) refused(p *partition, err error) {
	var why *codec.Error
	if !errors.As(err, &why) {
		w.dead(p, publisherUnknown, letter{reason: reasonUndecided})
		return
	}
	l := letter{reason: string(why.Reason), attribute: why.Attribute}
	name := publisherUnknown
	if why.Redactable() {
		name = w.names.of(w.event.Source)
		if !w.elsewhere(&w.event) {
			l = w.redacted(l)
		}
	}
	w.dead(p, name, l)
}

// redacted makes the letter hold the event in its redacted form.
func (w *worker) redacted(l letter) letter {
	l.value, l.seal = w.redact.DeadLetter(&w.event)
	l.redacted = true
	return l
}

func (w *worker) dead(p *partition, name string, l letter) {
	c, rec := &w.chunk, &w.record
	if p.lettered[rec.Offset] {
		c.add(rec.Offset, rec.Offset, ledger.Dead)
		return
	}
	l.offset, l.received = rec.Offset, c.now
	if !l.redacted || len(l.value) > maxLetter {
		l.value, l.redacted = w.coordinates(p, &l, rec.Value), false
	}
	c.letters = append(c.letters, l)
	c.add(rec.Offset, rec.Offset, ledger.Dead)
	c.count(tally{index: p.index, publisher: name, outcome: ledger.Dead, reason: l.reason, attribute: l.attribute}, &w.event, false)
}
