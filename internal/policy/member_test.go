package policy

import (
	"slices"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
)

// What hangs on a member needs both, the person and the organization; the rest has what
// holds without. Where copies are made they are of members too.
func TestWhatHangsOnAMember(t *testing.T) {
	p := smallWith(t, "from: account.deleted, key: user", "from: member.removed, key: member",
		"everywhere: 90d}", "everywhere: 90d, shared_rows: operator}",
		"\noperator:\n", "\noperator:\n  erasure_shared_rows: {value: identity, basis: b, owner: o, review: 2027-01-01}\n")
	const waits, without = "acct@within-30d-of-member.removed", "acct/without@1y"
	for _, c := range []struct {
		name string
		e    *event.Event
		want string
	}{
		{"somebody in an organization", newEvent(event.Audit, noon, event.UserID, "u_1", event.OrganizationID, "org_7"), waits},
		{"whom it was done to", newEvent(event.Audit, noon, event.TargetType, "member", event.TargetID, "u_2", event.OrganizationID, "org_7"), waits},
		{"nobody", newEvent(event.Audit, noon, event.OrganizationID, "org_7"), without},
		{"no organization", newEvent(event.Audit, noon, event.UserID, "u_1", event.WorkspaceID, "ws_1"), without},
	} {
		d, err := p.Decide(c.e, noon)
		if err != nil || d.Retention != c.want {
			t.Errorf("%s: got %v, %v, want %s", c.name, d.Retention, err, c.want)
		}
	}
	var keys []string
	for _, s := range p.Stored() {
		if s.KeyedBy == "member" {
			keys = append(keys, s.Key)
		}
	}
	if want := append([]string{waits}, event.Copies(waits)...); !slices.Equal(keys, want) {
		t.Errorf("got %q, want %q", keys, want)
	}
	compared, present := p.Asked(event.Audit)
	if !slices.Contains(compared, event.TargetType) || !slices.Contains(present, event.OrganizationID) || !slices.Contains(present, event.UserID) {
		t.Errorf("the class depends on %v and the presence of %v", compared, present)
	}
}
