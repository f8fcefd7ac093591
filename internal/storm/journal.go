package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// A line of the journal. All have 32 bytes, so that none lies across two pages
// of the file: a kill leaves no half of one.
const (
	sentLine  = "sent  %12d %12d\n"
	ackedLine = "acked %12d %12d\n"
	lineBytes = 32
)

// journal is where the publisher writes which numbers it is about to send, and
// then which were acknowledged. It lives longer than the process.
type journal struct{ f *os.File }

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &journal{f}, nil
}

func (j *journal) write(line string, r ledger.Range) error {
	if _, err := fmt.Fprintf(j.f, line, r.First, r.Last); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// account is what a journal says, as united ranges of numbers.
type account struct{ sent, acked []ledger.Range }

// readJournal reads the journal as it is now; a missing one is empty.
func readJournal(path string) (a account, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return a, fmt.Errorf("read journal: %w", err)
	}
	for line := range bytes.Lines(text) {
		var word string
		var r ledger.Range
		if _, err := fmt.Sscanf(string(line), "%s %d %d\n", &word, &r.First, &r.Last); err != nil || len(line) != lineBytes {
			return a, fmt.Errorf("read journal: %q is no line of it", line)
		}
		if word == "sent" {
			a.sent = append(a.sent, r)
		} else {
			a.acked = append(a.acked, r)
		}
	}
	a.sent, a.acked = ledger.Unite(a.sent), ledger.Unite(a.acked)
	return a, nil
}

// next is the first number that was never sent.
func (a account) next() int64 {
	if n := len(a.sent); n > 0 {
		return a.sent[n-1].Last + 1
	}
	return 0
}

// open returns what was sent and never acknowledged.
func (a account) open() []ledger.Range {
	var open []ledger.Range
	i := 0
	for _, s := range a.sent {
		for ; i < len(a.acked) && a.acked[i].First <= s.Last; i++ {
			if s.First < a.acked[i].First {
				open = append(open, ledger.Range{First: s.First, Last: a.acked[i].First - 1})
			}
			s.First = a.acked[i].Last + 1
		}
		if s.First <= s.Last {
			open = append(open, s)
		}
	}
	return open
}

// size returns how many numbers the ranges hold.
func size(ranges []ledger.Range) (n int64) {
	for _, r := range ranges {
		n += r.Last - r.First + 1
	}
	return n
}

// members returns which of the numbers below end the ranges hold.
func members(ranges []ledger.Range, end int64) []bool {
	is := make([]bool, end)
	for _, r := range ranges {
		for n := r.First; n <= min(r.Last, end-1); n++ {
			is[n] = true
		}
	}
	return is
}
