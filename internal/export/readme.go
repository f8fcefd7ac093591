package export

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

// Notice is what the policy promises a person, in the policy file's words.
// Empty members are left out of the README or, where a person has a right to
// know, shown as not stated.
type Notice struct {
	Policy, Version string
	// Dated is the date of the published text, such as "2024-01-01".
	Dated   string
	Classes []Class
	// Recipients are who else receives the data, Regions where it is stored,
	// Safeguards what protects it where it leaves the region.
	Recipients, Regions, Safeguards []string
	// Complaint says where a person can complain.
	Complaint string
	// Rights are the rights the policy offers, Respond the period of an answer.
	Rights  []string
	Respond string
	Stores  []Store
}

// Class is one kind of record, for how long it is kept and why.
type Class struct {
	Name string
	// Keep is the period in words, From what it counts from.
	Keep, From string
	// Section is the section of the published text.
	Section  string
	Purposes []string
}

//go:embed readme.html.tmpl
var readmeText string

var readmePage = template.Must(template.New("README.html").Parse(readmeText))

type readmeData struct {
	Notice
	Created      string
	Keys         []string
	Masked       string
	AccessPrefix string
}

func writeReadme(w io.Writer, o Order) error {
	err := readmePage.Execute(w, readmeData{
		Notice: o.Notice, Created: o.Now.UTC().Format("2 January 2006, 15:04 UTC"),
		Keys: o.Keys, Masked: Masked, AccessPrefix: AccessPrefix,
	})
	if err != nil {
		return fmt.Errorf("fill page: %w", err)
	}
	return nil
}
