// Package changes says what one policy file changes of another: what becomes shorter
// or longer, what of it stored rows follow, and every value. It touches no table.
package changes

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/lethe-audit/lethe/internal/policy"
	"go.yaml.in/yaml/v3"
)

// File is a policy file that was loaded, and its text's tree.
type File struct {
	Policy *policy.Policy
	root   *yaml.Node
}

// Read loads a policy file. Its errors are those of policy.Parse.
func Read(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy file: %w", err)
	}
	p, err := policy.Parse(filepath.Base(path), data)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read policy file: %w", err)
	}
	return &File{p, doc.Content[0]}, nil
}

// Write prints what changes from old to now.
func Write(out io.Writer, old, now *File) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s %s to %s %s\n\nclasses\n", old.Policy.Name, old.Policy.Version, now.Policy.Name, now.Policy.Version)
	for _, line := range classes(old.Policy, now.Policy) {
		fmt.Fprintf(w, "  %s\n", line)
	}
	lists(w, "rules", items(old.root, "rules"), items(now.root, "rules"))
	lists(w, "sentences", items(old.root, "sentences"), items(now.root, "sentences"))
	values(w, old.root, now.root)
	return w.Flush()
}

// slot is where a promise stands in a file: a class, a tier or "without", and whether
// an anchor may end it sooner.
type slot struct {
	class, tier string
	sooner      string
}

func (s slot) String() string {
	name := s.class
	if s.tier != "" {
		name += "/" + s.tier
	}
	if s.sooner != "" {
		name += " with a " + s.sooner
	}
	return name
}

func slots(p *policy.Policy) (order []slot, promises map[slot]policy.StoredClass) {
	promises = map[slot]policy.StoredClass{}
	for _, c := range p.Stored() {
		s := slot{class: c.Class, tier: c.Tier}
		if c.Anchor != "" && !c.Period.Sentinel {
			s.sooner = c.KeyedBy
		}
		order, promises[s] = append(order, s), c
	}
	return order, promises
}

// classes says for each promise what becomes of it, in the order of the files.
func classes(old, now *policy.Policy) []string {
	before, was := slots(old)
	after, is := slots(now)
	for _, s := range before {
		if _, ok := is[s]; !ok {
			after = append(after, s)
		}
	}
	var lines []string
	for _, s := range after {
		o, had := was[s]
		n, has := is[s]
		line := s.String() + "\t"
		switch {
		case !had:
			line += n.Promise() + "\tnew"
		case !has:
			line += o.Promise() + "\tgone: " + follows(now, o, "")
		case n.Compare(o) == policy.Same:
			line += n.Promise() + "\tsame"
		default:
			line += o.Promise() + " → " + n.Promise() + "\t" + n.Compare(o).String() + ": " + follows(now, o, n.Promise())
		}
		lines = append(lines, line)
	}
	return lines
}

// follows says what holds for rows that are stored under an older promise, where the
// new one is promise.
func follows(now *policy.Policy, old policy.StoredClass, promise string) string {
	shortenings := now.Shortenings([]policy.StoredClass{old})
	switch {
	case len(shortenings) == 0:
		return "stored rows keep their promise"
	case shortenings[0].New.Promise() == promise:
		return "stored rows follow"
	}
	return "stored rows get " + shortenings[0].New.Promise()
}

// lists prints what is in one of two lists only, and whether the order changes.
func lists(out io.Writer, name string, old, now []string) {
	without := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	}
	gone, added := without(old, now), without(now, old)
	moved := !slices.Equal(without(old, gone), without(now, added))
	if len(gone)+len(added) == 0 && !moved {
		return
	}
	fmt.Fprintf(out, "\n%s\n", name)
	for _, s := range gone {
		fmt.Fprintf(out, "  - %s\n", s)
	}
	for _, s := range added {
		fmt.Fprintf(out, "  + %s\n", s)
	}
	if moved {
		fmt.Fprintf(out, "  the order changes\n")
	}
}

// items returns the entries of a list of the file, each on one line.
func items(root *yaml.Node, name string) []string {
	var all []string
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			for _, c := range root.Content[i+1].Content {
				all = append(all, flow(c))
			}
		}
	}
	return all
}

// flow writes a node on one line.
func flow(n *yaml.Node) string {
	var parts []string
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, n.Content[i].Value+": "+flow(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		for _, c := range n.Content {
			parts = append(parts, flow(c))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return n.Value
}

// values prints every value that differs, by its path, but for the lists above.
func values(out io.Writer, old, now *yaml.Node) {
	was, is := map[string]string{}, map[string]string{}
	paths := flatten(flatten(nil, was, old, ""), is, now, "")
	slices.Sort(paths)
	title := "\nvalues\n"
	for _, path := range slices.Compact(paths) {
		if was[path] == is[path] {
			continue
		}
		fmt.Fprint(out, title)
		title = ""
		fmt.Fprintf(out, "  %s\t%s → %s\n", path, orNone(was[path]), orNone(is[path]))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// flatten collects the values below n by path and returns paths with theirs added.
func flatten(paths []string, values map[string]string, n *yaml.Node, path string) []string {
	if n.Kind != yaml.MappingNode {
		values[path] = flow(n)
		return append(paths, path)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		switch {
		case path == "" && (key == "rules" || key == "sentences"):
		case path == "":
			paths = flatten(paths, values, n.Content[i+1], key)
		default:
			paths = flatten(paths, values, n.Content[i+1], path+"."+key)
		}
	}
	return paths
}
