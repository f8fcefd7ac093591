package sentences

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/schemas"
)

// published is a text and the policy file for it.
type published struct{ name, text, file string }

// texts are the small one of our own and, where TEST_POLICIES names a folder that has
// them, those of the five example policies.
func texts(t *testing.T) []published {
	t.Helper()
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	all := []published{{"harbour", read("testdata/harbour.txt"), read("testdata/harbour.yaml")}}
	folder := os.Getenv("TEST_POLICIES")
	if folder == "" {
		return all
	}
	for _, name := range []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"} {
		file, err := schemas.Policies.ReadFile("policies/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, published{name, read(filepath.Join(folder, name+".txt")), string(file)})
	}
	return all
}

func (p *published) policy(t *testing.T) *policy.Policy {
	t.Helper()
	loaded, err := policy.Parse(p.name+".yaml", []byte(p.file))
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// split cuts the text as Check does.
func (p *published) split(loaded *policy.Policy) []Sentence {
	return Split(p.text, func(sum string) bool {
		return slices.ContainsFunc(loaded.Sentences, func(e policy.Sentence) bool { return e.SHA256 == sum })
	})
}

// find returns the problems of a kind.
func (r *Report) find(f Fault) []Problem {
	var out []Problem
	for _, p := range r.Problems {
		if p.Fault == f {
			out = append(out, p)
		}
	}
	return out
}

// at reports whether there is a problem of a kind at a line of the text or the file.
func (r *Report) at(f Fault, textLine, fileLine int) bool {
	return slices.ContainsFunc(r.find(f), func(p Problem) bool {
		return (textLine == 0 || p.TextLine == textLine) && (fileLine == 0 || p.FileLine == fileLine)
	})
}

func TestTheTextsAgreeWithTheirFiles(t *testing.T) {
	for _, p := range texts(t) {
		t.Run(p.name, func(t *testing.T) {
			r := Check(p.policy(t), p.text)
			if !r.OK() || r.Timed < 4 {
				t.Errorf("got %d sentences about time and %v", r.Timed, r.Problems)
			}
			var out bytes.Buffer
			if err := r.Write(&out, "text", "file"); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "\n"); got != len(r.Entries)+5 || strings.Contains(out.String(), "not found") {
				t.Errorf("got %d lines for %d entries:\n%s", got, len(r.Entries), &out)
			}
		})
	}
}

// TestALineBreakChangesNothing breaks the texts into lines of other widths.
func TestALineBreakChangesNothing(t *testing.T) {
	for _, p := range texts(t) {
		loaded := p.policy(t)
		for _, width := range []int{30, 72, 1000} {
			var text strings.Builder
			for l := range strings.Lines(p.text) {
				column := 0
				for _, w := range strings.Fields(l) {
					if column += len(w) + 1; column > width {
						text.WriteString("\n")
						column = len(w) + 1
					}
					text.WriteString(w + " ")
				}
				text.WriteString("\n")
			}
			if r := Check(loaded, text.String()); !r.OK() {
				t.Errorf("%s in lines of %d: got %v", p.name, width, r.Problems)
			}
		}
	}
}

// inText matches a sentence where it stands in a text, over the ends of lines.
func inText(sentence string) *regexp.Regexp {
	words := strings.Fields(sentence)
	for i := range words {
		words[i] = regexp.QuoteMeta(words[i])
	}
	return regexp.MustCompile(strings.Join(words, `[\s\x{a0}]+`))
}

// TestEveryChangeOfAMappedSentenceFails changes each digit of every mapped sentence,
// drops each word and alters each word.
func TestEveryChangeOfAMappedSentenceFails(t *testing.T) {
	for _, p := range texts(t) {
		t.Run(p.name, func(t *testing.T) {
			loaded, mutations := p.policy(t), 0
			for _, s := range p.split(loaded) {
				i := slices.IndexFunc(loaded.Sentences, func(e policy.Sentence) bool { return e.SHA256 == s.SHA256 })
				if i < 0 {
					continue
				}
				entry, pattern := loaded.Sentences[i], inText(s.Text)
				try := func(what, changed string, neighbours int) {
					t.Helper()
					mutations++
					r := Check(loaded, pattern.ReplaceAllLiteralString(p.text, changed))
					if gone := len(r.find(Gone)); !r.at(TextChanged, 0, 0) || !r.at(Gone, 0, entry.Line) || gone > 1+neighbours {
						t.Errorf("line %d, %s: got %v", s.Line, what, r.Problems)
					}
					line := s.Line
					if neighbours > 0 {
						line = 0
					}
					if len(Times(changed)) > 0 && !r.at(Unmapped, line, 0) {
						t.Errorf("line %d, %s: it is not called unmapped: %v", s.Line, what, r.Problems)
					}
				}
				for i, c := range []byte(s.Text) {
					if c < '0' || c > '9' {
						continue
					}
					changed := []byte(s.Text)
					changed[i] = '0' + (c-'0'+1)%10
					try("digit", string(changed), 0)
				}
				words := strings.Fields(s.Text)
				for i, w := range words {
					neighbours := 0 // without a capital letter or a full stop they may become one
					if i == 0 || i == len(words)-1 {
						neighbours = 1
					}
					try("without "+w, strings.Join(slices.Delete(slices.Clone(words), i, i+1), " "), neighbours)
					changed := slices.Clone(words)
					changed[i] = w[:1] + "x" + w[1:]
					try("altered "+w, strings.Join(changed, " "), 0)
				}
			}
			if mutations < 20 {
				t.Errorf("got %d mutations only", mutations)
			}
			t.Logf("%d mutations", mutations)
		})
	}
}

func TestANewSentenceFails(t *testing.T) {
	for _, p := range texts(t) {
		loaded := p.policy(t)
		half := p.text[len(p.text)/2:]
		middle := strings.Index(half, "\n\n")
		if middle < 0 { // a line is a paragraph there
			middle = strings.Index(half, "\n")
		}
		middle += len(p.text) - len(half)
		for _, added := range []string{
			"Some of it stays for 41 days.", "Some of it stays for eleven\nmonths.", "  • Logs: a 5-year archive",
			"Some of it stays as long as we like.", "We erase it without undue delay.", "Some of it goes after a few weeks.",
		} {
			for _, at := range []int{middle, len(p.text)} {
				text := p.text[:at] + "\n\n" + added + "\n\n" + p.text[at:]
				line := strings.Count(p.text[:at], "\n") + 3
				r := Check(loaded, text)
				if got := r.find(Unmapped); len(got) != 1 || got[0].TextLine != line || !r.at(TextChanged, 0, 0) || len(r.Problems) != 2 {
					t.Errorf("%s: %q at line %d: got %v", p.name, added, line, r.Problems)
				}
			}
		}
	}
}

func TestATextWithoutTimesFails(t *testing.T) {
	for _, p := range texts(t) {
		loaded := p.policy(t)
		for _, text := range []string{"", "Privacy\n\nWe care.\n"} {
			r := Check(loaded, text)
			if !r.at(NoSentence, 0, 0) || len(r.find(Gone)) != len(loaded.Sentences) || !r.at(TextChanged, 0, 0) {
				t.Errorf("%s: got %v", p.name, r.Problems)
			}
		}
		if !loaded.Dated.IsZero() && !Check(loaded, "30 days").at(Differs, 0, 0) {
			t.Errorf("%s: the date is not missed", p.name)
		}
	}
}

// node finds the node at a path.
func node(n *yaml.Node, path string) *yaml.Node {
	for word := range strings.SplitSeq(path, ".") {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == word {
				next = n.Content[i+1]
			}
		}
		n = next
	}
	return n
}

// edited returns the file with other scalars at some paths.
func (p *published) edited(t *testing.T, values map[string]string) []byte {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(p.file), &doc); err != nil {
		t.Fatal(err)
	}
	for path, value := range values {
		n := node(doc.Content[0], path)
		if n != nil && n.Kind == yaml.SequenceNode { // bounds: the upper one
			n = n.Content[len(n.Content)-1]
		}
		if n == nil || n.Kind != yaml.ScalarNode {
			t.Fatalf("%s: there is no value at %s", p.name, path)
		}
		n.SetString(value)
		n.Tag, n.Style = "", 0
	}
	data, err := yaml.Marshal(&doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestEveryChangeOfABoundValueFails changes every period and age that a sentence binds.
// Where the text gives a number, the operator's value is changed with it, so that the
// file agrees with itself: then the text must be what refuses it.
func TestEveryChangeOfABoundValueFails(t *testing.T) {
	for _, p := range texts(t) {
		t.Run(p.name, func(t *testing.T) {
			loaded := p.policy(t)
			mutated, byText, all := 0, 0, p.split(loaded)
			for _, e := range loaded.Sentences {
				s := all[slices.IndexFunc(all, func(s Sentence) bool { return s.SHA256 == e.SHA256 })]
				for _, v := range e.Values {
					if strings.HasPrefix(v.Path, "operator.") {
						continue // the operator's own to choose
					}
					values := map[string]string{v.Path: "91d"}
					if v.Age > 0 {
						values[v.Path] = "15"
					}
					switch v.Path { // what the backups fit into
					case "erasure.primary":
						values[v.Path] = "5d"
					case "erasure.everywhere":
						values[v.Path] = "92d"
					}
					said := s.holds(v)
					if said {
						p.alsoTheOperators(values, v)
					}
					mutated++
					changed, err := policy.Parse(p.name+".yaml", p.edited(t, values))
					if err != nil {
						if said && !strings.Contains(err.Error(), "outside the bounds") {
							t.Errorf("%v: the loader refuses it before the text does: %v", values, err)
						}
						continue
					}
					byText++
					r := Check(changed, p.text)
					differs := slices.ContainsFunc(r.find(Differs), func(d Problem) bool {
						return d.TextLine == s.Line && strings.Contains(d.What, v.Path+" is ")
					})
					if said && !differs {
						t.Errorf("%v: got %v", values, r.Problems)
					}
					if !said && !v.Operator && r.OK() {
						t.Errorf("%v: it is accepted", values)
					}
				}
			}
			if mutated < 2 {
				t.Errorf("got %d changed values, %d refused by the text", mutated, byText)
			}
			t.Logf("%d changed values, %d refused by the text, the others by the loader", mutated, byText)
		})
	}
}

// TestEveryChangeOfAnAnchorFails makes every anchor that a number of the text counts
// from the other one of an account.
func TestEveryChangeOfAnAnchorFails(t *testing.T) {
	for _, p := range texts(t) {
		all := p.split(p.policy(t))
		for _, e := range p.policy(t).Sentences {
			for _, v := range e.Values {
				i := slices.IndexFunc(all, func(s Sentence) bool { return s.SHA256 == e.SHA256 })
				other := map[string]string{"account.deleted": "account.deletion_requested", "account.deletion_requested": "account.deleted"}[v.From]
				if other == "" || !all[i].holds(v) {
					continue
				}
				path := v.Path[:strings.LastIndex(v.Path, ".")] + ".from"
				changed, err := policy.Parse(p.name+".yaml", p.edited(t, map[string]string{path: other}))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(Check(changed, p.text).find(Differs), func(d Problem) bool { return strings.HasPrefix(d.What, v.Path+" counts from "+other) }) {
					t.Errorf("%s: %s: it is accepted", p.name, path)
				}
			}
		}
	}
}

// TestEveryChangeOfABoundWordFails changes what is no period: a yes or a no, and where data
// may lie.
func TestEveryChangeOfABoundWordFails(t *testing.T) {
	harbour := texts(t)[0]
	harbour.file = strings.Replace(harbour.file, "\nsentences:\n", "\nstorage_regions: {only: [NO, IS], never: [EU]}\nsentences:\n"+
		"  - {section: \"9\", about: places, sha256: "+sum("Our servers stand in Norway and Iceland.")+", binds: storage_regions.only}\n"+
		"  - {section: \"9\", about: the union, sha256: "+sum("We keep nothing in the EU.")+", binds: storage_regions.never}\n"+
		"  - {section: \"9\", about: the law, sha256: "+sum("The law may keep bills.")+", binds: classes.billing.erasable}\n"+
		"  - {section: \"9\", about: identity, sha256: "+sum("You must show who you are.")+", binds: rights.verify_identity}\n", 1)
	harbour.text += "\n\nOur servers stand in Norway and Iceland. We keep nothing in the EU. The law may keep bills. You must show who you are.\n"
	if r := Check(harbour.policy(t), harbour.text); len(r.find(TextChanged)) != len(r.Problems) {
		t.Fatalf("as it is: got %v", r.Problems)
	}
	for _, c := range []struct{ old, now, want string }{
		{"only: [NO, IS]", "only: [NO]", "storage_regions.only: the sentence names Iceland, which is not in it"},
		{"only: [NO, IS]", "only: [NO, IS, US]", "storage_regions.only: the sentence does not name United States"},
		{"only: [NO, IS]", "only: [NO, IN]", "storage_regions.only: the sentence does not name India"},
		{"never: [EU]", "never: [GB]", "storage_regions.never: the sentence does not name United Kingdom"},
		{"erasable: false, reason: tax", "erasable: true, reason: tax", "classes.billing.erasable: the file says no"},
		{"verify_identity: true", "verify_identity: false", "rights.verify_identity: the file says no"},
	} {
		changed := harbour
		if changed.file = strings.Replace(harbour.file, c.old, c.now, 1); changed.file == harbour.file {
			t.Fatalf("the file has no %q", c.old)
		}
		r := Check(changed.policy(t), changed.text)
		if !slices.ContainsFunc(r.find(Differs), func(p Problem) bool { return strings.HasPrefix(p.What, c.want) }) {
			t.Errorf("%s: got %v, want %s", c.now, r.Problems, c.want)
		}
	}
}

// alsoTheOperators adds the operator's value that reads the same sentence.
func (p *published) alsoTheOperators(values map[string]string, v policy.Value) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(p.file), &doc); err != nil {
		return
	}
	class, rest, _ := strings.Cut(strings.TrimPrefix(v.Path, "classes."), ".")
	name := node(doc.Content[0], "classes."+class+".operator")
	if name == nil || !strings.HasPrefix(rest, "keep") || v.Bound {
		return
	}
	path := "operator." + name.Value + ".value" + strings.TrimPrefix(rest, "keep")
	values[path] = values[v.Path]
}
