package token_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"usher.example/token"
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

// An HTTP service that takes usher's access tokens: it fetches the keys from the issuer, and again when they change. Which
// sessions have ended it hears from subscription.RevocationFeed.
func ExampleRemoteKeys() {
	document, access := fromTheIssuer()
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		_, _ = w.Write(document)
	}))
	defer issuer.Close()

	keys := &token.RemoteKeys{URL: issuer.URL + "/.well-known/jwks.json", Keys: new(token.KeyRing)}
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: time.Hour})
	verifier, err := token.NewVerifier(token.VerifierConfig{
		Keys:     keys.Keys,
		Issuer:   "https://id.example",
		Audience: "https://api.example",
		Missing:  keys.Missing,        // a key that is newer than the document at hand
		Revoked:  revocations.Revoked, // an ended session
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := keys.Fetch(context.Background()); err != nil { // fail early where the address is wrong
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- keys.Run(ctx) }()

	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, err := verifier.Verify(raw)
		if !ok || err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "a valid access token is needed", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "hello %s", claims.Subject)
	}))
	defer service.Close()

	for _, raw := range []string{access, access + "x"} {
		r, err := http.NewRequest(http.MethodGet, service.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+raw)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		fmt.Println(response.StatusCode, strings.TrimSpace(string(body)))
	}
	stop()
	<-stopped
	// Output:
	// 200 hello user-1
	// 401 a valid access token is needed
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
