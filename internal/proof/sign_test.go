package proof

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSigner(t *testing.T) {
	write := func(kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	pkcs8 := func(key any, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	good := pkcs8(private, err)
	s, err := LoadSigner(write("PRIVATE KEY", good))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(s.PublicKey())
	shown, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !public.Equal(shown) {
		t.Errorf("the public key is another: %v", err)
	}
	document := []byte("{}\n")
	if !ed25519.Verify(public, document, s.Sign(document)) || ed25519.Verify(public, []byte("{}"), s.Sign(document)) {
		t.Error("the signature does not fit the document, or fits another")
	}
	for name, c := range map[string]struct{ file, want string }{
		"no file":      {filepath.Join(t.TempDir(), "absent"), "no such file"},
		"another type": {write("EC PRIVATE KEY", good), "want a PEM file with a PRIVATE KEY"},
		"no key":       {write("PRIVATE KEY", []byte("canary")), "holds no key in PKCS #8"},
		"another kind": {write("PRIVATE KEY", pkcs8(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))), "no Ed25519 key"},
	} {
		_, err := LoadSigner(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestADocumentIsReadAgain: the mapping of an earlier document is what a person signed off.
func TestADocumentIsReadAgain(t *testing.T) {
	b := furnished(t)
	r := b.prove(Ask{})
	document, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read(document)
	if err != nil || len(again.Mapping) != len(r.Mapping) || again.Mapping[0] != r.Mapping[0] || again.Policy != r.Policy {
		t.Errorf("got %+v, %v", again, err)
	}
	if twice, err := again.JSON(); err != nil || string(twice) != string(document) {
		t.Errorf("the document changes when it is read and written: %v", err)
	}
	for _, bad := range []string{"", "{}", `{"format": "lethe-proof-9"}`} {
		if _, err := Read([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
