package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

// auditRow makes a stored audit row from pairs of field and text.
func auditRow(action string, pairs ...any) *event.Row {
	r := &event.Row{Kind: event.Audit, OccurredAt: noon.Add(250 * time.Millisecond), RetainedFrom: noon}
	r.Text[event.TAction] = action
	for i := 0; i < len(pairs); i += 2 {
		r.Text[pairs[i].(event.Text)] = pairs[i+1].(string)
	}
	return r
}

// smallWith is the small policy with texts in the place of others.
func smallWith(t testing.TB, pairs ...string) *Policy {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(small, pairs[i]) {
			t.Fatalf("the small policy has no %q", pairs[i])
		}
	}
	p, err := Parse("small.yaml", []byte(strings.NewReplacer(pairs...).Replace(small)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	user, mail               = event.TUserID, event.TUserEmail
	actor, behalf            = event.TActorType, event.TOnBehalfOf
	kind, target, plan       = event.TTargetType, event.TTargetID, event.TPlanTier
	organization, workspace  = event.TOrganization, event.TWorkspace
	project, deployment, now = event.TProject, event.TDeployment, event.TChangeNew
)

func TestFact(t *testing.T) {
	persons := smallWith(t)
	customers := smallWith(t, "key: user", "key: organization")
	both := smallWith(t, "from: event, operator: by_plan", "from: event, sooner: {within: 9d, from: workspace.deleted, key: organization}, operator: by_plan",
		"storage_regions]}", "storage_regions, classes.plan.sooner]}")
	for _, c := range []struct {
		name string
		p    *Policy
		row  *event.Row
		want string // the subjects
	}{
		{"account", persons, auditRow("account.deleted", user, "u_1", kind, "account", target, "u_2"), "user:u_2"},
		{"account of an unsaid type", persons, auditRow("account.deleted", user, "u_1", target, "u_2"), "user:u_2"},
		{"one's own account", persons, auditRow("account.deletion_requested", user, "u_1", actor, "user"), "user:u_1"},
		{"one's own account, actor unsaid", persons, auditRow("account.restored", user, "u_1"), "user:u_1"},
		{"staff acts and names nobody", persons, auditRow("account.deleted", user, "u_1", actor, "staff"), ""},
		{"a service acts and names nobody", persons, auditRow("account.deleted", user, "u_1", actor, "service"), ""},
		{"acts for another and names nobody", persons, auditRow("account.deleted", user, "u_1", behalf, "u_2"), ""},
		{"nobody at all", persons, auditRow("account.deleted"), ""},
		{"the tenancy is not the account", persons, auditRow("account.deleted", user, "u_1", organization, "org_7"), "user:u_1"},
		{"account of an organization", persons, auditRow("account.deleted", user, "u_1", kind, "organization", target, "org_7"), "organization:org_7"},
		{"account of a workspace", persons, auditRow("account.deleted", user, "u_1", kind, "workspace", target, "ws_1"), ""},
		{"a type of the service's own", persons, auditRow("account.deleted", kind, "customer", target, "u_2"), "user:u_2"},
		{"accounts are customers", customers, auditRow("account.deleted", user, "u_1", kind, "account", target, "org_7"), "organization:org_7"},
		{"accounts are customers, no target", customers, auditRow("account.deleted", user, "u_1", organization, "org_7"), "organization:org_7"},
		{"accounts are customers, but this is a user", customers, auditRow("account.deleted", kind, "user", target, "u_2", organization, "org_7"), "user:u_2"},

		{"member", persons, auditRow("member.removed", user, "u_1", kind, "member", target, "u_2", organization, "org_7"), "member:org_7/user:u_2"},
		{"member who is a user", persons, auditRow("member.removed", kind, "user", target, "u_2", organization, "org_7"), "member:org_7/user:u_2"},
		{"member added", persons, auditRow("member.added", user, "u_1", target, "u_2", organization, "org_7"), "member:org_7/user:u_2"},
		{"member of an organization with a slash", persons, auditRow("member.restored", target, "u_2", organization, "a/b"), "member:a//b/user:u_2"},
		{"member of no organization", persons, auditRow("member.removed", user, "u_1", kind, "member", target, "u_2", workspace, "ws_1"), ""},
		{"member of an organization that was scrubbed", persons, auditRow("member.removed", target, "u_2", organization, "[email]"), ""},
		{"who removed a member is not the member", persons, auditRow("member.removed", user, "u_1", organization, "org_7"), ""},
		{"the organization that a member was removed from", persons, auditRow("member.removed", user, "u_1", kind, "organization", target, "org_7", organization, "org_7"), ""},

		{"workspace", persons, auditRow("workspace.deleted", kind, "workspace", target, "ws_1", organization, "org_7"), "workspace:ws_1"},
		{"workspace of an unsaid type", persons, auditRow("workspace.created", target, "ws_1"), "workspace:ws_1"},
		{"workspace without a target", persons, auditRow("workspace.restored", workspace, "ws_1"), "workspace:ws_1"},
		{"the target is a user", persons, auditRow("workspace.deleted", kind, "user", target, "u_2", workspace, "ws_1"), "workspace:ws_1"},
		{"the target is a user and no more", persons, auditRow("workspace.deleted", kind, "user", target, "u_2"), ""},
		{"a workspace by another name", persons, auditRow("workspace.deleted", kind, "team", target, "t_1"), "workspace:t_1"},
		{"workspace that organizations hang on", both, auditRow("workspace.deleted", kind, "workspace", target, "ws_1", organization, "org_7"), "workspace:ws_1 organization:org_7"},
		{"workspace that is the organization", both, auditRow("workspace.deleted", kind, "workspace", target, "ws_1"), "workspace:ws_1 organization:ws_1"},
		{"organization itself", both, auditRow("workspace.deleted", kind, "organization", target, "org_8", organization, "org_7"), "organization:org_8"},

		{"project", persons, auditRow("project.deleted", target, "p_1", workspace, "ws_1"), "project:p_1"},
		{"project without a target", persons, auditRow("project.restored", project, "p_1"), "project:p_1"},
		{"deployment", persons, auditRow("deployment.deleted", kind, "deployment", target, "d_1", project, "p_1"), "deployment:d_1"},
		{"deployment without a target", persons, auditRow("deployment.created", deployment, "d_1", project, "p_1"), "deployment:d_1"},
		{"the target is the project", persons, auditRow("deployment.deleted", kind, "project", target, "p_1", deployment, "d_1"), "deployment:d_1"},

		{"plan", persons, auditRow("plan.changed", kind, "organization", target, "org_7", plan, "free"), "organization:org_7"},
		{"plan of an unsaid type", persons, auditRow("plan.changed", target, "org_7", plan, "free"), "organization:org_7"},
		{"plan whose target is the plan", persons, auditRow("plan.changed", kind, "plan", target, "free", organization, "org_7", plan, "free"), "organization:org_7"},
		{"plan whose target is a subscription", persons, auditRow("plan.changed", kind, "subscription", target, "sub_1", organization, "org_7", plan, "free"), "organization:org_7"},
		{"plan of nobody", persons, auditRow("plan.changed", kind, "user", target, "u_1", plan, "free"), ""},
	} {
		facts, ok := c.p.Fact(c.row)
		var got []string
		for _, f := range facts {
			got = append(got, f.Subject)
			if f.Action != c.row.Text[event.TAction] || !f.OccurredAt.Equal(c.row.OccurredAt) {
				t.Errorf("%s: got %+v", c.name, f)
			}
		}
		if !ok || strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, %t, want %q", c.name, got, ok, c.want)
		}
	}
}

// An e-mail is stored as a hash under a key that changes: no row can be found by
// it for ever.
func TestFactOfAnEmail(t *testing.T) {
	const hash = "1:00112233445566778899aabbccddeeff"
	p := smallWith(t)
	for _, c := range []struct {
		name string
		row  *event.Row
		want string
	}{
		{"target", auditRow("account.deleted", user, "u_1", kind, "user", target, "email:"+hash), ""},
		{"the actor's own", auditRow("account.deleted", user, "u_1", mail, hash, kind, "user", target, "email:"+hash), "user:u_1"},
		{"actor", auditRow("account.deleted", mail, hash), ""},
		{"actor beside another e-mail", auditRow("account.deleted", user, "email:"+hash), ""},
	} {
		c.row.SubjectKeys = []string{"email:" + hash}
		facts, ok := p.Fact(c.row)
		got := ""
		if len(facts) > 0 {
			got = facts[0].Subject
		}
		if !ok || len(facts) > 1 || got != c.want {
			t.Errorf("%s: got %v, want %q", c.name, facts, c.want)
		}
	}
	// Without the subject key it is an id like any other.
	row := auditRow("account.deleted", target, "email:me")
	if facts, _ := p.Fact(row); len(facts) != 1 || facts[0].Subject != "user:email:me" {
		t.Errorf("got %v", facts)
	}
}

func TestFactPlan(t *testing.T) {
	p := smallWith(t)
	for _, c := range []struct{ tier, now, want string }{
		{"free", "", "free"},
		{"pro", "free", "free"}, // the event still carries the plan of before
		{"free", "the free plan", "free"},
		{"gold", "", "gold"}, // in no list: whoever reads it must know none either
		{"", "", ""},
	} {
		facts, _ := p.Fact(auditRow("plan.changed", organization, "org_7", plan, c.tier, now, c.now))
		if len(facts) != 1 || facts[0].Tier != c.want {
			t.Errorf("%q, %q: got %v, want the tier %q", c.tier, c.now, facts, c.want)
		}
	}
	if facts, _ := p.Fact(auditRow("account.deleted", target, "u_1", plan, "free")); facts[0].Tier != "" {
		t.Errorf("got %v", facts)
	}
}

// A time ahead of the clock must not put a deletion off.
func TestFactAhead(t *testing.T) {
	row := auditRow("account.deleted", target, "u_1")
	row.OccurredAt = row.RetainedFrom.Add(time.Hour)
	if facts, _ := smallWith(t).Fact(row); len(facts) != 1 || !facts[0].OccurredAt.Equal(row.RetainedFrom) {
		t.Errorf("got %v, want the arrival", facts)
	}
}

func TestFactOfOthers(t *testing.T) {
	p := smallWith(t)
	others := []*event.Row{auditRow("account.updated", target, "u_1"), auditRow(""), auditRow("user.erased", target, "u_1"), auditRow("account.deleted", target, "u_1")}
	others[3].Kind = event.Security
	for _, row := range others {
		if facts, ok := p.Fact(row); ok || facts != nil {
			t.Errorf("%s %s: got %v", row.Kind, row.Text[event.TAction], facts)
		}
	}
	allocs := testing.AllocsPerRun(100, func() { p.Fact(others[0]) })
	if allocs != 0 {
		t.Errorf("%v allocations for an event that is no anchor", allocs)
	}
}

func TestFactByAnotherName(t *testing.T) {
	p := smallWith(t, "grace: 24h", "grace: 24h\nanchors: {account.deleted: [user.erased, user.gone], plan.changed: subscription.updated}")
	for name, want := range map[string]Fact{
		"user.erased":          {Subject: "user:u_1", Action: "account.deleted"},
		"user.gone":            {Subject: "user:u_1", Action: "account.deleted"},
		"account.deleted":      {Subject: "user:u_1", Action: "account.deleted"},
		"subscription.updated": {Subject: "organization:u_1", Action: "plan.changed", Tier: "pro"},
	} {
		row := auditRow(name, target, "u_1", plan, "pro")
		want.OccurredAt = row.OccurredAt
		if facts, _ := p.Fact(row); !slices.Equal(facts, []Fact{want}) {
			t.Errorf("%s: got %v, want %v", name, facts, want)
		}
	}
}

// Every anchor can be taken back, by nothing that is an anchor itself and never
// across families.
func TestClears(t *testing.T) {
	for anchor, a := range actions {
		var by []string
		for name := range actions {
			if Clears(name, anchor) {
				by = append(by, name)
			}
		}
		if (a.keys != nil) != (by != nil) {
			t.Errorf("%s is taken back by %v", anchor, by)
		}
		for _, name := range by {
			family, _, _ := strings.Cut(anchor, ".")
			if actions[name].keys != nil || !strings.HasPrefix(name, family+".") {
				t.Errorf("%s takes %s back", name, anchor)
			}
		}
	}
	if !Clears("account.created", "account.deletion_requested") || Clears("account.updated", "account.deleted") {
		t.Error("a new account clears the old one's deletion, a change of it does not")
	}
}
