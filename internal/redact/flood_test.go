package redact

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// canary is an address and an e-mail that must not be found after redaction.
type canary struct {
	addr netip.Addr
	mail string
}

func newCanary(rnd *rand.Rand) canary {
	c := canary{mail: fmt.Sprintf("canary%d@%d.example.com", rnd.Uint64(), rnd.Uint32())}
	if rnd.IntN(2) == 0 {
		c.addr = netip.AddrFrom4([4]byte{byte(11 + rnd.IntN(200)), byte(100 + rnd.IntN(156)), byte(100 + rnd.IntN(156)), byte(100 + rnd.IntN(156))})
		return c
	}
	b := [16]byte{0: 0x2a, 1: byte(rnd.IntN(256))}
	for i := 8; i < 16; i++ {
		b[i] = byte(1 + rnd.IntN(255))
	}
	c.addr = netip.AddrFrom16(b)
	return c
}

// found returns the trace of the canary that text holds.
func (c canary) found(text string) string {
	for _, trace := range append(traces(c.addr), c.mail, strings.Replace(c.mail, "@", "%40", 1)) {
		if strings.Contains(text, trace) {
			return trace
		}
	}
	return ""
}

// flood is an event with the canary in every string, each in a form of its own.
func flood(c canary, kind event.Kind, rnd *rand.Rand) *event.Event {
	shapes := append(forms(c.addr), c.mail, strings.Replace(c.mail, "@", "%40", 1), "<"+c.mail+">")
	frames := []string{"%s", "x %s y", "(%s)", "/a/%s/b", "k=%s&l", "%s, 10.0.0.1", "a-%s", "\"%s\"", "at %s.", "[%s]", "é%s "}
	draw := func() string {
		return fmt.Sprintf(frames[rnd.IntN(len(frames))], shapes[rnd.IntN(len(shapes))])
	}
	e := &event.Event{Kind: kind, ID: draw(), Source: draw(), Type: draw(), Time: noon}
	for a, d := range event.Attributes {
		switch d.Type {
		case event.String:
			e.Set(event.Attr(a), draw())
		case event.Strings:
			e.Set(event.Attr(a), "")
			e.Owners = append(e.Owners, draw(), draw())
		case event.Map:
			e.Set(event.Attr(a), "")
			for range 4 {
				e.Metadata = append(e.Metadata, event.Pair{Key: draw(), Value: draw()})
			}
		}
	}
	return e
}

// unredacted copies an event into a row as a pipeline without redaction would.
func unredacted(e *event.Event) *event.Row {
	row := &event.Row{ID: e.ID, Source: e.Source, Type: e.Type, Owners: e.Owners, Metadata: e.Metadata}
	for t, f := range event.Texts {
		row.Text[t] = e.Text[f.From]
	}
	return row
}

func TestFlood(t *testing.T) {
	r, _ := newRedactor(t)
	var row event.Row
	for seed := range uint64(1000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := newCanary(rnd)
		e := flood(c, event.Kinds[rnd.IntN(event.NumKinds)], rnd)
		r.Row(e, policy.Decision{}, &row)
		stored := fmt.Sprintf("%+v", row)
		if trace := c.found(stored); trace != "" {
			t.Fatalf("seed %d: the row holds %s:\n%s\nfrom\n%+v", seed, trace, stored, *e)
		}
		if letter, _ := r.DeadLetter(e); c.found(string(letter)) != "" {
			t.Fatalf("seed %d: the dead letter holds %s:\n%s", seed, c.found(string(letter)), letter)
		}
		if control := fmt.Sprintf("%+v", *unredacted(e)); c.found(control) == "" {
			t.Fatalf("seed %d: the search does not find what is there:\n%s", seed, control)
		}
	}
}
