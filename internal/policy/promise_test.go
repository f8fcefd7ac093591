package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/schemas"
)

const day = 24 * time.Hour

// TestShortestPromise reads each example as it is, and with the promise that
// decides made longer, so that each kind of promise is seen to decide.
func TestShortestPromise(t *testing.T) {
	request, audit, security := []event.Kind{event.Request}, []event.Kind{event.Audit}, []event.Kind{event.Security}
	// Where a minor's data goes within a week, the rest shows when that week is a quarter.
	later := []string{"minors_within:\n    {value: 7d", "minors_within:\n    {value: 90d"}
	soon := []string{"minors_within:\n    {value: 3d", "minors_within:\n    {value: 90d"}
	// And where an erasure may take years as well, the classes do.
	years := []string{"minors_within:\n    {value: 7d", "minors_within:\n    {value: 9y", "erasure_primary:\n    {value: 30d", "erasure_primary:\n    {value: 5y",
		"erasure_everywhere:\n    {value: 90d", "erasure_everywhere:\n    {value: 6y"}
	for _, c := range []struct {
		name, policy string
		change       []string // old, new
		kinds        []event.Kind
		under        time.Duration
		promise      string
	}{
		{"bstrapr, a minor", "bstrapr", nil, request, 7 * day, "a minor's data removed within 7d"},
		{"bstrapr, an erasure", "bstrapr", later, event.Kinds[:], 30 * day, "erased from the primary systems within 30d"},
		{"bstrapr, an erasure that may take years", "bstrapr", years, audit, 90 * day, "class account: 90d from account.deleted"},
		{"bstrapr, years are calendar years", "bstrapr", years, request, 730 * day, "class usage: 2y from event"},
		{"infratrace, a minor", "infratrace", nil, request, 7 * day, "a minor's data removed within 7d"},
		{"infratrace, an account", "infratrace", later, request, 30 * day, "class logs: within 30d of account.deleted"},
		{"infratrace, a statute shortens nothing and lengthens nothing", "infratrace", later, audit, 30 * day, "class billing: within 30d of account.deleted"},
		{"daestro, a minor", "daestro", nil, request, 3 * day, "a minor's data removed within 3d"},
		{"daestro, requests", "daestro", soon, request, 7 * day, "class jobs: within 7d of account.deletion_requested"},
		{"daestro, audit", "daestro", soon, audit, 7 * day, "class billing: within 7d of account.deletion_requested"},
		{"daestro, security", "daestro", soon, security, 7 * day, "class jobs: within 7d of account.deletion_requested"},
		{"abstra, requests with logs", "abstra", nil, request, 30 * day, "class logs: 30d from event"},
		{"abstra, an erasure before a class", "abstra", []string{"erasure_primary:\n    {value: 30d", "erasure_primary:\n    {value: 14d"}, security, 14 * day, "erased from the primary systems within 14d"},
		{"itskode, a minor", "itskode", nil, event.Kinds[:], 7 * day, "a minor's data removed within 7d"},
		{"itskode, the shortest tier", "itskode", later, request, 14 * day, "class logs of tier free: 14d"},
		{"itskode, no tier", "itskode", append([]string{"no_plan:\n    {value: 30d", "no_plan:\n    {value: 13d", "without: {keep: 30d, operator: no_plan}", "without: {keep: 13d, operator: no_plan}",
			"bounds: [14d, 90d]", "bounds: [13d, 90d]"}, later...), request, 13 * day, "class logs without what it counts from: 13d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := schemas.Policies.ReadFile("policies/" + c.policy + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			file := string(text)
			for i := 0; i < len(c.change); i += 2 {
				if !strings.Contains(file, c.change[i]) {
					t.Fatalf("the example does not hold %q", c.change[i])
				}
				file = strings.ReplaceAll(file, c.change[i], c.change[i+1])
			}
			p, err := Parse(c.policy+".yaml", []byte(file))
			if err != nil {
				t.Fatal(err)
			}
			under, promise := p.ShortestPromise(c.kinds...)
			if under != c.under || promise != c.promise {
				t.Errorf("got %s (%s), want %s (%s)", under, promise, c.under, c.promise)
			}
		})
	}
}

func TestShortestPromiseOfNothing(t *testing.T) {
	if under, promise := example(t, "daestro").ShortestPromise(); under != 0 || promise != "" {
		t.Errorf("got %s (%s) for no kind at all, want nothing", under, promise)
	}
}
