package policy

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/schemas"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var five = []string{"bstrapr", "infratrace", "daestro", "abstra", "itskode"}

// example loads one of the policies that ship with the program.
func example(t testing.TB, name string) *Policy {
	t.Helper()
	text, err := schemas.Policies.ReadFile("policies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(name+".yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newEvent makes an event from pairs of attribute and text.
func newEvent(k event.Kind, at time.Time, pairs ...any) *event.Event {
	var e event.Event
	e.Reset(k)
	e.Time = at
	for i := 0; i < len(pairs); i += 2 {
		a, v := pairs[i].(event.Attr), pairs[i+1].(string)
		if a == event.TargetOwner {
			e.Owners = append(e.Owners, v)
			e.Has |= 1 << a
			continue
		}
		e.Set(a, v)
	}
	return &e
}

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// matrix is what happens in any product, and how each policy in the order of
// five classifies it. "!" is a dead letter.
var matrix = []struct {
	name string
	e    *event.Event
	want [5]string
}{
	{"request of a user", newEvent(event.Request, noon, event.UserID, "u_42"), [5]string{
		"usage@2y", "request@within-30d-of-account.deleted", "request@within-7d-of-account.deletion_requested", "request@90d", "request/without@30d"}},
	{"request of a user on a plan", newEvent(event.Request, noon, event.UserID, "u_42", event.PlanTier, "pro"), [5]string{
		"usage@2y", "request@within-30d-of-account.deleted", "request@within-7d-of-account.deletion_requested", "request@90d", "request/pro@30d"}},
	{"request on a plan nobody listed", newEvent(event.Request, noon, event.PlanTier, "gold"), [5]string{
		"usage@2y", "request/without@90d", "request/without@90d", "request@90d", "!"}},
	{"request of a bot", newEvent(event.Request, noon, event.UserAgent, "bot/1", event.ClientAddress, "192.0.2.1"), [5]string{
		"usage@2y", "request/without@90d", "request/without@90d", "request@90d", "request/without@30d"}},
	{"request of an anonymous visitor to a user's page", newEvent(event.Request, noon, event.TargetOwner, "u_42"), [5]string{
		"usage@2y", "request@within-30d-of-account.deleted", "request@within-7d-of-account.deletion_requested", "request@90d", "request/without@30d"}},
	{"request whose user.id is an e-mail", newEvent(event.Request, noon, event.UserID, "a@example.com"), [5]string{
		"usage@2y", "request/without@90d", "request/without@90d", "request@90d", "request/without@30d"}},
	{"request on somebody's behalf", newEvent(event.Request, noon, event.OnBehalfOf, "u_42"), [5]string{
		"usage@2y", "request@within-30d-of-account.deleted", "request@within-7d-of-account.deletion_requested", "request@90d", "request/without@30d"}},
	{"failed login without an account", newEvent(event.Security, noon, event.EventAction, "user.login", event.UserEmail, "a@example.com", event.ClientAddress, "192.0.2.1"), [5]string{
		"usage@2y", "security/without@90d", "security/without@90d", "security@1y", "security@90d"}},
	{"login", newEvent(event.Security, noon, event.EventAction, "user.login", event.UserID, "u_42", event.PlanTier, "gold"), [5]string{
		"usage@2y", "security@within-30d-of-account.deleted", "security@within-7d-of-account.deletion_requested", "security@1y", "security@90d"}},
	{"audit with a country", newEvent(event.Audit, noon, event.EventAction, "key.rotated", event.UserID, "u_42", event.ClientAddress, "192.0.2.1"), [5]string{
		"usage@2y", "audit@within-30d-of-account.deleted", "audit@within-7d-of-account.deletion_requested", "audit@1y", "audit_traced@90d"}},
	{"audit with a trace", newEvent(event.Audit, noon, event.EventAction, "key.rotated", event.TraceID, "4bf92f3577b34da6a3ce929d0e0e4736"), [5]string{
		"usage@2y", "audit/without@1y", "audit/without@1y", "audit@1y", "audit_traced@90d"}},
	{"audit with neither", newEvent(event.Audit, noon, event.EventAction, "key.rotated", event.UserID, "u_42"), [5]string{
		"usage@2y", "audit@within-30d-of-account.deleted", "audit@within-7d-of-account.deletion_requested", "audit@1y", "audit@1y"}},
	{"member removed", newEvent(event.Audit, noon, event.EventAction, "member.removed", event.UserID, "u_42", event.WorkspaceID, "w_1"), [5]string{
		"usage@2y", "audit@within-30d-of-account.deleted", "audit@within-7d-of-account.deletion_requested", "audit@1y", "audit@1y"}},
	{"job done, on a plan, by a user", newEvent(event.Audit, noon, event.EventAction, "job.done", event.UserID, "u_42", event.PlanTier, "free"), [5]string{
		"usage@2y", "audit@within-30d-of-account.deleted", "jobs/free@14d-or-within-7d-of-account.deletion_requested", "audit@1y", "audit@1y"}},
	{"job log on a plan without a user", newEvent(event.Audit, noon, event.EventAction, "log.line", event.DataCategory, "job_log", event.PlanTier, "enterprise"), [5]string{
		"usage@2y", "logs/without@90d", "jobs/enterprise@90d", "logs@30d", "logs/enterprise@90d"}},
	{"build log without anything", newEvent(event.Request, noon, event.DataCategory, "build_log"), [5]string{
		"usage@2y", "logs/without@90d", "jobs/without@14d", "logs@30d", "logs/without@30d"}},
	{"build log on a plan nobody listed", newEvent(event.Request, noon, event.DataCategory, "build_log", event.PlanTier, "Pro"), [5]string{
		"usage@2y", "logs/without@90d", "!", "logs@30d", "!"}},
	{"account data", newEvent(event.Audit, noon, event.EventAction, "profile.changed", event.DataCategory, "account", event.UserID, "u_42", event.WorkspaceID, "w_1"), [5]string{
		"account@90d-after-account.deleted", "account@within-30d-of-account.deleted", "account@within-7d-of-account.deletion_requested", "account@90d-after-account.deleted", "account@180d-after-workspace.deleted"}},
	{"account deleted by staff", newEvent(event.Audit, noon, event.EventAction, "account.deleted", event.TargetType, "account", event.TargetID, "u_42"), [5]string{
		"account@90d-after-account.deleted", "account@within-30d-of-account.deleted", "account@within-7d-of-account.deletion_requested", "account@90d-after-account.deleted", "account/without@90d"}},
	{"account data without an account", newEvent(event.Audit, noon, event.EventAction, "account.created"), [5]string{
		"account/without@2y", "account/without@1y", "account/without@1y", "account/without@1y", "account/without@90d"}},
	{"workspace created", newEvent(event.Audit, noon, event.EventAction, "workspace.created", event.WorkspaceID, "w_1", event.UserID, "u_42"), [5]string{
		"workspace_metadata@1y-after-workspace.deleted", "workspace_metadata@within-30d-of-account.deleted", "workspace_metadata@within-7d-of-account.deletion_requested",
		"workspace_metadata@90d-after-workspace.deleted", "account@180d-after-workspace.deleted"}},
	{"workspace created, nobody says which", newEvent(event.Audit, noon, event.EventAction, "workspace.created"), [5]string{
		"workspace_metadata/without@2y", "workspace_metadata/without@1y", "workspace_metadata/without@1y", "workspace_metadata/without@1y", "account/without@90d"}},
	{"invoice paid", newEvent(event.Audit, noon, event.EventAction, "billing.paid", event.UserID, "u_42"), [5]string{
		"billing@7y", "billing@within-30d-of-account.deleted-but-7y", "billing@within-7d-of-account.deletion_requested", "billing@7y", "billing@7y"}},
	{"support ticket", newEvent(event.Audit, noon, event.EventAction, "support.replied", event.UserID, "u_42"), [5]string{
		"support@3y", "support@within-30d-of-account.deleted", "support@within-7d-of-account.deletion_requested", "support@2y", "support@2y"}},
	{"consultation record", newEvent(event.Audit, noon, event.EventAction, "lethe.access.export", event.UserID, "staff:o", event.DataCategory, "account", event.TraceID, "4bf92f3577b34da6a3ce929d0e0e4736"), [5]string{
		"access_record@2y", "access_record@2y", "access_record@2y", "access_record@2y", "access_record@2y"}},
}

func TestTheFivePoliciesClassify(t *testing.T) {
	for i, name := range five {
		p := example(t, name)
		classes := map[string]StoredClass{}
		for _, c := range p.Stored() {
			classes[c.Key] = c
		}
		for _, c := range matrix {
			d, err := p.Decide(c.e, noon)
			if c.want[i] == "!" {
				if !errors.Is(err, ErrUnclassified) {
					t.Errorf("%s: %s: got %q, %v, want ErrUnclassified", name, c.name, d.Retention, err)
				}
				continue
			}
			if err != nil || d.Retention != c.want[i] {
				t.Errorf("%s: %s: got %q, %v, want %q", name, c.name, d.Retention, err, c.want[i])
				continue
			}
			s, ok := classes[d.Retention]
			if !ok || !s.Kinds.Has(c.e.Kind) {
				t.Errorf("%s: %s: Stored does not list %q for %s", name, c.name, d.Retention, c.e.Kind)
			}
			if got, want := d.ExpiresAt.Equal(Sentinel), s.Period.Sentinel; got != want {
				t.Errorf("%s: %s: at the sentinel: got %v, want %v", name, c.name, got, want)
			}
			if s.Period.Sentinel && s.Anchor == "" {
				t.Errorf("%s: %s: kept for ever without an anchor", name, c.name)
			}
		}
	}
}

func TestNothingWithoutAccountOrTierIsKeptForEverOrRefused(t *testing.T) {
	for _, name := range five {
		p := example(t, name)
		for _, k := range event.Kinds {
			for _, action := range []string{"", "user.login", "account.created", "billing.paid", "support.asked", "job.done", "workspace.deleted", "lethe.access.events", "x"} {
				for _, category := range []string{"", "account", "billing", "support", "build_log", "container_log", "job_log", "x"} {
					e := newEvent(k, noon, event.EventAction, action, event.DataCategory, category, event.UserEmail, "a@example.com", event.SessionID, "s", event.ClientAddress, "192.0.2.1")
					d, err := p.Decide(e, noon)
					if err != nil || !d.ExpiresAt.Before(noon.AddDate(7, 0, 1)) {
						t.Errorf("%s: %s %q %q: got %s until %v, %v, want a finite expiry", name, k, action, category, d.Retention, d.ExpiresAt, err)
					}
				}
			}
		}
	}
}

func TestEveryClassSaysWhereItComesFrom(t *testing.T) {
	for _, name := range five {
		p := example(t, name)
		seen := map[string]bool{}
		for _, c := range p.Stored() {
			if seen[c.Key] {
				t.Errorf("%s: %s stands twice", name, c.Key)
			}
			seen[c.Key] = true
			if c.Section == "" && c.Operator == "" || c.Kinds == 0 || c.Keep == "" || c.From == "" {
				t.Errorf("%s: incomplete: %+v", name, c)
			}
			class, tier, promise := SplitKey(c.Key)
			if class != c.Class || tier != c.Tier || promise == "" {
				t.Errorf("%s: SplitKey(%q): got %q, %q, %q", name, c.Key, class, tier, promise)
			}
			if len(p.Purposes[c.Class]) == 0 {
				t.Errorf("%s: %s has no purpose", name, c.Class)
			}
		}
		if p.Complaint == "" || len(p.Recipients) == 0 || len(p.Rights) == 0 || len(p.Sentences) == 0 || p.Respond == (Period{}) {
			t.Errorf("%s: an export could not be explained: %+v", name, p)
		}
	}
}

func TestWhatEachTextSaysOfErasure(t *testing.T) {
	for _, c := range []struct {
		name                string
		primary, everywhere string
		rights, under       int
		version             string
	}{
		{"bstrapr", "30d", "90d", 7, 18, "2024-01-01-"},
		{"infratrace", "30d", "90d", 4, 16, "2024-11-20-"},
		{"daestro", "7d", "45d", 1, 16, "2025-02-07-"},
		{"abstra", "30d", "90d", 4, 0, "2023-03-18-"},
		{"itskode", "30d", "90d", 6, 16, "itskode-"},
	} {
		p := example(t, c.name)
		if p.Primary.String() != c.primary || p.Everywhere.String() != c.everywhere || len(p.Rights) != c.rights || p.Minors.Under != c.under {
			t.Errorf("%s: got %s, %s, %d rights, under %d", c.name, p.Primary, p.Everywhere, len(p.Rights), p.Minors.Under)
		}
		if hash, ok := strings.CutPrefix(p.Version, c.version); !ok || len(hash) != 8 {
			t.Errorf("%s: got version %q, want %q and 8 digits", c.name, p.Version, c.version)
		}
	}
	p := example(t, "infratrace")
	if !p.IsContent(event.ChangeNew, "device") || p.IsContent(event.ChangeNew, "user") || p.IsContent(event.URLPath, "device") {
		t.Error("infratrace: content is not what the file declares")
	}
	if p.SharedRows != "identity" {
		t.Errorf("infratrace: shared rows: got %q", p.SharedRows)
	}
}

func TestDecideCountsFromTheRightInstant(t *testing.T) {
	p := example(t, "itskode")
	for _, c := range []struct {
		name            string
		at, received    time.Time
		from, until     time.Time
		bucket          string
		expired, skewed bool
	}{
		{"now", noon.Add(700 * time.Millisecond), noon, noon, noon.AddDate(0, 0, 30), "2026-01-31", false, false},
		{"five minutes ahead", noon.Add(5 * time.Minute), noon, noon.Add(5 * time.Minute), noon.Add(5*time.Minute).AddDate(0, 0, 30), "2026-01-31", false, false},
		{"further ahead", noon.Add(5*time.Minute + 1), noon, noon, noon.AddDate(0, 0, 30), "2026-01-31", false, true},
		{"a year ahead", noon.AddDate(1, 0, 0), noon, noon, noon.AddDate(0, 0, 30), "2026-01-31", false, true},
		{"a second before the end", noon, noon.AddDate(0, 0, 30).Add(-time.Second), noon, noon.AddDate(0, 0, 30), "2026-01-31", false, false},
		{"at the end", noon, noon.AddDate(0, 0, 30), noon, noon.AddDate(0, 0, 30), "2026-01-31", true, false},
		{"elsewhere on earth", noon.In(time.FixedZone("", -13*3600)), noon, noon, noon.AddDate(0, 0, 30), "2026-01-31", false, false},
	} {
		d, err := p.Decide(newEvent(event.Request, c.at), c.received)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		bucket := time.Unix(int64(d.Bucket)*86400, 0).UTC().Format(time.DateOnly)
		if d.RetainedFrom != c.from || d.ExpiresAt != c.until || bucket != c.bucket || d.Expired != c.expired || d.Skewed != c.skewed {
			t.Errorf("%s: got %+v in %s, want %v until %v in %s, expired %v, skewed %v", c.name, d, bucket, c.from, c.until, c.bucket, c.expired, c.skewed)
		}
	}
}

func TestBucketsAreMonthsForLongPeriods(t *testing.T) {
	for period, want := range map[Period]string{
		{Days: 35}: "2026-01-31", {Months: 1}: "2026-01-31", {Days: 36}: "2026-01-01", {Months: 2}: "2026-01-01", {Sentinel: true}: "2026-01-01",
	} {
		got := time.Unix(int64(period.Unit().bucket(noon))*86400, 0).UTC().Format(time.DateOnly)
		if got != want {
			t.Errorf("%s: got %s, want %s", period, got, want)
		}
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	for _, name := range five {
		p := example(t, name)
		for _, c := range matrix {
			if n := testing.AllocsPerRun(10, func() { _, _ = p.Decide(c.e, noon) }); n != 0 {
				t.Errorf("%s: %s: got %v allocations", name, c.name, n)
			}
		}
	}
}

func TestExpiresExprGolden(t *testing.T) {
	for _, name := range five {
		path := filepath.Join("testdata", name+".sql")
		got := ExpiresExpr(example(t, name).Stored()) + "\n"
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
	}
}

func TestExpiresExprDependsOnTheClassesOnly(t *testing.T) {
	a := StoredClass{Key: "a@1y", Period: Period{Months: 12}}
	b := StoredClass{Key: `b'\@3d`, Period: Period{Days: 3}}
	want := ExpiresExpr([]StoredClass{a, b})
	if got := ExpiresExpr([]StoredClass{b, a, b}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !strings.Contains(want, `'b\'\\@3d'`) {
		t.Errorf("not quoted: %s", want)
	}
}
