package codec

import (
	"slices"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		name string
		kind event.Kind
		json string // of the attribute
		attr event.Attr
		want string
	}{
		{"plain", event.Audit, `"u_1"`, event.UserID, "u_1"},
		{"beyond ASCII", event.Audit, `"Zoë 山 🙂"`, event.UserID, "Zoë 山 🙂"},
		{"escapes", event.Audit, `"\"\\\/\b\f\n\r\t"`, event.UserID, "\"\\/\b\f\n\r\t"},
		{"units", event.Audit, `"\u0041\u00e9\u5c71\u0000"`, event.UserID, "Aé山\x00"},
		{"pair", event.Audit, `"\ud83d\ude42"`, event.UserID, "🙂"},
		{"half a pair", event.Audit, `"a\ud83d"`, event.UserID, "a\ufffd"},
		{"two halves the wrong way", event.Audit, `"\ude42\ud83d"`, event.UserID, "\ufffd\ufffd"},
		{"half a pair, then a unit", event.Audit, `"\ud83d\u0041"`, event.UserID, "\ufffdA"},
		{"null", event.Audit, `null`, event.UserID, ""},
		{"empty", event.Audit, `""`, event.UserID, ""},
		{"empty enumeration", event.Audit, `""`, event.ActorType, ""},
		{"enumeration", event.Audit, `"staff"`, event.ActorType, "staff"},
		{"upper-case hex", event.Audit, `"00F067AA0BA902B7"`, event.SpanID, "00F067AA0BA902B7"},
		{"long user agent", event.Request, `"` + strings.Repeat("x", 3000) + `"`, event.UserAgent, strings.Repeat("x", 2048)},
		{"long user agent cut inside a letter", event.Request, `"` + strings.Repeat("x", 2047) + `éé"`, event.UserAgent, strings.Repeat("x", 2047)},
		{"long chain", event.Request, `"192.0.2.7,` + strings.Repeat(" ", 2036) + `,192.0.2.77"`, event.ClientAddress, "192.0.2.7," + strings.Repeat(" ", 2036)},
		{"long address", event.Request, `"` + strings.Repeat("1", 3000) + `"`, event.ClientAddress, ""},
		{"long reason", event.Audit, `"` + strings.Repeat("x", 300) + `"`, event.EventReason, strings.Repeat("x", 253) + "…"},
		{"reason at its bound", event.Audit, `"` + strings.Repeat("x", 256) + `"`, event.EventReason, strings.Repeat("x", 256)},
		{"long reason cut inside a letter", event.Audit, `"` + strings.Repeat("x", 252) + "山山" + `"`, event.EventReason, strings.Repeat("x", 252) + "…"},
		{"long reason cut inside an address", event.Audit, `"` + strings.Repeat("x", 245) + ` 192.0.2.130"`, event.EventReason, strings.Repeat("x", 245) + " …"},
		{"long reason cut inside a v6 address", event.Audit, `"` + strings.Repeat("x", 240) + ` [2001:db8::1]:443 and"`, event.EventReason, strings.Repeat("x", 240) + " …"},
	} {
		t.Run(c.name, func(t *testing.T) {
			more := `,"` + event.Attributes[c.attr].Name + `":` + c.json
			value := auditWith(more)
			if c.kind == event.Request {
				value = requestWith(more)
			}
			e, err := decode(t, c.kind, value)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Text[c.attr]; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := e.Has&(1<<c.attr) != 0; got != (c.want != "") {
				t.Errorf("Has: got %t", got)
			}
			if most := event.Attributes[c.attr].Max; most > 0 && len(e.Text[c.attr]) > most {
				t.Errorf("got %d bytes, want at most %d", len(e.Text[c.attr]), most)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		name, json string
		want       float64
	}{
		{"digits", "12", 12},
		{"zero", "0", 0},
		{"minus zero", "-0", 0},
		{"fraction", "0.0123", 0.0123},
		{"exponent", "12e-1", 1.2},
		{"capital exponent", "1E+2", 100},
		{"many digits", "12345678901234567890", 12345678901234567890},
		{"tiny", "1e-999", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := decode(t, event.Request, requestWith(`,"http.server.request.duration":`+c.json))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := e.Num(event.HTTPDuration); !ok || got != c.want {
				t.Errorf("got %v %t, want %v", got, ok, c.want)
			}
		})
	}
	t.Run("booleans", func(t *testing.T) {
		for text, want := range map[string]float64{"true": 1, "false": 0} {
			e, err := decode(t, event.Security, auditWith(`,"authentication.is_mfa":`+text))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := e.Num(event.AuthIsMFA); !ok || got != want {
				t.Errorf("%s: got %v %t", text, got, ok)
			}
		}
	})
	t.Run("null is absent", func(t *testing.T) {
		e, err := decode(t, event.Request, requestWith(`,"http.server.request.duration":null`))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := e.Num(event.HTTPDuration); ok {
			t.Error("got a duration")
		}
	})
}

func TestOwners(t *testing.T) {
	for _, c := range []struct {
		name, json string
		want       []string
	}{
		{"one", `"a"`, []string{"a"}},
		{"list", `["a", "b" ,"\u0063"]`, []string{"a", "b", "c"}},
		{"empty list", `[]`, nil},
		{"empty one", `""`, nil},
		{"empty ones in a list", `["","a",""]`, []string{"a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := decode(t, event.Audit, auditWith(`,"target.owner.id":`+c.json))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.Owners, c.want) {
				t.Errorf("got %q, want %q", e.Owners, c.want)
			}
			if got := e.Has&(1<<event.TargetOwner) != 0; got != (c.want != nil) {
				t.Errorf("Has: got %t", got)
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	long := strings.Repeat("x", 600)
	for _, c := range []struct {
		name, json string
		want       []event.Pair
		refused    int
	}{
		{"pairs", `{"a":"1","b":""}`, []event.Pair{{Key: "a", Value: "1"}, {Key: "b"}}, 0},
		{"empty", `{}`, nil, 0},
		{"null", `null`, nil, 0},
		{"null value", `{"a":null,"b":"2"}`, []event.Pair{{Key: "b", Value: "2"}}, 0},
		{"long value", `{"a":"` + long + `"}`, []event.Pair{{Key: "a", Value: long[:497] + "…"}}, 0},
		{"refused key", `{"a":"1","X-Forwarded-For":"192.0.2.1","apiToken":{"b":1}}`, []event.Pair{{Key: "a", Value: "1"}}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := decode(t, event.Audit, auditWith(`,"metadata":`+c.json))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.Metadata, c.want) {
				t.Errorf("got %q, want %q", e.Metadata, c.want)
			}
			if e.Refused != c.refused {
				t.Errorf("refused: got %d, want %d", e.Refused, c.refused)
			}
		})
	}
}

func TestDroppedAttributesAreCounted(t *testing.T) {
	for _, c := range []struct {
		name, value      string
		unknown, refused int
	}{
		{"none", auditWith(""), 0, 0},
		{"unknown", auditWith(`,"x":1,"y":{"z":2}`), 2, 0},
		{"known for another kind", auditWith(`,"http.route":"/"`), 1, 0},
		{"null unknown", auditWith(`,"x":null`), 1, 0},
		{"refused", auditWith(`,"url.full":"x","http.request.header.cookie":["x"]`), 0, 2},
		{"refused inside unknown", auditWith(`,"x":[{"password":"p","y":{"client.ip":"192.0.2.1"}}]`), 1, 2},
		{"refused inside refused", auditWith(`,"exception.stacktrace":{"password":"p"}`), 0, 1},
		{"extensions", strings.Replace(auditWith(""), `"id":"1"`, `"id":"1","partitionkey":"k","sourceip":"192.0.2.1","subject":"s"`, 1), 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := decode(t, event.Audit, c.value)
			if err != nil {
				t.Fatal(err)
			}
			if e.Unknown != c.unknown || e.Refused != c.refused {
				t.Errorf("got %d unknown, %d refused, want %d, %d", e.Unknown, e.Refused, c.unknown, c.refused)
			}
		})
	}
}

func TestRefusedNames(t *testing.T) {
	for name, want := range map[string]bool{
		"url.full": true, "url.query": true, "client.ip": true, "clientIp": true, "source.ip": true, "network.peer.address": true,
		"x_forwarded_for": true, "X-Forwarded-For": true, "xforwardedfor": true, "authorization": true, "Authorization": true, "cookie": true,
		"http.request.header.accept": true, "http.request.header.x-real-ip": true, "http.request.body.content": true, "http.response.body.content": true,
		"exception.message": true, "exception.anything": true, "exceptionmessage": true,
		"password": true, "user.password.hash": true, "PASSWORD": true, "client_secret": true, "access_token": true, "tokens.used": true,
		"geo.city_name": true, "client.geo.location": true, "geo.location.lat": true, "geo.postal_code": true, "geo.region_name": true,
		"source.geo.name": true, "latitude": true, "client_city": false, "city": true, "geocity": true,
		"geo.country_iso_code": false, "client.geo.country.name": false, "geo.continent_code": false,
		"url.path": false, "url.scheme": false, "cookies_accepted": false, "exceptional": false, "geometry": false, "region": false,
		"x": false, "": false, ".": false, "http.request.body.size": false,
	} {
		d := NewDecoder()
		for _, again := range []bool{false, true} { // the second answer is remembered
			if got := d.refused(name); got != want {
				t.Errorf("%q (again %t): got %t, want %t", name, again, got, want)
			}
		}
	}
}

func TestRememberedNamesAreBounded(t *testing.T) {
	d, e := NewDecoder(), new(event.Event)
	if err := d.Decode(event.Audit, []byte(auditWith(manyKeys(5000, false))), nil, e); err != nil {
		t.Fatal(err)
	}
	if e.Unknown != 5000 || len(d.names) == 0 || len(d.names) > 1024 {
		t.Errorf("got %d unknown, %d remembered", e.Unknown, len(d.names))
	}
}

func TestEveryAttributeIsFound(t *testing.T) {
	for a, def := range event.Attributes {
		if got, ok := attributes.find(def.Name); !ok || got != event.Attr(a) {
			t.Errorf("%s: got %d %t", def.Name, got, ok)
		}
		if _, ok := attributes.find(def.Name + "x"); ok {
			t.Errorf("%sx was found", def.Name)
		}
	}
	if _, ok := attributes.find(""); ok {
		t.Error("the empty name was found")
	}
}
