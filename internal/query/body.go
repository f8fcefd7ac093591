package query

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 8 << 10

// decode reads the body of a request into v, a struct. want is a sentence that says
// what it must be.
func decode(w http.ResponseWriter, r *http.Request, v any, want string) error {
	if r.URL.RawQuery != "" {
		return errBadRequest.because("What identifies a person goes into the body, not into the URL.")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return errMediaType.because("Send Content-Type: application/json.")
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return errBodyTooLarge.because("At most 8 KiB.")
	case err != nil || dec.Decode(new(any)) != io.EOF:
		return errBadRequest.because(want)
	}
	return nil
}
