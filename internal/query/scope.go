package query

import (
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
