package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

const (
	publishEvery = 100 * time.Millisecond
	publishLimit = 5 * time.Second // of one try; the messages may still be on their way
)

// publisher publishes the events one after another and keeps the journal.
type publisher struct {
	generator
	journal *journal
	next    int64
	again   []ledger.Range // not acknowledged, and tried again
	rng     *rand.Rand
	client  *publish.Publisher
	send    func(context.Context, ...publish.Message) error
}

// bePublisher is the process that the storm starts itself as. After a start on
// an old journal it tries some of what is open again and leaves the rest, as
// services do.
func bePublisher(broker, path string, g generator, rate int) error {
	ctx, cancel := daemon.Signals(context.Background())
	defer cancel()
	p, err := newPublisher(broker, path, g)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	log.Info("publishing", "next", p.next, "again", size(p.again))
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	most := max(1, 2*rate*int(publishEvery/time.Millisecond)/1000)
	for {
		select {
		case <-tick.C:
			if err := p.step(1 + p.rng.Int64N(int64(most))); err != nil {
				log.Warn("not acknowledged", "error", err)
			}
		case <-ctx.Done():
			return nil // client is not closed: that would wait for what is on its way
		}
	}
}

func newPublisher(broker, path string, g generator) (*publisher, error) {
	before, err := readJournal(path)
	if err != nil {
		return nil, err
	}
	transport, _, err := publish.Connect(config.Kafka{})
	if err != nil {
		return nil, err
	}
	client, err := publish.New(publish.Options{Brokers: []string{broker}, Transport: transport})
	if err != nil {
		return nil, err
	}
	p := &publisher{generator: g, next: before.next(), client: client, send: client.Publish, rng: rand.New(rand.NewPCG(g.seed, uint64(before.next())))}
	for _, r := range before.open() {
		p.later(r)
	}
	p.journal, err = openJournal(path)
	return p, err
}

// later keeps three of four ranges for another try. The fourth is left for good,
// in later lives too.
func (p *publisher) later(r ledger.Range) {
	if rand.New(rand.NewPCG(p.seed, uint64(r.First))).IntN(4) > 0 {
		p.again = append(p.again, r)
	}
}

// step publishes the next count events, or some that were not acknowledged. The
// error says that they were not, this time.
func (p *publisher) step(count int64) error {
	var r ledger.Range
	if len(p.again) > 0 && p.rng.IntN(2) == 0 {
		r, p.again = p.again[0], p.again[1:]
	} else {
		r = ledger.Range{First: p.next, Last: p.next + count - 1}
		p.next = r.Last + 1
		if err := p.journal.write(sentLine, r); err != nil {
			return err
		}
	}
	var messages []publish.Message
	for n := r.First; n <= r.Last; n++ {
		e := p.event(n)
		messages = append(messages, e.message())
	}
	// Not the context of the process: a stop lets the last ones be acknowledged.
	ctx, cancel := context.WithTimeout(context.Background(), publishLimit)
	defer cancel()
	if err := p.send(ctx, messages...); err != nil {
		p.later(r)
		return fmt.Errorf("publish %d to %d: %w", r.First, r.Last, err)
	}
	return p.journal.write(ackedLine, r)
}
