package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is one thing that is wrong with a policy file, at a line of it.
type Error struct {
	File string
	Line int
	Text string
}

// Error returns "file:line: text".
func (e *Error) Error() string { return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Text }

// maxErrors bounds what one load reports.
const maxErrors = 40

func (l *loader) fail(at *yaml.Node, format string, args ...any) {
	if len(l.errs) < maxErrors {
		l.errs = append(l.errs, &Error{File: l.name, Line: at.Line, Text: fmt.Sprintf(format, args...)})
	}
}

// object is a mapping that is being read: every key must be asked for, and what
// nobody asked for by the time of done is an error.
type object struct {
	l      *loader
	at     *yaml.Node
	path   string
	keys   []*yaml.Node
	values map[string]*yaml.Node
	asked  map[string]bool
}

// object opens a mapping. What is none is reported and reads as empty.
func (l *loader) object(n *yaml.Node, path string) *object {
	o := &object{l: l, at: n, path: path, values: map[string]*yaml.Node{}, asked: map[string]bool{}}
	if n.Kind != yaml.MappingNode {
		l.fail(n, "%s: want a mapping", where(path))
		return o
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			l.fail(key, "%s: a key must be a word", where(path))
			continue
		}
		if _, twice := o.values[key.Value]; twice {
			l.fail(key, "%s: the key %q stands twice", where(path), key.Value)
			continue
		}
		o.keys = append(o.keys, key)
		o.values[key.Value] = value
	}
	return o
}

func where(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// sub is the path of a key.
func (o *object) sub(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// get returns the value of an optional key, or nil.
func (o *object) get(key string) *yaml.Node {
	o.asked[key] = true
	return o.values[key]
}

// need returns the value of a required key, or nil after an error.
func (o *object) need(key string) *yaml.Node {
	n := o.get(key)
	if n == nil {
		o.l.fail(o.at, "%s: %q is missing", where(o.path), key)
	}
	return n
}

// done reports the keys that nobody asked for.
func (o *object) done() {
	for _, key := range o.keys {
		if !o.asked[key.Value] {
			o.l.fail(key, "%s: unknown key %q", where(o.path), key.Value)
		}
	}
}

// text reads a scalar; an empty one is an error.
func (l *loader) text(n *yaml.Node, path string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || strings.TrimSpace(n.Value) == "" {
		l.fail(n, "%s: want a value", where(path))
		return ""
	}
	return n.Value
}

const maxWords = 128

// words reads one word or a list of different words.
func (l *loader) words(n *yaml.Node, path string) []string {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		if w := l.text(n, path); w != "" {
			return []string{w}
		}
		return nil
	}
	if len(n.Content) == 0 || len(n.Content) > maxWords {
		l.fail(n, "%s: want between 1 and %d", path, maxWords)
		return nil
	}
	var words []string
	for _, c := range n.Content {
		w := l.text(c, path)
		if slices.Contains(words, w) {
			l.fail(c, "%s: %q stands twice", path, w)
		} else if w != "" {
			words = append(words, w)
		}
	}
	return words
}

// truth reads true or false.
func (l *loader) truth(n *yaml.Node, path string) bool {
	if n == nil {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		l.fail(n, "%s: want true or false", path)
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// period reads a period.
func (l *loader) period(n *yaml.Node, path string) Period {
	s := l.text(n, path)
	if s == "" {
		return Period{}
	}
	p, err := ParsePeriod(s)
	if err != nil {
		l.fail(n, "%s: %v", path, err)
	}
	return p
}

// name reports whether s is a plain name: a letter, then letters, digits and _.
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

// isTier reports whether s can be a tier: letters, digits, _ and -.
func isTier(s string) bool {
	for _, c := range []byte(s) {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

// resolve finds the node at a dotted path below n, or nil.
func resolve(n *yaml.Node, path string) *yaml.Node {
	for word := range strings.SplitSeq(path, ".") {
		if n.Kind != yaml.MappingNode {
			return nil
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == word {
				next = n.Content[i+1]
				break
			}
		}
		if next == nil {
			return nil
		}
		n = next
	}
	return n
}
