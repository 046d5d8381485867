package oidc

import (
	"errors"

	"usher.example/server"
	"usher.example/token"
)

// boundTo is the thumbprint of the key that a client wants its token bound to, by the proof that the request has; "" for none. It
// fails with the errors that RFC 9449 has for that, section 5 and 8.
func boundTo(r request) (thumbprint string, err error) {
	thumbprint, err = r.Proof("")
	switch {
	case errors.Is(err, token.ErrNonce):
		return "", refuse(useNonce, "the proof has to have the nonce of this answer's DPoP-Nonce header; try again with that")
	case err != nil:
		return "", refuse(invalidProof, "the proof is not valid for this request, or was used before")
	}
	return thumbprint, nil
}

// tokenType is the type of a token that is bound to a key, or to none.
func tokenType(thumbprint string) string {
	if thumbprint != "" {
		return server.DPoPType
	}
	return server.BearerType
}
