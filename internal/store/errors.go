package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/certs"
)

// ErrTooLarge says that a read needed more time, memory or rows than one query
// may use. Errors that match it answer true to TooLarge.
var ErrTooLarge = errors.New("the query is too large")

// Error is a failed call. Its text names ClickHouse's error, never its message:
// that quotes statements and values.
type Error struct {
	op    string
	code  proto.Error // 0: not an answer of the server
	cause error       // of a call that had no answer, free of values
}

// Code returns ClickHouse's error code; 0 where the server gave no answer.
func (e *Error) Code() int { return int(e.code) }

// Permanent reports that the same rows will be refused again: the server read them
// and says that a value is wrong. Everything else is worth another try: too many
// parts, memory, time, network, a full or read-only disk, a missing table or right.
func (e *Error) Permanent() bool { return permanent[e.code] }

// TooLarge reports that a read went over its bounds.
func (e *Error) TooLarge() bool { return tooLarge[e.code] }

// NeedsPerson reports that ClickHouse refused the login, or that one side does
// not trust the other's certificate. Another try finds out when that is mended.
func (e *Error) NeedsPerson() bool {
	var untrusted *untrustedError
	return refused[e.code] || errors.As(e.cause, &untrusted)
}

// Error names the operation and ClickHouse's error.
func (e *Error) Error() string {
	if e.code == 0 {
		return fmt.Sprintf("%s: %v", e.op, e.cause)
	}
	name := "unknown error"
	if e.code.IsAError() {
		name = e.code.String()
	}
	text := fmt.Sprintf("%s: ClickHouse says %s (code %d)", e.op, name, int(e.code))
	if refused[e.code] {
		text += ": check user and password in CLICKHOUSE_DSN, and what that user may do"
	}
	return text
}

// untrustedError is a TLS connection that did not come about.
type untrustedError struct{ say string }

func (e *untrustedError) Error() string { return e.say }

// Diagnose turns an error of a client library into an Error where the login or
// a certificate was refused, and returns any other as it is. It is for migrate's
// errors, which no Store has seen.
func Diagnose(op string, err error) error {
	var e *Error
	if errors.As(wrap(op, err), &e) && e.NeedsPerson() {
		return e
	}
	return err
}

// Is matches ErrTooLarge.
func (e *Error) Is(target error) bool { return target == ErrTooLarge && e.TooLarge() }

// Unwrap gives the cause of a call that had no answer, such as context.Canceled.
func (e *Error) Unwrap() error { return e.cause }

// permanent are the errors that a value can cause. One of the tables' own, such as
// a column that is gone or of a type that does not fit any more, is retried like a
// missing table: it is not cured by leaving rows out.
var permanent = map[proto.Error]bool{
	proto.ErrCannotParseText:                  true,
	proto.ErrCannotParseNumber:                true,
	proto.ErrCannotParseInputAssertionFailed:  true,
	proto.ErrCannotParseDate:                  true,
	proto.ErrCannotParseDatetime:              true,
	proto.ErrCannotParseBool:                  true,
	proto.ErrCannotParseUUID:                  true,
	proto.ErrCannotParseIpv4:                  true,
	proto.ErrCannotParseIpv6:                  true,
	proto.ErrCannotInsertNullInOrdinaryColumn: true,
	proto.ErrArgumentOutOfBound:               true,
	proto.ErrIncorrectData:                    true,
	proto.ErrTooLargeStringSize:               true,
	proto.ErrTooLargeArraySize:                true,
	proto.ErrUnknownElementOfEnum:             true,
	proto.ErrValueIsOutOfRangeOfDataType:      true,
	proto.ErrDecimalOverflow:                  true,
	proto.ErrIllegalDivision:                  true,
	proto.ErrFunctionThrowIfValueIsNonZero:    true,
	proto.ErrViolatedConstraint:               true,
	proto.ErrSizesOfArraysDoesntMatch:         true,
}

var refused = map[proto.Error]bool{
	proto.ErrUnknownUser:          true,
	proto.ErrWrongPassword:        true,
	proto.ErrRequiredPassword:     true,
	proto.ErrIPAddressNotAllowed:  true,
	proto.ErrAccessDenied:         true,
	proto.ErrAuthenticationFailed: true,
}

var tooLarge = map[proto.Error]bool{
	proto.ErrTimeoutExceeded:      true,
	proto.ErrTooSlow:              true,
	proto.ErrMemoryLimitExceeded:  true,
	proto.ErrTooManyRows:          true,
	proto.ErrTooManyBytes:         true,
	proto.ErrTooManyRowsOrBytes:   true,
	proto.ErrSetSizeLimitExceeded: true,
}

// wrap turns what a client library returned into an Error. It is the one place
// where its text could come into ours.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	e := &Error{op: op}
	var overHTTP *clickhouse.Exception
	var native *ch.Exception
	switch {
	case errors.As(err, &overHTTP):
		e.code = proto.Error(overHTTP.Code)
	case errors.As(err, &native):
		e.code = native.Code
	default:
		e.cause = cause(err)
	}
	return e
}

// cause keeps of an error only what cannot hold a value: contexts, the network,
// the end of a stream. A URL error is opened, because its URL holds parameters.
func cause(err error) error {
	var in *url.Error
	for errors.As(err, &in) {
		err = in.Err
	}
	if say := certs.Explain(err, "ClickHouse", certs.Settings{CA: "CLICKHOUSE_TLS_CA", ServerName: "the host in CLICKHOUSE_DSN", On: "the port in CLICKHOUSE_DSN"}); say != "" {
		return &untrustedError{say}
	}
	var network *net.OpError
	var name *net.DNSError
	var number syscall.Errno
	var status *clickhouse.HTTPError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &network):
		return network
	case errors.As(err, &name):
		return name
	case errors.As(err, &number):
		return number
	case errors.As(err, &status):
		return fmt.Errorf("the server answered with HTTP status %d", status.StatusCode)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("no usable answer (%T)", err)
}
