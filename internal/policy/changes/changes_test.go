package changes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/schemas"
)

// read writes one of the shipped policies, with some texts in place of others, and loads it.
func read(t *testing.T, name string, pairs ...string) *File {
	t.Helper()
	text, err := schemas.Policies.ReadFile("policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("%s has no %q", name, pairs[i])
		}
	}
	path := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// folded is what Write prints, with single spaces.
func folded(t *testing.T, old, now *File) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, old, now); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestWrite(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy string
		pairs  []string
		want   []string
	}{
		{"shorter", "bstrapr", []string{"support:            {keep: 3y", "support:            {keep: 2y"},
			[]string{"support 3y → 2y shorter: stored rows follow", "classes.support.keep 3y → 2y", "usage 2y same"}},
		{"longer", "bstrapr", []string{"support:            {keep: 3y", "support:            {keep: 4y"},
			[]string{"support 3y → 4y longer: stored rows keep their promise"}},
		{"keep to within", "bstrapr", []string{"{keep: 90d, from: account.deleted", "{within: 60d, from: account.deleted", "classes.account.keep", "classes.account.within"},
			[]string{"account 90d after account.deleted → within 60d of account.deleted shorter: stored rows follow", "classes.account.within none → 60d"}},
		{"another anchor", "bstrapr", []string{"{keep: 1y, from: workspace.deleted, key: workspace", "{keep: 1y, from: account.deleted, key: user"},
			[]string{"workspace_metadata 1y after workspace.deleted → 1y after account.deleted different: stored rows keep their promise", "classes.workspace_metadata.key workspace → user"}},
		{"a tier shorter, another longer", "itskode", []string{"free: 14d, pro: 30d, enterprise: 90d", "free: 15d, pro: 29d, enterprise: 90d"},
			[]string{"request/free 14d → 15d longer: stored rows keep their promise", "request/pro 30d → 29d shorter: stored rows follow", "request/enterprise 90d same", "operator.days_by_plan.value.pro 30d → 29d"}},
		{"a tier that goes and one that comes", "itskode", []string{"enterprise: 90d", "team: 60d"},
			[]string{"logs/team 60d new", "logs/enterprise 90d gone: stored rows keep their promise"}},
		{"what ends jobs", "daestro", []string{"sooner: {within: 7d", "sooner: {within: 6d", "pro: 30d", "pro: 60d"},
			[]string{"jobs/pro with a user 30d, or within 7d of account.deletion_requested → 60d, or within 6d of account.deletion_requested different: stored rows get 30d, or within 6d of account.deletion_requested"}},
		{"a rule goes", "bstrapr", []string{"  - {class: support,            when: {kind: audit, data.category: support}}\n", ""},
			[]string{"rules - {class: support, when: {kind: audit, data.category: support}}"}},
		{"rules change places", "bstrapr", []string{"{kind: audit, event.action: \"billing.*\"}", "{kind: audit, data.category: billing}", "{kind: audit, data.category: billing}", "{kind: audit, event.action: \"billing.*\"}"},
			[]string{"rules the order changes"}},
		{"an operator's value", "bstrapr", []string{"{value: 7d, basis: \"the text promises", "{value: 5d, basis: \"the text promises"},
			[]string{"operator.minors_within.value 7d → 5d"}},
		{"a sentence", "bstrapr", []string{"about: \"support, three years\"", "about: \"support\""},
			[]string{"sentences - {section: 6, about: support, three years,", "+ {section: 6, about: support, sha256:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.ReplaceAll(folded(t, read(t, c.policy), read(t, c.policy, c.pairs...)), "\n", " ")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
			}
		})
	}
}

func TestWriteNothing(t *testing.T) {
	for _, name := range []string{"abstra", "bstrapr", "daestro", "infratrace", "itskode"} {
		got := folded(t, read(t, name), read(t, name))
		for _, word := range []string{"→", "stored rows", "rules", "sentences", "values"} {
			if strings.Contains(got, word) {
				t.Errorf("%s against itself: %q in\n%s", name, word, got)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broken.yaml")
	if _, err := Read(path); err == nil {
		t.Error("no file: got no error")
	}
	if err := os.WriteFile(path, []byte("policy: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "broken.yaml:1:") {
		t.Errorf("got %v, want the line", err)
	}
}
