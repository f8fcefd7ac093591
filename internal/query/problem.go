package query

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// problemType is one of the closed list of problems that an answer can have. It
// is an error, so that handlers return it.
type problemType struct {
	name   string
	status int
	title  string
}

// typePrefix begins the type URI of every problem.
const typePrefix = "urn:lethe:problem:"

// The problems, all of them; openapi.yaml lists the same.
var (
	errBadRequest    = &problemType{"bad_request", http.StatusBadRequest, "The request is not understood"}
	errBadCursor     = &problemType{"bad_cursor", http.StatusBadRequest, "The cursor does not belong to this query"}
	errRawIdentifier = &problemType{"raw_identifier", http.StatusBadRequest, "An e-mail address or a session id may not stand in a URL"}
	errNoToken       = &problemType{"unauthenticated", http.StatusUnauthorized, "A valid bearer token is needed"}
	errForbidden     = &problemType{"forbidden", http.StatusForbidden, "The token does not allow this"}
	errNoPurpose     = &problemType{"purpose_required", http.StatusForbidden, "A purpose is needed"}
	errNotVerified   = &problemType{"identity_not_verified", http.StatusForbidden, "The identity of the person is not verified"}
	errNotFound      = &problemType{"not_found", http.StatusNotFound, "There is nothing at this address"}
	errMethod        = &problemType{"method_not_allowed", http.StatusMethodNotAllowed, "The method is not allowed here"}
	errBodyTooLarge  = &problemType{"body_too_large", http.StatusRequestEntityTooLarge, "The body is too large"}
	errMediaType     = &problemType{"unsupported_media_type", http.StatusUnsupportedMediaType, "The body must be JSON"}
	errQueryTooLarge = &problemType{"query_too_large", http.StatusUnprocessableEntity, "The query reads too much"}
	errInternal      = &problemType{"internal", http.StatusInternalServerError, "The service made a mistake"}
	errAudit         = &problemType{"audit_unavailable", http.StatusServiceUnavailable, "The consultation could not be recorded, so nothing was sent"}
	errRestoring     = &problemType{"restore_unfinished", http.StatusServiceUnavailable, "The database is not complete yet, so nothing is shown"}
	errStorage       = &problemType{"storage_unavailable", http.StatusServiceUnavailable, "The database does not answer"}
)

var problemTypes = []*problemType{
	errBadRequest, errBadCursor, errRawIdentifier, errNoToken, errForbidden, errNoPurpose, errNotVerified, errNotFound,
	errMethod, errBodyTooLarge, errMediaType, errQueryTooLarge, errInternal, errAudit, errRestoring, errStorage,
}

// Error returns the problem's name.
func (p *problemType) Error() string { return p.name }

// problem is an occurrence of a problem with a sentence for the caller.
type problem struct {
	*problemType
	detail string
	allow  string // the methods that are allowed, for errMethod
	err    error  // for the log
}

func (p *problem) Error() string {
	if p.err != nil {
		return p.name + ": " + p.err.Error()
	}
	return p.name + ": " + p.detail
}

func (p *problem) Unwrap() []error { return []error{p.problemType, p.err} }

// because adds a sentence for the caller. It MUST NOT hold what the caller sent.
func (p *problemType) because(detail string) error { return &problem{problemType: p, detail: detail} }

// answerTo returns the problem that answers an error; what nobody foresaw is
// errInternal, without a word about it.
func answerTo(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var t *problemType
	if errors.As(err, &t) {
		return &problem{problemType: t, err: err}
	}
	var large interface{ TooLarge() bool }
	if errors.As(err, &large) && large.TooLarge() || errors.Is(err, context.DeadlineExceeded) {
		return &problem{problemType: errQueryTooLarge, detail: "Ask for a shorter time range or add a filter.", err: err}
	}
	var permanent interface{ Permanent() bool }
	if errors.As(err, &permanent) && !permanent.Permanent() {
		return &problem{problemType: errStorage, detail: "Try again in a few seconds.", err: err}
	}
	return &problem{problemType: errInternal, err: err}
}

// write sends the problem as RFC 9457 says.
func (p *problem) write(w http.ResponseWriter, requestID string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Del("Content-Disposition")
	switch p.problemType {
	case errNoToken:
		h.Set("WWW-Authenticate", `Bearer realm="lethe"`)
	case errMethod:
		h.Set("Allow", p.allow)
	case errAudit, errRestoring, errStorage:
		h.Set("Retry-After", strconv.Itoa(5))
	}
	body, _ := json.Marshal(struct { // strings and a number: nothing here can fail
		Type     string `json:"type"`
		Title    string `json:"title"`
		Status   int    `json:"status"`
		Detail   string `json:"detail,omitempty"`
		Instance string `json:"instance,omitempty"`
	}{typePrefix + p.name, p.title, p.status, p.detail, "urn:lethe:request:" + requestID})
	w.WriteHeader(p.status)
	w.Write(append(body, '\n'))
}
