package verify

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// Print writes the report for a person. It holds offsets, classes and counts, no payload.
func (r *Report) Print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "PARTITION\tEPOCH\tLEDGER\tCOMMITTED\tKAFKA END")
	for o := range ledger.NumOutcomes {
		fmt.Fprint(t, "\t", ledger.Outcome(o).String())
	}
	fmt.Fprintln(t)
	for _, a := range r.Accounts {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s", place(a.Partition), a.Epoch, offsets(a.First, a.Next-1), known(a.Committed), known(a.End))
		for _, n := range a.Counts {
			fmt.Fprintf(t, "\t%d", n)
		}
		fmt.Fprintln(t)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(t, "\nFINDING\tPARTITION\tEPOCH\tOFFSETS\tCLASS\tDAY\tWHAT")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", f.Kind, place(f.Partition), f.Partition.Epoch, offsets(f.First, f.Last), dash(f.Class), dash(f.Day), f.Text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	which := fmt.Sprintf("%d of them sampled with seed %d although stamped", r.Sampled, r.Seed)
	if r.Full {
		which = "all there are"
	}
	fmt.Fprintf(out, "\nread: %d ledger entries, %d rows in %d buckets (%s), %d dead letters, in %s\n",
		r.Entries, r.Rows, r.Buckets, which, r.Letters, r.Took.Round(time.Millisecond))
	if b := r.Believed; b.Buckets > 0 {
		fmt.Fprintf(out, "taken on the word of stamps: %d rows in %d buckets whose parts and ledger are what they were; the oldest stamp is of %s\n",
			b.Rows, b.Buckets, b.Since.UTC().Format(time.DateTime))
	}
	fmt.Fprintf(out, "repeats: %d of the rows read are of an event that is stored already; readers show one\n", r.Repeats)
	if r.Moves > 0 {
		fmt.Fprintf(out, "moved: the expiry of %d rows in these buckets was moved away from their class's; %d of them are there\n", r.Moves, r.Moved)
	}
	if r.Taken > 0 {
		fmt.Fprintf(out, "dead letters: %d accounted, payload expired\n", r.Taken)
	}
	if r.InFlight > 0 {
		fmt.Fprintf(out, "in flight: %d rows whose ledger entry was not written yet\n", r.InFlight)
	}
	if r.Waiting > 0 {
		fmt.Fprintf(out, "not consumed yet: %d offsets\n", r.Waiting)
	}
	verdict := "verified: every offset that was consumed is accounted for"
	if !r.OK() {
		verdict = fmt.Sprintf("NOT verified: %d findings", len(r.Findings))
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}

// Words says where the contradiction is, and what, in one line.
func (f *Finding) Words() string {
	text := place(f.Partition)
	if f.First <= f.Last {
		text += " " + offsets(f.First, f.Last)
	}
	return text + ": " + f.Text
}

func place(p ledger.Partition) string { return p.Topic + "/" + strconv.Itoa(int(p.Partition)) }

func offsets(first, last int64) string {
	switch {
	case last < first:
		return "-"
	case first == last:
		return strconv.FormatInt(first, 10)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func known(offset int64) string {
	if offset < 0 {
		return "-"
	}
	return strconv.FormatInt(offset, 10)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
