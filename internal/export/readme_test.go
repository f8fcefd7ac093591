package export

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestReadmeInjection shows that nothing from a policy or a key becomes markup.
func TestReadmeInjection(t *testing.T) {
	const evil = `</td><script>alert(1)</script><img src=x onerror=alert(2)>`
	o := order("user:" + evil)
	o.Notice = Notice{
		Policy: evil, Version: evil, Dated: evil, Recipients: []string{evil}, Regions: []string{evil}, Safeguards: []string{evil},
		Complaint: evil, Rights: []string{evil}, Respond: evil, Stores: []Store{{evil, evil, evil}},
		Classes: []Class{{Name: evil, Keep: evil, From: evil, Section: evil, Purposes: []string{evil}}},
	}
	var b bytes.Buffer
	if err := writeReadme(&b, o); err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && (n.Data == "script" || n.Data == "img") {
			t.Errorf("the page has an element %q", n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" {
				t.Errorf("the page has an attribute %q", a.Key)
			}
		}
		if n.Type == html.TextNode && strings.Contains(n.Data, evil) {
			texts++
		}
	}
	if want := 17; texts != want {
		t.Errorf("the text stands %d times, want %d", texts, want)
	}
}

func TestReadmeTells(t *testing.T) {
	o := order("user:u_42")
	o.Notice.Classes = []Class{{Name: "usage", Keep: "2y", From: "event", Section: "6", Purposes: []string{"security"}}}
	o.Notice.Recipients, o.Notice.Safeguards, o.Notice.Complaint = []string{"hoster-x"}, []string{"clauses-y"}, "authority-z"
	var b bytes.Buffer
	if err := writeReadme(&b, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usage", "security", "2y", "hoster-x", "clauses-y", "authority-z", "user:u_42", "manifest.json</code>. If that", "incomplete", "30d", Masked} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
