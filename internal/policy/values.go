package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// leftOpen are the periods that the file may leave to the operator by that word.
var leftOpen = []string{"erasure.primary", "erasure.everywhere", "rights.respond", "minors.within"}

// values returns the periods and ages at and below a path that a sentence binds, and the
// places and the no that stand there. What an operator's value decides inside a class, such
// as without and a statute, no sentence stands behind.
func (l *loader) values(path string) []Value {
	n, from, operator := l.root, "", path == byOperator || strings.HasPrefix(path, byOperator+".")
	for word := range strings.SplitSeq(path, ".") {
		if n != l.root { // the root's operator section is about no value in particular
			operator, from = inside(n, word, operator), countsFrom(n, word, from)
		}
		if n = resolve(n, word); n == nil || operatorsOwn(word) {
			return nil
		}
	}
	switch v := (Value{Path: path, Line: n.Line}); {
	case n.Tag == "!!bool": // rows that a law keeps are what a sentence says of erasable
		if v.Denied = (n.Value == "true") == strings.HasSuffix(path, ".erasable"); v.Denied {
			return []Value{v}
		}
	case path == "storage_regions.only" || path == "storage_regions.never":
		for _, c := range n.Content {
			v.Places = append(v.Places, c.Value)
		}
		return []Value{v}
	}
	return collect(n, path, from, operator)
}

func operatorsOwn(key string) bool { return key == "without" || key == "statute" }

// inside reports whether an operator's value fills or reads what stands at a key of
// n. That of a class is about its period, not about the anchor that ends it sooner.
func inside(n *yaml.Node, key string, outside bool) bool {
	return key != "sooner" && (outside || resolve(n, byOperator) != nil)
}

// countsFrom returns the anchor that what stands at a key of n counts from.
func countsFrom(n *yaml.Node, key, outside string) string {
	if from := resolve(n, "from"); from != nil && (key == "keep" || key == "within") && from.Value != fromEvent {
		return from.Value
	}
	return outside
}

// collect walks the values below n.
func collect(n *yaml.Node, path, from string, operator bool) []Value {
	v := Value{Path: path, Line: n.Line, From: from, Operator: operator, Bound: strings.HasSuffix(path, ".bounds")}
	switch n.Kind {
	case yaml.ScalarNode:
		if age, err := strconv.Atoi(n.Value); err == nil && path == "minors.under" {
			v.Age = age
			return []Value{v}
		}
		if n.Value == byOperator && slices.Contains(leftOpen, path) {
			v.Operator = true
			return []Value{v}
		}
		p, err := ParsePeriod(n.Value)
		if v.Period = p; err == nil {
			return []Value{v}
		}
	case yaml.SequenceNode:
		var out []Value
		for _, c := range n.Content {
			out = append(out, collect(c, path, from, operator)...)
		}
		return out
	case yaml.MappingNode:
		var out []Value
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key := n.Content[i].Value; !operatorsOwn(key) {
				out = append(out, collect(n.Content[i+1], path+"."+key, countsFrom(n, key, from), inside(n, key, operator))...)
			}
		}
		return out
	}
	return nil
}
