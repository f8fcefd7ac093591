package redact

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/schemas"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 123456789, time.UTC)

func newRedactor(t testing.TB) (*Redactor, *Keys) {
	t.Helper()
	k := mustKeys(t, "k1="+secretA+",k2="+secretB)
	r, err := New(Options{Keys: k, Countries: newAtlas(), PolicyVersion: "test-1"})
	if err != nil {
		t.Fatal(err)
	}
	return r, k
}

// made is an event with some attributes.
func made(k event.Kind, texts map[event.Attr]string) *event.Event {
	e := &event.Event{Kind: k, ID: "1", Source: "/svc", Type: "example.v1", Time: noon}
	for a, v := range texts {
		e.Set(a, v)
		if a == event.TargetOwner {
			e.Owners = []string{v}
		}
	}
	return e
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{Countries: newAtlas()}); err == nil {
		t.Error("no keys, no error")
	}
	if _, err := New(Options{Keys: mustKeys(t, "k1="+secretA)}); err == nil {
		t.Error("no countries, no error")
	}
}

func TestRow(t *testing.T) {
	r, k := newRedactor(t)
	e := made(event.Request, map[event.Attr]string{
		event.HTTPMethod: "GET", event.HTTPRoute: "/v1/{id}?x", event.URLPath: "/v1/8.8.8.8;jsessionid=F00/x;a=b?ip=9.9.9.9",
		event.ClientAddress: "8.8.8.8:51234", event.UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0",
		event.UserID: "u_42", event.UserEmail: "Alice@Example.com", event.SessionID: "cookie", event.DeviceID: "d_1", event.OnBehalfOf: "u_42",
		event.TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", event.SpanID: "00f067aa0ba902b7", event.ServiceName: "api on 8.8.8.8",
	})
	e.SetNum(event.HTTPStatus, 200)
	e.SetNum(event.HTTPDuration, 0.25)
	e.Set(event.Metadata, "")
	e.Metadata = []event.Pair{{Key: "8.8.8.8", Value: "a"}, {Key: "8.8.8.8:1", Value: "b"}, {Key: "note", Value: "alice@example.com at 9.9.9.9"}}

	row := event.Row{Topic: "lethe.request", Partition: 3, Offset: 17, ReceivedAt: noon, Owners: []string{"left over"}}
	row.Text[event.TAction] = "left over"
	row.SubjectKeys = []string{"left over"}
	from := noon.Truncate(time.Second)
	r.Row(e, policy.Decision{Retention: "usage@2y", Bucket: 20000, RetainedFrom: from}, &row)

	email, session := k.Email("alice@example.com")[0], k.Session("cookie")[0]
	want := event.Row{
		Kind: event.Request, ID: "1", Source: "/svc", Type: "example.v1", OccurredAt: noon.Truncate(time.Millisecond), ReceivedAt: noon,
		Retention: "usage@2y", Bucket: 20000, RetainedFrom: from, PolicyVersion: "test-1", Topic: "lethe.request", Partition: 3, Offset: 17,
		SubjectKeys: []string{"user:u_42", "device:d_1", "email:" + email, "session:" + session},
		Owners:      []string{},
		TraceID:     [16]byte{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
		SpanID:      [8]byte{0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7},
		Metadata:    []event.Pair{{Key: "[ip:US]", Value: "a"}, {Key: "[ip:US]#2", Value: "b"}, {Key: "note", Value: "[email] at [ip:CH]"}},
	}
	for f, v := range map[event.Text]string{
		event.TMethod: "GET", event.TRoute: "/v1/{id}", event.TPath: "/v1/[ip:US]/x;a=b", event.TCountry: "US",
		event.TAgentName: "Firefox", event.TAgentVersion: "27", event.TAgentOS: "Linux", event.TUserID: "u_42", event.TDeviceID: "d_1",
		event.TOnBehalfOf: "u_42", event.TUserEmail: email, event.TSessionID: session, event.TServiceName: "api on [ip:US]",
	} {
		want.Text[f] = v
	}
	for n, v := range row.Number {
		switch event.Num(n) {
		case event.NStatus:
			want.Number[n] = 200
		case event.NDuration:
			want.Number[n] = 0.25
		default:
			if !math.IsNaN(v) {
				t.Errorf("%s is %v, want NaN", event.Numbers[n].Name, v)
			}
		}
		if math.IsNaN(v) {
			row.Number[n] = 0
		}
	}
	if !reflect.DeepEqual(row, want) {
		t.Errorf("row\n%+v\nwant\n%+v", row, want)
	}
}

func TestSubjects(t *testing.T) {
	_, k := newRedactor(t)
	alice, bob := "email:"+k.Email("alice@example.com")[0], "email:"+k.Email("bob@example.com")[0]
	for _, c := range []struct {
		name   string
		in     map[event.Attr]string
		keys   []string
		stored map[event.Text]string
	}{
		{"user", map[event.Attr]string{event.UserID: "u"}, []string{"user:u"}, map[event.Text]string{event.TUserID: "u"}},
		{"user is an e-mail", map[event.Attr]string{event.UserID: " ALICE@example.com"}, []string{alice}, map[event.Text]string{event.TUserID: "", event.TUserEmail: alice[6:]}},
		{"user is an e-mail beside the same", map[event.Attr]string{event.UserID: "alice@example.com", event.UserEmail: "alice@example.com"}, []string{alice}, map[event.Text]string{event.TUserID: alice, event.TUserEmail: alice[6:]}},
		{"user is an e-mail beside another", map[event.Attr]string{event.UserID: "alice@example.com", event.UserEmail: "bob@example.com"}, []string{alice, bob}, map[event.Text]string{event.TUserID: alice, event.TUserEmail: bob[6:]}},
		{"user holds an e-mail", map[event.Attr]string{event.UserID: "auth0|alice@example.com"}, []string{alice}, map[event.Text]string{event.TUserID: "auth0|[email]"}},
		{"user is an encoded e-mail", map[event.Attr]string{event.UserID: "alice%40example.com"}, []string{alice}, map[event.Text]string{event.TUserID: "[email]"}},
		{"user is an address", map[event.Attr]string{event.UserID: "8.8.8.8"}, nil, map[event.Text]string{event.TUserID: "[ip:US]"}},
		{"user looks suspicious", map[event.Attr]string{event.UserID: "1.2.3.4.5"}, []string{"user:1.2.3.4.5"}, map[event.Text]string{event.TUserID: "1.2.3.4.5"}},
		{"device is an e-mail", map[event.Attr]string{event.DeviceID: "alice@example.com"}, []string{alice}, map[event.Text]string{event.TDeviceID: alice}},
		{"delegate", map[event.Attr]string{event.UserID: "u", event.OnBehalfOf: "w"}, []string{"user:u", "user:w"}, nil},
		{"target is a user", map[event.Attr]string{event.TargetType: "user", event.TargetID: "w"}, []string{"user:w"}, map[event.Text]string{event.TTargetID: "w"}},
		{"target is an account", map[event.Attr]string{event.TargetType: "account", event.TargetID: "w"}, []string{"user:w"}, nil},
		{"target is a member", map[event.Attr]string{event.TargetType: "member", event.TargetID: "w"}, []string{"user:w"}, nil},
		{"target is a file", map[event.Attr]string{event.TargetType: "file", event.TargetID: "w"}, nil, map[event.Text]string{event.TTargetID: "w"}},
		{"target is an e-mail", map[event.Attr]string{event.TargetType: "invitation", event.TargetID: "bob@example.com"}, []string{bob}, map[event.Text]string{event.TTargetID: bob}},
		{"owner", map[event.Attr]string{event.TargetOwner: "w"}, []string{"user:w"}, nil},
		{"owner is an e-mail", map[event.Attr]string{event.TargetOwner: "bob@example.com"}, []string{bob}, nil},
		{"owner looks like a key", map[event.Attr]string{event.TargetOwner: "device:w"}, []string{"user:device:w"}, nil},
		{"owner of a consultation", map[event.Attr]string{event.EventAction: "lethe.access.read", event.TargetOwner: "device:w"}, []string{"device:w"}, nil},
		{"hash of a consultation", map[event.Attr]string{event.EventAction: "lethe.access.read", event.TargetOwner: alice}, []string{alice}, nil},
		{"odd owner of a consultation", map[event.Attr]string{event.EventAction: "lethe.access.read", event.TargetOwner: "email:k1:abc"}, []string{"user:email:k1:abc"}, nil},
		{"blank e-mail", map[event.Attr]string{event.UserEmail: " "}, nil, map[event.Text]string{event.TUserEmail: ""}},
		{"same person in all roles", map[event.Attr]string{event.UserID: "u", event.OnBehalfOf: "u", event.TargetOwner: "u"}, []string{"user:u"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := newRedactor(t)
			var row event.Row
			r.Row(made(event.Audit, c.in), policy.Decision{}, &row)
			if !slices.Equal(row.SubjectKeys, c.keys) {
				t.Errorf("keys %q, want %q", row.SubjectKeys, c.keys)
			}
			for f, want := range c.stored {
				if got := row.Text[f]; got != want {
					t.Errorf("%s is %q, want %q", event.Texts[f].Name, got, want)
				}
			}
		})
	}
}

// TestFact holds what the policy makes of a deletion against what redaction stores:
// only an account that rows can be found by ends a period.
func TestFact(t *testing.T) {
	text, err := schemas.Policies.ReadFile("policies/bstrapr.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("bstrapr.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		in   map[event.Attr]string
		want string
	}{
		{"target", map[event.Attr]string{event.TargetType: "account", event.TargetID: "u"}, "user:u"},
		{"target of no type", map[event.Attr]string{event.TargetID: "u"}, "user:u"},
		{"target is an e-mail", map[event.Attr]string{event.TargetType: "user", event.TargetID: "bob@example.com", event.UserID: "u"}, ""},
		{"target is one's own e-mail", map[event.Attr]string{event.TargetType: "user", event.TargetID: "bob@example.com", event.UserID: "u", event.UserEmail: "Bob@example.com"}, "user:u"},
		{"target holds an e-mail", map[event.Attr]string{event.TargetType: "user", event.TargetID: "auth0|bob@example.com"}, ""},
		{"target is an address", map[event.Attr]string{event.TargetType: "user", event.TargetID: "8.8.8.8"}, ""},
		{"user", map[event.Attr]string{event.UserID: "u"}, "user:u"},
		{"user is an e-mail", map[event.Attr]string{event.UserID: "bob@example.com"}, ""},
		{"user is two e-mails", map[event.Attr]string{event.UserID: "bob@example.com", event.UserEmail: "alice@example.com"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := newRedactor(t)
			c.in[event.EventAction] = "account.deleted"
			e := made(event.Audit, c.in)
			d, err := p.Decide(e, noon)
			if err != nil {
				t.Fatal(err)
			}
			var row event.Row
			r.Row(e, d, &row)
			facts, ok := p.Fact(&row)
			got := ""
			for _, f := range facts {
				got += f.Subject
			}
			if !ok || got != c.want {
				t.Errorf("got %v, %t, want %q", facts, ok, c.want)
			}
		})
	}
}

func TestManyOwners(t *testing.T) {
	r, _ := newRedactor(t)
	e := made(event.Audit, map[event.Attr]string{event.UserID: "u1"})
	e.Set(event.TargetOwner, "")
	for i := range event.MaxOwners {
		e.Owners = append(e.Owners, fmt.Sprintf("u%d", i%1000))
	}
	var row event.Row
	r.Row(e, policy.Decision{}, &row)
	if len(row.Owners) != event.MaxOwners || len(row.SubjectKeys) != 1000 {
		t.Errorf("%d owners and %d keys, want %d and 1000", len(row.Owners), len(row.SubjectKeys), event.MaxOwners)
	}
}

func TestIdentityStaysUnique(t *testing.T) {
	r, _ := newRedactor(t)
	seen := map[string]string{}
	for _, p := range []struct{ source, id string }{
		{"/svc", "1"}, {"/svc", "2"}, {"/svc", "8.8.8.8-1"}, {"/svc", "8.8.4.4-1"}, {"/svc/8.8.8.8", "1"}, {"/svc/8.8.4.4", "1"},
		{"/svc/8.8.4.4", "2"}, {"/svc", "alice@example.com"}, {"/svc", "bob@example.com"},
	} {
		e := made(event.Request, nil)
		e.Source, e.ID = p.source, p.id
		var row, again event.Row
		r.Row(e, policy.Decision{}, &row)
		r.Row(e, policy.Decision{}, &again)
		identity := row.Source + " " + row.ID
		if other, ok := seen[identity]; ok {
			t.Errorf("%v and %s are both %s", p, other, identity)
		}
		if again.ID != row.ID || again.Source != row.Source {
			t.Errorf("%v: the identity changes", p)
		}
		if clean := p.source == "/svc" && len(p.id) == 1; clean != (row.ID == p.id) {
			t.Errorf("%v became %s", p, identity)
		}
		seen[identity] = fmt.Sprint(p)
	}
}

func TestDeadLetter(t *testing.T) {
	r, k := newRedactor(t)
	e := made(event.Security, map[event.Attr]string{
		event.EventAction: "login", event.ClientAddress: "8.8.8.8", event.UserEmail: "alice@example.com", event.TargetOwner: "w",
		event.TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", event.SpanID: "00f067aa0ba902b7", event.EventReason: "from 9.9.9.9",
	})
	e.SetNum(event.AuthIsMFA, 1)
	e.SetNum(event.EventSeverity, 7)
	e.SetNum(event.HTTPDuration, math.Inf(1))
	e.Set(event.Metadata, "")
	e.Metadata = []event.Pair{{Key: "a", Value: "b"}}
	var got any
	letter, _ := r.DeadLetter(e)
	if err := json.Unmarshal(letter, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"specversion": "1.0", "id": "1", "source": "/svc", "type": "example.v1", "time": "2026-01-31T12:00:00.123Z",
		"datacontenttype": "application/json", "letheredacted": true,
		"data": map[string]any{
			"event.action": "login", "client.country": "US", "user.email": k.Email("alice@example.com")[0], "target.owner.id": []any{"w"},
			"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7", "event.reason": "from [ip:CH]",
			"authentication.is_mfa": true, "event.severity": 7.0, "metadata": map[string]any{"a": "b"},
			"lethe.subject_keys": []any{"user:w", "email:" + k.Email("alice@example.com")[0]},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	e.Time = time.Time{}
	if out, _ := r.DeadLetter(e); strings.Contains(string(out), `"time"`) {
		t.Errorf("a time that was not read: %s", out)
	}
}
