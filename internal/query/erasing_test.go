package query

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/export"
	"github.com/lethe-audit/lethe/internal/retention"
)

var verified = []string{verifiedHeader, "id_document"}

// erasing asks to erase and returns the answer.
func (d *desk) erasing(body string, headers ...string) (e erasureAnswer) {
	d.t.Helper()
	a := d.ask(http.MethodPost, "officer", "/v1/erasures", body, append(headers, verified...)...)
	if a.status != http.StatusAccepted {
		d.t.Fatalf("got %d %s, want 202", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &e); err != nil {
		d.t.Fatal(err)
	}
	return e
}

// shown returns the ids that a caller sees, page by page, two rows each.
func (d *desk) shown(as, path string) string {
	d.t.Helper()
	var ids []string
	next := ""
	for {
		p := d.get(as, path+"limit=2"+next).page(d.t)
		ids = append(ids, strings.Fields(p.ids())...)
		if p.Next == "" {
			slices.Sort(ids)
			return strings.Join(ids, " ")
		}
		next = "&cursor=" + p.Next
	}
}

// exported returns all text of a person's archive.
func (d *desk) exported(as, key string) (all string, m export.Manifest) {
	d.t.Helper()
	_, content := unzip(d.t, d.get(as, "/v1/subjects/"+key+"/export", granted...))
	for name, text := range content {
		if name != "manifest.json" {
			all += text
		}
	}
	if err := json.Unmarshal([]byte(content["manifest.json"]), &m); err != nil {
		d.t.Fatal(err)
	}
	return all, m
}

// TestErasedIsGoneAtOnce asks on every route before and after the request, with no
// sweep in between.
func TestErasedIsGoneAtOnce(t *testing.T) {
	clock := now
	d := open(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	owned := row(event.Audit, "owned", "u_2", "org_1", 2*time.Minute)
	owned.Owners, owned.SubjectKeys = []string{"u_1"}, []string{"user:u_2", "user:u_1"}
	device := row(event.Security, "device", "u_1", "org_1", 3*time.Minute)
	device.SubjectKeys = append(device.SubjectKeys, "device:d_1")
	shared := row(event.Request, "shared", "u_2", "org_1", time.Minute)
	shared.SubjectKeys = append(shared.SubjectKeys, "device:d_1")
	mine := row(event.Request, "mine", "u_1", "org_1", time.Minute)
	mine.TraceID = [16]byte{1}
	d.insert(mine, owned, device, shared, row(event.Request, "other", "u_2", "org_1", time.Minute))

	type sight struct{ path, before, after string }
	sights := []sight{
		{"/v1/events?", "device mine other owned shared", "other shared"},
		{"/v1/events?", "device mine other owned shared", "other shared"},
		{"/v1/events?", "device mine other owned shared", "other shared"},
		{"/v1/events?user=u_1&", "device mine", ""},
		{"/v1/events?organization=org_1&kind=audit&", "owned", ""},
		{"/v1/events?action=document.read&", "device owned", ""},
		{"/v1/events?trace=01000000000000000000000000000000&", "mine", ""},
		{"/v1/subjects/user:u_1/events?", "device mine owned", ""},
		{"/v1/subjects/device:d_1/events?", "device shared", "shared"},
		{"/v1/subjects/user:u_2/events?also=user:u_1&", "device mine other owned shared", "other shared"},
	}
	look := func(when string, want func(sight) string) {
		t.Helper()
		for i, s := range sights {
			as := []string{"officer", "investigator", "officer-org_1"}[i%3]
			if got := d.shown(as, s.path); got != want(s) {
				t.Errorf("%s: %s as %s: got %q, want %q", when, s.path, as, got, want(s))
			}
		}
	}
	look("before", func(s sight) string { return s.before })
	if text, _ := d.exported("officer", "user:u_1"); !strings.Contains(text, `"id":"mine"`) {
		t.Errorf("before: the export does not have the row: %s", text)
	}
	old := d.get("officer", "/v1/events?limit=1").page(t)

	e := d.erasing(`{"subjects":["user:u_1"]}`)
	look("after", func(s sight) string { return s.after })
	text, m := d.exported("officer", "user:u_1")
	if m.Rows != 0 || strings.Contains(text, "u_2") {
		t.Errorf("after: the export has %d rows: %s", m.Rows, text)
	}
	if !strings.Contains(strings.ReplaceAll(string(m.Withheld), " ", ""), `"erased":3`) {
		t.Errorf("after: the manifest says withheld %s, want 3 erased", m.Withheld)
	}
	if got := d.get("officer", "/v1/events?limit=5&cursor="+old.Next); got.problem() == "" && strings.Contains(string(got.body), "u_1") {
		t.Errorf("a page after one from before shows an erased row: %s", got.body)
	}
	for path, want := range map[string]float64{"/v1/events": 3, "/v1/events?kind=audit": 1, "/v1/subjects/user:u_1/events": 3, "/v1/subjects/user:u_2/events": 1, "/v1/events?user=u_9": 0} {
		if got := d.get("officer", path).page(t).Withheld["erased"]; got != want {
			t.Errorf("%s: withheld says %v erased, want %g", path, got, want)
		}
	}
	if *e.Expected != (expected{Erase: 3, Complete: true}) || !*e.Offered || len(e.Notes) > 0 || e.State != "requested" || e.Scope != "subject" {
		t.Errorf("got %+v, %+v", e, *e.Expected)
	}
	if !e.Until.Equal(now) || !e.Deadline.Equal(now.AddDate(0, 0, 30)) || !e.Everywhere.Equal(now.AddDate(0, 0, 90)) || e.PolicyVersion != d.policy.Version {
		t.Errorf("got until %s, deadline %s, everywhere %s of %s", e.Until, e.Deadline, e.Everywhere, e.PolicyVersion)
	}

	// The same person comes back, and an old event comes late.
	clock = now.Add(2 * time.Minute)
	d.insert(row(event.Request, "again", "u_1", "org_1", -time.Minute), row(event.Request, "late", "u_1", "org_1", time.Second))
	for _, as := range []string{"officer", "investigator"} {
		if got := d.shown(as, "/v1/subjects/user:u_1/events?"); got != "again" {
			t.Errorf("who came back, as %s: got %q, want the new event only", as, got)
		}
	}
}

func TestErasureScopes(t *testing.T) {
	d := open(t, nil)
	// # is the number of the case, so that no case touches another one's rows.
	tests := []struct{ name, body, want string }{
		{"subjects", `{"subjects":["user:u_1#","user:u_2#"]}`, "1"},
		{"the same subject twice", `{"subjects":["user:u_1#","user:u_1#"]}`, "1 2"},
		{"organization", `{"organization":"org_2#"}`, "0 2"},
		{"workspace", `{"workspace":"w_1#"}`, "0 2"},
		{"project", `{"project":"p_1#"}`, "0 2"},
		{"deployment", `{"deployment":"dep_1#"}`, "0 2"},
		{"log", `{"log":{"deployment":"dep_1#","data.category":"build_log"}}`, "0 2"},
		{"another log", `{"log":{"deployment":"dep_1#","data.category":"job_log"}}`, "0 1 2"},
		{"an id of another kind", `{"project":"dep_1#"}`, "0 1 2"},
		{"an unknown subject", `{"subjects":["user:nobody"]}`, "0 1 2"},
		{"until before", `{"subjects":["user:u_1#"],"until":"` + now.Add(-time.Hour).Format(time.RFC3339) + `"}`, "0 1 2"},
		{"until between", `{"subjects":["user:u_2#","user:u_3#"],"until":"` + now.Add(-90*time.Second).Format(time.RFC3339) + `"}`, "0 1"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := "-" + strconv.Itoa(i)
			rows := []*event.Row{row(event.Audit, "0", "u_1"+n, "org_1"+n, time.Minute), row(event.Audit, "1", "u_3"+n, "org_2"+n, time.Minute), row(event.Audit, "2", "u_2"+n, "org_1"+n, 2*time.Minute)}
			for _, r := range rows {
				r.Text[event.TAction] = "case" + n
			}
			r := rows[1]
			r.Text[event.TWorkspace], r.Text[event.TProject], r.Text[event.TDeployment], r.Text[event.TDataCategory] = "w_1"+n, "p_1"+n, "dep_1"+n, "build_log"
			d.insert(rows...)
			e := d.erasing(strings.ReplaceAll(tt.body, "#", n))
			got := d.shown("officer", "/v1/events?action=case"+n+"&")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if want := (expected{Erase: uint64(3 - len(strings.Fields(got))), Complete: true}); *e.Expected != want {
				t.Errorf("got expected %+v, want %+v", *e.Expected, want)
			}
		})
	}
}

func TestBadErasures(t *testing.T) {
	d := bare(t, nil)
	many := strings.TrimSuffix(strings.Repeat(`"user:u",`, retention.MaxSubjects+1), ",")
	tests := []struct{ name, body, want string }{
		{"nothing", `{}`, "bad_request"},
		{"only until", `{"until":"2026-01-01T00:00:00Z"}`, "bad_request"},
		{"no subjects", `{"subjects":[]}`, "bad_request"},
		{"too many", `{"subjects":[` + many + `]}`, "bad_request"},
		{"two scopes", `{"workspace":"w","project":"p"}`, "bad_request"},
		{"unknown member", `{"workspace":"w","reason":"x"}`, "bad_request"},
		{"two documents", `{"workspace":"w"}{}`, "bad_request"},
		{"not an object", `["w"]`, "bad_request"},
		{"an e-mail as subject", `{"subjects":["zoe@example.com"]}`, "raw_identifier"},
		{"an e-mail behind user:", `{"subjects":["user:zoe@example.com"]}`, "raw_identifier"},
		{"a raw session", `{"subjects":["session:0123456789"]}`, "raw_identifier"},
		{"a key without a prefix", `{"subjects":["zoe"]}`, "bad_request"},
		{"an e-mail as workspace", `{"workspace":"zoe@example.com"}`, "raw_identifier"},
		{"a log without a category", `{"log":{"deployment":"zoe"}}`, "bad_request"},
		{"a log with a slash", `{"log":{"deployment":"zoe/1","data.category":"x"}}`, "bad_request"},
		{"in the future", `{"workspace":"w","until":"` + now.Add(time.Minute).Format(time.RFC3339) + `"}`, "bad_request"},
		{"before the first event", `{"workspace":"w","until":"1999-01-01T00:00:00Z"}`, "bad_request"},
		{"no time", `{"workspace":"w","until":"now"}`, "bad_request"},
		{"too large", `{"workspace":"` + strings.Repeat("w", maxBody) + `"}`, "body_too_large"},
		{"too long an id", `{"workspace":"` + strings.Repeat("w", maxValue+1) + `"}`, "bad_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.ask(http.MethodPost, "officer", "/v1/erasures", tt.body, verified...)
			if a.problem() != tt.want {
				t.Errorf("got %s, want %s", a.body, tt.want)
			}
			for _, value := range []string{"zoe", "0123456789"} {
				if strings.Contains(string(a.body), value) {
					t.Errorf("the answer repeats %q: %s", value, a.body)
				}
			}
		})
	}
	for _, tt := range []struct {
		name, as, path, body, want string
		headers                    []string
	}{
		{"identity not verified", "officer", "/v1/erasures", `{"subjects":["user:u"]}`, "identity_not_verified", nil},
		{"identity not verified, organization", "officer", "/v1/erasures", `{"organization":"o"}`, "identity_not_verified", nil},
		{"identity not verified, workspace", "officer", "/v1/erasures", `{"workspace":"w"}`, "identity_not_verified", nil},
		{"a method that is no word", "officer", "/v1/erasures", `{"deployment":"d"}`, "identity_not_verified", []string{verifiedHeader, "<yes>"}},
		{"one's own deployment", "officer", "/v1/erasures", `{"deployment":"d"}`, "", nil},
		{"one's own project", "officer", "/v1/erasures", `{"project":"d"}`, "", nil},
		{"one's own log", "officer", "/v1/erasures", `{"log":{"deployment":"d","data.category":"build_log"}}`, "", nil},
		{"a tenant's token", "officer-org_1", "/v1/erasures", `{"organization":"org_1"}`, "forbidden", verified},
		{"a tenant's token lists", "officer-org_1", "/v1/erasures", "", "forbidden", nil},
		{"a tenant's token and a receipt", "officer-org_1", "/v1/erasures/x", "", "forbidden", nil},
		{"in the URL", "officer", "/v1/erasures?workspace=w", `{"workspace":"w"}`, "bad_request", verified},
		{"parameters of the list", "officer", "/v1/erasures?a=b", "", "bad_request", nil},
		{"a strange key", "officer", "/v1/erasures", `{"workspace":"w"}`, "bad_request", append([]string{idempotencyHeader, "a b"}, verified...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method := http.MethodPost
			if tt.body == "" {
				method = http.MethodGet
			}
			a := d.ask(method, tt.as, tt.path, tt.body, tt.headers...)
			if a.problem() != tt.want || tt.want == "" && a.status != http.StatusAccepted {
				t.Errorf("got %d %s, want %q", a.status, a.body, tt.want)
			}
		})
	}
}

func TestErasureIsSentAgain(t *testing.T) {
	clock := now
	d := open(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	d.insert(row(event.Request, "mine", "u_1", "org_1", time.Minute))
	body := `{"subjects":["user:u_1"]}`
	key := []string{idempotencyHeader, "case-2026-17"}
	d.recorder.fail = func(int) error { return errors.New("no broker answered") }
	if a := d.ask(http.MethodPost, "officer", "/v1/erasures", body, append(key, verified...)...); a.problem() != "audit_unavailable" {
		t.Fatalf("got %d %s, want audit_unavailable", a.status, a.body)
	}
	d.recorder.fail = nil
	clock = now.Add(time.Minute)
	first := d.erasing(body, key...)
	clock = now.Add(2 * time.Minute)
	again := d.erasing(body, key...)
	if want := (expected{Erase: 1, Complete: true}); *first.Expected != want || *again.Expected != want {
		t.Errorf("got expected %+v and %+v, want %+v each time", *first.Expected, *again.Expected, want)
	}
	if first.ID != again.ID || !first.Until.Equal(now) || !again.Until.Equal(now) || len(d.recorder.take(t)) != 2 {
		t.Errorf("got %+v and %+v, want the first one, recorded each time", first, again)
	}
	if other := d.erasing(body); other.ID == first.ID || !other.Until.Equal(clock) {
		t.Errorf("without a key: got %+v, want another one", other)
	}
	a := d.ask(http.MethodPost, "officer", "/v1/erasures", `{"subjects":["user:u_2"]}`, append(key, verified...)...)
	if a.problem() != "bad_request" {
		t.Errorf("the same key with another body: got %d %s, want bad_request", a.status, a.body)
	}
	var list struct{ Erasures []erasureAnswer }
	if err := json.Unmarshal(d.get("officer", "/v1/erasures").body, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Erasures) != 2 || list.Erasures[1].ID != first.ID {
		t.Errorf("got %+v, want two, the newest first", list)
	}
	a = d.get("officer", "/v1/erasures/"+first.ID)
	var receipt erasureAnswer
	if err := json.Unmarshal(a.body, &receipt); err != nil || receipt.ID != first.ID || receipt.Expected != nil || strings.Contains(string(a.body), "u_1") {
		t.Errorf("receipt: got %d %s", a.status, a.body)
	}
}
