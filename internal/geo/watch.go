package geo

import (
	"context"
	"fmt"
	"time"
)

// Watch looks at the file every interval and takes a new version of it into
// use, until ctx is done; the caller runs it in a goroutine of its own. report
// is called after each attempt to take a version: with nil when it is in use,
// with a sentence when it is broken or gone and the old one stays. One state of
// a bad file is reported once.
//
// Replace the file by renaming a finished one over it. A version that is still
// being written is refused as broken and tried again when it has changed.
func (d *DB) Watch(ctx context.Context, interval time.Duration, report func(error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	w := watcher{db: d}
	if s := d.state.Load(); s != nil {
		w.last = s.file
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if tried, err := w.look(); tried {
				report(err)
			}
		}
	}
}

// watcher remembers the version of the file that was tried last, good or bad.
// The zero version stands for a file that is gone.
type watcher struct {
	db   *DB
	last version
}

// look tries the file if it has changed since the last look.
func (w *watcher) look() (tried bool, _ error) {
	now, err := stat(w.db.path)
	if err == nil && now == w.last || err != nil && w.last == (version{}) {
		return false, nil
	}
	w.last = now
	old := w.db.state.Load()
	if old == nil {
		return false, nil // closed
	}
	s, err := load(w.db.path)
	if err != nil {
		return true, fmt.Errorf("keep the country file of %s: %w", old.built.UTC().Format(time.DateOnly), err)
	}
	// A file replaced between the two looks is looked at again: its version
	// differs from the one that was noted.
	if !w.db.state.CompareAndSwap(old, s) {
		return false, nil // closed meanwhile
	}
	return true, nil
}
