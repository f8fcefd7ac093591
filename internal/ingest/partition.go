package ingest

import (
	"sync"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/fetch"
	"github.com/lethe-audit/lethe/internal/ledger"
)

// partition is one assigned partition on its way. Offsets below done are in the
// ledger, those below at are in a batch, those below next are fetched.
type partition struct {
	place
	index   int
	id      ledger.Partition
	kind    event.Kind
	start   int64 // the log start when there is something lost below it, else 0
	started time.Time
	// committed is the group's offset at the start. Where it is ahead of the ledger it
	// stays, until the ledger is there: by that others see that something is missing.
	committed int64

	// Of a replay: it ends before until (0: never), and these offsets have their letters.
	until    int64
	lettered map[int64]bool

	// at belongs to the worker that has the partition: one at a time.
	at int64

	mu       sync.Mutex
	next     int64
	round    int // grows when the position is set back: answers of before do not count
	fetching bool
	retryAt  time.Time
	damaged  int            // how often the same batch was corrupt
	pending  []fetch.Answer // waiting for a worker
	working  bool           // a worker has it, or it waits for one

	done     int64
	end      int64     // high watermark
	told     time.Time // when a broker told it
	complete time.Time
	marks    []mark
	oldest   time.Time // of what was fetched last, by the publisher's clock
}

// mark says that everything Kafka had received at an instant lies below an offset.
type mark struct {
	at    time.Time
	below int64
}

// maxMarks bounds the marks of a partition that is behind.
const maxMarks = 64

// over reports whether an offset lies behind the end of a replay.
func (p *partition) over(offset int64) bool { return p.until > 0 && offset >= p.until }

// note remembers a mark. Callers hold mu.
func (p *partition) note(m mark) {
	if m.at.IsZero() {
		return
	}
	for i := range p.marks {
		if p.marks[i].below == m.below {
			if m.at.After(p.marks[i].at) {
				p.marks[i].at = m.at
			}
			return
		}
	}
	if len(p.marks) == maxMarks { // every other one: less exact, still true
		kept := p.marks[:0]
		for i := 1; i < len(p.marks); i += 2 {
			kept = append(kept, p.marks[i])
		}
		p.marks = kept
	}
	p.marks = append(p.marks, m)
}

// settle moves complete up to the latest mark that done has reached. Callers hold mu.
func (p *partition) settle() {
	kept := p.marks[:0]
	for _, m := range p.marks {
		if m.below > p.done {
			kept = append(kept, m)
		} else if m.at.After(p.complete) {
			p.complete = m.at
		}
	}
	p.marks = kept
}

// finished records that the ledger reaches next.
func (p *partition) finished(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = next
	p.settle()
}

// progress returns what is known now.
func (p *partition) progress(now time.Time) ledger.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ledger.Progress{Partition: p.id, Next: p.done, HighWatermark: p.end, CompleteUntil: p.complete, UpdatedAt: now}
}

// lag returns how far the ledger is behind: offsets, and the time since which
// something may be missing. Before the first mark is reached, that is the time
// the publisher gave to the record that was fetched last, or the start.
func (p *partition) lag(now time.Time) (offsets int64, behind time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := p.complete
	if since.IsZero() {
		if since = p.oldest; since.IsZero() {
			since = p.started
		}
	}
	return max(0, p.end-p.done), max(0, now.Sub(since))
}
