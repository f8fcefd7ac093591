package query

import (
	"net/http"
	"slices"
	"strings"

	"github.com/lethe-audit/lethe/internal/retention"
)

// scope is what an erasure or a hold is of, as its body names it: exactly one of these.
type scope struct {
	Subjects     []string `json:"subjects"`
	Organization string   `json:"organization"`
	Workspace    string   `json:"workspace"`
	Project      string   `json:"project"`
	Deployment   string   `json:"deployment"`
	Log          *struct {
		Deployment string `json:"deployment"`
		Category   string `json:"data.category"`
	} `json:"log"`
}

const scopeShape = `Name one of "subjects": ["user:…", …], "organization", "workspace", "project", "deployment", or "log": {"deployment": "…", "data.category": "…"}.`

// keys returns the kind of the scope, and its keys as retention.Keys makes them from rows.
func (s *scope) keys() (kind string, keys []string, err error) {
	named := 0
	one := func(name, id string) error {
		named++
		if len(id) > maxValue {
			return errBadRequest.because("An id has at most 1024 bytes.")
		}
		if rawIdentifier(id) {
			return errRawIdentifier.because("An id is neither an e-mail nor an address.")
		}
		kind, keys = name, []string{name + ":" + id}
		return nil
	}
	if s.Subjects != nil {
		named++
		kind = "subject"
		if len(s.Subjects) == 0 || len(s.Subjects) > retention.MaxSubjects {
			return "", nil, errBadRequest.because("Name 1 to 100 subjects.")
		}
		for _, k := range s.Subjects {
			if err := checkKey(k); err != nil {
				return "", nil, err
			}
		}
		keys = slices.Compact(slices.Sorted(slices.Values(s.Subjects)))
	}
	for _, of := range [...]struct{ name, id string }{
		{"organization", s.Organization}, {"workspace", s.Workspace}, {"project", s.Project}, {"deployment", s.Deployment},
	} {
		if of.id != "" {
			if err := one(of.name, of.id); err != nil {
				return "", nil, err
			}
		}
	}
	if l := s.Log; l != nil {
		// A slash would make two logs one.
		if l.Deployment == "" || l.Category == "" || strings.Contains(l.Deployment+l.Category, "/") {
			return "", nil, errBadRequest.because("A log has a deployment and a data.category, without a slash.")
		}
		if err := one("log", l.Deployment+"/"+l.Category); err != nil {
			return "", nil, err
		}
	}
	if named != 1 {
		return "", nil, errBadRequest.because(scopeShape)
	}
	return kind, keys, nil
}

// request is what is asked to be erased or held.
type request struct {
	id     string // of what it makes
	kind   string // of the scope
	keys   []string
	hashes []string // keyed, of the keys
}

// requested reads a request to erase or to hold. body is a scope with more members; want
// says what it must be.
func (s *Server) requested(w http.ResponseWriter, r *http.Request, c caller, want string, body interface {
	keys() (kind string, keys []string, err error)
}) (q request, err error) {
	if err := ofAll(c); err != nil {
		return q, err
	}
	if err := decode(w, r, body, want); err != nil {
		return q, err
	}
	if q.kind, q.keys, err = body.keys(); err != nil {
		return q, err
	}
	for _, k := range q.keys {
		q.hashes = append(q.hashes, s.o.Keys.Fingerprints(k)[0])
	}
	q.id, err = s.requestID(r, c)
	return q, err
}
