package retention

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

// full is a row of a kind in which every field has a value: u_1 acts for u_2 on a
// thing of u_3 and u_4.
func full(kind event.Kind) *event.Row {
	r := &event.Row{Kind: kind, ID: "e", Source: "/svc", Retention: "c", TraceID: [16]byte{1}, SpanID: [8]byte{2}, Owners: []string{"u_3", "u_4"},
		Metadata: []event.Pair{{Key: "note", Value: "by hand"}, {Key: "u_3", Value: "x"}, {Key: "seen by", Value: "u_4, u_5"}}}
	for t, f := range event.Texts {
		if f.Kinds.Has(kind) {
			r.Text[t] = "some " + f.Name
		}
	}
	r.Text[event.TUserID], r.Text[event.TOnBehalfOf], r.Text[event.TDeviceID] = "u_1", "u_2", "d_1"
	r.Text[event.TUserEmail], r.Text[event.TSessionID] = "k1:mail", "k1:session"
	r.SubjectKeys = []string{"user:u_1", "device:d_1", "email:k1:mail", "session:k1:session", "user:u_2", "email:k1:inside", "user:u_3", "user:u_4"}
	if kind == event.Audit {
		r.Text[event.TTargetType], r.Text[event.TTargetID] = "user", "u_6"
		r.SubjectKeys = append(r.SubjectKeys, "user:u_6")
	}
	return r
}

// whose says of every stored text with a tag with whom it goes.
var whose = map[event.Text]string{
	event.TReason: "text", event.TPath: "text", event.TTargetName: "text", event.TChangeOld: "text", event.TChangeNew: "text",
	event.TCountry: "actor", event.TAgentName: "actor", event.TAgentVersion: "actor", event.TAgentOS: "actor",
	event.TUserID: "actor", event.TDeviceID: "actor", event.TUserEmail: "actor", event.TSessionID: "actor",
	event.TOnBehalfOf: "delegate", event.TTargetID: "target",
	event.TOrganization: "team", event.TWorkspace: "team", event.TProject: "team", event.TDeployment: "team",
}

// What is tagged and not a text of its own has its place in the row; whoever adds an
// attribute decides here with whom it goes.
func TestEveryTaggedAttributeGoesWithSomebody(t *testing.T) {
	made := map[event.Attr]bool{event.TargetOwner: true, event.TraceID: true, event.SpanID: true, event.Metadata: true}
	for i, f := range event.Texts {
		made[f.From] = true
		if (f.Tag != event.None) != (whose[event.Text(i)] != "") {
			t.Errorf("%s has the tag %c and goes with %q", f.Name, f.Tag, whose[event.Text(i)])
		}
	}
	for a, d := range event.Attributes {
		if d.Tag != event.None && !made[event.Attr(a)] {
			t.Errorf("nothing says with whom %s goes", d.Name)
		}
	}
	for _, f := range event.Numbers {
		if f.Tag != event.None {
			t.Errorf("%s is a number with a tag, and stays", f.Name)
		}
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct {
		name   string
		people []string
		goes   []string // of whose
		owners []string
		meta   int // entries that stay
		keys   []string
	}{
		{"nobody", nil, nil, []string{"u_3", "u_4"}, 3, nil},
		{"somebody else", []string{"user:u_", "user:so"}, nil, []string{"u_3", "u_4"}, 3, nil},
		{"who acted", []string{"user:u_1"}, []string{"actor", "text"}, []string{"u_3", "u_4"}, 0, []string{"user:u_1", "device:d_1", "email:k1:mail", "session:k1:session", "email:k1:inside"}},
		{"who acted, by device", []string{"device:d_1"}, []string{"actor", "text"}, []string{"u_3", "u_4"}, 0, []string{"user:u_1", "device:d_1", "email:k1:mail", "session:k1:session", "email:k1:inside"}},
		{"who acted, by e-mail", []string{"email:k1:mail"}, []string{"actor", "text"}, []string{"u_3", "u_4"}, 0, []string{"user:u_1", "device:d_1", "email:k1:mail", "session:k1:session", "email:k1:inside"}},
		{"who acted, by session", []string{"session:k1:session"}, []string{"actor", "text"}, []string{"u_3", "u_4"}, 0, []string{"user:u_1", "device:d_1", "email:k1:mail", "session:k1:session", "email:k1:inside"}},
		{"for whom", []string{"user:u_2"}, []string{"delegate"}, []string{"u_3", "u_4"}, 3, []string{"user:u_2"}},
		{"an owner, spelled as a key", []string{"user:u_3"}, nil, []string{"u_4"}, 2, []string{"user:u_3"}},
		{"an owner, spelled in a value", []string{"user:u_4"}, nil, []string{"u_3"}, 2, []string{"user:u_4"}},
		{"both owners", []string{"user:u_3", "user:u_4"}, nil, []string{}, 1, []string{"user:u_3", "user:u_4"}},
		{"to whom", []string{"user:u_6"}, []string{"target", "text"}, []string{"u_3", "u_4"}, 0, []string{"user:u_6"}},
	} {
		for _, kind := range event.Kinds {
			if slices.Contains(c.goes, "target") && kind != event.Audit {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", c.name, kind), func(t *testing.T) {
				r, before := full(kind), full(kind)
				Strip(r, c.people)
				for i, f := range event.Texts {
					want := before.Text[i]
					if slices.Contains(c.goes, whose[event.Text(i)]) {
						want = ""
					}
					if r.Text[i] != want {
						t.Errorf("%s: got %q, want %q", f.Name, r.Text[i], want)
					}
				}
				acted := slices.Contains(c.goes, "actor")
				if (r.TraceID == [16]byte{}) != acted || (r.SpanID == [8]byte{}) != acted {
					t.Errorf("got trace %x and span %x", r.TraceID, r.SpanID)
				}
				if !slices.Equal(r.Owners, c.owners) || len(r.Metadata) != c.meta {
					t.Errorf("got owners %q and metadata %v", r.Owners, r.Metadata)
				}
				want := slices.DeleteFunc(before.SubjectKeys, func(k string) bool { return slices.Contains(c.keys, k) })
				if !slices.Equal(r.SubjectKeys, want) {
					t.Errorf("got keys %q, want %q", r.SubjectKeys, want)
				}
				again := *r
				again.SubjectKeys, again.Owners, again.Metadata = slices.Clone(r.SubjectKeys), slices.Clone(r.Owners), slices.Clone(r.Metadata)
				Strip(&again, c.people)
				if !reflect.DeepEqual(&again, r) {
					t.Errorf("twice is not once: %+v and %+v", again, r)
				}
			})
		}
	}
}

func TestStripSpecialPlaces(t *testing.T) {
	t.Run("one who acted for themselves through a service", func(t *testing.T) {
		r := full(event.Request)
		r.Text[event.TUserID] = ""
		if Strip(r, []string{"user:u_2"}); r.Text[event.TDeviceID] != "" || r.Text[event.TCountry] != "" || r.Text[event.TOnBehalfOf] != "" {
			t.Errorf("got %q", r.Text)
		}
	})
	t.Run("ids that are an e-mail's key", func(t *testing.T) {
		r := full(event.Audit)
		const key = "email:k1:x"
		r.Owners, r.Text[event.TTargetID], r.SubjectKeys = []string{key, "u_3"}, key, []string{"user:u_1", key, "user:u_3"}
		Strip(r, []string{key})
		if !slices.Equal(r.Owners, []string{"u_3"}) || r.Text[event.TTargetID] != "" || r.Text[event.TUserID] != "u_1" || !slices.Equal(r.SubjectKeys, []string{"user:u_1", "user:u_3"}) {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("texts that spell an id", func(t *testing.T) {
		for text, gone := range map[string]bool{"/users/u_3": true, "u_3": true, "by u_3.": true, "u_33 and u_3": true, "u_33": false, "xu_3": false, "": false, "u-3": false} {
			r := full(event.Request)
			r.Text[event.TPath] = text
			if Strip(r, []string{"user:u_3"}); (r.Text[event.TPath] == "") != (gone || text == "") {
				t.Errorf("%q became %q", text, r.Text[event.TPath])
			}
		}
	})
}
