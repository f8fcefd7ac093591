package publish

import (
	"errors"
	"io"
	"syscall"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/certs"
)

// errWantsTLS is what a connection without TLS ends with when the other side
// speaks TLS.
var errWantsTLS = errors.New("the answer is TLS")

// Problem is a connection to Kafka that failed for a reason that settings,
// certificates or permissions have to do with. Its text is a sentence for the
// operator; it holds no password, no user and nothing that the broker wrote.
type Problem struct {
	say    string
	kind   error // ErrRefused, ErrTLS or nil
	cause  error
	person bool
}

// Error says what is wrong and which setting to look at.
func (p *Problem) Error() string { return p.say }

// NeedsPerson reports that the same settings are refused until somebody mends
// something, here or at the broker. Another try finds out.
func (p *Problem) NeedsPerson() bool { return p.person }

// Unwrap gives the kind and what kafka-go said, whose text MUST NOT be shown.
func (p *Problem) Unwrap() []error {
	if p.kind == nil {
		return []error{p.cause}
	}
	return []error{p.kind, p.cause}
}

var refusals = []struct {
	code kafka.Error
	say  string
}{
	{kafka.SASLAuthenticationFailed, "Kafka refused the login: check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, and that this user may log in by KAFKA_SASL_MECHANISM"},
	{kafka.UnsupportedSASLMechanism, "the broker knows no login of this kind at this port: check KAFKA_SASL_MECHANISM and the port in KAFKA_BROKERS"},
	{kafka.IllegalSASLState, "the broker takes no login at this port: check KAFKA_SASL_MECHANISM and the port in KAFKA_BROKERS"},
	{kafka.TopicAuthorizationFailed, "Kafka does not let this user use a topic: check its permissions"},
	{kafka.GroupAuthorizationFailed, "Kafka does not let this user join the consumer group: check its permissions and KAFKA_GROUP"},
	{kafka.ClusterAuthorizationFailed, "Kafka does not let this user ask about the cluster: check its permissions"},
}

var tlsSettings = certs.Settings{
	CA: "KAFKA_TLS_CA", ServerName: "KAFKA_TLS_SERVER_NAME", Cert: "KAFKA_TLS_CERT and KAFKA_TLS_KEY",
	On: "KAFKA_TLS and the port in KAFKA_BROKERS",
}

// Diagnose returns a *Problem where it knows what a failure of kafka-go has to
// do with TLS, login or permissions, and any other error as it is.
func Diagnose(err error) error {
	var known *Problem
	if err == nil || errors.As(err, &known) {
		return err
	}
	for _, r := range refusals {
		if errors.Is(err, r.code) {
			return &Problem{r.say, ErrRefused, err, true}
		}
	}
	if errors.Is(err, errWantsTLS) {
		return &Problem{"the broker speaks TLS at this port: check KAFKA_TLS and the port in KAFKA_BROKERS", ErrTLS, err, true}
	}
	if say := certs.Explain(err, "the broker", tlsSettings); say != "" {
		return &Problem{say, ErrTLS, err, true}
	}
	// A broker that stops does this, and one that wanted something else to begin with.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return &Problem{"the broker closed the connection: where that stays so, check KAFKA_TLS, KAFKA_SASL_* and the port in KAFKA_BROKERS", ErrUnreachable, err, false}
	}
	return err
}
