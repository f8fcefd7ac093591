package proof

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// expect compares verdicts by the path that a sentence binds.
func (r *Report) expect(t *testing.T, when string, want map[string]Verdict) {
	t.Helper()
	for path, v := range want {
		if s := r.verdict(t, path); s.Verdict != v {
			t.Errorf("%s: %s: got %s (%s), want %s", when, path, s.Verdict, s.Why, v)
		}
	}
}

// TestVerdictsFollowTheFacts goes from an empty database to rows whose limits are over.
func TestVerdictsFollowTheFacts(t *testing.T) {
	b := newBench(t, "bstrapr")
	b.prove(Ask{}).expect(t, "empty", map[string]Verdict{
		"classes.usage.keep": Untested, "classes.account.keep": Untested, "rights.offered": Unprovable, "minors.under": Unprovable,
	})
	b.insert(request(3*day24, ""), audit(5*day24, "account.updated", "user.id", "u_1"))
	r := b.prove(Ask{})
	r.expect(t, "young rows", map[string]Verdict{"classes.usage.keep": Untested, "classes.account.keep": Untested})
	if s := r.verdict(t, "classes.usage.keep"); s.Why != "no row has reached the limit yet" || s.Binds[0].Rows != 1 || strings.Join(s.Binds[0].TTL, "") != "moved expiry, else 2y from retained_from" || s.Binds[0].WorstCase != "2y + 30d with backups, and the grace of 1d" {
		t.Errorf("got %s: %+v", s.Why, s.Binds[0])
	}

	// Two years ago less a day: it must be there. Two years and the grace ago: it must not.
	b.insert(request(2*365*day24-30*day24, ""))
	b.prove(Ask{}).expect(t, "before its limit", map[string]Verdict{"classes.usage.keep": Untested})
	b.insert(request(2*366*day24+2*day24, ""))
	r = b.prove(Ask{})
	r.expect(t, "after it", map[string]Verdict{"classes.usage.keep": Enforced, "classes.billing.keep": Untested})
	if s := r.verdict(t, "classes.usage.keep"); s.Binds[0].Reached != 1 || s.Binds[0].Rows != 2 {
		t.Errorf("got %+v, want one row that has reached its limit and two that have not", s.Binds[0].Counts)
	}

	// The account: no deletion, a deletion, rows moved to its end, and the end.
	account := func(when string, want Verdict, says string) {
		t.Helper()
		r := b.prove(Ask{})
		if s := r.verdict(t, "classes.account.keep"); s.Verdict != want || !strings.Contains(s.Why, says) {
			t.Errorf("%s: got %s (%s), want %s", when, s.Verdict, s.Why, want)
		}
	}
	account("no deletion", Untested, "no account.deleted has come yet")
	b.sql("INSERT INTO anchors (subject, action, occurred_at, source, id, forget_at) VALUES ('user:u_1', 'account.deleted', now64() - 100, '/svc', 'a', now() + 900000)")
	account("a deletion", Untested, "account.deleted has come once; no row has reached the limit that it sets")
	move := func(to time.Time) {
		b.sql("INSERT INTO retention_moves (" + moveColumns + ") SELECT 'audit_events', retention_class, bucket, toDate(retained_from), src_topic, src_partition, src_offset, " +
			`xxHash64(concat(source, '\0', id, '\0', toString(src_offset))), 0, toUnixTimestamp(toDateTime('` + to.Format(time.DateTime) + `', 'UTC')), 'anchor', ` + b.sql("SELECT count() + 1 FROM retention_moves") +
			", now64() FROM audit_events")
	}
	move(now.Add(90 * day24))
	b.sql("ALTER TABLE audit_events UPDATE expires_override = toUnixTimestamp(toDateTime('" + now.Add(90*day24).Format(time.DateTime) + "', 'UTC')) WHERE 1 SETTINGS mutations_sync = 2")
	account("moved", Untested, "no row has reached the limit")
	b.now = now.Add(90*day24 + time.Hour)
	account("past its end, within the grace", Untested, "no row has reached the limit")
	b.now = b.now.Add(day24)
	account("past the grace, and still there", Broken, "1 row of account@90d-after-account.deleted in audit_events: past their expiry")
	b.sql("DELETE FROM audit_events WHERE 1")
	account("gone", Enforced, "1 row reached the limit, and none is left")
}

// TestWhatTheTopicsDoIsNotKnown makes no green of what nobody has looked at.
func TestWhatTheTopicsDoIsNotKnown(t *testing.T) {
	b := furnished(t)
	p, err := New(Options{Policy: b.policy, Tables: b.store, Account: b.store, MergeTimeout: 3600, Registered: b.registered})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Prove(t.Context(), Ask{})
	if err != nil {
		t.Fatal(err)
	}
	s := r.verdict(t, "classes.usage.keep")
	if s.Verdict != Unprovable || !strings.Contains(s.Why, "topics") || r.NoTopics == "" || !strings.Contains(r.text(t), r.NoTopics) {
		t.Errorf("got %s: %s", s.Verdict, s.Why)
	}
}

// TestTiersAreJudgedApart: a row of one plan says nothing of another.
func TestTiersAreJudgedApart(t *testing.T) {
	b := newBench(t, "itskode")
	b.insert(request(20*day24, "free"), request(20*day24, "pro"), request(3*day24, ""))
	r := b.prove(Ask{})
	for path, want := range map[string]Verdict{"classes.request.keep.free": Enforced, "classes.request.keep.pro": Untested, "classes.request.keep.enterprise": Untested, "erasure.everywhere": Unprovable} {
		if got := r.bound(t, path); got.Verdict != want {
			t.Errorf("%s: got %s (%s), want %s", path, got.Verdict, got.Why, want)
		}
	}
	if got := r.bound(t, "classes.request.keep.enterprise").WorstCase; got != "120d with backups, and the grace of 1d" {
		t.Errorf("ninety days and thirty of backups: got %q", got)
	}
	for _, o := range r.Operator {
		if o.Name == "no_plan" && (o.Counts == nil || o.Rows != 1 || o.Verdict != Silent) {
			t.Errorf("rows without a plan: got %+v", o)
		}
	}
}

// TestSoonerCountsWhatWasMoved: a tier whose end an anchor can hasten has reached that
// limit only where a row was moved.
func TestSoonerCountsWhatWasMoved(t *testing.T) {
	b := newBench(t, "daestro")
	job := published{event.Audit, 20 * day24, map[event.Attr]string{event.EventAction: "job.done", event.EventOutcome: "success", event.PlanTier: "free", event.UserID: "u_1"}}
	b.insert(job)
	r := b.prove(Ask{})
	tier, sooner := r.bound(t, "classes.jobs.keep.free"), r.bound(t, "classes.jobs.sooner.within")
	if sooner.Verdict != Untested || !strings.Contains(sooner.Why, "account.deletion_requested") || sooner.Reached != 0 {
		t.Errorf("sooner: got %+v", sooner)
	}
	if tier.Verdict != Enforced || tier.Reached != 1 {
		t.Errorf("the tier's own period: got %+v", tier)
	}
}

// TestADeletionWithoutARequest: who is gone has asked for it, whether the request was
// told or not, and what counts from the request counts from the deletion.
func TestADeletionWithoutARequest(t *testing.T) {
	b := newBench(t, "daestro")
	expect := func(when, path string, want Verdict, says string) {
		t.Helper()
		if x := b.prove(Ask{}).bound(t, path); x.Verdict != want || !strings.Contains(x.Why, says) {
			t.Errorf("%s: got %s (%s), want %s (%s)", when, x.Verdict, x.Why, want, says)
		}
	}
	b.insert(audit(8*day24, "key.created", "user.id", "u_1"))
	expect("an account", "classes.audit.within", Untested, "no account.deletion_requested has come yet")
	anchor := func(subject, action string) {
		b.sql("INSERT INTO anchors (subject, action, occurred_at, source, id, forget_at) VALUES ('" + subject + "', '" + action + "', toDateTime64('" + now.Add(-7*day24).Format(time.DateTime) + "', 3), '/svc', 'a', now() + 900000)")
	}
	anchor("user:u_1", "account.deleted")
	anchor("hash:k1:ab", "account.deleted") // the same, without a name
	anchor("user:u_2", "account.restored")
	expect("a deletion", "classes.audit.within", Untested, "account.deleted has come once; no row has reached")
	b.sql("INSERT INTO retention_moves (" + moveColumns + ") SELECT 'audit_events', retention_class, bucket, toDate(retained_from), src_topic, src_partition, src_offset, " +
		`xxHash64(concat(source, '\0', id, '\0', toString(src_offset))), 0, toUInt32(toUnixTimestamp(now()) - 90000), 'anchor', 1, now64() - 90000 FROM audit_events`)
	b.sql("DELETE FROM audit_events WHERE 1")
	expect("six days and the grace later", "classes.audit.within", Enforced, "1 row reached the limit, and none is left")
	anchor("user:u_3", "account.deletion_requested")
	expect("another class", "classes.jobs.sooner.within", Untested, "account.deleted has come once, account.deletion_requested has come once; no row")
}

// TestMapping finds the rule of each stored row again.
func TestMapping(t *testing.T) {
	b := furnished(t)
	b.insert(audit(day24, "workspace.created", "workspace.id", "w_1"), audit(day24, "invoice.read", "data.category", "billing"))
	b.sql("INSERT INTO audit_events SELECT * REPLACE ('support@3y' AS retention_class, '2023-older' AS policy_version) FROM audit_events WHERE event_action = 'billing.paid'")
	r := b.prove(Ask{})
	if !r.OK() {
		t.Errorf("an earlier policy file stored otherwise, which is no fault: got %v", r.Faults)
	}
	want := []Mapping{
		{"audit", "account.updated", "account/without@2y", 7, "account/without@2y", 1, false},
		{"audit", "account.updated", "account@90d-after-account.deleted", 7, "account@90d-after-account.deleted", 1, false},
		{"audit", "billing.paid", "billing@7y", 2, "billing@7y", 1, false},
		{"audit", "billing.paid", "support@3y", 2, "billing@7y", 1, true},
		{"audit", "invoice.read", "billing@7y", 3, "billing@7y", 1, false},
		{"audit", "member.invited", "usage@2y", 9, "usage@2y", 1, false},
		{"audit", "workspace.created", "workspace_metadata@1y-after-workspace.deleted", 8, "workspace_metadata@1y-after-workspace.deleted", 1, false},
		{"request", "", "usage@2y", 9, "usage@2y", 2, false},
	}
	if len(r.Mapping) != len(want) {
		t.Fatalf("got %+v", r.Mapping)
	}
	for i := range want {
		if r.Mapping[i] != want[i] {
			t.Errorf("got %+v, want %+v", r.Mapping[i], want[i])
		}
	}
	if r.Rules[8].Rows != 3 || r.Rules[1].Rows != 2 || r.Rules[0].Rows != 0 {
		t.Errorf("rows per rule: got %+v", r.Rules)
	}

	// A person signs it off. What comes later is named; what is gone is not missed.
	signed := append([]Mapping{}, r.Mapping...)
	b.insert(request(day24, ""))
	b.sql("DELETE FROM audit_events WHERE event_action = 'invoice.read'")
	if r := b.prove(Ask{Signed: signed}); r.Result != green {
		t.Errorf("signed off: got %v", r.Faults)
	}
	b.insert(audit(day24, "secret.read"))
	r = b.prove(Ask{Signed: signed})
	if len(r.Faults) != 1 || r.Faults[0].Kind != unsigned || !strings.Contains(r.Faults[0].Text, "audit secret.read is stored as usage@2y") {
		t.Errorf("got %v", r.Faults)
	}
	if r := b.prove(Ask{}); !r.OK() || r.Result != unsigned || !strings.Contains(r.text(t), "nobody has signed off which class") {
		t.Errorf("nobody was asked to sign: got %s, %v", r.Result, r.Faults)
	}
}

// TestRulesThatAskWhatIsThere finds them again by what a row says that its event had.
func TestRulesThatAskWhatIsThere(t *testing.T) {
	b := newBench(t, "itskode")
	traced := audit(day24, "deployment.started")
	b.insert(traced)
	b.sql("INSERT INTO audit_events SELECT * REPLACE ('audit_traced@90d' AS retention_class, 'DE' AS client_country) FROM audit_events")
	r := b.prove(Ask{})
	if !r.OK() || len(r.Mapping) != 2 || r.Mapping[0].Rule != 13 || r.Mapping[1].Rule != 12 || r.Mapping[1].Today != "audit_traced@90d" {
		t.Errorf("got %+v and %v", r.Mapping, r.Faults)
	}
	b.sql("INSERT INTO audit_events SELECT * REPLACE ('audit@1y' AS retention_class, 'x' AS id) FROM audit_events WHERE client_country = 'DE'")
	if r := b.prove(Ask{}); len(r.Faults) != 1 || r.Faults[0].Kind != wrongRule {
		t.Errorf("a row with a country among those without: got %v", r.Faults)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Hour: "1h", day24: "1d", 30*day24 + 90*time.Minute: "30d1h30m", 90 * time.Second: "1m30s"} {
		if got := span(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	if got := promised(policy.StoredClass{Keep: "within 30d", From: "account.deleted", Within: true}); got != "within 30d of account.deleted" {
		t.Errorf("got %q", got)
	}
}

// TestWhatWasShortenedHasTheGraceFromThen: a promise that is shortened brings rows past
// their expiry at once, and ClickHouse needs the grace for them too.
func TestWhatWasShortenedHasTheGraceFromThen(t *testing.T) {
	b := furnished(t)
	b.sql("SYSTEM STOP TTL MERGES request_events")
	old := "now() - toIntervalYear(3)"
	b.sql(insertAs("request_events", old+" AS retained_from, "+old+" AS occurred_at, toStartOfMonth("+old+") AS bucket", "id = 'e-0'"))
	b.insert(request(3*365*day24, "")) // is gone
	for _, c := range []struct {
		name  string
		since time.Time // zero: it was not shortened
		late  bool
	}{{"never", time.Time{}, true}, {"an hour ago", now.Add(-time.Hour), false}, {"longer ago than the grace", now.Add(-25 * time.Hour), true}} {
		o := b.options()
		if !c.since.IsZero() {
			o.Shortened = func(context.Context) (map[string]time.Time, error) {
				return map[string]time.Time{"usage@2y": c.since}, nil
			}
		}
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Prove(t.Context(), Ask{})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.verdict(t, "classes.usage.keep"); (got.Verdict == Broken) != c.late || (got.Binds[0].Reached > 0) != c.late || got.Binds[0].Past != 1 {
			t.Errorf("%s: got %s (%s), %d past, %d reached the limit", c.name, got.Verdict, got.Why, got.Binds[0].Past, got.Binds[0].Reached)
		}
	}
}
