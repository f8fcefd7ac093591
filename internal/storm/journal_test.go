package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

func TestJournalSaysWhatIsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []struct {
		word string
		r    ledger.Range
	}{
		{sentLine, ledger.Range{First: 0, Last: 9}}, {ackedLine, ledger.Range{First: 0, Last: 9}},
		{sentLine, ledger.Range{First: 10, Last: 19}},
		{sentLine, ledger.Range{First: 20, Last: 29}}, {ackedLine, ledger.Range{First: 20, Last: 29}},
		{sentLine, ledger.Range{First: 30, Last: 34}}, {ackedLine, ledger.Range{First: 10, Last: 14}},
	} {
		if err := j.write(line.word, line.r); err != nil {
			t.Fatal(err)
		}
	}
	a, err := readJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.next(); got != 35 {
		t.Errorf("the next number is %d, want 35", got)
	}
	if got, want := a.open(), []ledger.Range{{First: 15, Last: 19}, {First: 30, Last: 34}}; !reflect.DeepEqual(got, want) {
		t.Errorf("open are %v, want %v", got, want)
	}
	if size(a.sent) != 35 || size(a.acked) != 25 {
		t.Errorf("sent %d, acknowledged %d, want 35 and 25", size(a.sent), size(a.acked))
	}
	is := members(a.acked, a.next())
	if !is[14] || is[15] || !is[20] || is[34] {
		t.Errorf("acknowledged are %v", is)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != 7*lineBytes {
		t.Errorf("seven lines have %d bytes, want %d each", info.Size(), lineBytes)
	}
}

// TestPublisherGoesOnWithItsJournal starts a second publisher on what a first
// one left: no number is used for another event, and what is tried again is what
// was open.
func TestPublisherGoesOnWithItsJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	g := generator{seed: 3, begin: time.Now().UTC()}
	broken := errors.New("no answer")
	for life := range 5 {
		before, err := readJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPublisher("127.0.0.1:1", path, g)
		if err != nil {
			t.Fatal(err)
		}
		defer p.client.Close()
		if p.next != before.next() {
			t.Errorf("life %d begins at %d, want %d", life, p.next, before.next())
		}
		if outside := slices.ContainsFunc(p.again, func(r ledger.Range) bool { return !slices.Contains(before.open(), r) }); outside {
			t.Errorf("life %d tries %v again, open are %v", life, p.again, before.open())
		}
		tries := 0
		p.send = func(context.Context, ...publish.Message) error {
			if tries++; tries%3 == 0 {
				return broken
			}
			return nil
		}
		for range 20 {
			if err := p.step(10); err != nil && !errors.Is(err, broken) {
				t.Fatal(err)
			}
		}
	}
	a, err := readJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if size(a.sent) != a.next() || size(a.acked) == 0 || len(a.open()) == 0 {
		t.Errorf("sent %v, acknowledged %v: want every number sent, most acknowledged, some left", a.sent, a.acked)
	}
}
