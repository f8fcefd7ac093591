package embedded

import (
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// exception is an error as ClickHouse words it: "Code: 60. DB::Exception: …".
type exception struct {
	code int
	text string
}

func (e *exception) Error() string { return e.text }

// Codes that the door itself answers with or looks for.
const (
	codeBadArguments     = 36
	codeNotImplemented   = 48
	codeSyntaxError      = 62
	codeCannotDecompress = 271
	codeCancelled        = 394
	codeCannotRead       = 33
	codeAuthentication   = 516
	codeUnknown          = 1002
)

var exceptionCode = regexp.MustCompile(`^Code: (\d+)\.`)

// newException reads the code out of an engine's text.
func newException(text string) *exception {
	text = strings.TrimSpace(text)
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		if code, err := strconv.Atoi(m[1]); err == nil {
			return &exception{code: code, text: text}
		}
	}
	return makeException(codeUnknown, "UNKNOWN_EXCEPTION", text)
}

// makeException words an error of the door in the same way.
func makeException(code int, name, message string) *exception {
	return &exception{code: code, text: "Code: " + strconv.Itoa(code) + ". DB::Exception: " + message + ". (" + name + ")"}
}

// asException words any error as an exception.
func asException(err error) *exception {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	return makeException(codeUnknown, "UNKNOWN_EXCEPTION", err.Error())
}

// status is the HTTP status that a ClickHouse server gives the code.
func (e *exception) status() int {
	switch e.code {
	case 194: // REQUIRED_PASSWORD
		return http.StatusUnauthorized
	case 192, 193, 291, 497, codeAuthentication: // unknown user, wrong password, access denied
		return http.StatusForbidden
	case 6, 25, 26, 27, 32, 33, 38, 41, 43, 44, 50, 53, 57, 58, codeSyntaxError, 69, 70, 72, 82, 130, 131, 159, 456, 457:
		if e.code == 159 { // TIMEOUT_EXCEEDED
			return http.StatusRequestTimeout
		}
		return http.StatusBadRequest
	case 16, 46, 47, 56, 60, 73, 81, 115: // an unknown table, column, function, format, setting …
		return http.StatusNotFound
	case 307, 191: // too many bytes, set size
		return http.StatusRequestEntityTooLarge
	case codeNotImplemented:
		return http.StatusNotImplemented
	case 202: // TOO_MANY_SIMULTANEOUS_QUERIES
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// errNotStreamable reports whether the engine refused to stream a statement
// because it is no SELECT. It has then not been run.
func errNotStreamable(err error) bool {
	var e *exception
	return errors.As(err, &e) && e.code == codeBadArguments &&
		strings.HasPrefix(e.text, "Code: 36. DB::Exception: Streaming query is not supported for query")
}
