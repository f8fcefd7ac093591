package sentences

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/policy"
)

func TestTheFileAgainstTheText(t *testing.T) {
	own := texts(t)[0]
	for _, c := range []struct{ name, old, new, want string }{
		{"another number", "respond: 30d", "respond: 31d", `rights.respond is 31d, the sentence says "30-day"`},
		{"another age", "under: 16", "under: 18", `minors.under is 18, the sentence says "under 16"`},
		{"a bound inside the range", "bounds: [14d, 90d]", "bounds: [13d, 90d]", `classes.request.keep.bounds is 13d, the sentence says "14 to 90 days"`},
		{"a value that another sentence says", "binds: [rights.offered, erasure.primary]", "binds: [rights.offered, erasure]", ""},
		{"a part that is not waived", `, waived: "the post box is none of ours"`, "", ``},
		{"a part that is waived", "binds: rights.respond", `binds: [rights.respond, rights.offered], waived: "for the rest"`, ""},
		{"an anchor that is a request", "from: account.deleted", "from: account.deletion_requested", `classes.account.within counts from account.deletion_requested, the sentence names no request`},
		{"an anchor of something else", "from: account.deleted, key: user", "from: workspace.deleted, key: workspace", `classes.account.within counts from workspace.deleted, the sentence names no workspace`},
		{"another date", "dated: 2026-03-03", "dated: 2026-03-30", "text.dated: the text does not name 2026-03-30"},
		{"no entry", `  - {section: "5", about: "changes of the page", sha256: "4c8b99ea9828c1f602ad4b148a455d7b953b4612548f2345a6faefde414b3369", waived: "about the text"}` + "\n", "", `"from time to time": bind or waive sha256 4c8b`},
	} {
		file := strings.Replace(own.file, c.old, c.new, 1)
		if file == own.file {
			t.Fatalf("%s: the file has no %q", c.name, c.old)
		}
		p, err := policy.Parse("x.yaml", []byte(file))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		r := Check(p, own.text)
		if c.want == "" && !r.OK() || c.want != "" && !slices.ContainsFunc(r.Problems, func(p Problem) bool { return strings.Contains(p.What, c.want) }) {
			t.Errorf("%s: got %v, want %q", c.name, r.Problems, c.want)
		}
	}
}

// TestANumberThatNothingBinds binds another value to a sentence with a number.
func TestANumberThatNothingBinds(t *testing.T) {
	own := texts(t)[0]
	file := strings.NewReplacer("binds: rights.respond", "binds: rights.offered", "binds: [rights.offered, erasure.primary]", "binds: [rights.respond, erasure.primary]").Replace(own.file)
	p, err := policy.Parse("x.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range Check(p, own.text).find(Differs) {
		got = append(got, d.What)
	}
	want := []string{`rights.respond is 30d, the sentence says "at any time"`, `the sentence says "30-day", and no value that it binds does`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAPeriodThatTheTextSaysIsNotTheOperators(t *testing.T) {
	own := texts(t)[0]
	file := strings.NewReplacer("respond: 30d", "respond: operator", "  backup_max_age:", "  rights_respond: {value: 30d, basis: b, owner: o, review: 2027-01-01}\n  backup_max_age:").Replace(own.file)
	p, err := policy.Parse("x.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if got := Check(p, own.text).find(Differs); len(got) != 2 || !strings.Contains(got[0].What, "rights.respond is the operator's, the sentence says") {
		t.Errorf("got %v", got)
	}
}

func TestWriteNamesTheLines(t *testing.T) {
	own := texts(t)[0]
	text := strings.Replace(own.text, "seven years", "eight years", 1)
	r := Check(own.policy(t), text)
	var out bytes.Buffer
	if err := r.Write(&out, "page.txt", "policy.yaml"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"not found  2        invoices ", "page.txt: text changed: its SHA-256 is ", "policy.yaml:26: changed sentence: section 2, invoices: ",
		`page.txt:16: unmapped sentence: "eight years": bind or waive sha256 `, "NOT agreed: 3 problems\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
}

func TestReadText(t *testing.T) {
	folder := t.TempDir()
	for _, c := range []struct{ name, text, want string }{
		{"fine", "30 days", ""},
		{"bytes", "caf\xe9", "no text in UTF-8"},
		{"large", strings.Repeat("a", maxText+1), "larger than 256 KiB"},
	} {
		path := filepath.Join(folder, c.name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadText(path)
		if c.want == "" && (err != nil || got != c.text) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %q and %v", c.name, got, err)
		}
	}
	if _, err := ReadText(filepath.Join(folder, "none")); err == nil {
		t.Error("got no error for a file that is not there")
	}
}
