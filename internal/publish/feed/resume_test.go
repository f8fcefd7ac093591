package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func TestInterruptedRunGoesOn(t *testing.T) {
	for _, name := range []string{"access.log", "access.log.gz"} {
		t.Run(name, func(t *testing.T) {
			const lines = 5*chunkEvents + 17
			p := newPlace(t)
			text := accessLog(lines)
			if strings.HasSuffix(name, ".gz") {
				var b bytes.Buffer
				z := gzip.NewWriter(&b)
				_, err := io.WriteString(z, text)
				if err := errors.Join(err, z.Close()); err != nil {
					t.Fatal(err)
				}
				text = b.String()
			}
			file := p.file(name, text)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			opts := p.options()
			opts.Progress = func(at Progress) {
				if at.Line >= 2*chunkEvents {
					cancel()
				}
			}
			f, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			first, err := f.Run(ctx, file)
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want context.Canceled", err)
			}
			if first.Line != 2*chunkEvents || first.Counts.Published != first.Line {
				t.Errorf("got line %d with %d events, want %d", first.Line, first.Counts.Published, 2*chunkEvents)
			}
			opts = p.options()
			opts.Resume = true
			second := p.mustRun(opts, file)
			if got, want := second.Counts.Published, int64(lines-2*chunkEvents); got != want {
				t.Errorf("the second run published %d, want %d", got, want)
			}
			if third := p.mustRun(opts, file); third.Counts.Published != 0 || third.Line != lines {
				t.Errorf("the third run published %d at line %d, want 0 at %d", third.Counts.Published, third.Line, lines)
			}
			got := p.events(event.Request)
			if ids := identities(got); len(got) != lines || len(ids) != lines {
				t.Errorf("got %d messages of %d events, want %d", len(got), len(ids), lines)
			}
			// A run from the beginning finds the same identities as the two parts.
			p.mustRun(p.options(), file)
			if ids := identities(p.events(event.Request)); len(ids) != lines {
				t.Errorf("after a whole run: got %d events, want %d", len(ids), lines)
			}
		})
	}
}

func TestResumeRefusesAnotherFile(t *testing.T) {
	p := newPlace(t)
	text := accessLog(100)
	lines := strings.SplitAfter(text, "\n")
	resume := p.options()
	resume.Resume = true
	for _, tt := range []struct{ name, text string }{
		{"replaced", strings.Join(lines[3:], "")}, {"shorter", strings.Join(lines[:40], "")}, {"empty", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := p.file("access.log", text)
			p.mustRun(p.options(), file)
			p.file("access.log", tt.text)
			if _, err := p.run(resume, file); !errors.Is(err, errChanged) {
				t.Errorf("got %v, want %v", err, errChanged)
			}
		})
	}
}

func TestShift(t *testing.T) {
	p := newPlace(t)
	file := p.file("access.log", accessLog(60))
	opts := p.options()
	opts.ShiftTo = "now"
	p.mustRun(opts, file)
	list := p.events(event.Request)
	newest := slices.MaxFunc(list, func(a, b event.Event) int { return a.Time.Compare(b.Time) }).Time
	if !newest.Equal(p.now) {
		t.Errorf("newest: got %s, want %s", newest, p.now)
	}
	oldest := slices.MinFunc(list, func(a, b event.Event) int { return a.Time.Compare(b.Time) }).Time
	if got, want := newest.Sub(oldest), 19*time.Second; got != want {
		t.Errorf("span: got %s, want %s", got, want)
	}
	want := identities(list)

	p.now = p.now.Add(50 * time.Hour)
	p.mustRun(opts, file)
	p.file("access.log", accessLog(60)) // touched, the same
	opts.Resume = true
	p.mustRun(opts, file)
	if got := identities(p.events(event.Request)); !slices.Equal(got, want) {
		t.Errorf("a run two days later made %d events of %d", len(got), len(want))
	}

	other := opts
	other.ShiftTo = ""
	if _, err := p.run(other, file); err == nil {
		t.Error("continuing without the shift: got no error")
	}
	opts.Resume, opts.Forget = false, true
	p.mustRun(opts, file)
	if got := identities(p.events(event.Request)); len(got) != 2*len(want) {
		t.Errorf("forgetting the shift: got %d events, want %d", len(got), 2*len(want))
	}
	opts.Forget = false
	p.file("access.log", strings.Join(strings.SplitAfter(accessLog(90), "\n")[30:], ""))
	p.mustRun(opts, file)
	list = p.events(event.Request)
	if got := list[len(list)-1].Time; !got.Equal(p.now) {
		t.Errorf("another file of that name: got newest %s, want %s", got, p.now)
	}
}

const auditLine = `{"specversion":"1.0","id":"%d","source":"/s","type":"t","time":"2020-01-01T00:00:0%d.25Z","data":{"event.action":"a.b","event.outcome":"success","organization.id":"org_%d"}}`
