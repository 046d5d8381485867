package token_test

import (
	"errors"
	"fmt"
	"log"
	"time"

	"usher/token"
)

func ExampleIssuer() {
	key, err := token.GenerateKey(token.DefaultAlgorithm, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	keys, err := token.NewKeyRing(key)
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{
		Keys:     keys,
		Issuer:   "https://id.example",
		Audience: []string{"https://api.example"},
		Lifetime: 30 * time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}

	_, claims, err := issuer.Issue(token.Grant{Subject: "0195f0a0-6a5e-7000-8000-5f0c0ffee000", Roles: []string{"admin"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Subject, claims.Roles, claims.ExpiresAt.Sub(claims.IssuedAt))
	// Output: 0195f0a0-6a5e-7000-8000-5f0c0ffee000 [admin] 30m0s
}

// A service that consumes tokens knows the issuer's JWKS document and no secret.
func ExampleVerifier() {
	document, raw := fromTheIssuer()

	published, err := token.ParseJWKS(document)
	if err != nil {
		log.Fatal(err)
	}
	keys, err := token.NewKeyRing(published...) // keys.Set when the document changes
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{
		Keys:     keys,
		Issuer:   "https://id.example",
		Audience: "https://api.example",
	})
	if err != nil {
		log.Fatal(err)
	}

	claims, err := verifier.Verify(raw)
	fmt.Println(claims.Subject, claims.HasRole("admin"), err)

	_, err = verifier.Verify(raw + "x")
	fmt.Println(errors.Is(err, token.ErrInvalid))
	// Output:
	// user-1 true <nil>
	// true
}

func fromTheIssuer() (document []byte, raw string) {
	key, err := token.GenerateKey(token.EdDSA, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	keys, err := token.NewKeyRing(key)
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{
		Keys: keys, Issuer: "https://id.example", Audience: []string{"https://api.example"}, Lifetime: time.Hour,
	})
	if err != nil {
		log.Fatal(err)
	}
	raw, _, err = issuer.Issue(token.Grant{Subject: "user-1", Roles: []string{"admin"}})
	if err != nil {
		log.Fatal(err)
	}
	return keys.JWKS(), raw
}
