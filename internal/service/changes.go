package service

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/lethe-audit/lethe/internal/config"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/policy/changes"
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
	for i := range all {
		if s, ok := to[all[i].Key]; ok {
			all[i] = s.New
		}
	}
	affected, err := db.Affected(ctx, keys, policy.ExpiresExpr(all), time.Now())
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\nstored rows that would follow, of every policy file there was; nothing was moved\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, a := range affected {
		fmt.Fprintf(w, "  %s\t%s\t%d rows\t%d past their expiry at once", to[a.Retention], a.Table, a.Rows, a.Past)
		if a.Moved > 0 {
			fmt.Fprintf(w, "\t%d whose expiry has been moved before: not counted as past", a.Moved)
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

// leave says what it takes to put a policy in force that shortens older promises.
func leave(out io.Writer, p *policy.Policy, shortenings []policy.Shortening) error {
	if len(shortenings) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nIngesters start with this file only when POLICY_SHORTENS=%s is set. What goes then cannot be brought back.\n", p.Version)
	return err
}
