package redact

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
)

const (
	minKey    = 32 // bytes after decoding
	maxKeyID  = 16 // bytes
	hashBytes = 16 // a hash is cut to 128 bits
)

// The domains keep equal values of different kinds from having equal hashes.
const (
	domainEmail   = "lethe/email\x00"
	domainSession = "lethe/session\x00"
	domainID      = "lethe/id\x00"
	domainPayload = "lethe/payload\x00"
	domainLetter  = "lethe/letter\x00"
	domainSubject = "lethe/subject\x00"
)

// Keys are the live keys of the keyed hashes. The first one writes; all of them
// look up, so that a key can be replaced without losing the rows it wrote. Keys
// are safe for concurrent use and never print.
type Keys struct {
	keys []key

	mu    sync.Mutex
	known cache[[]string] // of Fingerprints
}

type key struct {
	id           string
	inner, outer [sha256.BlockSize]byte // the key under HMAC's two paddings
}

// ParseKeys reads "k1=<key>,k2=<key>", where a key is at least 32 bytes in
// hexadecimal or base64, and an id has 1 to 16 letters, digits, - or _. Its
// errors name an entry by its place and never quote it: what looks like an id
// may be a key.
func ParseKeys(s string) (*Keys, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("parse keys: no key")
	}
	k := &Keys{}
	seen := map[string]bool{}
	for i, entry := range strings.Split(s, ",") {
		id, text, ok := strings.Cut(strings.TrimSpace(entry), "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("parse keys: entry %d: want id=key", i+1)
		case !validKeyID(id):
			return nil, fmt.Errorf("parse keys: entry %d: an id has 1 to %d letters, digits, - or _", i+1, maxKeyID)
		case seen[id]:
			return nil, fmt.Errorf("parse keys: entry %d: its id was given before", i+1)
		}
		secret, ok := decodeKey(text)
		if !ok {
			return nil, fmt.Errorf("parse keys: entry %d: the key is neither hexadecimal nor base64", i+1)
		}
		if len(secret) < minKey {
			return nil, fmt.Errorf("parse keys: entry %d: the key has %d bytes, want at least %d", i+1, len(secret), minKey)
		}
		seen[id] = true
		k.keys = append(k.keys, newKey(id, secret))
	}
	return k, nil
}

func validKeyID(id string) bool {
	if id == "" || len(id) > maxKeyID {
		return false
	}
	for i := range len(id) {
		if !isAlnum(id[i]) && id[i] != '-' && id[i] != '_' {
			return false
		}
	}
	return true
}

// decodeKey prefers hexadecimal, since every such text is also valid base64.
func decodeKey(s string) ([]byte, bool) {
	if b, err := hex.DecodeString(s); err == nil {
		return b, true
	}
	s = strings.TrimRight(s, "=")
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(s); err == nil {
			return b, true
		}
	}
	return nil, false
}

func newKey(id string, secret []byte) key {
	if len(secret) > sha256.BlockSize {
		sum := sha256.Sum256(secret)
		secret = sum[:]
	}
	k := key{id: id}
	copy(k.inner[:], secret)
	copy(k.outer[:], secret)
	for i := range k.inner {
		k.inner[i] ^= 0x36
		k.outer[i] ^= 0x5c
	}
	return k
}

// sum is HMAC-SHA-256 of domain and parts, cut to 128 bits. It spells HMAC out
// because Sum256 over a scratch buffer costs half of a reset hash.Hash and
// allocates nothing.
func (k *key) sum(scratch []byte, domain string, parts ...string) (out [hashBytes]byte, _ []byte) {
	scratch = append(append(scratch[:0], k.inner[:]...), domain...)
	for i, p := range parts {
		if i > 0 {
			scratch = append(scratch, 0)
		}
		scratch = append(scratch, p...)
	}
	sum := sha256.Sum256(scratch)
	scratch = append(append(scratch[:0], k.outer[:]...), sum[:]...)
	sum = sha256.Sum256(scratch)
	copy(out[:], sum[:])
	return out, scratch
}

// appendSum appends "<key id>:<32 hexadecimal digits>".
func (k *key) appendSum(dst []byte, sum *[hashBytes]byte) []byte {
	return hex.AppendEncode(append(append(dst, k.id...), ':'), sum[:])
}

func (k *key) text(domain, value string) string {
	sum, _ := k.sum(nil, domain, value)
	return string(k.appendSum(nil, &sum))
}

func (k *Keys) all(domain, value string) []string {
	out := make([]string, len(k.keys))
	for i := range k.keys {
		out[i] = k.keys[i].text(domain, value)
	}
	return out
}

// Email returns "<key id>:<hash>" of an e-mail under every live key, the writing
// one first. The e-mail is normalised as rows' are. Blank text has no hash: nil.
func (k *Keys) Email(raw string) []string {
	v := normalizeEmail(raw)
	if v == "" {
		return nil
	}
	return k.all(domainEmail, v)
}

// Session returns "<key id>:<hash>" of a session id under every live key, the
// writing one first. An empty id has no hash: nil.
func (k *Keys) Session(raw string) []string {
	if raw == "" {
		return nil
	}
	return k.all(domainSession, raw)
}

// Fingerprints returns "<key id>:<hash>" of what a row can be found by, such as
// "user:u_42" or "workspace:w_7", under every live key, the writing one first: it
// recognises an erased subject and names nobody. The last ones are remembered, because
// the rows of an answer share their subjects. The caller MUST NOT change the slice.
func (k *Keys) Fingerprints(subject string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known.sets == nil {
		k.known = newCache[[]string](fingerprintSets)
	}
	at := k.known.text(subject)
	if found := k.known.find(at); found != nil {
		return *found
	}
	all := k.all(domainSubject, subject)
	k.known.put(at, all)
	return all
}

// FingerprintsOnce returns the same, for a subject that is not asked about again.
func (k *Keys) FingerprintsOnce(subject string) []string { return k.all(domainSubject, subject) }

// Digest returns "<key id>:<hash>" of a record that could not be decoded, under
// the writing key: it recognises the record again and tells nothing about it.
func (k *Keys) Digest(value []byte) string {
	return k.keys[0].text(domainPayload, string(value))
}

// IDs returns the key ids, the writing one first.
func (k *Keys) IDs() []string {
	ids := make([]string, len(k.keys))
	for i := range k.keys {
		ids[i] = k.keys[i].id
	}
	return ids
}

// String lists the key ids, so that a printed Keys shows no key.
func (k *Keys) String() string { return "keys(" + strings.Join(k.IDs(), ",") + ")" }

// GoString is String, for %#v.
func (k *Keys) GoString() string { return k.String() }
