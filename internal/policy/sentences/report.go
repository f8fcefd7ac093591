package sentences

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// maxText bounds a text, in bytes.
const maxText = 256 << 10

// ReadText reads a published text.
func ReadText(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read policy text: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read policy text: %w", err)
	case len(data) > maxText:
		return "", fmt.Errorf("read policy text: %s is larger than %d KiB", name, maxText>>10)
	case !utf8.Valid(data):
		return "", fmt.Errorf("read policy text: %s is no text in UTF-8", name)
	}
	return string(data), nil
}

// OK reports whether the text and the file agree.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// Write prints a table with a row for each entry of the file, then what is wrong. The
// names of the two files stand before the line numbers.
func (r *Report) Write(w io.Writer, textName, fileName string) error {
	fmt.Fprintf(w, "policy %s: %d sentences in %s, %d speak of time; %d entries in %s\n\n", r.Policy, r.Of, textName, r.Timed, len(r.Entries), fileName)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LINE\tSECTION\tABOUT\tSAYS\tBINDS")
	for _, e := range r.Entries {
		lines := "not found"
		if len(e.Lines) > 0 {
			lines = strings.Trim(strings.ReplaceAll(fmt.Sprint(e.Lines), " ", ", "), "[]")
		}
		binds := strings.Join(e.Binds, ", ")
		if e.Waived != "" {
			binds = strings.TrimPrefix(binds+"; waived: "+e.Waived, "; ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", lines, e.Section, e.About, cmp.Or(strings.Join(e.Says, ", "), "-"), binds)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	fmt.Fprintln(w)
	for _, p := range slices.SortedStableFunc(slices.Values(r.Problems), func(a, b Problem) int { return a.TextLine - b.TextLine }) {
		var at []string
		if p.TextLine > 0 {
			at = append(at, fmt.Sprintf("%s:%d", textName, p.TextLine))
		}
		if p.FileLine > 0 {
			at = append(at, fmt.Sprintf("%s:%d", fileName, p.FileLine))
		}
		if len(at) == 0 {
			at = []string{textName}
		}
		fmt.Fprintf(w, "%s: %s: %s\n", strings.Join(at, ", "), p.Fault, p.What)
	}
	verdict := "agreed: the file holds every sentence that speaks of time"
	if !r.OK() {
		verdict = fmt.Sprintf("NOT agreed: %d problems", len(r.Problems))
	}
	if _, err := fmt.Fprintln(w, verdict); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
