package sentences

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/policy"
)

// places holds the places of the file to those that the sentences behind them name, all of
// them together: by their names in English, or for those of the file by their codes. Where
// a part of a sentence is waived, it may speak of other places too.
func (r *Report) places(p *policy.Policy, bySum map[string][]Sentence) {
	said, waived, values := map[string]string{}, map[string]bool{}, []policy.Value{}
	for _, e := range p.Sentences {
		for _, v := range e.Values {
			if v.Places == nil {
				continue
			}
			if !slices.ContainsFunc(values, func(o policy.Value) bool { return o.Path == v.Path }) {
				values = append(values, v)
			}
			for _, s := range bySum[e.SHA256] {
				said[v.Path] += s.Text + " "
			}
			waived[v.Path] = waived[v.Path] || e.Waived != ""
		}
	}
	names := policy.RegionNames()
	for _, v := range values {
		for _, place := range slices.Sorted(maps.Keys(names)) {
			name := names[place]
			listed := slices.Contains(v.Places, place)
			named := mentions(said[v.Path], "(?i)", name)
			switch {
			case listed && !named && !mentions(said[v.Path], "", place):
				r.add(Differs, 0, v.Line, "%s: the sentence does not name %s", v.Path, name)
			case !listed && named && !waived[v.Path]:
				r.add(Differs, 0, v.Line, "%s: the sentence names %s, which is not in it", v.Path, name)
			}
		}
	}
}

// mentions reports whether a text has a word or several.
func mentions(text, flags, words string) bool {
	return regexp.MustCompile(flags + `\b` + strings.ReplaceAll(regexp.QuoteMeta(words), " ", `\s+`) + `\b`).MatchString(text)
}
