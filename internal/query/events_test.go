package query

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/ledger"
)

func TestEventsFilters(t *testing.T) {
	d := open(t, nil)
	trace := [16]byte{0xab, 15: 1}
	d.insert(
		row(event.Request, "r1", "u_1", "org_1", time.Minute),
		func() *event.Row {
			r := row(event.Request, "r2", "u_2", "org_2", 2*time.Minute)
			r.Text[event.TCountry], r.Number[event.NStatus], r.TraceID = "DE", 404, trace
			return r
		}(),
		func() *event.Row {
			r := row(event.Audit, "a1", "u_1", "org_1", 3*time.Minute)
			r.Text[event.TAction], r.Text[event.TOutcome] = "document.deleted", "failure"
			return r
		}(),
		row(event.Security, "s1", "u_3", "org_2", 4*time.Minute),
		row(event.Request, "old", "u_1", "org_1", 30*time.Hour),
	)
	at := func(ago time.Duration) string { return url.QueryEscape(now.Add(-ago).Format(time.RFC3339)) }
	tests := []struct{ name, query, want string }{
		{"no filter looks back 24 hours, newest first", "", "r1 r2 a1 s1"},
		{"kind", "?kind=audit", "a1"},
		{"kinds", "?kind=audit&kind=security", "a1 s1"},
		{"user", "?user=u_1", "r1 a1"},
		{"organization", "?organization=org_2", "r2 s1"},
		{"action", "?action=document.deleted", "a1"},
		{"outcome", "?outcome=failure", "a1"},
		{"country", "?country=DE", "r2"},
		{"status", "?status=404", "r2"},
		{"trace", "?trace=AB000000000000000000000000000001", "r2"},
		{"from", "?from=" + at(48*time.Hour), "r1 r2 a1 s1 old"},
		{"from and to, which is outside", "?from=" + at(4*time.Minute) + "&to=" + at(2*time.Minute), "a1 s1"},
		{"to without from", "?to=" + at(29*time.Hour), "old"},
		{"limit", "?limit=2", "r1 r2"},
		{"filters together", "?user=u_1&kind=request&status=200", "r1"},
		{"nothing", "?user=nobody", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.get("officer", "/v1/events"+tt.query)
			if got := a.page(t).ids(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if a.header.Get(rangeHeader) == "" {
				t.Error("the answer does not say which range it is about")
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	d := bare(t, nil)
	hash := strings.Repeat("0a", 16)
	tests := []struct{ name, path, want string }{
		{"unknown parameter", "/v1/events?usr=u_1", "bad_request"},
		{"also is for subjects", "/v1/events?also=user:u", "bad_request"},
		{"empty value", "/v1/events?user=", "bad_request"},
		{"value twice", "/v1/events?user=a&user=b", "bad_request"},
		{"kind", "/v1/events?kind=requests", "bad_request"},
		{"from", "/v1/events?from=yesterday", "bad_request"},
		{"from out of range", "/v1/events?from=1999-12-31T23:59:59Z", "bad_request"},
		{"from after to", "/v1/events?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "bad_request"},
		{"outcome", "/v1/events?outcome=ok", "bad_request"},
		{"country", "/v1/events?country=de", "bad_request"},
		{"status", "/v1/events?status=99", "bad_request"},
		{"trace", "/v1/events?trace=abc", "bad_request"},
		{"trace of zeros", "/v1/events?trace=" + strings.Repeat("0", 32), "bad_request"},
		{"limit of 0", "/v1/events?limit=0", "bad_request"},
		{"limit over 1000", "/v1/events?limit=1001", "bad_request"},
		{"query string", "/v1/events?a=%zz", "bad_request"},
		{"e-mail as user", "/v1/events?user=zoe%40example.com", "raw_identifier"},
		{"address as user", "/v1/events?user=203.0.113.7", "raw_identifier"},
		{"raw e-mail in the path", "/v1/subjects/zoe@example.com/events", "raw_identifier"},
		{"raw e-mail behind email:", "/v1/subjects/email:zoe@example.com/events", "raw_identifier"},
		{"raw e-mail behind user:", "/v1/subjects/user:zoe@example.com/export", "raw_identifier"},
		{"raw session", "/v1/subjects/session:0123456789/events", "raw_identifier"},
		{"session without a key id", "/v1/subjects/session:" + hash + "/events", "raw_identifier"},
		{"raw e-mail in also", "/v1/subjects/user:u/events?also=zoe@example.com", "raw_identifier"},
		{"key without a prefix", "/v1/subjects/u_42/events", "bad_request"},
		{"unknown prefix", "/v1/subjects/ip:u_42/events", "bad_request"},
		{"filters on an export", "/v1/subjects/user:u/export?kind=audit", "bad_request"},
		{"cursor", "/v1/events?cursor=abc", "bad_cursor"},
		{"nothing there", "/v1/cases", "not_found"},
		{"parameters of the report", "/v1/retention?class=a", "bad_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.get("officer", tt.path)
			if got := a.problem(); got != tt.want {
				t.Errorf("got %q (%s), want %q", got, a.body, tt.want)
			}
			// Letters outside a to f: the request id in each answer is hexadecimal.
			for _, value := range []string{"zoe", "203.0.113.7", "0123456789", "usr"} {
				if strings.Contains(string(a.body), value) {
					t.Errorf("the answer repeats %q: %s", value, a.body)
				}
			}
		})
	}
}

func TestPages(t *testing.T) {
	clock := now
	d := open(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	var want []string
	for i := range 25 {
		// Several rows of one instant, so that the order of kinds and ids matters.
		r := row(event.Kinds[i%3], fmt.Sprintf("e%02d", i), "u_1", "org_1", time.Duration(i/5)*time.Minute+time.Hour)
		d.insert(r)
	}
	all := d.get("officer", "/v1/events").page(t)
	want = strings.Fields(all.ids())
	if len(want) != 25 || all.Next != "" {
		t.Fatalf("one page: got %d rows, cursor %q; want 25 and none", len(want), all.Next)
	}

	var got []string
	query := "/v1/events?limit=4"
	pages := 0
	for cursor := ""; ; pages++ {
		path := query
		if cursor != "" {
			path += "&cursor=" + cursor
		}
		p := d.get("officer", path).page(t)
		got = append(got, strings.Fields(p.ids())...)
		if p.Withheld["past_expiry"] != float64(0) {
			t.Errorf("page %d: withheld %v, want what page 1 said", pages, p.Withheld)
		}
		if cursor = p.Next; cursor == "" {
			break
		}
		// What arrives between the pages is not in them, and neither moves the range.
		clock = clock.Add(time.Minute)
		late := row(event.Request, fmt.Sprintf("late%d", pages), "u_1", "org_1", time.Hour+3*time.Minute+30*time.Second)
		late.ReceivedAt = clock
		d.insert(late)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("pages: got %v, want %v", got, want)
	}
	if pages != 6 {
		t.Errorf("got %d further pages, want 6", pages)
	}
}

func TestRepeatedDeliveryIsOneEvent(t *testing.T) {
	d := open(t, nil)
	d.insert(row(event.Request, "twice", "u_1", "org_1", time.Minute))
	d.insert(row(event.Request, "twice", "u_1", "org_1", time.Minute))
	if got := d.get("officer", "/v1/events?limit=1").page(t); got.ids() != "twice" || got.Next != "" {
		t.Errorf("got %q and cursor %q, want one event and no next page", got.ids(), got.Next)
	}
}

func TestWithheld(t *testing.T) {
	// The clock of the reader is ahead of the engine's, so that rows are past
	// their expiry and still there.
	d := open(t, func(o *Options) { o.Now = func() time.Time { return now.Add(10 * 24 * time.Hour) } })
	d.insert(
		row(event.Request, "gone-1", "u_1", "org_1", 25*24*time.Hour), // 30 d
		row(event.Request, "gone-2", "u_2", "org_2", 25*24*time.Hour),
		row(event.Request, "here", "u_1", "org_1", time.Hour),
	)
	from := "?from=" + url.QueryEscape(now.Add(-26*24*time.Hour).Format(time.RFC3339))
	if got := d.get("officer", "/v1/events"+from).page(t).ids(); got != "here" {
		t.Errorf("rows: got %q, want here", got)
	}
	flags := func(request bool) string {
		return fmt.Sprint(map[string]any{"request": request, "audit": false, "security": false})
	}
	tests := []struct{ name, as, path, want string }{
		{"officer, whole range", "officer", "/v1/events" + from, "2"},
		{"officer, narrow filter", "officer", "/v1/events" + from + "&user=u_1", "1"},
		{"officer, last day", "officer", "/v1/events", "0"},
		{"officer, one person", "officer", "/v1/subjects/user:u_2/events" + from, "1"},
		{"officer of a tenant", "officer-org_1", "/v1/events" + from, "1"},
		{"investigator, last day", "investigator", "/v1/events", flags(true)},
		{"investigator, a person without hidden rows", "investigator", "/v1/subjects/user:nobody/events", flags(true)},
		{"investigator of a tenant", "investigator-org_1", "/v1/events?kind=audit", flags(true)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := d.get(tt.as, tt.path).page(t)
			if got := fmt.Sprint(p.Withheld["past_expiry"]); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if len(p.Withheld) != 2 || p.Withheld["erased"] == nil {
				t.Errorf("got %v: what does not exist yet must be absent", p.Withheld)
			}
		})
	}
}

func TestHorizon(t *testing.T) {
	d := open(t, nil)
	h := d.get("officer", "/v1/events").page(t).Horizon
	if h.Since != nil || len(h.Gaps) != 0 {
		t.Errorf("empty ledger: got since %v and gaps %v, want none", h.Since, h.Gaps)
	}
	part := ledger.Partition{Cluster: "c", Topic: "lethe.audit", Epoch: 1, Partition: 2}
	entry := func(first, last int64) ledger.Entry {
		e := ledger.Entry{Partition: part, First: first, Last: last, ReceivedAt: now.Add(-time.Hour), PolicyVersion: d.policy.Version}
		e.Counts[ledger.Expired] = uint64(last - first + 1)
		e.Other = []ledger.Run{{First: first, Last: last, Outcome: ledger.Expired}}
		return e
	}
	if err := d.store.WriteLedger(context.Background(), []ledger.Entry{entry(0, 9), entry(20, 29)}); err != nil {
		t.Fatal(err)
	}
	if err := d.store.WriteProgress(context.Background(), []ledger.Progress{{Partition: part, Next: 30, CompleteUntil: now.Add(-time.Minute), UpdatedAt: now}}); err != nil {
		t.Fatal(err)
	}
	h = d.get("officer", "/v1/events").page(t).Horizon
	if h.Since == nil || !h.Since.Equal(now.Add(-time.Hour)) {
		t.Errorf("since: got %v, want %v", h.Since, now.Add(-time.Hour))
	}
	if h.CompleteUntil == nil || !h.CompleteUntil.Equal(now.Add(-time.Minute)) {
		t.Errorf("complete_until: got %v, want %v", h.CompleteUntil, now.Add(-time.Minute))
	}
	if want := (gapAnswer{"lethe.audit", 2, 1, 10, 19}); len(h.Gaps) != 1 || h.Gaps[0] != want {
		t.Errorf("gaps: got %v, want %v", h.Gaps, want)
	}
	if h.Classes["request/pro@30d"] == nil || !h.Classes["request/pro@30d"].Equal(now.Add(-30*24*time.Hour+time.Second)) {
		t.Errorf("request/pro: got %v, want the second after now - 30 d", h.Classes["request/pro@30d"])
	}
	if at, ok := h.Classes["account@90d-after-account.deleted"]; at != nil || !ok {
		t.Errorf("account: got %v, %t; want null, because it waits for its anchor", at, ok)
	}
}

func TestSubjectEvents(t *testing.T) {
	d := open(t, nil)
	owned := row(event.Audit, "owned", "u_9", "org_1", time.Minute)
	owned.Owners = []string{"u_1"}
	owned.SubjectKeys = append(owned.SubjectKeys, "user:u_1")
	hash := d.keys.Email("zoe@example.com")[1]
	mail := row(event.Security, "mail", "", "org_1", 2*time.Minute)
	mail.Text[event.TUserEmail], mail.SubjectKeys = hash, []string{"email:" + hash}
	slash := row(event.Request, "slash", "a/b c", "org_1", 3*time.Minute)
	d.insert(owned, mail, slash, row(event.Request, "own", "u_1", "org_1", 4*time.Minute))
	tests := []struct{ name, path, want string }{
		{"actor and owner", "/v1/subjects/user:u_1/events", "owned own"},
		{"hashed e-mail of the older key", "/v1/subjects/email:" + hash + "/events", "mail"},
		{"several keys of one person", "/v1/subjects/user:u_1/events?also=email:" + hash, "owned mail own"},
		{"escaped id", "/v1/subjects/user:a%2Fb%20c/events", "slash"},
		{"with filters", "/v1/subjects/user:u_1/events?kind=request", "own"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := d.get("investigator", tt.path).page(t).ids(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSubjectKeys(t *testing.T) {
	d := bare(t, nil)
	tests := []struct{ name, body, want string }{
		{"e-mail", `{"email":" Zoe@Example.com "}`, `{"keys":["email:` + d.keys.Email("zoe@example.com")[0] + `","email:` + d.keys.Email("zoe@example.com")[1] + `"]}`},
		{"session", `{"session":"s-1"}`, `{"keys":["session:` + d.keys.Session("s-1")[0] + `","session:` + d.keys.Session("s-1")[1] + `"]}`},
		{"nothing", `{}`, "bad_request"},
		{"unknown member", `{"mail":"x"}`, "bad_request"},
		{"two objects", `{"email":"a@example.com"}{}`, "bad_request"},
		{"no JSON", `email`, "bad_request"},
		{"too large", `{"email":"` + strings.Repeat("a", maxBody) + `"}`, "body_too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.ask(http.MethodPost, "investigator", "/v1/subject-keys", tt.body)
			got := strings.TrimSpace(string(a.body))
			if a.status != http.StatusOK {
				got = a.problem()
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if a := d.ask(http.MethodPost, "officer", "/v1/subject-keys", "{}", "Content-Type", "text/plain"); a.problem() != "unsupported_media_type" {
		t.Errorf("text: got %s, want unsupported_media_type", a.body)
	}
	if a := d.ask(http.MethodPost, "officer", "/v1/subject-keys?email=zoe@example.com", "{}"); a.problem() != "bad_request" {
		t.Errorf("in the URL: got %s, want bad_request", a.body)
	}
}
