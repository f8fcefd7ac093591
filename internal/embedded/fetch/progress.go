package fetch

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"
)

// watch logs how much of size bytes has arrived below dir, every few seconds,
// until the returned function is called.
func watch(dir string, size int64, label string, log *slog.Logger) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(3 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				got := below(dir)
				if size > 0 {
					log.Info("downloading", "what", label, "MB", got/1e6, "percent", min(100, 100*got/size))
				} else {
					log.Info("downloading", "what", label, "MB", got/1e6)
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// below sums the sizes of the files below dir; files that vanish meanwhile do not count.
func below(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // npm moves files while we look: what is gone is not counted
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}
