// Package feed reads events from files and publishes them: CloudEvents, one a
// line, and access logs in the common and combined formats, plain or gzipped.
//
// A line is one event with an identity that a repeated run finds again, so a
// run can be stopped, continued or repeated without an event counting twice.
// What cannot be published is counted and told by line number and reason; text
// of a line never leaves this package other than to Kafka. It draws no progress
// bar and knows no flags: that is cmd/publish.
//
//	file → input (lines) → convert (event, identity, time shift) → chunk → Publish → state file
package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/publish"
)

// Stdin is the name of the input that stands for Options.Stdin.
const Stdin = "-"

// Bounds of a chunk: the messages that are published in one call, after which
// the state file may move on.
const (
	chunkEvents = 4000
	chunkBytes  = 4 << 20
)

// grace is the time that a stopped run waits for the chunk on its way.
const grace = 10 * time.Second

// ErrNoKind says that an input holds CloudEvents and HasKind is false.
var ErrNoKind = errors.New("these are CloudEvents, and their kind is not given")

// Format says what the lines of an input are.
type Format uint8

// The formats.
const (
	Auto      Format = iota // by the file's name, else by its first byte
	AccessLog               // common or combined lines: request events
	Events                  // CloudEvents in JSON, one a line
)

// publisher is what a Feed needs of publish.Publisher.
type publisher interface {
	Publish(ctx context.Context, msgs ...publish.Message) error
}

// Options are what a Feed needs.
type Options struct {
	// Publisher writes the events. Required.
	Publisher publisher
	// Topics are the topics by kind. Required.
	Topics [event.NumKinds]string
	// Kind is the kind of the events in inputs of the format Events.
	Kind event.Kind
	// HasKind says that Kind was chosen; without it Events are refused as a whole.
	HasKind bool
	Format  Format
	// Source is the CloudEvents source of access-log events. One source per
	// server: it is a part of their identity. Required.
	Source string
	// Service is the service.name of access-log events; it may be empty.
	Service string
	// ShiftTo moves all times so that the newest becomes "now" or this RFC 3339
	// time; empty: no shift. It needs files, because they are read twice.
	ShiftTo string
	// StatePath is the file that remembers progress and shift; empty: none.
	StatePath string
	// Resume continues where the state file says the last run stopped.
	Resume bool
	// Forget starts with an empty state: a new shift, from the beginning.
	Forget bool
	// Patience is how long a failing publish is tried again.
	Patience time.Duration
	// Now is the clock for ShiftTo. Required.
	Now func() time.Time
	// Stdin is read for the input "-".
	Stdin io.Reader
	// Progress is called after every acknowledged chunk, from Run's goroutine; it may be nil.
	Progress func(Progress)
	// Refused is called for every line that was not published, from Run's
	// goroutine; it may be nil.
	Refused func(Refusal)
}

// Refusal is a line that was not published. Reason holds no text of the line.
type Refusal struct {
	Input  string
	Line   int64
	Reason string
}

// Progress is where a run is.
type Progress struct {
	Input string
	// Line is the last line done, from 1; Offset the bytes up to its end, after
	// decompression.
	Line, Offset int64
	// Read are bytes read from the files of this run, before decompression.
	Read   int64
	Counts Counts
}

// Counts adds up the lines of a run.
type Counts struct {
	Published, Refused, Blank int64
	// Shortened are published events of which a path or user agent was cut to
	// the length that events may have.
	Shortened int64
}

// Feed publishes files. Use one for one run.
type Feed struct {
	opts  Options
	state *state
	shift time.Duration
	at    Progress
}

// New checks the options. It reads nothing.
func New(opts Options) (*Feed, error) {
	switch {
	case opts.Publisher == nil:
		return nil, errors.New("new feed: Publisher is required")
	case opts.Now == nil:
		return nil, errors.New("new feed: Now is required")
	case opts.Source == "" || len(opts.Source) > 1024:
		return nil, errors.New("new feed: Source must have 1 to 1024 bytes")
	case len(opts.Service) > event.Attributes[event.ServiceName].Max:
		return nil, errors.New("new feed: Service is too long")
	case opts.Resume && opts.Forget:
		return nil, errors.New("new feed: Resume and Forget exclude each other")
	case opts.Resume && opts.StatePath == "":
		return nil, errors.New("new feed: Resume needs StatePath")
	}
	for _, k := range event.Kinds {
		if opts.Topics[k] == "" {
			return nil, fmt.Errorf("new feed: no topic for %s events", k)
		}
	}
	if opts.ShiftTo != "" && opts.ShiftTo != "now" {
		if _, err := time.Parse(time.RFC3339, opts.ShiftTo); err != nil {
			return nil, errors.New(`new feed: ShiftTo must be "now" or a time such as 2026-01-31T10:00:00Z`)
		}
	}
	return &Feed{opts: opts}, nil
}

// Shift returns by how much the times were moved, and when that was decided:
// zero before Run, the time of an earlier run where the state file remembered it.
func (f *Feed) Shift() (time.Duration, time.Time) {
	if f.state == nil {
		return 0, time.Time{}
	}
	return f.shift, f.state.ShiftedAt
}

// Run publishes the inputs in their order and returns how far it came. When
// ctx ends, the chunk on its way is finished first. After an error, a run with
// Resume continues behind Progress.Offset.
func (f *Feed) Run(ctx context.Context, inputs ...string) (Progress, error) {
	for _, name := range inputs {
		if name == Stdin && (f.opts.ShiftTo != "" || len(inputs) > 1) {
			return f.at, errors.New("read standard input: it must be the only input, and its times cannot be shifted: that needs the newest one first")
		}
	}
	var err error
	if f.state, err = loadState(f.opts.StatePath, f.opts.Forget); err != nil {
		return f.at, err
	}
	if !f.opts.Resume || len(f.state.Inputs) == 0 {
		f.state.Inputs, f.state.Times = map[string]position{}, f.opts.ShiftTo
	} else if f.state.Times != f.opts.ShiftTo {
		return f.at, errors.New("continue the last run: it shifted times otherwise; give the same shift, or start over without resuming")
	}
	if err := f.decideShift(ctx, inputs); err != nil {
		return f.at, err
	}
	for _, name := range inputs {
		// The position is written however one ends: the next run relies on it.
		if err := errors.Join(f.one(ctx, name), f.state.save()); err != nil {
			return f.at, err
		}
	}
	return f.at, nil
}

// open opens an input and makes sure that its lines can be published.
func (f *Feed) open(name string) (*input, error) {
	in, err := openInput(name, f.opts.Stdin, f.opts.Format)
	if err != nil {
		return nil, err
	}
	if in.format == Events && !f.opts.HasKind {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, ErrNoKind), in.close())
	}
	return in, nil
}

// one publishes one input, from its beginning or from where the state says.
func (f *Feed) one(ctx context.Context, name string) error {
	in, err := f.open(name)
	if err != nil {
		return err
	}
	key, err := inputKey(name)
	if err != nil {
		return errors.Join(err, in.close())
	}
	c := newConverter(f.opts, in.format, f.shift)
	if from := f.state.Inputs[key]; from.Line > 0 {
		if err := c.resume(in, from); err != nil {
			return errors.Join(fmt.Errorf("continue %s: %w", name, err), in.close())
		}
	}
	before := f.at.Read
	f.at.Input, f.at.Line, f.at.Offset = name, in.number, in.offset

	// The reader prepares chunks while the one before them is on its way.
	chunks, back := make(chan *chunk, 1), make(chan *chunk, 3)
	reading, stopReading := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- errors.Join(c.read(reading, in, chunks, back), in.close()) }()

	for {
		if err = ctx.Err(); err != nil {
			return f.leave(name, err, stopReading, done)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case ch, more := <-chunks:
			if !more {
				stopReading()
				if err := <-done; err != nil {
					return fmt.Errorf("read %s: %w", name, err)
				}
				return nil
			}
			var clean bool
			if clean, err = f.publish(ctx, ch); err == nil {
				f.account(name, before, ch)
				f.state.Inputs[key] = ch.end
				err = f.state.saveSometimes()
			}
			if clean {
				select {
				case back <- ch:
				default:
				}
			}
		}
		if err != nil {
			return f.leave(name, err, stopReading, done)
		}
	}
}

// leave stops the reader of an input and waits for it; nothing ends a read of
// standard input, so that one is left behind: the process is about to end.
func (f *Feed) leave(name string, err error, stopReading func(), done <-chan error) error {
	stopReading()
	if name != Stdin {
		<-done //nolint:errcheck // what ended the run is err; this is the same or a consequence
	}
	return err
}

// account adds an acknowledged chunk to the progress and tells about it.
func (f *Feed) account(name string, before int64, ch *chunk) {
	f.at.Line, f.at.Offset, f.at.Read = ch.end.Line, ch.end.Offset, before+ch.read
	f.at.Counts.Published += int64(len(ch.events))
	f.at.Counts.Refused += int64(len(ch.refused))
	f.at.Counts.Blank += ch.blank
	f.at.Counts.Shortened += ch.shortened
	if f.opts.Refused != nil {
		for _, r := range ch.refused {
			r.Input = name
			f.opts.Refused(r)
		}
	}
	if f.opts.Progress != nil {
		f.opts.Progress(f.at)
	}
}

// publish writes a chunk; while no broker answers it tries again, as long as
// patience lasts. clean says that the chunk's memory may be used again.
func (f *Feed) publish(ctx context.Context, ch *chunk) (clean bool, err error) {
	// The chunk on its way may finish after a stop, within the grace.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()

	msgs := ch.messages()
	began := time.Now()
	for try := 0; ; try++ {
		if len(msgs) > 0 {
			err = f.opts.Publisher.Publish(sending, msgs...)
		}
		if err == nil {
			return try == 0, nil
		}
		permanent := errors.Is(err, publish.ErrUnknownTopic) || errors.Is(err, publish.ErrTooLarge) ||
			errors.Is(err, publish.ErrRefused) || errors.Is(err, publish.ErrTLS)
		if permanent || ctx.Err() != nil || time.Since(began) > f.opts.Patience {
			return false, err
		}
		select {
		case <-time.After(min(time.Second, 50*time.Millisecond<<min(try, 5))):
		case <-ctx.Done():
			return false, err
		}
	}
}

// Size returns the bytes of the inputs together, before decompression; 0 when
// one of them has no known size.
func Size(inputs ...string) int64 {
	var sum int64
	for _, name := range inputs {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			return 0
		}
		sum += info.Size()
	}
	return sum
}
