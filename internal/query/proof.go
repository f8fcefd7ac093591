package query

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"
)

// prover holds what is stored against the policy file.
type prover interface {
	// Prove returns the document and its signature; nil: there is no key to sign with.
	Prove(ctx context.Context) (document, signature []byte, err error)
	// PublicKey checks the signatures, in PEM; nil: there is none.
	PublicKey() []byte
}

const (
	headerSignature = "Lethe-Signature"
	headerPublicKey = "Lethe-Public-Key"

	notSigned = "none"
)

// proofTimeout bounds a proof, which reads more than a page or a report, and leaves the
// time to send it.
const proofTimeout = writeTimeout - 10*time.Second

// proof answers GET /v1/retention/proof. The signature is over the body as it is
// sent, byte for byte, so it stands in a header. Like the report of retention it shows
// no person and counts all tenants. One is made at a time, because it reads every row.
func (s *Server) proof(w http.ResponseWriter, r *http.Request, c caller) error {
	if r.URL.RawQuery != "" {
		return errBadRequest.because("There are no parameters here.")
	}
	if c.Organization != "" {
		return errForbidden.because("The proof counts all organizations, and the token is limited to one.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), proofTimeout)
	defer cancel()
	select {
	case s.proving <- struct{}{}:
		defer func() { <-s.proving }()
	case <-ctx.Done():
		return errStorage.because("Another proof is being made.")
	}
	document, signature, err := s.o.Prover.Prove(ctx)
	if err != nil {
		return fmt.Errorf("prove: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set(headerSignature, notSigned)
	if signature != nil {
		h.Set(headerSignature, base64.StdEncoding.EncodeToString(signature))
		h.Set(headerPublicKey, base64.StdEncoding.EncodeToString(s.o.Prover.PublicKey()))
	}
	w.Write(document)
	return nil
}
