package policy

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the policy file, in bytes.
const maxFile = 256 << 10

// loader reads one file and collects what is wrong with it.
type loader struct {
	name string
	root *yaml.Node
	errs []error

	operator map[string]*operatorEntry
	classes  map[string]*class
	order    []*class
	claims   []claim
	bound    []binding
}

// operatorEntry is one operator value and whether anything refers to it.
type operatorEntry struct {
	Operator
	at, value *yaml.Node
	used      bool
}

// claim is a value of the file that must come from somewhere: a sentence of the
// text, or the operator.
type claim struct {
	path   string
	at     *yaml.Node
	itself bool // a sentence about what it lies in is not enough
}

// binding is a path of the file that a sentence stands behind.
type binding struct{ path, section string }

func load(name string, data []byte) (*Policy, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d KiB", name, maxFile>>10)
	}
	var doc, rest yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: the file is empty", name)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l := &loader{name: name, root: doc.Content[0], operator: map[string]*operatorEntry{}, classes: map[string]*class{}}
	if err := d.Decode(&rest); !errors.Is(err, io.EOF) {
		l.fail(&doc, "there is a second document in the file")
	}
	p := l.policy()
	if len(l.errs) > 0 {
		slices.SortStableFunc(l.errs, func(a, b error) int { return cmp.Compare(line(a), line(b)) })
		return nil, errors.Join(l.errs...)
	}
	return p, nil
}

func line(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Line
	}
	return 0
}

// policy reads the sections in the order in which they need each other.
func (l *loader) policy() *Policy {
	p := &Policy{}
	o := l.object(l.root, "")
	name := o.need("policy")
	if p.Name = l.text(name, "policy"); p.Name != "" && !isName(p.Name) {
		l.fail(name, "policy: %q is no name: want lower-case letters, digits and _", p.Name)
	}
	l.published(p, o.need("text"))
	p.Grace = l.grace(o.need("grace"))
	l.readOperator(p, o.get("operator"))
	l.readClasses(o.need("classes"), p.Grace)
	rules := l.rules(o.need("rules"))
	l.facts(p, o.get("anchors"))

	l.erasure(p, o.need("erasure"))
	l.rights(p, o.need("rights"))
	l.purposes(p, o.need("purposes"))
	if n := o.get("complaint"); n != nil {
		p.Complaint, _ = l.orOperator(n, "complaint")
	}
	p.Recipients = l.words(o.get("recipients"), "recipients")
	p.Safeguards = l.words(o.get("safeguards"), "safeguards")
	l.regions(p, o.get("storage_regions"))
	l.minors(p, o.get("minors"))
	l.content(p, o.get("content"))
	l.sentences(p, o.need("sentences"))
	o.done()

	l.check(p, rules)
	return p
}

func (l *loader) published(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "text")
	if at := o.get("dated"); at != nil {
		p.Dated = l.date(at, "text.dated")
	}
	p.TextSHA256 = l.sha256(o.need("sha256"), "text.sha256")
	o.done()
}

func (l *loader) date(n *yaml.Node, path string) time.Time {
	s := l.text(n, path)
	t, err := time.Parse(time.DateOnly, s)
	if s != "" && err != nil {
		l.fail(n, "%s: %q is no date: want a day such as 2027-01-31", path, s)
	}
	return t
}

func (l *loader) sha256(n *yaml.Node, path string) string {
	s := l.text(n, path)
	if b, err := hex.DecodeString(s); s != "" && (err != nil || len(b) != 32 || strings.ToLower(s) != s) {
		l.fail(n, "%s: want 64 lower-case hexadecimal digits", path)
	}
	return s
}

// minGrace is what ClickHouse needs at least: a merge, then the old parts' lifetime.
const minGrace, maxGrace = time.Hour, 31 * 24 * time.Hour

func (l *loader) grace(n *yaml.Node) time.Duration {
	s := l.text(n, "grace")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var k int
		k, err = strconv.Atoi(days)
		d = time.Duration(k) * 24 * time.Hour
	}
	if err != nil || d < minGrace || d > maxGrace {
		l.fail(n, "grace: %q: want between 1h and 31d: ClickHouse needs an hour to remove a row's last byte", s)
		return 0
	}
	return d
}

// readOperator reads the operator's values; what refers to them comes later.
func (l *loader) readOperator(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "operator")
	for _, key := range o.keys {
		path := o.sub(key.Value)
		v := l.object(o.get(key.Value), path)
		e := &operatorEntry{at: key, value: v.need("value")}
		e.Name = key.Value
		if !isName(e.Name) {
			l.fail(key, "operator: %q is no name: want lower-case letters, digits and _", e.Name)
		}
		if e.value != nil && e.value.Kind == yaml.MappingNode {
			m := l.object(e.value, path+".value")
			for _, k := range m.keys {
				e.Value += ", " + k.Value + " " + l.text(m.get(k.Value), path+".value")
			}
			e.Value = strings.TrimPrefix(e.Value, ", ")
		} else {
			e.Value = l.text(e.value, path+".value")
		}
		e.Basis = l.text(v.need("basis"), path+".basis")
		e.Owner = l.text(v.need("owner"), path+".owner")
		if review := v.need("review"); review != nil {
			e.Review = l.date(review, path+".review")
		}
		v.done()
		l.operator[e.Name] = e
		p.Operator = append(p.Operator, e.Operator)
	}
	slices.SortFunc(p.Operator, func(a, b Operator) int { return cmp.Compare(a.Name, b.Name) })
}

// refer finds the operator's value of a name that stands at n.
func (l *loader) refer(n *yaml.Node, path, name string) *operatorEntry {
	e := l.operator[name]
	if e == nil {
		l.fail(n, "%s: the operator's value %q is missing", path, name)
		return nil
	}
	e.used = true
	return e
}

// byOperator is what stands in place of a value that the text leaves open. The
// operator's value has the name of its path.
const byOperator = "operator"

// orOperator reads a value that the text gives, or the operator's value for it.
func (l *loader) orOperator(n *yaml.Node, path string) (string, *yaml.Node) {
	s := l.text(n, path)
	if s != byOperator {
		if s != "" {
			l.claims = append(l.claims, claim{path: path, at: n})
		}
		return s, n
	}
	if e := l.refer(n, path, strings.ReplaceAll(path, ".", "_")); e != nil {
		return e.Value, e.value
	}
	return "", n
}

func (l *loader) periodOrOperator(n *yaml.Node, path string) Period {
	if n == nil {
		return Period{}
	}
	s, at := l.orOperator(n, path)
	if s == "" {
		return Period{}
	}
	v, err := ParsePeriod(s)
	if err != nil {
		l.fail(at, "%s: %v", path, err)
	}
	return v
}
