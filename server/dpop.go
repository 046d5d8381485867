package server

import (
	"strings"

	"usher.example/identity"
	"usher.example/token"
)

// DPoPType is the type of access tokens that are bound to a key (RFC 9449).
const DPoPType = "DPoP"

// Headers of RFC 9449, as net/http writes them.
const (
	headerProof = "Dpop"
	headerNonce = "Dpop-Nonce"
)

// Proof checks the DPoP proof that a request has, for an access token; "" where there is none yet. It answers with the thumbprint of its
// key, "" for a request without a proof, and tells the sender which nonce its next proof is to have. It fails with token.ErrProof.
func (c *Call) Proof(accessToken string) (thumbprint string, err error) {
	r := c.echo.Request()
	proofs := r.Header[headerProof]
	if len(proofs) == 0 {
		return "", nil
	}
	c.echo.Response().Header()[headerNonce] = []string{c.server.proofs.Nonce()}
	if len(proofs) > 1 {
		return "", token.ErrProof
	}
	// Not the Host of the request: whoever got hold of a proof that was made for another server may send any.
	return c.server.proofs.Verify(proofs[0], r.Method, strings.TrimSuffix(c.server.PublicURL, "/")+r.URL.EscapedPath(), accessToken)
}

// checkProof checks that a token which is bound to a key comes with a proof of that, and in the way that says so (RFC 9449, sections 7.1
// and 7.2).
func (c *Call) checkProof(scheme, raw string, claims token.Claims) error {
	switch bound := claims.Confirmation != ""; {
	case !bound && scheme == BearerType:
		return nil
	case !bound:
		return &identity.Error{Code: identity.CodeUnauthenticated, Err: token.ErrMalformed, Detail: "the token is bound to no key; send it as Bearer"}
	case scheme == BearerType:
		return token.ErrBound
	}
	thumbprint, err := c.Proof(raw)
	if err == nil && thumbprint != claims.Confirmation {
		err = token.ErrProof
	}
	return err
}

// ProofAlgorithms are those of DPoP proofs, with spaces between.
var ProofAlgorithms = func() string {
	var names []string
	for _, a := range token.ProofAlgorithms {
		names = append(names, string(a))
	}
	return strings.Join(names, " ")
}()
