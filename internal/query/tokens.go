package query

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync/atomic"

	"go.yaml.in/yaml/v3"
)

// Role is what a caller may do; the table of routes says where.
type Role string

// The roles.
const (
	Investigator Role = "investigator" // searches events
	Officer      Role = "officer"      // answers a person's requests: exports, exact counts
	Approver     Role = "approver"     // is the second pair of eyes
	Auditor      Role = "auditor"      // checks that promises are kept, sees no personal rows
	Operator     Role = "operator"     // keeps the service running, sees no personal rows
)

var allRoles = []Role{Investigator, Officer, Approver, Auditor, Operator}

// maxTokens bounds a file: every request compares its token with all of them.
const maxTokens = 1000

// caller is who sent a request.
type caller struct {
	Name         string
	Role         Role
	Organization string // the only organization the caller may see; empty: all
	sum          [sha256.Size]byte
}

// Tokens are the callers of a token file. They hold hashes of the tokens and no
// token; they are safe for concurrent use.
type Tokens struct {
	path    string
	callers atomic.Pointer[[]caller]
}

// tokenFile is the file: YAML, or JSON, which is YAML too.
type tokenFile struct {
	Tokens []struct {
		Name         string `yaml:"name"`
		Role         Role   `yaml:"role"`
		Organization string `yaml:"organization"`
		SHA256       string `yaml:"sha256"`
	} `yaml:"tokens"`
}

// LoadTokens reads a token file:
//
//	tokens:
//	  - {name: alice, role: officer, sha256: "<64 hexadecimal digits>"}
//	  - {name: bob, role: investigator, organization: org_7, sha256: "…"}
//
// where sha256 is the SHA-256 of the token's text, which MUST be random and
// have at least 128 bits, as NewToken's have. Names stand in consultation
// records as "staff:<name>". A key that is not known, a name or a hash that
// stands twice and an empty file are errors. No error quotes a value.
func LoadTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// ParseTokens reads the content of a token file. Reload of what it returns does nothing.
func ParseTokens(data []byte) (*Tokens, error) {
	callers, err := parseTokens(data)
	if err != nil {
		return nil, fmt.Errorf("parse tokens: %w", err)
	}
	t := &Tokens{}
	t.callers.Store(&callers)
	return t, nil
}

// Reload reads the file again. After an error the old callers stay.
func (t *Tokens) Reload() error {
	if t.path == "" {
		return nil
	}
	data, err := os.ReadFile(t.path)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	callers, err := parseTokens(data)
	if err != nil {
		return fmt.Errorf("parse tokens of %s: %w", t.path, err)
	}
	t.callers.Store(&callers)
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func parseTokens(data []byte) ([]caller, error) {
	var f tokenFile
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty")
		}
		// The YAML library quotes values, and one in the wrong place may be a token.
		return nil, errors.New("want only the key tokens: a list of name, role, organization and sha256")
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one document")
	}
	if len(f.Tokens) == 0 || len(f.Tokens) > maxTokens {
		return nil, fmt.Errorf("want 1 to %d tokens, got %d", maxTokens, len(f.Tokens))
	}
	callers := make([]caller, 0, len(f.Tokens))
	for i, e := range f.Tokens {
		c := caller{Name: e.Name, Role: e.Role, Organization: e.Organization}
		sum, err := hex.DecodeString(e.SHA256)
		switch {
		case !nameForm.MatchString(e.Name):
			return nil, fmt.Errorf("token %d: a name has 1 to 64 letters, digits, dots, dashes and underscores", i+1)
		case !slices.Contains(allRoles, e.Role):
			return nil, fmt.Errorf("token %d: its role is none of %v", i+1, allRoles)
		case len(e.Organization) > 256:
			return nil, fmt.Errorf("token %d: its organization is longer than 256 bytes", i+1)
		case err != nil || copy(c.sum[:], sum) != sha256.Size || len(sum) != sha256.Size:
			return nil, fmt.Errorf("token %d: its sha256 is not 64 hexadecimal digits", i+1)
		}
		for j, o := range callers {
			if o.Name == c.Name || o.sum == c.sum {
				return nil, fmt.Errorf("token %d: it has the name or the hash of token %d", i+1, j+1)
			}
		}
		callers = append(callers, c)
	}
	return callers, nil
}

// find returns the caller with this token. Its time depends on the number of
// callers only: every hash is compared, each in constant time.
func (t *Tokens) find(token string) (caller, bool) {
	sum := sha256.Sum256([]byte(token))
	callers := *t.callers.Load()
	found := -1
	for i := range callers {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], callers[i].sum[:]), i, found)
	}
	if found < 0 {
		return caller{}, false
	}
	return callers[found], true
}

// NewToken returns a random token of 256 bits and the hash that stands for it in
// a token file.
func NewToken() (token, sum string) {
	var b [32]byte
	rand.Read(b[:])
	token = "lethe_" + base64.RawURLEncoding.EncodeToString(b[:])
	h := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(h[:])
}
