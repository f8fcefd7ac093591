package query

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/migrate"
	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/proof"
)

// notary is a prover that proves what it is given, nothing where that is nothing, and
// signs where it has a key.
type notary struct {
	prover *proof.Prover
	signer *proof.Signer
	err    error
}

func (n *notary) Prove(ctx context.Context) (document, signature []byte, err error) {
	if n.prover == nil && n.err == nil {
		document, err = (&proof.Report{
			Format: proof.Format, At: now, Result: "green", Policy: proof.Policy{TextSHA256: strings.Repeat("0", 64)}, Verdicts: map[proof.Verdict]int{},
			Faults: []proof.Fault{}, Sentences: []proof.Sentence{}, Operator: []proof.Operator{}, Classes: []proof.Class{},
			Rules: []proof.Rule{}, Mapping: []proof.Mapping{}, Topics: []proof.TopicRow{}, Tables: []proof.Table{},
		}).JSON()
		return document, nil, err
	}
	if n.prover == nil {
		return nil, nil, n.err
	}
	r, err := n.prover.Prove(ctx, proof.Ask{})
	if err != nil {
		return nil, nil, err
	}
	if document, err = r.JSON(); n.signer != nil {
		signature = n.signer.Sign(document)
	}
	return document, signature, err
}

func (n *notary) PublicKey() []byte { return n.signer.PublicKey() }

// proving lets a desk prove what its database holds.
func (d *desk) proving(t *testing.T, n *notary) {
	t.Helper()
	var err error
	n.prover, err = proof.New(proof.Options{
		Policy: d.policy, Tables: d.store, Account: d.store, MergeTimeout: migrate.MergeTimeout(d.policy.Grace), Now: func() time.Time { return now },
		Registered: func(context.Context) ([]policy.StoredClass, error) { return d.policy.Stored(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProof(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &notary{}
	d := open(t, func(o *Options) { o.Prover = n })
	d.proving(t, n)
	d.insert(row(event.Audit, "usage", "u_canary", "org_canary", 3*time.Hour), row(event.Request, "r", "u_canary", "org_canary", time.Hour))

	a := d.get("auditor", pathProof)
	var got struct {
		Result    string
		Verified  struct{ Ran bool }
		Sentences []struct{ Section, Verdict string }
		Mapping   []struct{ Action, Stored string }
	}
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK {
		t.Fatalf("got %d %s: %v", a.status, a.body, err)
	}
	if got.Result != "unsigned" || got.Verified.Ran || len(got.Sentences) != len(d.policy.Sentences) || len(got.Mapping) != 2 || a.header.Get(headerSignature) != notSigned || a.header.Get(headerPublicKey) != "" {
		t.Errorf("got %+v and %v", got, a.header)
	}
	if strings.Contains(string(a.body), "canary") {
		t.Error("the proof names a person or a tenant")
	}

	if n.signer, err = proof.LoadSigner(file); err != nil {
		t.Fatal(err)
	}
	a = d.get("officer", pathProof)
	signature, err := base64.StdEncoding.DecodeString(a.header.Get(headerSignature))
	if err != nil || !ed25519.Verify(public, a.body, signature) {
		t.Errorf("the signature does not fit the body: %v", err)
	}
	shown, err := base64.StdEncoding.DecodeString(a.header.Get(headerPublicKey))
	if block, _ := pem.Decode(shown); err != nil || block == nil || block.Type != "PUBLIC KEY" {
		t.Errorf("the public key: got %q, %v", shown, err)
	}

	// What is broken is said in an answer like any other.
	if _, err := d.try(http.MethodGet, "auditor", pathProof, ""); err != nil {
		t.Fatal(err)
	}
	odd := row(event.Security, "odd", "u_1", "org_1", time.Hour)
	odd.ExpiresOverride = uint32(now.Add(1000 * time.Hour).Unix())
	d.insert(odd)
	if a := d.get("auditor", pathProof); !strings.Contains(string(a.body), `"result": "broken"`) || !strings.Contains(string(a.body), "retention_moves does not say so") {
		t.Errorf("got %s", a.body)
	}
}

func TestWhoMaySeeTheProof(t *testing.T) {
	d := bare(t, func(o *Options) { o.Prover = &notary{err: storeError{}} })
	for as, want := range map[string]int{
		"": 401, "investigator": 403, "approver": 403, "operator": 403, "auditor-org_1": 403, "officer-org_1": 403, "auditor": 503, "officer": 503,
	} {
		if a := d.get(as, pathProof); a.status != want {
			t.Errorf("%q: got %d %s, want %d", as, a.status, a.body, want)
		}
	}
	if a := d.get("auditor", pathProof+"?full=1"); a.status != http.StatusBadRequest {
		t.Errorf("a parameter: got %d", a.status)
	}
	if len(d.recorder.take(t)) > 0 {
		t.Error("a proof shows no person and is not recorded")
	}
}

func TestDescriptionOfTheProof(t *testing.T) {
	doc := description(t)
	var verdicts []string
	for _, v := range proof.Verdicts {
		verdicts = append(verdicts, string(v))
	}
	for schema, want := range map[string][]string{"Verdict": verdicts, "FaultKind": slices.Clone(proof.Kinds)} {
		slices.Sort(want)
		if got := words(doc, schema); !slices.Equal(got, want) {
			t.Errorf("%s: the description has %q, the code %q", schema, got, want)
		}
	}
}
