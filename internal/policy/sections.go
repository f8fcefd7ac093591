package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"go.yaml.in/yaml/v3"
)

func (l *loader) erasure(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "erasure")
	p.Primary = l.periodOrOperator(o.need("primary"), "erasure.primary")
	p.Everywhere = l.periodOrOperator(o.need("everywhere"), "erasure.everywhere")
	p.SharedRows = "row"
	if n := o.get("shared_rows"); n != nil {
		v, at := l.orOperator(n, "erasure.shared_rows")
		if p.SharedRows = v; v != "" && v != "row" && v != "identity" {
			l.fail(at, "erasure.shared_rows: %q is neither row nor identity", v)
		}
	}
	o.done()
	age := l.refer(n, "erasure", "backup_max_age")
	if age == nil || p.Primary == (Period{}) || p.Everywhere == (Period{}) {
		return
	}
	if p.BackupAge = l.period(age.value, "operator.backup_max_age.value"); p.BackupAge == (Period{}) {
		return
	}
	// A backup made just before the primary systems are clean holds what was erased.
	if all := p.Primary.most() + p.BackupAge.most() + wholeDays(p.Grace); all > p.Everywhere.least() {
		l.fail(age.at, "operator.backup_max_age: erased in %s, then %s of backups and the grace: %dd is longer than the %s promised for everywhere",
			p.Primary, p.BackupAge, all, p.Everywhere)
	}
}

func wholeDays(d time.Duration) int { return int((d + 24*time.Hour - 1) / (24 * time.Hour)) }

var rights = []string{"access", "correction", "deletion", "portability", "restriction", "objection", "withdrawal", "blocking", "opt_out"}

func (l *loader) rights(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "rights")
	offered := o.need("offered")
	p.Rights = l.words(offered, "rights.offered")
	for _, r := range p.Rights {
		if !slices.Contains(rights, r) {
			l.fail(offered, "rights.offered: %q is none of %s", r, strings.Join(rights, ", "))
		}
	}
	p.Respond = l.periodOrOperator(o.need("respond"), "rights.respond")
	p.VerifyIdentity = l.truth(o.need("verify_identity"), "rights.verify_identity")
	p.Agents = l.truth(o.get("agents"), "rights.agents")
	o.done()
}

// purposes must name every class: an export tells a person what each is for.
func (l *loader) purposes(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "purposes")
	p.Purposes = make(map[string][]string, len(l.order))
	for _, c := range l.order {
		p.Purposes[c.name] = l.words(o.need(c.name), o.sub(c.name))
	}
	o.done()
}

func (l *loader) regions(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "storage_regions")
	read := func(key string) []string {
		words := l.words(o.get(key), o.sub(key))
		for _, w := range words {
			if !IsRegion(w) {
				l.fail(o.get(key), "%s: %q is no country: want its two capital letters, or EU", o.sub(key), w)
			}
		}
		return words
	}
	p.Regions = Regions{Only: read("only"), Never: read("never"), PerTenant: l.truth(o.get("per_tenant"), "storage_regions.per_tenant")}
	for _, w := range p.Regions.Only {
		if slices.Contains(p.Regions.Never, w) {
			l.fail(n, "storage_regions: %s is both allowed and refused", w)
		}
	}
	l.claims = append(l.claims, claim{path: "storage_regions", at: n})
	o.done()
}

func (l *loader) minors(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "minors")
	if at := o.need("under"); at != nil {
		age, err := strconv.Atoi(l.text(at, "minors.under"))
		if err != nil || age < 1 || age > 21 {
			l.fail(at, "minors.under: want an age in years")
		}
		p.Minors.Under = age
		l.claims = append(l.claims, claim{path: "minors.under", at: at})
	}
	p.Minors.Within = l.periodOrOperator(o.need("within"), "minors.within")
	o.done()
}

// content reads which attributes, of events about which target types, are the
// customers' own.
func (l *loader) content(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	o := l.object(n, "content")
	p.content = map[event.Attr][]string{}
	for _, key := range o.keys {
		a, ok := attrNamed(key.Value)
		if !ok {
			continue // done reports it
		}
		if event.Attributes[a].Tag != event.Content {
			l.fail(key, "content: %s is not written by people", key.Value)
		}
		p.content[a] = l.words(o.get(key.Value), o.sub(key.Value))
	}
	o.done()
}

// sentences reads where the values come from.
func (l *loader) sentences(p *Policy, n *yaml.Node) {
	if n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		l.fail(n, "sentences: want a list of the text's promises")
		return
	}
	for _, c := range n.Content {
		o := l.object(c, "sentences")
		s := Sentence{
			Section: l.text(o.need("section"), "sentences: section"),
			About:   l.text(o.need("about"), "sentences: about"),
			SHA256:  l.sha256(o.need("sha256"), "sentences: sha256"),
			Line:    c.Line,
		}
		binds, waived := o.get("binds"), o.get("waived")
		if binds == nil && waived == nil {
			l.fail(c, "sentences: want binds, or waived with the reason")
		}
		s.Binds = l.words(binds, "sentences: binds")
		s.Waived = l.text(waived, "sentences: waived")
		for _, b := range s.Binds {
			s.Values = append(s.Values, l.values(b)...)
			if resolve(l.root, b) == nil {
				l.fail(binds, "sentences: binds: there is no %q in this file", b)
			}
			l.bound = append(l.bound, binding{b, s.Section})
		}
		o.done()
		if slices.ContainsFunc(p.Sentences, func(t Sentence) bool { return s.SHA256 != "" && t.SHA256 == s.SHA256 }) {
			l.fail(c, "sentences: the same sentence stands twice")
		}
		p.Sentences = append(p.Sentences, s)
	}
}
