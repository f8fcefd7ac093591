package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
)

// furnished is a bench with some rows of bstrapr, of which usage has reached its limit.
func furnished(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, "bstrapr")
	b.insert(
		request(3*day24, ""), request(40*day24, ""), request(3*365*day24, ""), // the last one is in the ledger only
		audit(2*day24, "billing.paid"), audit(2*day24, "member.invited"), audit(5*day24, "account.updated", "user.id", "u_1"),
		audit(5*day24, "account.updated"),
	)
	return b
}

// planted is a drift and how it is undone.
type planted struct {
	name        string
	drift, undo []string
	repair      bool     // by starting the ingester, which applies the policy again
	want        []string // the kinds of faults
	says        string   // in one of them
	breaks      string   // the path of a sentence that is broken
	spares      string   // and of one that is not
}

// insertAs inserts rows of a table again, with other values.
func insertAs(table, replace, where string) string {
	return fmt.Sprintf("INSERT INTO %[1]s SELECT * REPLACE (%[2]s) FROM %[1]s WHERE %[3]s", table, replace, where)
}

func drifts(b *bench) []planted {
	usage := func(p policy.Period) string {
		stored := b.policy.Stored()
		for i := range stored {
			if stored[i].Key == "usage@2y" {
				stored[i].Period = p
			}
		}
		return policy.ExpiresExpr(stored)
	}
	two, longer, shorter := usage(policy.Period{Months: 24}), usage(policy.Period{Months: 36}), usage(policy.Period{Days: 60})
	everywhere := func(expires string) (all []string) {
		for _, k := range event.Kinds {
			all = append(all, "ALTER TABLE "+k.Table()+" MODIFY COLUMN expires_at DateTime('UTC') ALIAS "+expires+", MODIFY TTL "+expires)
		}
		return all
	}
	move := func(override, planned string) string {
		return "INSERT INTO retention_moves (" + moveColumns + ") SELECT 'request_events', retention_class, bucket, toDate(retained_from), src_topic, src_partition, src_offset, " +
			`xxHash64(concat(source, '\0', id, '\0', toString(src_offset))), 0, ` + override + ", 'erasure', 1, " + planned + " FROM request_events WHERE src_offset = 0"
	}
	// A mutation would remove a row that is erased at once: one more row comes as erased.
	erased := insertAs("request_events", "1 AS expires_override, toInt64(900) AS src_offset", "id = 'e-0'")
	moved900 := func(planned string) string {
		return strings.Replace(move("1", planned), "src_offset = 0", "src_offset = 900", 1)
	}
	noMoves := "TRUNCATE TABLE retention_moves"
	far := "toUnixTimestamp(now() + toIntervalYear(1))"
	override := "ALTER TABLE request_events UPDATE expires_override = " + far + " WHERE src_offset = 0 SETTINGS mutations_sync = 2"
	back := "ALTER TABLE request_events UPDATE expires_override = 0 WHERE src_offset = 0 SETTINGS mutations_sync = 2"
	return []planted{
		{name: "the TTL of a table altered", drift: []string{"ALTER TABLE audit_events MODIFY TTL retained_from + toIntervalYear(9)"}, repair: true,
			want: []string{wrongAlias, wrongTTL}, says: "the TTL of audit_events is not that of the policy file: a row of", breaks: "classes.billing.keep"},
		{name: "the TTL of a table removed", drift: []string{"ALTER TABLE audit_events REMOVE TTL"}, repair: true,
			want: []string{wrongAlias, wrongTTL}, says: "it has none, and nothing expires", breaks: "classes.billing.keep"},
		{name: "the period of one class altered in TTL and column", repair: true,
			drift: []string{"ALTER TABLE audit_events MODIFY COLUMN expires_at DateTime('UTC') ALIAS " + longer + ", MODIFY TTL " + longer},
			want:  []string{wrongTTL}, says: "a row of usage@2y that counts from now expires at", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "the column expires_at differs from the TTL", repair: true,
			drift: []string{"ALTER TABLE audit_events MODIFY COLUMN expires_at DateTime('UTC') ALIAS retained_from + toIntervalYear(9)"},
			want:  []string{wrongAlias}, says: "expires_at of audit_events", breaks: "classes.billing.keep"},
		{name: "the column expires_at stored and not computed", drift: []string{"ALTER TABLE security_events MODIFY COLUMN expires_at DateTime('UTC') DEFAULT " + two},
			undo: []string{"ALTER TABLE security_events MODIFY COLUMN expires_at DateTime('UTC') ALIAS " + two}, want: []string{wrongAlias}, says: "expires_at of security_events", breaks: "classes.usage.keep"},
		{name: "merge_with_ttl_timeout altered", drift: []string{"ALTER TABLE security_events MODIFY SETTING merge_with_ttl_timeout = 8640000"}, repair: true,
			want: []string{wrongSetting}, says: "merge_with_ttl_timeout of security_events is 8640000 and must be 3600", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "a setting that lets rows wait for their whole part", drift: []string{"ALTER TABLE security_events MODIFY SETTING ttl_only_drop_parts = 1"},
			undo: []string{"ALTER TABLE security_events RESET SETTING ttl_only_drop_parts"}, want: []string{wrongSetting}, says: "ttl_only_drop_parts", breaks: "classes.usage.keep"},
		{name: "rows moved without a move that says so", drift: []string{override}, undo: []string{back},
			want: []string{unexplained}, says: "1 row of usage@2y in request_events: their expiry was moved", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows moved otherwise than their move says", drift: []string{move("toUnixTimestamp(now() + toIntervalDay(1))", "now64() - 7200"), override}, undo: []string{back, noMoves},
			want: []string{unmoved}, says: "and it was not", breaks: "classes.usage.keep"},
		{name: "a move that was not carried out", drift: []string{move("1", "now64() - 7200")}, undo: []string{noMoves},
			want: []string{unmoved}, says: "1 row of usage@2y in request_events: retention_moves says", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows moved as their move says", drift: []string{override, "INSERT INTO retention_moves (" + moveColumns + ") SELECT 'request_events', retention_class, bucket, toDate(retained_from), src_topic, src_partition, src_offset, " +
			`xxHash64(concat(source, '\0', id, '\0', toString(src_offset))), 0, expires_override, 'hold', 1, now64() - 7200 FROM request_events WHERE src_offset = 0`},
			undo: []string{back, noMoves}},
		{name: "a move that is under way", drift: []string{move("1", "now64() - 60")}, undo: []string{noMoves}},
		{name: "rows of a class that nobody registered", drift: []string{insertAs("request_events", "'usage@90y' AS retention_class, 'old' AS policy_version", "src_offset = 0")},
			undo: []string{"DELETE FROM request_events WHERE retention_class = 'usage@90y'"},
			want: []string{unknownClass}, says: "1 row of usage@90y in request_events: no policy file has made this promise", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows in a wrong bucket", drift: []string{insertAs("request_events", "toDate('2099-01-01') AS bucket", "src_offset = 0")},
			undo: []string{"DELETE FROM request_events WHERE bucket = '2099-01-01'"},
			want: []string{misplaced}, says: "1 row of usage@2y in request_events: in a bucket", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows that count from another instant", drift: []string{insertAs("audit_events", "retained_from + toIntervalYear(1) AS retained_from, toStartOfMonth(retained_from + toIntervalYear(1)) AS bucket", "event_action = 'billing.paid'")},
			undo: []string{"DELETE FROM audit_events WHERE retained_from > now()"},
			want: []string{misdated}, says: "1 row of billing@7y in audit_events: their period counts from another instant", breaks: "classes.billing.keep", spares: "classes.usage.keep"},
		{name: "rows past their expiry and the grace", drift: []string{"SYSTEM STOP TTL MERGES request_events",
			insertAs("request_events", "now() - toIntervalYear(3) AS retained_from, now() - toIntervalYear(3) AS occurred_at, now() AS received_at, toStartOfMonth(now() - toIntervalYear(3)) AS bucket", "src_offset = 0")},
			undo: []string{"SYSTEM START TTL MERGES request_events", "DELETE FROM request_events WHERE retained_from < now() - toIntervalYear(2)"},
			want: []string{late}, says: "1 row of usage@2y in request_events: past their expiry and the grace of 1d", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows that were erased long enough ago and are there", drift: []string{"SYSTEM STOP TTL MERGES request_events",
			erased, moved900("now64() - 100000")}, undo: []string{"DELETE FROM request_events WHERE src_offset = 900", noMoves, "SYSTEM START TTL MERGES request_events"},
			want: []string{late}, says: "1 row of usage@2y in request_events: past their expiry and the grace of 1d", breaks: "classes.usage.keep"},
		{name: "rows that were erased just now", drift: []string{"SYSTEM STOP TTL MERGES request_events",
			erased, moved900("now64() - 60")}, undo: []string{"DELETE FROM request_events WHERE src_offset = 900", noMoves, "SYSTEM START TTL MERGES request_events"}},
		{name: "a copy of the rows", drift: []string{"CREATE TABLE copied AS request_events"}, undo: []string{"DROP TABLE copied SYNC"},
			want: []string{copied}, says: "copied has columns that name people"},
		{name: "a copy of some columns", drift: []string{"CREATE TABLE copied ENGINE = MergeTree ORDER BY user_id AS SELECT user_id, client_country FROM request_events"},
			undo: []string{"DROP TABLE copied SYNC"}, want: []string{copied}, says: "copied has columns that name people"},
		{name: "the TTL of a table of our own altered", drift: []string{"ALTER TABLE erasure_keys REMOVE TTL"}, undo: []string{"ALTER TABLE erasure_keys MODIFY TTL forget_at"},
			want: []string{wrongTTL}, says: "the TTL of erasure_keys is none and must be forget_at"},
		{name: "a setting that delays the TTL of a table of our own", drift: []string{"ALTER TABLE erasure_keys MODIFY SETTING merge_with_ttl_timeout = 8640000"},
			undo: []string{"ALTER TABLE erasure_keys RESET SETTING merge_with_ttl_timeout"}, want: []string{wrongSetting}, says: "merge_with_ttl_timeout of erasure_keys is 8640000"},
		{name: "identifiers that outlive their erasure", drift: []string{"SYSTEM STOP TTL MERGES erasure_keys", "INSERT INTO erasure_keys VALUES ('e', 'user:u', now() - 90000)"},
			undo: []string{"TRUNCATE TABLE erasure_keys", "SYSTEM START TTL MERGES erasure_keys"}, want: []string{late}, says: "1 row in erasure_keys: past their TTL for more than 1d"},
		{name: "a setting that keeps the bytes of replaced parts", drift: []string{"ALTER TABLE request_events MODIFY SETTING old_parts_lifetime = 8640000"},
			undo: []string{"ALTER TABLE request_events RESET SETTING old_parts_lifetime"}, want: []string{wrongSetting}, says: "old_parts_lifetime of request_events is 8640000", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "a TTL of a column", drift: []string{"ALTER TABLE request_events MODIFY COLUMN client_country LowCardinality(String) TTL retained_from + toIntervalDay(300)"},
			undo: []string{"ALTER TABLE request_events MODIFY COLUMN client_country REMOVE TTL"}, want: []string{wrongTTL}, says: "a column of request_events has a TTL of its own", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "a longer promise in the register, and in the tables", repair: true,
			drift: append([]string{"ALTER TABLE retention_classes UPDATE months = 36 WHERE retention_class = 'usage@2y' SETTINGS mutations_sync = 2"}, everywhere(longer)...),
			undo:  []string{"ALTER TABLE retention_classes UPDATE months = 24 WHERE retention_class = 'usage@2y' SETTINGS mutations_sync = 2"},
			want:  []string{wrongPromise}, says: "promise 3y of usage@2y, and the policy file 2y", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "a shorter promise in the register, and in the tables", repair: true,
			drift: append([]string{"INSERT INTO retention_shortenings SELECT 'usage@2y', 'x', 0, 60, 0, 0, false, 0, 0, now64()"}, everywhere(shorter)...),
			undo:  []string{"TRUNCATE TABLE retention_shortenings"},
			want:  []string{wrongPromise}, says: "promise 60d of usage@2y, and the policy file 2y", breaks: "classes.usage.keep", spares: "classes.billing.keep"},
		{name: "rows that the rules would store otherwise", drift: []string{insertAs("audit_events", "'billing@7y' AS retention_class", "event_action = 'member.invited'")},
			undo: []string{"DELETE FROM audit_events WHERE event_action = 'member.invited' AND retention_class = 'billing@7y'"},
			want: []string{wrongRule}, says: "1 row of audit member.invited were stored as billing@7y under this policy file, which says usage@2y (rule 9)", breaks: "classes.billing.keep"},
		{name: "an erasure past its deadline", drift: []string{"INSERT INTO erasures (erasure, state, deadline, everywhere, updated_at, forget_at) VALUES ('e', 'requested', now() - 6000, now() + 600000, now64(), now() + 900000), ('f', 'moved', now() + 600, now() + 600000, now64(), now() + 900000)"},
			undo: []string{"TRUNCATE TABLE erasures"}, want: []string{erasureLate}, says: "1 erasures are past their deadline"},
		{name: "a table dropped", drift: []string{"RENAME TABLE holds TO none_of_ours"}, undo: []string{"RENAME TABLE none_of_ours TO holds"}, want: []string{copied, noTable}, says: "holds does not exist"},
	}
}

// TestDriftIsNamed plants each drift by hand, and undoes it.
func TestDriftIsNamed(t *testing.T) {
	b := furnished(t)
	b.clean(t, "before")
	for _, d := range drifts(b) {
		for _, s := range d.drift {
			b.sql(s)
		}
		r := b.prove(Ask{})
		b.named(t, r, d)
		for _, s := range d.undo {
			b.sql(s)
		}
		if d.repair {
			if err := migrate.Apply(t.Context(), migrate.Options{DSN: b.dsn, Policy: b.policy}); err != nil {
				t.Fatal(err)
			}
		}
		b.clean(t, "after "+d.name)
	}
}

// clean expects that nothing is found: the control of every drift.
func (b *bench) clean(t *testing.T, when string) {
	t.Helper()
	r := b.prove(Ask{})
	if s := r.verdict(t, "classes.usage.keep"); !r.OK() || len(r.Faults) > 0 || s.Verdict != Enforced {
		t.Fatalf("%s: got %+v, usage is %s: %s", when, r.Faults, s.Verdict, s.Why)
	}
}

func (b *bench) named(t *testing.T, r *Report, d planted) {
	t.Helper()
	if got := r.kinds(); !slices.Equal(got, d.want) && len(got)+len(d.want) > 0 {
		t.Errorf("%s: got %v", d.name, r.Faults)
	}
	if r.OK() != (len(d.want) == 0) {
		t.Errorf("%s: the result is %s", d.name, r.Result)
	}
	text := r.text(t)
	if d.says != "" && (!slices.ContainsFunc(r.Faults, func(f Fault) bool { return strings.Contains(f.Text, d.says) }) || !strings.Contains(text, d.says)) {
		t.Errorf("%s: nothing says %q: %+v", d.name, d.says, r.Faults)
	}
	if d.breaks != "" {
		if s := r.verdict(t, d.breaks); s.Verdict != Broken || s.Why == "" {
			t.Errorf("%s: %s is %s: %s", d.name, d.breaks, s.Verdict, s.Why)
		}
	}
	if d.spares != "" {
		if s := r.verdict(t, d.spares); s.Verdict == Broken {
			t.Errorf("%s: %s is broken: %s", d.name, d.spares, s.Why)
		}
	}
	for _, f := range r.Faults {
		if !slices.Contains(Kinds, f.Kind) {
			t.Errorf("%s: %q is not in the list of kinds", d.name, f.Kind)
		}
	}
}

func TestADetachedPartIsNamed(t *testing.T) {
	b := furnished(t)
	b.clean(t, "before")
	part := b.sql("SELECT _part FROM audit_events WHERE event_action = 'billing.paid'")
	b.sql("ALTER TABLE audit_events DETACH PART '" + part + "'")
	b.named(t, b.prove(Ask{}), planted{name: "detached", want: []string{detached}, says: "audit_events has 1 detached parts, in which nothing expires: " + part, breaks: "classes.billing.keep"})
	b.sql("ALTER TABLE audit_events ATTACH PART '" + part + "'")
	b.clean(t, "after")
}

// faults holds a proof's to those that are wanted, of which the first is by a part of its text.
func (b *bench) faults(when string, want ...string) {
	b.t.Helper()
	var got []string
	for _, f := range b.prove(Ask{}).Faults {
		got = append(got, f.Kind+": "+f.Text)
	}
	if len(got) != len(want) || len(want) > 0 && !strings.Contains(got[0], want[0]) {
		b.t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

// TestRowsThatOutliveTheirAnchorAreNamed: a sweep that never came leaves no move behind,
// and no row that is late by its own expiry.
func TestRowsThatOutliveTheirAnchorAreNamed(t *testing.T) {
	b := newBench(t, "infratrace")
	b.insert(audit(100*day24, "member.invited", "user.id", "u_1"), audit(100*day24, "billing.paid", "user.id", "u_1"), audit(100*day24, "member.invited", "user.id", "u_2"))
	b.sql("ALTER TABLE audit_events UPDATE subject_keys = [concat('user:', user_id)] WHERE 1 SETTINGS mutations_sync = 2")
	anchor := func(subject, action string, days int, told string) {
		b.sql(fmt.Sprintf("INSERT INTO anchors SELECT '%s', '%s', now64() - %d, '', '/svc', 'x', %s, now() + 864000", subject, action, days*86400, told))
	}
	const named = "unmoved: 1 row of audit@within-30d-of-account.deleted in audit_events: what they hang on was deleted"
	b.faults("nothing is deleted")
	anchor("user:u_1", "account.deleted", 29, "now64() - 2505600")
	b.faults("within the time")
	anchor("user:u_2", "account.deleted", 40, "now64() - 60")
	b.faults("told a minute ago")
	b.sql("TRUNCATE TABLE anchors")
	anchor("user:u_1", "account.deleted", 31, "now64() - 2678400")
	b.faults("after the time", named) // a law keeps the bill
	r := b.prove(Ask{})
	if s := r.verdict(t, "classes.audit.within"); s.Verdict != Broken {
		t.Errorf("got %s: %s", s.Verdict, s.Why)
	}
	hold := func(released string) {
		b.sql("INSERT INTO holds SELECT 'h', ['user:u_1'], [], 'case', now64(), " + released + ", now64(), now() + 864000")
	}
	hold("toDateTime64(0, 3)")
	b.faults("held")
	hold("now64() - 60")
	b.faults("released a minute ago")
	hold("now64() - 172800")
	b.faults("released two days ago", named)
	anchor("user:u_1", "account.restored", 10, "now64() - 864000")
	b.faults("restored")
}

// TestRowsThatOutliveAMembershipAreNamed: a removal ends rows of one organization.
func TestRowsThatOutliveAMembershipAreNamed(t *testing.T) {
	b := newBenchUnder(t, ofMembers(t))
	b.insert(audit(100*day24, "account.updated", "user.id", "u_1", "organization.id", "a/b"), audit(100*day24, "account.updated", "user.id", "u_1", "organization.id", "org_2"),
		audit(100*day24, "account.updated", "user.id", "u_2", "organization.id", "a/b"))
	b.sql("ALTER TABLE audit_events UPDATE subject_keys = [concat('user:', user_id)] WHERE 1 SETTINGS mutations_sync = 2")
	anchor := func(subject, action string, days int) {
		b.sql(fmt.Sprintf("INSERT INTO anchors SELECT '%s', '%s', now64() - %d, '', '/svc', 'x', now64() - %[3]d, now() + 864000", subject, action, days*86400))
	}
	b.faults("nobody is removed")
	anchor("user:u_1", "member.removed", 95)
	anchor(event.Member("org_1", "user:u_1"), "member.removed", 95)
	b.faults("removed from elsewhere")
	anchor(event.Member("a/b", "user:u_1"), "member.removed", 95)
	b.faults("removed", "unmoved: 1 row of account@90d-after-member.removed in audit_events: what they hang on was deleted")
	anchor(event.Member("org_2", "user:u_1"), "member.added", 10)
	b.faults("added elsewhere", "unmoved: 1 row")
	anchor(event.Member("a/b", "user:u_1"), "member.added", 10)
	b.faults("added again")
}

// TestAShortenedClassStaysInItsBuckets: a shorter promise, of days and not of months, moves
// no row to another partition.
func TestAShortenedClassStaysInItsBuckets(t *testing.T) {
	b := newBench(t, "itskode")
	b.insert(published{event.Security, 5 * day24, map[event.Attr]string{event.EventAction: "login", event.EventOutcome: "failure"}})
	b.sql("INSERT INTO retention_shortenings SELECT 'security@90d', 'x', 0, 30, 0, 0, false, 0, 0, now64()")
	for _, f := range b.prove(Ask{}).Faults {
		if f.Kind == misplaced {
			t.Errorf("got %s", f.Text)
		}
	}
}

func TestAPassedReviewIsBroken(t *testing.T) {
	b := furnished(t)
	b.now = review
	if r := b.prove(Ask{}); !r.OK() {
		t.Errorf("on the day itself: %v", r.Faults)
	}
	b.now = b.now.Add(day24)
	r := b.prove(Ask{})
	if r.OK() || !slices.Equal(r.kinds(), []string{reviewDue}) || len(r.Faults) != len(b.policy.Operator) {
		t.Errorf("got %v", r.Faults)
	}
	for _, o := range r.Operator {
		if o.Verdict != Broken || !strings.Contains(o.Why, review.Format(time.DateOnly)) {
			t.Errorf("%s: %s: %s", o.Name, o.Verdict, o.Why)
		}
	}
}

// TestWhatTheVerificationFound breaks the sentence whose rows vanished.
func TestWhatTheVerificationFound(t *testing.T) {
	b := furnished(t)
	if r := b.prove(Ask{Verified: &Verification{At: now, Rows: 6}}); !r.OK() || !r.Verified.Ran || *r.verdict(t, "classes.usage.keep").Binds[0].Vanished != 0 {
		t.Errorf("got %+v", r.Verified)
	}
	found := Verification{At: now, Findings: []Finding{{Kind: "missing", Classes: "billing@7y", Text: "1 rows are not there"}, {Kind: "gap", Text: "no entry"}}}
	r := b.prove(Ask{Verified: &found})
	b.named(t, r, planted{name: "verification", want: []string{unaccounted}, says: "missing: 1 rows are not there", breaks: "classes.billing.keep", spares: "classes.usage.keep"})
	if got := r.verdict(t, "classes.billing.keep").Binds[0].Vanished; got == nil || *got != 1 || r.Verified.Findings != 2 {
		t.Errorf("got %v and %+v", got, r.Verified)
	}
	if r := b.prove(Ask{}); r.Verified.Ran || r.verdict(t, "classes.usage.keep").Binds[0].Vanished != nil {
		t.Errorf("not run: got %+v", r.Verified)
	}
}

func TestATopicThatOutlivesAPromise(t *testing.T) {
	b := furnished(t)
	b.topics = []Topic{{Name: "lethe.audit", Kinds: 1 << event.Audit, Under: 7 * day24, Promise: "a minor's data", Worst: 30 * day24, Ends: true, Exceeds: "topic lethe.audit must forget"}}
	b.named(t, b.prove(Ask{}), planted{name: "thirty days", want: []string{topicOutlives}, says: "topic lethe.audit", spares: "classes.account.keep"})
	b.topics[0].Ends = false
	b.named(t, b.prove(Ask{}), planted{name: "no end", want: []string{topicOutlives}, says: "topic lethe.audit", breaks: "classes.account.keep"})
	b.topics = nil
	b.clean(t, "after")
}
