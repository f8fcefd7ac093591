package service

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/policy/changes"
	"github.com/lethe-audit/lethe/internal/retention"
	"github.com/lethe-audit/lethe/internal/store"
)

// PolicyDiff prints what the policy file now changes of the file old, and how many
// stored rows it would end earlier. It changes nothing. Without a DSN it counts no rows
// and says so.
func PolicyDiff(ctx context.Context, c config.ClickHouse, old, now string, out io.Writer) error {
	before, err := changes.Read(old)
	if err != nil {
		return err
	}
	after, err := changes.Read(now)
	if err != nil {
		return err
	}
	if err := changes.Write(out, before, after); err != nil {
		return err
	}
	p := after.Policy
	if c.DSN == "" {
		fmt.Fprint(out, "\nRows were not counted: CLICKHOUSE_DSN is not set.\n")
		return leave(out, p, p.Shortenings(before.Policy.Stored()))
	}
	db, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	all, err := registeredClasses(ctx, db)
	if err != nil {
		return fmt.Errorf("%w; the ingester makes what is missing at its start", err)
	}
	shortenings := p.Shortenings(all)
	to, keys := make(map[string]policy.Shortening, len(shortenings)), make([]string, len(shortenings))
	for i, s := range shortenings {
		to[s.Old.Key], keys[i] = s, s.Old.Key
	}
	holds, next := slices.Clone(all), all
	for i := range next {
		if s, ok := to[next[i].Key]; ok {
			next[i] = s.New
		}
	}
	at := time.Now()
	affected, err := db.Affected(ctx, keys, policy.ExpiresExpr(next), at)
	if err != nil {
		return err
	}
	if err := countMoved(ctx, db, p, holds, next, at, affected); err != nil {
		return fmt.Errorf("count affected rows: %w", err)
	}
	fmt.Fprint(out, "\nstored rows that would follow, of every policy file there was; nothing was moved\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range affected {
		fmt.Fprintf(w, "  %s\t%s\t%d rows\t%d past their expiry at once", to[a.Retention], a.Table, a.Rows, a.Past)
		if a.Moved > 0 {
			fmt.Fprintf(w, "\t%d whose expiry has been moved before", a.Moved)
		}
		fmt.Fprintln(w)
	}
	if len(affected) == 0 {
		fmt.Fprint(w, "  none\n")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return leave(out, p, shortenings)
}

// countMoved adds the rows whose expiry was moved: by what is known of accounts, plans and
// holds they are readable now, and would be over with the promises that come next. What was
// erased is over already.
func countMoved(ctx context.Context, db *store.Store, p *policy.Policy, holds, next []policy.StoredClass, at time.Time, affected []store.Affected) error {
	facts, err := db.Facts(ctx)
	if err != nil {
		return err
	}
	held, err := db.Holds(ctx)
	if err != nil {
		return err
	}
	by := func(promises []policy.StoredClass) *retention.Facts {
		return retention.New(p, retention.Source{Promises: promises, Facts: facts, Holds: held}, func(string) []string { return nil })
	}
	before, after := by(holds), by(next)
	for _, kind := range event.Kinds {
		if !slices.ContainsFunc(affected, func(a store.Affected) bool { return a.Table == kind.Table() && a.Moved > 0 }) {
			continue
		}
		for row, err := range db.Candidates(ctx, kind, nil) {
			if err != nil {
				return err
			}
			i := slices.IndexFunc(affected, func(a store.Affected) bool { return a.Table == kind.Table() && a.Retention == row.Retention })
			if i >= 0 && row.ExpiresOverride > event.ErasedOverride && before.Fate(row).Expires.After(at) && !after.Fate(row).Expires.After(at) {
				affected[i].Past++
			}
		}
	}
	return nil
}

// leave says what it takes to put a policy in force that shortens older promises.
func leave(out io.Writer, p *policy.Policy, shortenings []policy.Shortening) error {
	if len(shortenings) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nIngesters start with this file only when POLICY_SHORTENS=%s is set. What goes then cannot be brought back.\n", p.Version)
	return err
}
