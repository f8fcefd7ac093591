package redact

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var (
	secretA = strings.Repeat("0123456789abcdef", 4)
	secretB = base64.StdEncoding.EncodeToString([]byte("another key of forty bytes, in base 64.."))
)

func mustKeys(t testing.TB, s string) *Keys {
	t.Helper()
	k, err := ParseKeys(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseKeys(t *testing.T) {
	short := hex.EncodeToString(make([]byte, 31))
	for _, c := range []struct{ name, in, ids, err string }{
		{"one", "k1=" + secretA, "k1", ""},
		{"two", "k1=" + secretA + ", k2=" + secretB, "k1,k2", ""},
		{"base64 without padding", "k1=" + strings.TrimRight(secretB, "="), "k1", ""},
		{"longer than a block", "k1=" + strings.Repeat("ab", 100), "k1", ""},
		{"empty", " ", "", "no key"},
		{"no id", secretA, "", "entry 1: want id=key"},
		{"padded key for an id", secretB, "", "entry 1: an id has"},
		{"empty id", "=" + secretA, "", "entry 1: an id has"},
		{"twice", "k1=" + secretA + ",k1=" + secretB, "", "entry 2: its id was given before"},
		{"short", "k1=" + short, "", "entry 1: the key has 31 bytes, want at least 32"},
		{"garbage", "k1=" + secretA + ",k2=???" + secretA, "", "entry 2: the key is neither"},
		{"trailing comma", "k1=" + secretA + ",", "", "entry 2: want id=key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParseKeys(c.in)
			if c.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(k.IDs(), ","); got != c.ids {
					t.Errorf("ids %q, want %q", got, c.ids)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			for _, secret := range []string{secretA, secretB, strings.TrimRight(secretB, "="), short} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a key: %v", err)
				}
			}
		})
	}
}

func TestKeysAreHMAC(t *testing.T) {
	for _, secret := range []string{secretA, strings.Repeat("ab", 64), strings.Repeat("ab", 100)} {
		raw, _ := hex.DecodeString(secret)
		m := hmac.New(sha256.New, raw)
		m.Write([]byte("lethe/email\x00alice@example.com"))
		want := []string{"k1:" + hex.EncodeToString(m.Sum(nil)[:16])}
		if got := mustKeys(t, "k1="+secret).Email("Alice@Example.COM "); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestKeysSeparateDomains(t *testing.T) {
	k := mustKeys(t, "k1="+secretA+",k2="+secretB)
	got := slices.Concat(k.Email("x"), k.Session("x"), []string{k.Digest([]byte("x"))}, k.Fingerprints("x"))
	if len(got) != 7 || !strings.HasPrefix(got[0], "k1:") || !strings.HasPrefix(got[1], "k2:") || !strings.HasPrefix(got[4], "k1:") {
		t.Fatalf("hashes %q", got)
	}
	for i := range got {
		_, got[i], _ = strings.Cut(got[i], ":")
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 7 {
		t.Errorf("equal hashes in different domains: %q", got)
	}
	if k.Email(" ") != nil || k.Session("") != nil {
		t.Error("nothing has a hash")
	}
}

// TestFingerprintsAreRemembered asks for more subjects than are remembered, twice.
func TestFingerprintsAreRemembered(t *testing.T) {
	k, fresh := mustKeys(t, "k1="+secretA+",k2="+secretB), mustKeys(t, "k2="+secretB+",k1="+secretA)
	first := k.Fingerprints("user:u_0")
	if again := k.Fingerprints("user:u_0"); &first[0] != &again[0] {
		t.Error("the same subject is hashed twice")
	}
	for i := range 3 * ways << fingerprintSets / 2 {
		subject := fmt.Sprintf("user:u_%d", i%(ways<<fingerprintSets))
		got, want := k.Fingerprints(subject), fresh.all(domainSubject, subject)
		slices.Reverse(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: got %q, want %q", subject, got, want)
		}
	}
}

func TestKeysNeverPrint(t *testing.T) {
	k := mustKeys(t, "k1="+secretA)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != "keys(k1)" {
			t.Errorf("%s prints %q", format, got)
		}
	}
}

func TestNormalizeEmail(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "alice@example.com", "alice@example.com"},
		{"case and space", "\t Alice@Example.COM\n", "alice@example.com"},
		{"final dot", "alice@example.com.", "alice@example.com"},
		{"display name", "Alice <alice@example.com>", "alice@example.com"},
		{"mailto", "mailto:Alice@example.com", "alice@example.com"},
		{"international domain", "alice@BÜCHER.example", "alice@xn--bcher-kva.example"},
		{"its ASCII form", "alice@xn--bcher-kva.example", "alice@xn--bcher-kva.example"},
		{"wide dot", "alice@bücher。example", "alice@xn--bcher-kva.example"},
		{"sharp s stays", "alice@straße.example", "alice@xn--strae-oqa.example"},
		{"decomposed local part", "jo\u0308rg@example.com", "jörg@example.com"},
		{"no e-mail", " Alice ", "alice"},
		{"blank", " ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := normalizeEmail(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
