package query

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
)

//go:embed index.html.tmpl
var indexText string

var indexPage = template.Must(template.New("index").Parse(indexText))

// entry is one thing that can be opened.
type entry struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	About  string `json:"about"`
	// Roles may open it; none: everybody.
	Roles []Role `json:"roles"`
}

// about says in a line what a route answers.
var about = map[string]string{
	pathEvents:        "events by kind, time, user, organization, action, outcome, country, status or trace, newest first",
	pathSubjectKeys:   "the keys under which an e-mail or a session is known",
	pathSubjectEvents: "the events a person appears in",
	pathExport:        "all of a person's events as a ZIP for that person",
	pathErasures:      "requests to erase somebody or something, and how far they are",
	pathErasure:       "the receipt of an erasure",
	pathHolds:         "what must not go, and placing a hold",
	pathRelease:       "releasing a hold",
	pathRetention:     "what the policy promises per class, and what ClickHouse holds",
	pathProof:         "a verdict on every sentence of the published text, signed",
	pathOpenAPI:       "the description of this API",
}

// index answers / with a page for people and a list for programs.
func (s *Server) index(w http.ResponseWriter, r *http.Request, _ caller) error {
	var entries []entry
	for _, rt := range s.routes() {
		if text, ok := about[rt.path]; ok {
			entries = append(entries, entry{rt.method, rt.path, text, append([]Role{}, rt.roles...)})
		}
	}
	answer := struct {
		Service string  `json:"service"`
		Policy  string  `json:"policy"`
		Version string  `json:"version"`
		Routes  []entry `json:"routes"`
	}{"lethe query", s.o.Policy.Name, s.o.Policy.Version, entries}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return sendJSON(w, answer)
	}
	var b bytes.Buffer
	if err := indexPage.Execute(&b, answer); err != nil {
		return fmt.Errorf("fill index page: %w", err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
	return nil
}

// openAPI answers /openapi.yaml.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request, _ caller) error {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(s.o.OpenAPI)
	return nil
}
