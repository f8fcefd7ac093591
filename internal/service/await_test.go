package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/migrate"
)

func TestAwaitWaitsForADatabaseAndStopsForAPerson(t *testing.T) {
	refusal := &migrate.Refusal{}
	for name, c := range map[string]struct {
		errs  []error // of the tries; after the last one they succeed
		tries int
		want  error
	}{
		"there at once":         {nil, 1, nil},
		"comes later":           {[]error{errors.New("refused"), errors.New("refused"), errors.New("refused")}, 4, nil},
		"a changed migration":   {[]error{errors.New("refused"), fmt.Errorf("migrate: %w", migrate.ErrChanged)}, 2, migrate.ErrChanged},
		"a newer database":      {[]error{fmt.Errorf("migrate: %w", migrate.ErrOlder)}, 1, migrate.ErrOlder},
		"a refused policy":      {[]error{fmt.Errorf("migrate: %w", refusal)}, 1, refusal},
		"refused for good":      {[]error{permanentError{}}, 1, permanentError{}},
		"interrupted meanwhile": {[]error{errors.New("refused"), errors.New("refused"), errors.New("refused"), context.Canceled}, 4, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, err := daemon.New(daemon.Options{Log: slog.New(slog.DiscardHandler), StopTimeout: time.Second, Parts: []string{"clickhouse"}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tries := 0
				err = await(ctx, d.Health(), "clickhouse", "open", func(context.Context) error {
					tries++
					if tries > len(c.errs) {
						return nil
					}
					if state, _ := d.Health().State(); state != daemon.Paused {
						t.Errorf("try %d: the part is %s, want paused", tries, state)
					}
					if errors.Is(c.errs[tries-1], context.Canceled) {
						cancel()
					}
					return c.errs[tries-1]
				})
				if !errors.Is(err, c.want) || tries != c.tries {
					t.Errorf("got %v after %d tries, want %v after %d", err, tries, c.want, c.tries)
				}
			})
		})
	}
}

type permanentError struct{}

func (permanentError) Error() string   { return "refused for good" }
func (permanentError) Permanent() bool { return true }
