package query

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// holding posts to a route of holds and returns the hold.
func (d *desk) holding(path, body string, headers ...string) (h holdAnswer) {
	d.t.Helper()
	a := d.ask(http.MethodPost, "officer", path, body, headers...)
	if a.status != http.StatusOK {
		d.t.Fatalf("got %d %s, want 200", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &h); err != nil {
		d.t.Fatal(err)
	}
	return h
}

// TestHoldDelaysErasure holds a person under one of two identifiers, erases both, and
// releases the hold.
func TestHoldDelaysErasure(t *testing.T) {
	clock := now
	d := open(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	both := row(event.Audit, "both", "u_1", "org_1", time.Minute)
	both.SubjectKeys = append(both.SubjectKeys, "device:d_1")
	device := row(event.Security, "device", "", "org_1", time.Minute)
	device.SubjectKeys = []string{"device:d_1"}
	d.insert(both, device, row(event.Request, "other", "u_2", "org_1", time.Minute))
	look := func(when, officer, investigator string) {
		t.Helper()
		for as, want := range map[string]string{"officer": officer, "investigator": investigator} {
			if got := d.shown(as, "/v1/events?"); got != want {
				t.Errorf("%s as %s: got %q, want %q", when, as, got, want)
			}
		}
	}

	h := d.holding("/v1/holds", `{"subjects":["user:u_1"],"reason":"case 2026-14"}`)
	if h.Subjects != 1 || h.Reason != "case 2026-14" || !h.PlacedAt.Equal(now) || h.ReleasedAt != nil {
		t.Errorf("got %+v", h)
	}
	look("held", "both device other", "both device other")
	d.recorder.take(t)

	e := d.erasing(`{"subjects":["user:u_1"]}`)
	if *e.Expected != (expected{Hold: 1, Complete: true}) || e.KeptRows != 1 || *e.KeptReason != "hold" || len(e.Notes) != 1 || !strings.Contains(e.Notes[0], "hold") {
		t.Errorf("wholly held: got %+v, %+v", e, e.Expected)
	}
	if r := d.recorder.take(t)[0]; r.Data.Outcome != "failure" || r.Data.Reason != "everything is kept: hold" {
		t.Errorf("the refusal is recorded as %+v", r.Data)
	}
	e = d.erasing(`{"subjects":["user:u_1","device:d_1"]}`)
	if *e.Expected != (expected{Erase: 1, Hold: 1, Complete: true}) {
		t.Errorf("held in part: got %+v", e.Expected)
	}
	if r := d.recorder.take(t)[0]; r.Data.Outcome != "success" || r.Data.Reason != "" {
		t.Errorf("an erasure in part is recorded as %+v", r.Data)
	}
	look("held and erased", "both other", "other")
	if text, _ := d.exported("officer", "user:u_1"); !strings.Contains(text, `"id":"both"`) {
		t.Error("the held row is not in an export")
	}
	d.recorder.take(t)

	forgotten := func() (at []time.Time) {
		t.Helper()
		all, err := d.store.Erasures(t.Context())
		if err != nil || len(all) != 2 {
			t.Fatalf("got %+v, %v; want two erasures", all, err)
		}
		return []time.Time{all[0].ForgetAt, all[1].ForgetAt}
	}
	for _, at := range forgotten() {
		if !at.Equal(policy.Sentinel) {
			t.Errorf("an erasure that a hold delays is forgotten at %s", at)
		}
	}
	other := d.holding("/v1/holds", `{"workspace":"w_1","reason":"case 2026-15"}`)
	d.recorder.take(t)
	for range 2 { // the second changes nothing
		released := d.holding("/v1/holds/"+h.ID+"/release", "")
		if released.ID != h.ID || released.ReleasedAt == nil || released.ReleasedAt.After(now.Add(time.Second)) {
			t.Errorf("got %+v", released)
		}
		clock = clock.Add(time.Minute)
	}
	look("released", "other", "other")
	if r := d.recorder.take(t)[0]; r.Type != holdReleased || r.Data.Metadata["reason"] != "case 2026-14" || len(r.Data.People) != 0 {
		t.Errorf("the release is recorded as %+v", r)
	}
	if at := forgotten(); !at[0].Equal(policy.Sentinel) || !at[1].Equal(policy.Sentinel) {
		t.Errorf("while another hold stands, the erasures are forgotten at %s", at)
	}
	d.holding("/v1/holds/"+other.ID+"/release", "")
	all, err := d.store.Holds(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("got %+v, %v; want two holds", all, err)
	}
	ends := map[time.Time]bool{}
	for _, h := range all {
		end := d.policy.Everywhere.End(h.ReleasedAt).Add(d.policy.Grace).Truncate(time.Second)
		ends[end] = true
		if !h.UpdatedAt.After(h.PlacedAt) || !h.ForgetAt.Equal(end) {
			t.Errorf("got %+v, want it forgotten once no backup has its rows, at %s", h, end)
		}
	}
	for _, at := range forgotten() {
		if !ends[at] {
			t.Errorf("an erasure whose hold is released is forgotten at %s, want one of %v", at, ends)
		}
	}
	a := d.get("officer", "/v1/holds")
	if strings.Contains(string(a.body), "u_1") || !strings.Contains(string(a.body), h.ID) {
		t.Errorf("the list: got %s", a.body)
	}
}

func TestHoldOutlivesThePeriod(t *testing.T) {
	clock := now
	d := open(t, func(o *Options) { o.Now = func() time.Time { return clock } })
	held := row(event.Request, "held", "u_1", "org_1", time.Minute)
	held.ExpiresOverride = policy.SentinelUnix // as the sweep leaves it
	d.insert(held, row(event.Request, "other", "u_2", "org_1", time.Minute))
	d.holding("/v1/holds", `{"workspace":"w_1","reason":"another"}`)
	d.holding("/v1/holds", `{"subjects":["user:u_1"],"reason":"case"}`)
	clock = now.AddDate(0, 0, 40) // a request of the plan pro is kept 30 days
	path := "/v1/events?from=" + now.Add(-time.Hour).Format(time.RFC3339) + "&"
	if got := d.shown("officer", path); got != "held" {
		t.Errorf("officer: got %q, want the held row", got)
	}
	if got := d.shown("investigator", path); got != "" {
		t.Errorf("investigator: got %q, want nothing beyond the period", got)
	}
}

func TestBadHolds(t *testing.T) {
	d := bare(t, nil)
	tests := []struct{ name, as, path, body, want string }{
		{"no reason", "officer", "/v1/holds", `{"subjects":["user:u"]}`, "bad_request"},
		{"a blank reason", "officer", "/v1/holds", `{"subjects":["user:u"],"reason":" "}`, "bad_request"},
		{"a long reason", "officer", "/v1/holds", `{"subjects":["user:u"],"reason":"` + strings.Repeat("x", maxReason+1) + `"}`, "bad_request"},
		{"a reason that names a person", "officer", "/v1/holds", `{"subjects":["user:u"],"reason":"claim of zoe@example.com"}`, "raw_identifier"},
		{"nobody", "officer", "/v1/holds", `{"reason":"case"}`, "bad_request"},
		{"an e-mail", "officer", "/v1/holds", `{"subjects":["zoe@example.com"],"reason":"case"}`, "raw_identifier"},
		{"unknown member", "officer", "/v1/holds", `{"subjects":["user:u"],"reason":"case","until":"2030-01-01T00:00:00Z"}`, "bad_request"},
		{"a tenant's token", "officer-org_1", "/v1/holds", `{"organization":"org_1","reason":"case"}`, "forbidden"},
		{"a tenant's token releases", "officer-org_1", "/v1/holds/x/release", "", "forbidden"},
		{"no such hold", "officer", "/v1/holds/x/release", "", "not_found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := d.ask(http.MethodPost, tt.as, tt.path, tt.body)
			if a.problem() != tt.want || strings.Contains(string(a.body), "zoe") {
				t.Errorf("got %d %s, want %s", a.status, a.body, tt.want)
			}
		})
	}
	if a := d.get("officer-org_1", "/v1/holds"); a.problem() != "forbidden" {
		t.Errorf("a tenant's token lists: got %d, want forbidden", a.status)
	}
}
