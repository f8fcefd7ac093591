package proof

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// Signer signs documents with an Ed25519 key. The signature is over the exact bytes of
// the document, so that any tool can check it: docs/retention.md shows how with openssl.
type Signer struct {
	key    ed25519.PrivateKey
	public []byte // PEM
}

// LoadSigner reads a private key in PEM, as openssl genpkey -algorithm ed25519 makes
// it. Its errors hold nothing of the key.
func LoadSigner(path string) (*Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("read signing key: want a PEM file with a PRIVATE KEY")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("read signing key: the PEM file holds no key in PKCS #8")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("read signing key: it is no Ed25519 key")
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	return &Signer{key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, nil
}

// Sign returns the 64 bytes of the signature of a document.
func (s *Signer) Sign(document []byte) []byte { return ed25519.Sign(s.key, document) }

// PublicKey returns the key that checks signatures, in PEM.
func (s *Signer) PublicKey() []byte { return s.public }
