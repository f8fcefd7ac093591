package query

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
)

// handler answers a request, or returns the error that mux turns into a
// problem. It MUST NOT write before it is sure not to return an error.
type handler func(w http.ResponseWriter, r *http.Request, c caller) error

// route is one thing that can be asked for, and by whom.
type route struct {
	method string
	path   string // the template: the only form of a path in logs, metrics and records
	roles  []Role // nobody else; none: everybody, without a token
	handle handler
	rows   bool // shows rows: not while the database is incomplete
}

const (
	pathEvents        = "/v1/events"
	pathSubjectKeys   = "/v1/subject-keys"
	pathSubjectEvents = "/v1/subjects/{key}/events"
	pathExport        = "/v1/subjects/{key}/export"
	pathErasures      = "/v1/erasures"
	pathErasure       = "/v1/erasures/{id}"
	pathHolds         = "/v1/holds"
	pathRelease       = "/v1/holds/{id}/release"
	pathRetention     = "/v1/retention"
	pathProof         = "/v1/retention/proof"
	pathOpenAPI       = "/openapi.yaml"
	pathIndex         = "/{$}"
	pathUnknown       = "/"
)

// routes is the whole API. What is not here does not exist, and a role that a
// route does not name is refused.
func (s *Server) routes() []route {
	readers := []Role{Investigator, Officer}
	return []route{
		{http.MethodGet, pathEvents, readers, s.events, true},
		{http.MethodPost, pathSubjectKeys, readers, s.subjectKeys, false},
		{http.MethodGet, pathSubjectEvents, readers, s.subjectEvents, true},
		{http.MethodGet, pathExport, []Role{Officer}, s.export, true},
		{http.MethodPost, pathErasures, []Role{Officer}, s.erase, false},
		{http.MethodGet, pathErasures, []Role{Officer}, s.erasures, false},
		{http.MethodGet, pathErasure, []Role{Officer}, s.erasure, false},
		{http.MethodPost, pathHolds, []Role{Officer}, s.hold, false},
		{http.MethodGet, pathHolds, []Role{Officer}, s.holds, false},
		{http.MethodPost, pathRelease, []Role{Officer}, s.release, false},
		{http.MethodGet, pathRetention, allRoles, s.retention, false},
		{http.MethodGet, pathProof, []Role{Officer, Auditor}, s.proof, false},
		{http.MethodGet, pathOpenAPI, nil, s.openAPI, false},
		{http.MethodGet, pathIndex, nil, s.index, false},
	}
}

func (s *Server) mux() http.Handler {
	m := http.NewServeMux()
	allowed := map[string]string{}
	for _, r := range s.routes() {
		m.Handle(r.method+" "+r.path, s.wrap(r))
		methods := r.method
		if methods == http.MethodGet {
			methods = "GET, HEAD"
		}
		if before := allowed[r.path]; before != "" {
			methods = before + ", " + methods
		}
		allowed[r.path] = methods
	}
	for path, allow := range allowed {
		m.Handle(path, s.wrap(route{path: path, handle: func(http.ResponseWriter, *http.Request, caller) error {
			return &problem{problemType: errMethod, detail: "Allowed: " + allow + ".", allow: allow}
		}}))
	}
	m.Handle(pathUnknown, s.wrap(route{path: pathUnknown, handle: func(http.ResponseWriter, *http.Request, caller) error {
		return errNotFound.because("See / for what can be opened.")
	}}))
	return m
}

// authorize returns who asks, if the route lets them.
func (s *Server) authorize(rt route, r *http.Request) (caller, error) {
	if len(rt.roles) == 0 {
		return caller{}, nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return caller{}, errNoToken.because("Send the header Authorization: Bearer with your token.")
	}
	c, ok := s.o.Tokens.find(strings.TrimSpace(token))
	if !ok {
		return caller{}, errNoToken.because("The token is not known.")
	}
	if !slices.Contains(rt.roles, c.Role) {
		return c, errForbidden.because("The role " + string(c.Role) + " may not do this.")
	}
	return c, nil
}

func newRequestID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
