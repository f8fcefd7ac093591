package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// decideShift finds the newest time of all inputs and moves it to where it was
// asked to be. Where an earlier run of the same files had the same aim, its
// shift is kept: with another one the same lines would be other events.
func (f *Feed) decideShift(ctx context.Context, inputs []string) error {
	if f.opts.ShiftTo == "" {
		return nil
	}
	of, err := f.firsts(inputs)
	if err != nil {
		return err
	}
	if f.state.ShiftTo == f.opts.ShiftTo && f.state.ShiftOf == of {
		f.shift = f.state.Shift
		return nil
	}
	var newest time.Time
	for _, name := range inputs {
		t, err := f.newest(ctx, name)
		if err != nil {
			return err
		}
		if t.After(newest) {
			newest = t
		}
	}
	now := f.opts.Now()
	aim := now
	if f.opts.ShiftTo != "now" {
		if aim, err = time.Parse(time.RFC3339, f.opts.ShiftTo); err != nil {
			return fmt.Errorf("shift times: %w", err)
		}
	}
	if !newest.IsZero() {
		f.shift = aim.Sub(newest).Truncate(time.Second)
	}
	f.state.ShiftTo, f.state.ShiftOf, f.state.Shift, f.state.ShiftedAt = f.opts.ShiftTo, of, f.shift, now.UTC()
	// Remembered before the first event: a repeated run must find it, however early this one ends.
	return f.state.save()
}

// firsts names the inputs by the identities of their first lines, so that a
// shift is not kept for other files that took over their names.
func (f *Feed) firsts(inputs []string) (string, error) {
	var names []string
	for _, name := range inputs {
		in, err := f.open(name)
		if err != nil {
			return "", err
		}
		c := newConverter(f.opts, in.format, 0)
		if in.next() {
			_ = c.parse(in) // a first line that cannot be read has an identity too
			c.identify(in)
		}
		if err := errors.Join(in.err, in.close()); err != nil {
			return "", fmt.Errorf("read %s: %w", name, err)
		}
		text, err := c.first.MarshalText()
		if err != nil {
			return "", fmt.Errorf("name input: %w", err)
		}
		names = append(names, string(text))
	}
	return strings.Join(names, " "), nil
}

// newest returns the newest time of an input.
func (f *Feed) newest(ctx context.Context, name string) (time.Time, error) {
	var newest time.Time
	in, err := f.open(name)
	if err != nil {
		return newest, err
	}
	c := newConverter(f.opts, in.format, 0)
	for in.next() {
		if in.number%1024 == 0 && ctx.Err() != nil {
			return newest, errors.Join(ctx.Err(), in.close())
		}
		if c.parse(in) == nil && c.time().After(newest) {
			newest = c.time()
		}
	}
	if err := errors.Join(in.err, in.close()); err != nil {
		return newest, fmt.Errorf("read %s: %w", name, err)
	}
	return newest, nil
}
