package query

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

var hashForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,16}:[0-9a-f]{32}$`)

// checkKey returns nil for a key of a person in the form that rows have:
// user:…, device:…, email:<key id>:<hash>, session:<key id>:<hash>.
func checkKey(key string) error {
	prefix, id, _ := strings.Cut(key, ":")
	switch {
	case id == "" || len(key) > maxValue:
	case prefix == "user" || prefix == "device":
		if !rawIdentifier(id) {
			return nil
		}
		return errRawIdentifier.because("Ask POST /v1/subject-keys for the key of an e-mail.")
	case prefix == "email" || prefix == "session":
		if hashForm.MatchString(id) {
			return nil
		}
		return errRawIdentifier.because("Ask POST /v1/subject-keys for the key of an e-mail or a session.")
	}
	if rawIdentifier(key) {
		return errRawIdentifier.because("Ask POST /v1/subject-keys for the key of an e-mail.")
	}
	return errBadRequest.because("A person's key is user:…, device:…, email:<key id>:<hash> or session:<key id>:<hash>.")
}

// pathKey returns the person's key in the path.
func pathKey(r *http.Request) ([]string, error) {
	key := r.PathValue("key")
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return []string{key}, nil
}

// subjectKeys answers the keys under which rows know an e-mail or a session.
// It reads no row, so that it is no consultation.
func (s *Server) subjectKeys(w http.ResponseWriter, r *http.Request, _ caller) error {
	var body struct {
		Email   string `json:"email"`
		Session string `json:"session"`
	}
	if err := decode(w, r, &body, `The body must be one object: {"email": "…"}, {"session": "…"} or both.`); err != nil {
		return err
	}
	keys := []string{}
	for _, h := range s.o.Keys.Email(body.Email) {
		keys = append(keys, "email:"+h)
	}
	for _, h := range s.o.Keys.Session(body.Session) {
		keys = append(keys, "session:"+h)
	}
	if len(keys) == 0 {
		return errBadRequest.because(`The body must name an e-mail or a session: {"email": "…"}.`)
	}
	return sendJSON(w, struct {
		Keys []string `json:"keys"`
	}{keys})
}

// sendJSON sends a small answer that holds no row.
func sendJSON(w http.ResponseWriter, v any) error { return sendStatus(w, http.StatusOK, v) }

func sendStatus(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
	return nil
}
