// Package sample_test checks the bundled sample that gen.go wrote.
package sample_test

//go:generate go run gen.go

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/accesslog"
	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
)

// shortest is less than the shortest period of the bundled policies: nothing
// of the sample may have expired when it arrives.
const shortest = 14 * 24 * time.Hour

// documentation are the ranges that belong to nobody.
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func documented(t *testing.T, address string) bool {
	t.Helper()
	a, err := netip.ParseAddr(address)
	if err != nil {
		t.Errorf("%q is no address", address)
		return true
	}
	for _, p := range documentation {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func checkTimes(t *testing.T, first, last time.Time) {
	t.Helper()
	if got := last.Sub(first); got <= 0 || got >= shortest {
		t.Errorf("the times span %s, want less than %s", got, shortest)
	}
}

func TestAccessLog(t *testing.T) {
	var l accesslog.Line
	var n, ofUsers, elsewhere int
	var first, last time.Time
	for line := range bytes.Lines(read(t, "access.log")) {
		n++
		if err := accesslog.Parse(bytes.TrimSuffix(line, []byte("\n")), &l); err != nil {
			t.Errorf("line %d: %v", n, err)
			continue
		}
		if l.Time.Before(last) {
			t.Errorf("line %d is older than the one before", n)
		}
		if last = l.Time; n == 1 {
			first = l.Time
		}
		if string(l.User) == "u_1" {
			ofUsers++
		}
		if !documented(t, string(l.Client)) {
			elsewhere++
		}
	}
	if n < 2000 {
		t.Errorf("got %d lines, want at least 2000", n)
	}
	if ofUsers == 0 || elsewhere == 0 || elsewhere == n {
		t.Errorf("got %d lines of u_1 and %d addresses with a country, want some of both kinds", ofUsers, elsewhere)
	}
	checkTimes(t, first, last)
}

func TestEvents(t *testing.T) {
	for _, kind := range []event.Kind{event.Audit, event.Security} {
		t.Run(kind.String(), func(t *testing.T) {
			d := codec.NewDecoder()
			var e event.Event
			var n, ofUser int
			var first, last time.Time
			seen := map[string]bool{}
			for line := range bytes.Lines(read(t, kind.String()+".ndjson")) {
				n++
				if err := d.Decode(kind, bytes.TrimSuffix(line, []byte("\n")), nil, &e); err != nil {
					t.Errorf("line %d: %v", n, err)
					continue
				}
				if e.Unknown > 0 || e.Refused > 0 {
					t.Errorf("line %d has %d unknown and %d refused attributes", n, e.Unknown, e.Refused)
				}
				if seen[e.ID] {
					t.Errorf("line %d has an id that was used", n)
				}
				seen[e.ID] = true
				documented(t, e.Text[event.ClientAddress])
				if mail := e.Text[event.UserEmail]; mail != "" && !strings.HasSuffix(mail, "@example.com") {
					t.Errorf("line %d has an e-mail outside example.com", n)
				}
				if e.Text[event.UserID] == "u_1" {
					ofUser++
				}
				if last = e.Time; n == 1 {
					first = e.Time
				}
			}
			if n < 200 || ofUser == 0 {
				t.Errorf("got %d events, %d of u_1", n, ofUser)
			}
			checkTimes(t, first, last)
		})
	}
}
