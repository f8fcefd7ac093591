package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

// small is a policy with one of everything. The cases below break one line each.
const small = `policy: small
text: {dated: 2026-01-01, sha256: "0000000000000000000000000000000000000000000000000000000000000001"}
classes:
  plan: {keep: {by: plan.tier, free: 14d, pro: 30d, bounds: [14d, 90d], without: {keep: 20d, operator: no_plan}}, from: event, operator: by_plan}
  acct: {within: 30d, from: account.deleted, key: user, without: {keep: 1y, operator: no_account}}
  bill: {keep: 7y, from: event, erasable: false, reason: tax}
  acc:  {keep: 2y, from: event, operator: acc}
rules:
  - {class: acc,  when: {kind: audit, event.action: "lethe.access.*"}}
  - {class: bill, when: {event.action: ["billing.*", invoice]}}
  - {class: acct, when: {kind: [audit, security]}}
  - {class: plan, when: {kind: request, lacks: device.id}}
  - {class: plan, when: {kind: request, has: device.id}}
grace: 24h
erasure: {primary: operator, everywhere: 90d}
rights: {offered: [access, deletion], respond: 30d, verify_identity: true}
purposes: {plan: a, acct: b, bill: [c, d], acc: e}
minors: {under: 16, within: operator}
storage_regions: {only: [CA], never: [EU]}
content: {change.old: [device]}
sentences:
  - {section: "1", about: one, sha256: "0000000000000000000000000000000000000000000000000000000000000002", binds: [classes.acct.within, classes.bill.keep, storage_regions]}
  - {section: "2", about: two, sha256: "0000000000000000000000000000000000000000000000000000000000000003", binds: [rights.respond, erasure.everywhere, minors.under]}
  - {section: "3", about: three, sha256: "0000000000000000000000000000000000000000000000000000000000000004", waived: no promise}
operator:
  no_plan:         {value: 20d, basis: b, owner: o, review: 2027-01-01}
  by_plan:         {value: {free: 14d, pro: 30d}, basis: b, owner: o, review: 2027-01-01}
  no_account:      {value: 1y, basis: b, owner: o, review: 2027-01-01}
  acc:             {value: 2y, basis: b, owner: o, review: 2027-01-01}
  erasure_primary: {value: 30d, basis: b, owner: o, review: 2027-01-01}
  minors_within:   {value: 7d, basis: b, owner: o, review: 2027-01-01}
  backup_max_age:  {value: 59d, basis: b, owner: o, review: 2027-01-01}
`

func TestParseSmall(t *testing.T) {
	p, err := Parse("small.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range p.Stored() {
		keys = append(keys, c.Key)
	}
	got := strings.Join(keys, " ")
	want := "plan/free@14d plan/pro@30d plan/without@20d acct@within-30d-of-account.deleted acct/without@1y bill@7y acc@2y"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Where the operator says so, what must be gone with an account has classes of copies,
// with the promise of their originals.
func TestCopiesAreStoredClasses(t *testing.T) {
	for _, name := range five {
		copies := 0
		for _, c := range example(t, name).Stored() {
			if event.Original(c.Key) == c.Key {
				continue
			}
			copies++
			if !c.Within || c.KeyedBy != "user" || !c.Period.Sentinel {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if want := map[string]int{"infratrace": 16}[name]; copies != want { // two for each of eight classes
			t.Errorf("%s has %d classes of copies, want %d", name, copies, want)
		}
	}
}

func TestParseNamesTheLine(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		line           int
		want           string
	}{
		{"unknown key", "grace: 24h", "grace: 24h\ngrase: 1h", 15, `unknown key "grase"`},
		{"unknown key in a class", "keep: 7y,", "keep: 7y, keeep: 1y,", 6, `unknown key "keeep"`},
		{"unknown key in a rule", "lacks: device.id", "lack: device.id", 12, `unknown key "lack"`},
		{"key twice", "grace: 24h", "grace: 24h\ngrace: 25h", 15, `the key "grace" stands twice`},
		{"missing section", "grace: 24h\n", "", 1, `"grace" is missing`},
		{"empty value", "policy: small", "policy:", 1, "want a value"},
		{"bad name", "policy: small", "policy: Small!", 1, "is no name"},
		{"bad date", "dated: 2026-01-01", "dated: January", 2, "is no date"},
		{"bad sum", "\"0000000000000000000000000000000000000000000000000000000000000001", "\"00", 2, "64 lower-case"},
		{"keep and within", "bill: {keep: 7y,", "bill: {keep: 7y, within: 7y,", 6, "want either keep or within"},
		{"no verb", "bill: {keep: 7y,", "bill: {", 6, "want either keep or within"},
		{"period", "keep: 7y", "keep: 7w", 6, `"7w" is no period`},
		{"period of nothing", "keep: 7y", "keep: 0d", 6, `"0d" is no period`},
		{"past the sentinel", "keep: 7y", "keep: 41y", 6, "no period may be longer than 40y"},
		{"past the sentinel in days", "keep: 7y", "keep: 99999999999d", 6, "no period may be longer than 40y"},
		{"within the event", "within: 30d, from: account.deleted, key: user, without: {keep: 1y, operator: no_account}", "within: 30d, from: event", 5, "within counts from an anchor"},
		{"misspelled anchor", "from: account.deleted", "from: acount.deleted", 5, `"acount.deleted" starts no period`},
		{"anchored without key", "key: user, ", "", 5, `"key" is missing`},
		{"anchored without without", ", without: {keep: 1y, operator: no_account}}", "}", 5, `"without" is missing`},
		{"wrong bearer", "key: user", "key: project", 5, `is not about a "project"`},
		{"member of no organization", "from: account.deleted", "from: member.removed", 5, `member.removed is not about a "user": want member`},
		{"account of a member", "key: user", "key: member", 5, `account.deleted is not about a "member": want user or organization`},
		{"plan of a member", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: member, old_rows: shorten, operator: less},", 4, `no plan belongs to a "member"`},
		{"key on an event's class", "from: event, erasable", "from: event, key: user, erasable", 6, "hangs on nothing"},
		{"without on an event's class", "from: event, erasable", "from: event, without: {keep: 1y, operator: no_account}, erasable", 6, "hangs on nothing"},
		{"another name for no anchor", "grace: 24h", "grace: 24h\nanchors: {account.closed: user.closed}", 15, `unknown key "account.closed"`},
		{"another name with a star", "grace: 24h", "grace: 24h\nanchors: {account.deleted: user.*}", 15, "want one whole name"},
		{"another name that is taken", "grace: 24h", "grace: 24h\nanchors: {account.deleted: [account.restored]}", 15, "has a meaning already"},
		{"another name of two", "grace: 24h", "grace: 24h\nanchors: {account.deleted: gone, project.deleted: gone}", 15, "has a meaning already"},
		{"within the grace", "within: 30d", "within: 1d", 5, "not longer than the grace"},
		{"tier without without", ", without: {keep: 20d, operator: no_plan}}, from", "}, from", 4, `"without" is missing`},
		{"tier that is called as copies are", "free: 14d, pro: 30d, bounds", "anonymised: 14d, pro: 30d, bounds", 4, `"anonymised" is what copies of rows are called`},
		{"tier below its bounds", "free: 14d, pro: 30d, bounds", "free: 13d, pro: 30d, bounds", 4, "13d of free is outside the bounds 14d to 90d"},
		{"tier above its bounds", "pro: 30d, bounds", "pro: 3m, bounds", 4, "3m of pro is outside the bounds"},
		{"without above its bounds", "without: {keep: 20d", "without: {keep: 91d", 4, "91d of without is outside the bounds"},
		{"bounds the wrong way", "[14d, 90d]", "[90d, 14d]", 4, "90d is longer than 14d"},
		{"one bound", "[14d, 90d]", "[14d]", 4, "the shortest and the longest"},
		{"tier by something else", "by: plan.tier", "by: region", 4, "want by: plan.tier"},
		{"plan of a project", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: project, old_rows: shorten, operator: less},", 4, `no plan belongs to a "project"`},
		{"downgrade of another kind", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: user, old_rows: delete, operator: less},", 4, `"delete" is neither shorten nor keep`},
		{"downgrade that nothing says", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: user, old_rows: shorten},", 4, "classes.plan.keep.downgrade: no sentence binds it"},
		{"downgrade without its value", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: user, old_rows: shorten, operator: less},", 4, `the operator's value "less" is missing`},
		{"downgrade that disagrees", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: user, old_rows: shorten, operator: acc},", 4, "shorten here and 2y in operator.acc"},
		{"downgrade without a key", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {old_rows: shorten, operator: less},", 4, `"key" is missing`},
		{"downgrade with more", "bounds: [14d, 90d],", "bounds: [14d, 90d], downgrade: {key: user, old_rows: shorten, operator: less, from: x},", 4, `unknown key "from"`},
		{"tiers from an anchor", "from: event, operator: by_plan", "from: account.deleted, operator: by_plan", 4, "tiers count from the event"},
		{"sooner within the grace", "from: event, operator: by_plan", "from: event, sooner: {within: 1d, from: account.deleted, key: user}, operator: by_plan", 4, "not longer than the grace"},
		{"sooner on an anchored class", "key: user,", "key: user, sooner: {within: 9d, from: account.deleted, key: user},", 5, "can end sooner"},
		{"no reason", ", reason: tax", "", 6, `"reason" is missing`},
		{"reason of nothing", "erasable: false, ", "", 6, "goes with erasable: false"},
		{"statute on an event's class", "erasable: false, reason: tax", "statute: {keep: 7y, reason: tax, operator: acc}", 6, "says so with erasable"},
		{"unbound period", ", classes.bill.keep", "", 6, "no sentence binds it"},
		{"operator's value missing", "operator: acc}", "operator: ac}", 7, `the operator's value "ac" is missing`},
		{"no basis", "acc:             {value: 2y, basis: b,", "acc:             {value: 2y,", 29, `"basis" is missing`},
		{"no owner", "acc:             {value: 2y, basis: b, owner: o,", "acc:             {value: 2y, basis: b,", 29, `"owner" is missing`},
		{"no review", "value: 2y, basis: b, owner: o, review: 2027-01-01", "value: 2y, basis: b, owner: o", 29, `"review" is missing`},
		{"no value", "value: 2y, basis: b", "basis: b", 29, `"value" is missing`},
		{"no backup age", "  backup_max_age:  {value: 59d, basis: b, owner: o, review: 2027-01-01}\n", "", 15, `"backup_max_age" is missing`},
		{"backups too old", "value: 59d", "value: 60d", 32, "longer than the 90d promised"},
		{"operator disagrees", "acc:             {value: 2y", "acc:             {value: 3y", 7, "2y here and 3y in operator.acc"},
		{"operator disagrees on a tier", "{free: 14d, pro: 30d}, basis", "{free: 14d, pro: 31d}, basis", 27, "pro is 31d here and 30d"},
		{"operator's value unused", "\noperator:", "\noperator:\n  spare: {value: 1d, basis: b, owner: o, review: 2027-01-01}", 26, "nothing refers to it"},
		{"no such class", "class: bill, when", "class: bil, when", 10, `there is no class "bil"`},
		{"class without a rule", "  - {class: bill, when: {event.action: [\"billing.*\", invoice]}}\n", "", 6, "no rule chooses it"},
		{"shadowed rule", "  - {class: plan, when: {kind: request, has: device.id}}", "  - {class: plan, when: {kind: request, has: device.id}}\n  - {class: bill, when: {kind: audit, event.action: x}}", 14, "can never match: the rules before it"},
		{"rule shadowed by two together", "  - {class: acct, when: {kind: [audit, security]}}", "  - {class: bill, when: {kind: security, event.action: [\"billing.a*\", invoice]}}\n  - {class: acct, when: {kind: [audit, security]}}", 11, "can never match: the rules before it"},
		{"attribute of another kind", "kind: request, has: device.id", "kind: request, event.action: x", 13, "it has no event.action"},
		{"presence of another kind's attribute", "kind: request, has: device.id", "kind: request, has: change.old", 13, "it has no change.old"},
		{"attributes no kind has together", "{kind: request, has: device.id}", "{http.request.method: GET, event.action: x}", 13, "no kind of event has all"},
		{"present and absent", "has: device.id", "has: device.id, lacks: device.id", 13, "cannot be both there and absent"},
		{"compared and absent", "has: device.id", "lacks: plan.tier, plan.tier: pro", 13, "cannot be both there and absent"},
		{"value outside the enumeration", "event.action: [", "event.outcome: sucess, event.action: [", 10, `it is never "sucess"`},
		{"pattern twice", "[\"billing.*\", invoice]", "[\"billing.*\", billing.paid]", 10, "the list has it already"},
		{"star inside", "\"billing.*\"", "\"*.billing\"", 10, "at the end only"},
		{"no such attribute", "has: device.id", "has: divice.id", 13, `there is no attribute "divice.id"`},
		{"compared content", "has: device.id", "url.path: /x", 13, "cannot be compared"},
		{"no such kind", "kind: request, lacks", "kind: requests, lacks", 12, "is none of request, audit, security"},
		{"no condition", "{kind: request, has: device.id}", "{}", 13, "names no condition"},
		{"grace too short", "grace: 24h", "grace: 59m", 14, "want between 1h and 31d"},
		{"grace without unit", "grace: 24h", "grace: 24", 14, "want between 1h and 31d"},
		{"no such right", "[access, deletion]", "[access, oblivion]", 16, `"oblivion" is none of`},
		{"not true", "verify_identity: true", "verify_identity: always", 16, "want true or false"},
		{"purpose missing", "plan: a, ", "", 17, `"plan" is missing`},
		{"purpose of no class", "plan: a, ", "plan: a, x: a, ", 17, `unknown key "x"`},
		{"age", "under: 16", "under: old", 18, "want an age"},
		{"country", "[CA]", "[Canada]", 19, "is no country"},
		{"allowed and refused", "[CA]", "[EU]", 19, "both allowed and refused"},
		{"content that is none", "change.old:", "user.id:", 20, "is not written by people"},
		{"bound to nothing", "classes.bill.keep, ", "classes.bill.kept, classes.bill.keep, ", 22, `there is no "classes.bill.kept"`},
		{"neither bound nor waived", ", waived: no promise", "", 24, "want binds, or waived"},
		{"same sentence twice", "0004\"", "0003\"", 24, "the same sentence stands twice"},
		{"a list for a mapping", "minors: {under: 16, within: operator}", "minors: [16]", 18, "want a mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(small, c.old) {
				t.Fatalf("the small policy has no %q", c.old)
			}
			_, err := Parse("small.yaml", []byte(strings.Replace(small, c.old, c.new, 1)))
			if err == nil {
				t.Fatal("got no error")
			}
			want := fmt.Sprintf("small.yaml:%d: ", c.line)
			for e := range strings.Lines(err.Error()) {
				if strings.Contains(e, want) && strings.Contains(e, c.want) {
					return
				}
			}
			t.Errorf("got\n%v\nwant %s… %s", err, want, c.want)
		})
	}
}

func TestParseRefusesTheWholeFile(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"only a comment", "# nothing\n", "is empty"},
		{"not YAML", "policy: [", "yaml:"},
		{"a list", "- a\n", "x.yaml:1: the file: want a mapping"},
		{"two documents", small + "---\npolicy: other\n", "second document"},
		{"too large", "#" + strings.Repeat(" ", maxFile), "larger than 256 KiB"},
		{"an alias", strings.NewReplacer("{plan: a,", "{plan: &m a,", "[device]", "*m").Replace(small), "x.yaml:20: content.change.old: want a value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestParseNeedsAClassForConsultations(t *testing.T) {
	text := strings.NewReplacer(`"lethe.access.*"`, `"x.*"`, "kind: [audit, security]", "kind: [audit, security], has: device.id").Replace(small)
	_, err := Parse("x.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "x.yaml:9: rules: audit events with the action lethe.access.*") {
		t.Errorf("got %v", err)
	}
}

func TestParseRefusesTooManyPartitions(t *testing.T) {
	classes, rules, purposes, binds := "", "", "", ""
	for i := range 8 {
		n := fmt.Sprintf("c%d", i)
		classes += "  " + n + ": {within: 30d, from: account.deleted, key: user, without: {keep: 1y, operator: no_account}}\n"
		rules += "  - {class: " + n + ", when: {kind: audit, event.action: " + n + "}}\n"
		purposes += n + ": a, "
		binds += "classes." + n + ", "
	}
	text := strings.NewReplacer("classes:\n", "classes:\n"+classes, "rules:\n", "rules:\n"+rules, "purposes: {", "purposes: {"+purposes, "binds: [classes.acct", "binds: ["+binds+"classes.acct").Replace(small)
	_, err := Parse("x.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "audit_events would have") || !strings.Contains(err.Error(), "x.yaml:4: ") {
		t.Errorf("got %v", err)
	}
}

func TestParseReportsEverythingAtOnceInOrder(t *testing.T) {
	text := strings.NewReplacer("keep: 7y", "keep: 7w", "grace: 24h", "grace: 1s", "under: 16", "under: 0").Replace(small)
	_, err := Parse("x.yaml", []byte(text))
	var lines []int
	joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %v, want joined errors", err)
	}
	for _, e := range joined.Unwrap() {
		var at *Error
		if !errors.As(e, &at) {
			t.Fatalf("got %v, want an *Error", e)
		}
		lines = append(lines, at.Line)
	}
	if got, want := fmt.Sprint(lines), "[6 14 18]"; got != want {
		t.Errorf("got lines %s, want %s: %v", got, want, err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := Parse("x", []byte(small+"# a remark\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Version == changed.Version || !strings.HasPrefix(p.Version, "2026-01-01-") {
		t.Errorf("got the version %s for two files", p.Version)
	}
}

// FuzzParse holds that no file makes the loader panic, and that what it accepts
// decides on every kind of event without a panic and with a known class.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("policy: a\nclasses: {a: {keep: 1y, from: event}}\nrules: [{class: a, when: {kind: audit}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("fuzz.yaml", data)
		if err != nil {
			return
		}
		known := map[string]bool{}
		for _, c := range p.Stored() {
			known[c.Key] = true
		}
		for _, c := range matrix {
			d, err := p.Decide(c.e, noon)
			if err == nil && (!known[d.Retention] || d.ExpiresAt.Before(d.RetainedFrom)) {
				t.Errorf("%s: got %+v", c.name, d)
			}
			if err != nil && !errors.Is(err, ErrUnclassified) {
				t.Errorf("%s: got %v", c.name, err)
			}
		}
		for _, k := range event.Kinds {
			_, _ = p.Decide(newEvent(k, noon), noon)
		}
	})
}

// A plan's change applies to stored rows where the file says so.
func TestDowngrade(t *testing.T) {
	const bounds, value = "bounds: [14d, 90d],", "\noperator:\n"
	for _, c := range []struct{ downgrade, want, subjects string }{
		{"", "", "organization:org_7"},
		{"downgrade: {key: organization, old_rows: shorten, operator: less},", "organization", "organization:org_7"},
		{"downgrade: {key: workspace, old_rows: shorten, operator: less},", "workspace", "workspace:ws_1"},
		{"downgrade: {key: user, old_rows: shorten, operator: less},", "user", "user:u_1"},
		{"downgrade: {key: user, old_rows: keep, operator: less},", "", "organization:org_7"},
	} {
		p := smallWith(t)
		if c.downgrade != "" {
			rows := "shorten"
			if strings.Contains(c.downgrade, "keep") {
				rows = "keep"
			}
			p = smallWith(t, bounds, bounds+" "+c.downgrade, value, value+"  less: {value: "+rows+", basis: b, owner: o, review: 2027-01-01}\n")
		}
		for _, s := range p.Stored() {
			want := ""
			if s.Class == "plan" && s.Tier != "without" {
				want = c.want
			}
			if s.Downgrade != want {
				t.Errorf("%s: %s hangs on %q, want %q", c.downgrade, s.Key, s.Downgrade, want)
			}
		}
		facts, _ := p.Fact(auditRow("plan.changed", organization, "org_7", workspace, "ws_1", user, "u_1", plan, "free"))
		if len(facts) != 1 || facts[0].Subject != c.subjects {
			t.Errorf("%s: got %v, want %s", c.downgrade, facts, c.subjects)
		}
	}
	p := smallWith(t, bounds, bounds+" downgrade: {key: organization, old_rows: shorten},", "storage_regions]}", "storage_regions, classes.plan.keep.downgrade]}")
	wide := strings.NewReplacer(bounds, bounds+" downgrade: {key: organization, old_rows: shorten},", "storage_regions]}", "storage_regions, classes.plan.keep]}").Replace(small)
	if _, err := Parse("small.yaml", []byte(wide)); err == nil || !strings.Contains(err.Error(), "no sentence binds it") {
		t.Errorf("that periods go by plan does not say what a change does: got %v", err)
	}
	if got := p.Stored()[0].Downgrade; got != "organization" {
		t.Errorf("a sentence says it: got %q", got)
	}
}
