package service

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lethe-audit/lethe/internal/daemon"
	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/publish"
)

// partComplete is whether the database has all that Kafka says was stored. After a
// restore it has not, until the ingesters have read it again: erasures are among it.
const partComplete = "complete"

// completeness is what is known of it. Before the first answer nothing is shown.
type completeness struct {
	// behind returns the partitions of which the ledger lacks something.
	behind func(ctx context.Context) ([]ledger.Partition, error)
	health *daemon.Health
	log    *slog.Logger

	known    bool
	complete atomic.Bool
}

// How often is asked: a restore is rare, and its end is awaited.
const (
	completeEvery   = 30 * time.Second
	incompleteEvery = 2 * time.Second
)

// watch asks again and again until ctx is done.
func (c *completeness) watch(ctx context.Context) {
	for {
		wait := completeEvery
		if !c.complete.Load() {
			wait = incompleteEvery
		}
		select {
		case <-time.After(wait):
			c.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look asks once. Without an answer what was known stays so.
func (c *completeness) look(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	behind, err := c.behind(asking)
	switch {
	case ctx.Err() != nil:
	case err != nil && c.known:
		c.log.Warn("nobody could say whether the database is complete; what was known of it stays", "complete", c.complete.Load(), "error", publish.Diagnose(err))
	case err != nil:
		err = publish.Diagnose(err)
		c.health.Report(partComplete, daemon.Trouble(err), "it is not known yet whether the database is complete, and no event is shown: "+err.Error())
	case len(behind) > 0:
		c.known = true
		c.complete.Store(false)
		c.health.Report(partComplete, daemon.Broken, fmt.Sprintf("the ledger lacks what the consumer group has committed of %d partitions, %s/%d among them: "+
			"the database came back from a backup, or with nothing, and no event is shown. Start the ingesters, which read it again; where that does not end it, "+
			"see \"Backup and restore\" in docs/operations.md", len(behind), behind[0].Topic, behind[0].Partition))
	default:
		c.known = true
		c.complete.Store(true)
		c.health.Report(partComplete, daemon.Ready, "")
	}
}
