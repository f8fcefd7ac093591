package retention

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/policy"
)

// A shared row of a class whose period an account only shortens goes as a whole, whatever
// the policy does with the others.
func TestASharedRowThatAnAccountShortensGoes(t *testing.T) {
	text, err := os.ReadFile("../../schemas/policies/daestro.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "daestro.yaml")
	text = bytes.Replace(text, []byte("everywhere: 45d}"), []byte("everywhere: 45d, shared_rows: operator}"), 1)
	text = bytes.Replace(text, []byte("\noperator:\n"), []byte("\noperator:\n  erasure_shared_rows: {value: identity, basis: a test, owner: a test, review: 2027-01-01}\n"), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	f := New(p, Source{Promises: p.Stored(), Facts: []event.Fact{{Subject: "user:b", Action: "account.deleted", OccurredAt: hour(24)}}}, marked)
	r := shared(hour(0))
	if r.Retention = "audit@within-7d-of-account.deletion_requested"; f.Fate(r).Leaving == nil {
		t.Error("a class that waits for the account: the row goes")
	}
	r.Retention = "jobs/enterprise@90d-or-within-7d-of-account.deletion_requested"
	if fate := f.Fate(r); fate.Leaving != nil || !fate.Hidden || !fate.Expires.Equal(hour(7*24)) {
		t.Errorf("got %+v", fate)
	}
}
