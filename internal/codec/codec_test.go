package codec

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// envelopeWith is a structured event around that data.
func envelopeWith(data string) string {
	return `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-31T10:00:00Z","data":` + data + `}`
}

const (
	auditOK   = `"event.action":"a.b","event.outcome":"success"`
	requestOK = `"http.request.method":"GET","http.response.status_code":200`
)

func auditWith(more string) string { return envelopeWith(`{` + auditOK + more + `}`) }

func requestWith(more string) string { return envelopeWith(`{` + requestOK + more + `}`) }

func decode(t *testing.T, k event.Kind, value string, headers ...Header) (*event.Event, *Error) {
	t.Helper()
	e := new(event.Event)
	err := NewDecoder().Decode(k, []byte(value), headers, e)
	if err == nil {
		return e, nil
	}
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("got error %T, want *Error", err)
	}
	return e, refused
}

// nested is a value of n objects or arrays inside each other.
func nested(n int) string {
	s := "1"
	for i := range n {
		if i%2 == 0 {
			s = "[" + s + "]"
		} else {
			s = `{"a":` + s + `}`
		}
	}
	return s
}

// manyKeys is an object body of n keys, the last one repeated if twice.
func manyKeys(n int, twice bool) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":0`, i)
	}
	if twice {
		fmt.Fprintf(&b, `,"k%d":0`, n-1)
	}
	return b.String()
}

func TestReasons(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		name      string
		kind      event.Kind
		value     string
		reason    Reason
		attribute string
	}{
		{"nothing", event.Audit, "", Empty, ""},
		{"too large", event.Audit, auditWith(`,"x":"` + strings.Repeat("x", MaxValue) + `"`), TooLarge, ""},
		{"not UTF-8", event.Audit, auditWith(",\"x\":\"\xff\""), NotUTF8, ""},
		{"UTF-8 surrogate", event.Audit, auditWith(",\"x\":\"\xed\xa0\x80\""), NotUTF8, ""},
		{"space", event.Audit, "  ", NotJSON, ""},
		{"byte order mark", event.Audit, "\ufeff" + auditWith(""), NotJSON, ""},
		{"words", event.Audit, "hello", NotJSON, ""},
		{"cut off", event.Audit, auditWith("")[:40], NotJSON, ""},
		{"trailing data", event.Audit, auditWith("") + "{}", NotJSON, ""},
		{"trailing comma", event.Audit, auditWith(","), NotJSON, ""},
		{"leading comma", event.Audit, envelopeWith(`{,` + auditOK + `}`), NotJSON, ""},
		{"no colon", event.Audit, auditWith(`,"x" 1`), NotJSON, ""},
		{"single quotes", event.Audit, auditWith(`,'x':1`), NotJSON, ""},
		{"control character", event.Audit, auditWith(",\"x\":\"\n\""), NotJSON, ""},
		{"control character behind an escape", event.Audit, auditWith(",\"x\":\"\\n\n\""), NotJSON, ""},
		{"bad escape", event.Audit, auditWith(`,"x":"\x"`), NotJSON, ""},
		{"bad unit", event.Audit, auditWith(`,"x":"\u12g4"`), NotJSON, ""},
		{"leading zero", event.Audit, auditWith(`,"x":01`), NotJSON, ""},
		{"plus", event.Audit, auditWith(`,"x":+1`), NotJSON, ""},
		{"bare point", event.Audit, auditWith(`,"x":1.`), NotJSON, ""},
		{"bare exponent", event.Audit, auditWith(`,"x":1e+`), NotJSON, ""},
		{"NaN", event.Audit, auditWith(`,"x":NaN`), NotJSON, ""},
		{"word cut off", event.Audit, auditWith(`,"x":nul`), NotJSON, ""},
		{"array without comma", event.Audit, auditWith(`,"x":[1 2]`), NotJSON, ""},
		{"array with trailing comma", event.Audit, auditWith(`,"x":[1,]`), NotJSON, ""},
		{"array", event.Audit, "[" + auditWith("") + "]", NotObject, ""},
		{"string", event.Audit, `"x"`, NotObject, ""},
		{"nine deep", event.Audit, auditWith(`,"x":` + nested(7)), TooDeep, ""},
		{"deep without end", event.Audit, strings.Repeat("[", 100), TooDeep, ""},
		{"envelope key twice", event.Audit, strings.Replace(auditWith(""), `"id":"1"`, `"id":"1","id":"1"`, 1), DuplicateKey, ""},
		{"extension twice", event.Audit, strings.Replace(auditWith(""), `"id":"1"`, `"id":"1","x":1,"x":2`, 1), DuplicateKey, ""},
		{"ignored key twice", event.Audit, strings.Replace(auditWith(""), `"id":"1"`, `"id":"1","subject":"a","subject":"a"`, 1), DuplicateKey, ""},
		{"attribute twice", event.Audit, auditWith(`,"event.action":"a.b"`), DuplicateKey, ""},
		{"attribute twice, once null", event.Audit, auditWith(`,"user.id":null,"user.id":"a"`), DuplicateKey, ""},
		{"attribute twice, once escaped", event.Audit, auditWith(`,"event\u002eaction":"a.b"`), DuplicateKey, ""},
		{"attribute of another kind twice", event.Audit, auditWith(`,"http.route":"a","http.route":"a"`), DuplicateKey, ""},
		{"unknown twice", event.Audit, auditWith(`,"x":1,"x":1`), DuplicateKey, ""},
		{"the last of many twice", event.Audit, auditWith(manyKeys(1000, true)), DuplicateKey, ""},
		{"inside unknown twice", event.Audit, auditWith(`,"x":[{"y":1,"z":1,"y":1}]`), DuplicateKey, ""},
		{"metadata key twice", event.Audit, auditWith(`,"metadata":{"a":"1","a":"2"}`), DuplicateKey, ""},
		{"refused metadata key twice", event.Audit, auditWith(`,"metadata":{"cookie":"1","cookie":"2"}`), DuplicateKey, ""},

		{"nothing of an event", event.Audit, `{}`, MissingAttribute, "specversion"},
		{"no id", event.Audit, strings.Replace(auditWith(""), `"id":"1",`, ``, 1), MissingAttribute, "id"},
		{"empty id", event.Audit, strings.Replace(auditWith(""), `"id":"1",`, `"id":"",`, 1), MissingAttribute, "id"},
		{"null source", event.Audit, strings.Replace(auditWith(""), `"/s"`, `null`, 1), MissingAttribute, "source"},
		{"number as type", event.Audit, strings.Replace(auditWith(""), `"t"`, `1`, 1), WrongType, "type"},
		{"other version", event.Audit, strings.Replace(auditWith(""), `"1.0"`, `"0.3"`, 1), WrongValue, "specversion"},
		{"long id", event.Audit, strings.Replace(auditWith(""), `"id":"1"`, `"id":"`+long+`"`, 1), AttributeTooLong, "id"},
		{"long source", event.Audit, strings.Replace(auditWith(""), `"/s"`, `"`+long+`"`, 1), AttributeTooLong, "source"},
		{"long type", event.Audit, strings.Replace(auditWith(""), `"t"`, `"`+long+`"`, 1), AttributeTooLong, "type"},
		{"no time", event.Audit, strings.Replace(auditWith(""), `"time":"2026-01-31T10:00:00Z",`, ``, 1), MissingAttribute, "time"},
		{"time before 2000", event.Audit, strings.Replace(auditWith(""), `2026`, `1999`, 1), TimeOutOfRange, "time"},
		{"time that cannot be stored", event.Audit, strings.Replace(auditWith(""), `2026`, `2200`, 1), TimeOutOfRange, "time"},
		{"time in words", event.Audit, strings.Replace(auditWith(""), `2026`, `last year`, 1), TimeOutOfRange, "time"},
		{"no data", event.Audit, `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-31T10:00:00Z"}`, MissingAttribute, "data"},
		{"data is text", event.Audit, envelopeWith(`"{}"`), WrongType, "data"},
		{"no action", event.Audit, envelopeWith(`{"event.outcome":"success"}`), MissingAttribute, "event.action"},
		{"null action", event.Audit, envelopeWith(`{"event.action":null,"event.outcome":"success"}`), MissingAttribute, "event.action"},
		{"action is a list", event.Audit, envelopeWith(`{"event.action":["a"],"event.outcome":"success"}`), WrongType, "event.action"},
		{"outcome", event.Audit, envelopeWith(`{"event.action":"a.b","event.outcome":"ok"}`), WrongValue, "event.outcome"},
		{"no status", event.Request, envelopeWith(`{"http.request.method":"GET"}`), MissingAttribute, "http.response.status_code"},
		{"status as text", event.Request, envelopeWith(`{"http.request.method":"GET","http.response.status_code":"200"}`), WrongType, "http.response.status_code"},
		{"status with a fraction", event.Request, envelopeWith(`{"http.request.method":"GET","http.response.status_code":200.5}`), WrongValue, "http.response.status_code"},
		{"huge number", event.Request, requestWith(`,"http.server.request.duration":1e999`), WrongValue, "http.server.request.duration"},
		{"negative size", event.Request, requestWith(`,"http.response.body.size":-1`), WrongValue, "http.response.body.size"},
		{"short trace id", event.Request, requestWith(`,"trace_id":"4bf9"`), WrongValue, "trace_id"},
		{"span id of other letters", event.Request, requestWith(`,"span_id":"00f067aa0ba902bg"`), WrongValue, "span_id"},
		{"long user id", event.Request, requestWith(`,"user.id":"` + long + `"`), AttributeTooLong, "user.id"},
		{"boolean as number", event.Security, auditWith(`,"authentication.is_mfa":1`), WrongType, "authentication.is_mfa"},
		{"owner of the wrong type", event.Audit, auditWith(`,"target.owner.id":7`), WrongType, "target.owner.id"},
		{"one owner of the wrong type", event.Audit, auditWith(`,"target.owner.id":["a",7]`), WrongType, "target.owner.id"},
		{"long owner", event.Audit, auditWith(`,"target.owner.id":["` + long + `"]`), AttributeTooLong, "target.owner.id"},
		{"too many owners", event.Audit, auditWith(`,"target.owner.id":["a"` + strings.Repeat(`,"a"`, event.MaxOwners) + `]`), AttributeTooLong, "target.owner.id"},
		{"metadata is a list", event.Audit, auditWith(`,"metadata":[]`), WrongType, "metadata"},
		{"metadata of numbers", event.Audit, auditWith(`,"metadata":{"a":1}`), WrongType, "metadata"},
		{"long metadata key", event.Audit, auditWith(`,"metadata":{"` + strings.Repeat("k", 41) + `":"v"}`), AttributeTooLong, "metadata"},
		{"too many metadata keys", event.Audit, auditWith(`,"metadata":{"a":"b"` + strings.ReplaceAll(manyKeys(50, false), ":0", `:"v"`) + `}`), AttributeTooLong, "metadata"},
		{"the first of two problems", event.Audit, auditWith(`,"user.id":1,"trace_id":"x"`), WrongType, "user.id"},
		{"form before problems", event.Audit, auditWith(`,"user.id":1,"x":01`), NotJSON, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, got := decode(t, c.kind, c.value)
			if got == nil || got.Reason != c.reason || got.Attribute != c.attribute {
				t.Fatalf("got %v, want %s %s", got, c.reason, c.attribute)
			}
			if got.Redactable() != (c.attribute != "") {
				t.Errorf("Redactable: got %t", got.Redactable())
			}
			if !got.Redactable() && (e.ID != "" || e.Has != 0 || e.Unknown != 0) {
				t.Error("a refused record left something in the event")
			}
		})
	}
}

func TestBoundsThemselvesAreAllowed(t *testing.T) {
	full := auditWith(`,"x":"` + strings.Repeat("x", MaxValue-len(auditWith(`,"x":""`))) + `"`)
	for _, c := range []struct{ name, value string }{
		{"largest value", full},
		{"eight deep", auditWith(`,"x":` + nested(6))},
		{"1000 keys", auditWith(manyKeys(1000, false))},
		{"2000 owners", auditWith(`,"target.owner.id":["a"` + strings.Repeat(`,"a"`, event.MaxOwners-1) + `]`)},
		{"50 metadata keys", auditWith(`,"metadata":{` + strings.ReplaceAll(manyKeys(50, false), ":0", `:"v"`)[1:] + `}`)},
		{"40 bytes of metadata key", auditWith(`,"metadata":{"` + strings.Repeat("k", 40) + `":"v"}`)},
		{"256 bytes of id", strings.Replace(auditWith(""), `"id":"1"`, `"id":"`+strings.Repeat("x", 256)+`"`, 1)},
		{"first instant", strings.Replace(auditWith(""), "2026-01-31T10", "2000-01-01T00", 1)},
		{"severity", auditWith(`,"event.severity":100`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := decode(t, event.Audit, c.value); err != nil {
				t.Errorf("got %v, want an event", err)
			}
		})
	}
}

func TestProblemKeepsTheRest(t *testing.T) {
	value := auditWith(`,"user.id":17,"actor.type":"192.0.2.1","user.email":"a@example.com","client.address":"192.0.2.7","organization.id":"o","trace_id":"zz"`)
	e, err := decode(t, event.Audit, value)
	if err == nil || err.Reason != WrongType || err.Attribute != "user.id" {
		t.Fatalf("got %v, want wrong_type user.id", err)
	}
	for a, want := range map[event.Attr]string{
		event.EventAction: "a.b", event.UserEmail: "a@example.com", event.ClientAddress: "192.0.2.7", event.OrganizationID: "o",
		event.UserID: "", event.ActorType: "", event.TraceID: "", // what breaks a rule is not kept
	} {
		if got := e.Text[a]; got != want {
			t.Errorf("%s: got %q, want %q", event.Attributes[a].Name, got, want)
		}
	}
	if want := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC); e.ID != "1" || e.Source != "/s" || e.Type != "t" || !e.Time.Equal(want) {
		t.Errorf("envelope: got %q %q %q %v", e.ID, e.Source, e.Type, e.Time)
	}
}

func TestErrorNeverHoldsAValue(t *testing.T) {
	_, err := decode(t, event.Audit, auditWith(`,"user.email":"`+strings.Repeat("x", 400)+`@example.com"`))
	if got, want := err.Error(), "decode event: attribute_too_long: user.email"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = decode(t, event.Audit, "a@example.com")
	if got, want := err.Error(), "decode event: not_json"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReuseLeavesNothingBehind(t *testing.T) {
	d, e := NewDecoder(), new(event.Event)
	first := auditWith(`,"user.id":"u\u0031","metadata":{"a":"b"},"target.owner.id":["x","y"],"unknown":1,"cookie":"c"`)
	if err := d.Decode(event.Audit, []byte(first), nil, e); err != nil {
		t.Fatal(err)
	}
	kept := e.Text[event.UserID]
	if err := d.Decode(event.Audit, []byte(auditWith(`,"user.id":"\u0076"`)), nil, e); err != nil {
		t.Fatal(err)
	}
	if kept != "u1" {
		t.Errorf("a string of the first event became %q", kept)
	}
	if len(e.Metadata) != 0 || len(e.Owners) != 0 || e.Unknown != 0 || e.Refused != 0 || e.Text[event.UserID] != "v" {
		t.Errorf("got %+v after a second, smaller event", e)
	}
}

func TestEventDoesNotShareTheValue(t *testing.T) {
	value := []byte(auditWith(`,"user.id":"u_1"`))
	e := new(event.Event)
	if err := NewDecoder().Decode(event.Audit, value, nil, e); err != nil {
		t.Fatal(err)
	}
	clear(value)
	if got := e.Text[event.UserID]; got != "u_1" {
		t.Errorf("got %q after the buffer was overwritten, want u_1", got)
	}
}
