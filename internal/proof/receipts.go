package proof

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
	"github.com/lethe-audit/lethe/internal/proof/measured"
)

// records tells what came, what is still there, and what was moved.
type records interface {
	Accounted(ctx context.Context) ([]ledger.Cell, error)
	Kept(ctx context.Context) ([]ledger.Cell, error)
	MovedAway(ctx context.Context) ([]ledger.Cell, error)
	MovedDue(ctx context.Context, now time.Time, grace time.Duration) ([]measured.Expired, error)
}

// Receipt says how many deliveries of one stored class expired on one day, and that
// they are gone. It outlives them: it is made from the ledger.
type Receipt struct {
	Table  string `json:"table"`
	Stored string `json:"stored"`
	Day    string `json:"day"`   // of the expiry, UTC
	Cause  string `json:"cause"` // "period", or what moved the expiry
	// Accounted are those that the ledger or the account of moves speaks of, less
	// what was moved away; Left are those that are still there, which breaks the promise.
	Accounted uint64 `json:"accounted"`
	Left      uint64 `json:"left"`
	Expired   uint64 `json:"expired"`
}

// Receipts are those of the days from and to, both included, oldest first.
type Receipts struct {
	Format   string    `json:"format"`
	At       time.Time `json:"at"`
	Policy   string    `json:"policy_version"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Receipts []Receipt `json:"receipts"`
}

// ReceiptsFormat names the form of the document.
const ReceiptsFormat = "lethe-receipts-1"

// Receipts makes the receipts of the days whose grace is over.
func (p *Prover) Receipts(ctx context.Context, r records, from, to time.Time) (*Receipts, error) {
	out := &Receipts{Format: ReceiptsFormat, At: p.o.Now().UTC().Truncate(time.Second), Policy: p.o.Policy.Version,
		From: from.Format(time.DateOnly), To: to.Format(time.DateOnly), Receipts: []Receipt{}}
	classes, err := p.o.Registered(ctx)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	since, err := p.shortened(ctx)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	expiry := func(c ledger.Cell) (day time.Time, due bool) {
		for _, k := range classes {
			if k.Key == c.Retention && !k.Period.Sentinel {
				end := k.Period.End(time.Unix(int64(c.Day+1)*86400-1, 0))
				if s := since[k.Key]; s.After(end) {
					end = s.UTC()
				}
				return end.Truncate(24 * time.Hour), !end.Add(p.o.Policy.Grace).After(out.At)
			}
		}
		return time.Time{}, false
	}
	found := map[Receipt]*Receipt{}
	of := func(table, class, cause string, day time.Time) *Receipt {
		key := Receipt{Table: table, Stored: class, Day: day.Format(time.DateOnly), Cause: cause}
		if found[key] == nil {
			found[key] = &Receipt{Table: key.Table, Stored: key.Stored, Day: key.Day, Cause: key.Cause}
		}
		return found[key]
	}
	within := func(day time.Time) bool { return !day.Before(from) && !day.After(to) }
	sum := func(list []ledger.Cell, add func(r *Receipt, n uint64)) {
		for _, c := range list {
			if day, due := expiry(c); due && within(day) {
				add(of(c.Table, c.Retention, "period", day), c.Rows)
			}
		}
	}
	// What is left is counted before what came, so that what comes meanwhile is not missed.
	kept, err := r.Kept(ctx)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	accounted, err := r.Accounted(ctx)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	away, err := r.MovedAway(ctx)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	moved, err := r.MovedDue(ctx, out.At, p.o.Policy.Grace)
	if err != nil {
		return nil, fmt.Errorf("make receipts: %w", err)
	}
	sum(accounted, func(r *Receipt, n uint64) { r.Accounted += n })
	sum(away, func(r *Receipt, n uint64) { r.Accounted -= min(n, r.Accounted) })
	sum(kept, func(r *Receipt, n uint64) { r.Left += n })
	for _, m := range moved {
		if day := time.Unix(int64(m.Day)*86400, 0).UTC(); within(day) {
			x := of(m.Table, m.Retention, m.Cause, day)
			x.Accounted += m.Deliveries
			x.Left += m.Left
		}
	}
	for _, x := range found {
		x.Expired = x.Accounted - min(x.Accounted, x.Left)
		if x.Accounted+x.Left > 0 {
			out.Receipts = append(out.Receipts, *x)
		}
	}
	slices.SortFunc(out.Receipts, func(a, b Receipt) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Stored, b.Stored), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Cause, b.Cause))
	})
	return out, nil
}

// OK reports that nothing is left of what expired.
func (r *Receipts) OK() bool {
	return !slices.ContainsFunc(r.Receipts, func(x Receipt) bool { return x.Left > 0 })
}

// JSON returns the document that is signed.
func (r *Receipts) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write receipts: %w", err)
	}
	return append(b, '\n'), nil
}

// Print writes them for a person.
func (r *Receipts) Print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "policy version %s, at %s; days %s to %s, each once its grace is over\n\n", r.Policy, r.At.Format("2006-01-02 15:04:05 MST"), r.From, r.To)
	fmt.Fprintln(t, "DAY\tSTORED CLASS\tTABLE\tBECAUSE OF\tACCOUNTED\tLEFT\tEXPIRED")
	var left, expired uint64
	for _, x := range r.Receipts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", x.Day, x.Stored, x.Table, x.Cause, x.Accounted, x.Left, x.Expired)
		left, expired = left+x.Left, expired+x.Expired
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s expired and gone, %s left although their time and the grace are over\n", rows(expired), rows(left))
	return err
}
