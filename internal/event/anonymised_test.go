package event

import (
	"slices"
	"testing"
)

func TestCopiesTakeTurns(t *testing.T) {
	const base, first, second = "audit@within-30d-of-account.deleted", "audit/anonymised@within-30d-of-account.deleted", "audit/anonymised-again@within-30d-of-account.deleted"
	for from, to := range map[string]string{base: first, first: second, second: first} {
		if got := Anonymised(from); got != to {
			t.Errorf("a copy of %s lies under %s, want %s", from, got, to)
		}
		if got := Original(from); got != base {
			t.Errorf("%s was made from %s, want %s", from, got, base)
		}
		if got := Copies(from); !slices.Equal(got, []string{first, second}) {
			t.Errorf("the copies of %s are %q", from, got)
		}
	}
	const tier = "audit/without@1y"
	if got := Copies(tier); got != nil || Original(tier) != tier {
		t.Errorf("%s: got %q", tier, got)
	}
}
