package redact

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

func TestALetterComesBackAsTheRowItWasMadeFrom(t *testing.T) {
	r, _ := newRedactor(t)
	later, err := New(Options{Keys: mustKeys(t, "k2="+secretB+",k1="+secretA), Countries: newAtlas(), PolicyVersion: "test-1"})
	if err != nil {
		t.Fatal(err)
	}
	var first, again event.Row
	restored := func(letter []byte, seal string, kind event.Kind) {
		var e event.Event
		err := codec.NewDecoder().Decode(kind, letter, nil, &e)
		var why *codec.Error
		if err != nil && (!errors.As(err, &why) || !why.Redactable()) {
			t.Fatalf("%v: %s", err, letter)
		}
		stored := later.Open(kind, letter, []byte(seal))
		if stored == nil {
			t.Fatalf("a seal of a live key was refused: %s", letter)
		}
		e.Restore(stored)
		later.Row(&e, policy.Decision{}, &again)
	}
	e := made(event.Security, map[event.Attr]string{
		event.EventAction: "login", event.EventOutcome: "failure", event.ClientAddress: "8.8.8.8", event.UserEmail: "alice@example.com",
		event.UserID: "u_1", event.DeviceID: "by bob@example.com", event.OnBehalfOf: "bob@example.com", event.SessionID: "cookie", event.EventReason: "from 9.9.9.9",
		event.UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0",
	})
	e.Owners, e.Has = []string{"w", "carol@example.com"}, e.Has|1<<event.TargetOwner
	e.ID = "id of 8.8.4.4"
	r.Row(e, policy.Decision{}, &first)
	letter, seal := r.DeadLetter(e)
	restored(letter, seal, event.Security)
	if got, want := fmt.Sprintf("%+v", again), fmt.Sprintf("%+v", first); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		c := newCanary(rnd)
		e := flood(c, event.Kinds[rnd.IntN(event.NumKinds)], rnd)
		letter, seal := r.DeadLetter(e)
		restored(letter, seal, e.Kind)
		if trace := c.found(fmt.Sprintf("%+v", again)); trace != "" {
			t.Fatalf("the row holds %s", trace)
		}
	}
}

func TestOnlyOurSealOpens(t *testing.T) {
	r, _ := newRedactor(t)
	e := made(event.Audit, map[event.Attr]string{event.EventAction: "a", event.UserEmail: "alice@example.com", event.ClientAddress: "8.8.8.8"})
	letter, seal := r.DeadLetter(e)
	other, err := New(Options{Keys: mustKeys(t, "k1="+secretB), Countries: newAtlas()})
	if err != nil {
		t.Fatal(err)
	}
	_, foreign := other.DeadLetter(e)
	cases := []struct {
		name   string
		kind   event.Kind
		letter string
		seal   string
		opens  bool
	}{
		{"as it was sealed", event.Audit, string(letter), seal, true},
		{"no seal", event.Audit, string(letter), "", false},
		{"another kind", event.Security, string(letter), seal, false},
		{"a changed letter", event.Audit, strings.Replace(string(letter), `"US"`, `"DE"`, 1), seal, false},
		{"a changed seal", event.Audit, string(letter), seal[:len(seal)-1] + "x", false},
		{"another key of the same name", event.Audit, string(letter), foreign, false},
		{"a key that is not live", event.Audit, string(letter), "k9" + seal[2:], false},
		{"the payload's digest", event.Audit, string(letter), r.keys.Digest(letter), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := r.Open(c.kind, []byte(c.letter), []byte(c.seal)) != nil; got != c.opens {
				t.Errorf("got open %v, want %v", got, c.opens)
			}
		})
	}
}
