package query

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

const infratrace = "../../schemas/policies/infratrace.yaml"

// TestDeletedAccountIsForOfficers is R3 for "within": from the deletion on only
// officers see the rows, at the end nobody. The engine has moved nothing.
func TestDeletedAccountIsForOfficers(t *testing.T) {
	clock := now
	d := openUnder(t, infratrace, func(o *Options) { o.Now = func() time.Time { return clock } })
	moved := row(event.Security, "moved", "u_1", "org_1", time.Minute)
	moved.ExpiresOverride = uint32(now.Add(29*24*time.Hour - time.Minute).Unix()) // as the sweep leaves it
	team := row(event.Audit, "team", "u_2", "org_1", time.Minute)
	team.Owners, team.SubjectKeys = []string{"u_1"}, append(team.SubjectKeys, "user:u_1")
	d.insert(row(event.Request, "mine", "u_1", "org_1", time.Minute), moved, team, row(event.Request, "other", "u_2", "org_1", time.Minute))
	path := "/v1/events?from=" + now.Add(-time.Hour).Format(time.RFC3339) + "&"
	look := func(when, officer, investigator string) {
		t.Helper()
		for as, want := range map[string]string{"officer": officer, "investigator": investigator} {
			if got := d.shown(as, path); got != want {
				t.Errorf("%s as %s: got %q, want %q", when, as, got, want)
			}
		}
	}
	look("before", "mine moved other team", "mine moved other team")
	deleted := event.Fact{Subject: "user:u_1", Action: "account.deleted", OccurredAt: now.Add(-time.Second), ReceivedAt: now, Source: "/svc/api", ID: "1", ForgetAt: now.AddDate(1, 0, 0)}
	if err := d.store.WriteFacts(t.Context(), []event.Fact{deleted}); err != nil {
		t.Fatal(err)
	}
	look("deleted", "mine moved other team", "other team") // the team's row stays
	for as, want := range map[string]any{"officer": 0.0, "investigator": true} {
		erased := d.get(as, path).page(t).Withheld["erased"]
		if flags, ok := erased.(map[string]any); ok {
			erased = flags["security"]
		}
		if erased != want {
			t.Errorf("withheld as %s: got %v, want %v", as, erased, want)
		}
	}
	end := deleted.OccurredAt.Truncate(time.Second).AddDate(0, 0, 30).Add(-d.policy.Grace)
	clock = end.Add(-time.Minute - time.Second)
	look("before the end", "mine moved other team", "other team")
	named := func(when string, want map[string]bool) {
		t.Helper()
		for as, want := range want {
			found := d.get(as, "/v1/subjects/user:u_1/events?from="+now.Add(-time.Hour).Format(time.RFC3339), granted...)
			team := d.get(as, path+"action=document.read", granted...)
			if got := strings.Contains(string(found.body), `"team"`); got != want {
				t.Errorf("%s as %s: u_1 finds the team's row: %v", when, as, got)
			}
			if got := strings.Contains(string(team.body), "u_1"); got != want || !strings.Contains(string(team.body), `"team"`) {
				t.Errorf("%s as %s: the team's row names u_1: %v: %s", when, as, got, team.body)
			}
		}
	}
	named("before the end", map[string]bool{"officer": true, "investigator": false})
	clock = end
	look("at the end", "other team", "other team")
	named("at the end", map[string]bool{"officer": false, "investigator": false})

	restored := event.Fact{Subject: "user:u_1", Action: "account.restored", OccurredAt: now, ReceivedAt: now, Source: "/svc/api", ID: "2", ForgetAt: now.AddDate(1, 0, 0)}
	if err := d.store.WriteFacts(t.Context(), []event.Fact{restored}); err != nil {
		t.Fatal(err)
	}
	clock = now.Add(time.Minute)
	look("restored", "mine moved other team", "mine moved other team")
}

// TestStatuteKeepsForOfficers erases a person of whom a law keeps rows: one of their own,
// one that is somebody else's too, and one no longer.
func TestStatuteKeepsForOfficers(t *testing.T) {
	d := openUnder(t, infratrace, nil)
	bill := func(id string, age time.Duration) *event.Row {
		r := row(event.Audit, id, "u_1", "org_1", age)
		r.Text[event.TAction] = "billing.paid"
		return r
	}
	shared := bill("shared", time.Minute)
	shared.Owners, shared.SubjectKeys = []string{"u_2"}, append(shared.SubjectKeys, "user:u_2")
	d.insert(bill("bill", time.Minute), shared, bill("old", 8*366*24*time.Hour), row(event.Request, "mine", "u_1", "org_1", time.Minute))
	e := d.erasing(`{"subjects":["user:u_1"]}`)
	if *e.Expected != (expected{Erase: 2, Statute: 2, Complete: true}) || *e.KeptReason != "statute" || len(e.Notes) != 1 {
		t.Errorf("got %+v, %+v", e, e.Expected)
	}
	for path, want := range map[string][2]string{"/v1/events?": {"bill shared", "shared"}, "/v1/events?user=u_1&": {"bill shared", ""}, "/v1/subjects/user:u_2/events?": {"shared", "shared"}} {
		for i, as := range []string{"officer", "investigator"} {
			if got := d.shown(as, path); got != want[i] {
				t.Errorf("%s of %s: got %q, want %q", as, path, got, want[i])
			}
		}
	}
	// A hold is released, and the law keeps on: forgotten any earlier, the row would be shown again.
	h := d.holding("/v1/holds", `{"subjects":["user:u_1"],"reason":"case"}`)
	e = d.erasing(`{"subjects":["user:u_1"]}`)
	d.holding("/v1/holds/"+h.ID+"/release", "")
	all, err := d.store.Erasures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := d.policy.Everywhere.End(policy.Period{Months: 84}.End(now)).Add(d.policy.Grace)
	if i := slices.IndexFunc(all, func(x event.Erasure) bool { return x.ID == e.ID }); i < 0 || !all[i].ForgetAt.Equal(want) {
		t.Errorf("got %+v, want the erasure forgotten at %s", all, want)
	}
}

// TestRightNotOffered erases under a policy whose text does not offer it.
func TestRightNotOffered(t *testing.T) {
	d := open(t, func(o *Options) {
		p := *o.Policy
		p.Rights = []string{"access"}
		o.Policy = &p
	})
	e := d.erasing(`{"project":"p_1"}`)
	if *e.Offered || len(e.Notes) != 1 || !strings.Contains(e.Notes[0], "does not offer") {
		t.Errorf("got %+v", e)
	}
}

// TestNothingIsShownWithoutFacts takes the table of erasures away while there is one.
func TestNothingIsShownWithoutFacts(t *testing.T) {
	d := open(t, nil)
	d.insert(row(event.Request, "mine", "u_1", "org_1", time.Minute), row(event.Request, "other", "u_2", "org_1", time.Minute))
	d.erasing(`{"subjects":["user:u_1"]}`)
	options, err := clickhouse.ParseDSN(d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	paths := []string{"/v1/events", "/v1/subjects/user:u_2/events", "/v1/subjects/user:u_2/export"}
	look := func(status int, problem string) {
		t.Helper()
		for _, path := range paths {
			if a := d.get("officer", path, granted...); a.status != status || a.problem() != problem {
				t.Errorf("%s: got %d %.200s, want %d", path, a.status, a.body, status)
			}
		}
	}
	look(http.StatusOK, "")
	if err := conn.Exec(t.Context(), "RENAME TABLE erasures TO away"); err != nil {
		t.Fatal(err)
	}
	d.recorder.take(t)
	look(http.StatusServiceUnavailable, "storage_unavailable")
	if got := d.recorder.take(t); len(got) != 0 {
		t.Errorf("got %d records of consultations that did not happen", len(got))
	}
	if a := d.ask(http.MethodPost, "officer", "/v1/erasures", `{"project":"p"}`); a.problem() != "storage_unavailable" {
		t.Errorf("erase: got %d %s", a.status, a.body)
	}
	if err := conn.Exec(t.Context(), "RENAME TABLE away TO erasures"); err != nil {
		t.Fatal(err)
	}
	look(http.StatusOK, "")
	if got := d.shown("officer", "/v1/events?"); got != "other" {
		t.Errorf("got %q, want the other", got)
	}

	// Whatever the error is that keeps the facts away.
	d = bare(t, func(o *Options) { o.Book = &shelf{err: storeError{permanent: true}} })
	look(http.StatusServiceUnavailable, "storage_unavailable")
}
