package retention

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// ofMembers is an example policy in which all that hangs on an account hangs on a member.
func ofMembers(t testing.TB, name string) *policy.Policy {
	t.Helper()
	text, err := os.ReadFile("../../schemas/policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(name, bytes.ReplaceAll(text, []byte("from: account.deleted, key: user"), []byte("from: member.removed, key: member")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const membership = "account@90d-after-member.removed"

// in makes a row belong to an organization.
func in(organization string, r *event.Row) *event.Row {
	r.Text[event.TOrganization] = organization
	return r
}

// What somebody did in an organization ends with their being a member of it, and of no other.
func TestAMemberOfSeveralOrganizations(t *testing.T) {
	w := newWorldUnder(t, ofMembers(t, "bstrapr"))
	old := now.AddDate(0, -5, 0)
	w.store(in("one", row(membership, "u", old)), in("two", row(membership, "u", old)), in("one", row(membership, "v", old)),
		in("one/user:u", row(membership, "u", old)), row(membership, "u", old))
	want := map[string]time.Time{"e1": policy.Sentinel, "e2": policy.Sentinel, "e3": policy.Sentinel, "e4": policy.Sentinel, "e5": policy.Sentinel}
	swept := func(why string, moved int) {
		t.Helper()
		if n := w.sweep(); n != moved {
			t.Errorf("%s: moved %d rows, want %d", why, n, moved)
		}
		w.want(why, want)
	}
	one, two := event.Member("one", "user:u"), event.Member("two", "user:u")
	removed := now.AddDate(0, 0, -10)
	due := removed.AddDate(0, 0, 90)
	w.fact(one, "member.removed", removed)
	w.fact(one, "member.removed", removed.AddDate(0, 0, 3))
	want["e1"] = due
	swept("removed from one, told twice", 1)
	w.store(in("one", row(membership, "u", now.AddDate(0, -1, 0))), in("two", row(membership, "u", now.AddDate(0, -1, 0))))
	want["e6"], want["e7"] = due, policy.Sentinel
	swept("rows that came late", 1)
	w.fact(one, "member.removed", removed.AddDate(0, 0, -5))
	want["e1"], want["e6"] = due.AddDate(0, 0, -5), due.AddDate(0, 0, -5)
	swept("told out of order", 2)
	w.fact(two, "member.added", now.AddDate(0, 0, -2))
	w.fact("user:u", "account.restored", now.AddDate(0, 0, -2))
	swept("added to another", 0)
	w.fact("user:u", "member.removed", removed) // as an earlier program has it, of no organization
	swept("removed from nowhere", 0)
	w.fact(event.Member("one/user:u", "user:u"), "member.removed", removed)
	want["e4"] = due
	swept("removed from an organization with a slash", 1)
	w.fact(one, "member.added", now.AddDate(0, 0, -1))
	want["e1"], want["e6"] = policy.Sentinel, policy.Sentinel
	swept("came back to one", 2)
	w.fact(two, "member.removed", removed)
	swept("removed from the other before they were added", 0)
	w.fact(two, "member.removed", now.AddDate(0, 0, -1))
	want["e2"], want["e7"] = now.AddDate(0, 0, 89), now.AddDate(0, 0, 89)
	swept("removed from the other", 2)
}

// A fact that is known by a hash alone is of one organization too.
func TestAMemberKnownByAHash(t *testing.T) {
	w := newWorldUnder(t, ofMembers(t, "bstrapr"))
	removed := now.AddDate(0, 0, -10)
	due := removed.AddDate(0, 0, 90)
	w.store(in("one", row(membership, "u", now.AddDate(0, -5, 0))), in("two", row(membership, "u", now.AddDate(0, -5, 0))))
	w.exec("ALTER TABLE audit_events UPDATE expires_override = toUInt32(" + due.Format("toDateTime('2006-01-02 15:04:05', 'UTC')") + ") WHERE 1 SETTINGS mutations_sync = 2")
	w.fact(hashPrefix+marked(event.Member("one", "user:u"))[0], "member.removed", removed)
	if n := w.sweep(); n != 1 {
		t.Errorf("moved %d rows, want the one of the other organization, back", n)
	}
	w.want("removed", map[string]time.Time{"e1": due, "e2": policy.Sentinel})
}

// Who comes back to an organization does not wait for the next sweep over all rows.
func TestAReturnToAnOrganizationDoesNotWait(t *testing.T) {
	w := newWorldUnder(t, ofMembers(t, "bstrapr"))
	organizations := []string{"one", "two", "one/user:u"}
	end := now.Add(20 * time.Minute)
	for _, o := range organizations {
		w.store(in(o, row(membership, "u", now.AddDate(0, -5, 0))))
		w.fact(event.Member(o, "user:u"), "member.removed", end.AddDate(0, 0, -90))
	}
	w.sweep()
	w.want("removed", map[string]time.Time{"e1": end, "e2": end, "e3": end})
	k, err := NewKeeper(Options{Storage: w, Policy: w.policy, Hash: noHash, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	w.fact(event.Member("one", "user:u"), "member.restored", now.Add(-time.Hour))
	w.fact(event.Member("one/user:u", "user:u"), "member.restored", now.Add(-time.Hour))
	if err := k.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("restored", map[string]time.Time{"e1": policy.Sentinel, "e2": end, "e3": policy.Sentinel})
}

// A row of a team loses whom its organization has lost.
func TestAMemberLeavesASharedRow(t *testing.T) {
	p := ofMembers(t, "infratrace")
	fate := func(removed ...string) Fate {
		var facts []event.Fact
		for _, s := range removed {
			facts = append(facts, event.Fact{Subject: s, Action: "member.removed", OccurredAt: hour(24)})
		}
		r := in("one", shared(hour(0)))
		r.Retention = "audit@within-30d-of-member.removed"
		return New(p, Source{Promises: p.Stored(), Facts: facts}, marked).Fate(r)
	}
	due := hour(24).AddDate(0, 0, 29) // thirty days, less the grace
	if got := fate(event.Member("two", "user:a"), event.Member("two", "user:b"), event.Member("two", "user:c")); got.Leaving != nil || got.Hidden {
		t.Errorf("removed from another organization: got %+v", got)
	}
	if got := fate(event.Member("one", "user:b"), event.Member("two", "user:a")); !slices.Equal(got.Leaving, []Leaving{{"user:b", due}}) || got.Hidden {
		t.Errorf("one is removed: got %+v", got)
	}
	if got := fate(event.Member("one", "user:a"), event.Member("one", "user:b"), event.Member("one", "user:c")); len(got.Leaving) != 3 || !got.Hidden || !got.Expires.Equal(due) {
		t.Errorf("all are removed: got %+v", got)
	}
}
