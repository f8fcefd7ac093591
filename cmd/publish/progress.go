package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/lethe-audit/lethe/internal/publish/feed"
)

const (
	// every is the time between lines of progress where there is no terminal.
	every = 5 * time.Second
	// showRefused is how many refused lines are told one by one.
	showRefused = 10
)

// progress shows how a run goes: a bar on a terminal, lines elsewhere.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil: lines
	quiet bool

	began, told time.Time
	total       int64
	hidden      int64
	shown       int
}

func newProgress(f flags, out io.Writer) *progress {
	p := &progress{out: out, quiet: f.quiet, began: time.Now(), total: feed.Size(f.inputs...)}
	p.told = p.began
	file, ok := out.(*os.File)
	if f.quiet || !ok || !term.IsTerminal(int(file.Fd())) {
		return p
	}
	total := p.total
	if total == 0 {
		total = -1 // a spinner
	}
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(24),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)
	return p
}

// rate is events per second since the start.
func (p *progress) rate(c feed.Counts) float64 {
	if d := time.Since(p.began).Seconds(); d > 0 {
		return float64(c.Published) / d
	}
	return 0
}

// at shows where the run is.
func (p *progress) at(at feed.Progress) {
	switch {
	case p.bar != nil:
		p.bar.Describe(fmt.Sprintf("%d events, %.0f/s", at.Counts.Published, p.rate(at.Counts)))
		_ = p.bar.Set64(at.Read) // a bar that cannot be drawn stops nothing
	case !p.quiet && time.Since(p.told) >= every:
		p.told = time.Now()
		share := ""
		if p.total > 0 {
			share = fmt.Sprintf(" (%d %%)", min(100, at.Read*100/p.total))
		}
		_, _ = fmt.Fprintf(p.out, "%s line %d%s: %d events, %.0f/s, %d refused\n", at.Input, at.Line, share, at.Counts.Published, p.rate(at.Counts), at.Counts.Refused)
	}
}

// refused tells the first lines that were not published, and why.
func (p *progress) refused(r feed.Refusal) {
	if p.shown == showRefused {
		p.hidden++
		return
	}
	p.shown++
	if p.bar != nil {
		_ = p.bar.Clear() // it is drawn again with the next progress
	}
	_, _ = fmt.Fprintf(p.out, "%s line %d refused: %s\n", r.Input, r.Line, r.Reason)
}

// end makes room for the summary.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	if p.hidden > 0 {
		_, _ = fmt.Fprintf(p.out, "and %d more lines refused\n", p.hidden)
	}
}

func (p *progress) summary(at feed.Progress) string {
	c := at.Counts
	text := fmt.Sprintf("%d events published, %d lines refused, in %s (%.0f/s)", c.Published, c.Refused, time.Since(p.began).Round(10*time.Millisecond), p.rate(c))
	if c.Blank > 0 {
		text += fmt.Sprintf("; %d blank lines", c.Blank)
	}
	if c.Shortened > 0 {
		text += fmt.Sprintf("; %d with a path or user agent cut to its limit", c.Shortened)
	}
	return text
}
