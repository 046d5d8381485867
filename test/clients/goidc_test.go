package clients_test

import (
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Most Go programs log in by these two.
func TestGoOIDC(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		flags []string
	}{
		{"confidential", []string{"--first-party"}}, {"public", []string{"--first-party", "--public"}}, {"rs256", []string{"--first-party", "--id-token-alg", "RS256"}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			const callback = "http://127.0.0.1:4711/callback"
			app := add(t, "go-oidc-"+kind.name, append(kind.flags, "--redirect-uri", "http://127.0.0.1/callback")...)
			provider, err := oidc.NewProvider(t.Context(), issuer)
			if err != nil {
				t.Fatal(err)
			}
			config := oauth2.Config{ClientID: app.ID, ClientSecret: app.Secret, Endpoint: provider.Endpoint(), RedirectURL: callback,
				Scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
			verifier := oauth2.GenerateVerifier()
			ada := newPerson(t)
			back := ada.visit(config.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("a nonce")), callback).Query()
			if back.Get("state") != "a state" || back.Get("iss") != issuer {
				t.Errorf("led back with %v", back)
			}
			tokens, err := config.Exchange(t.Context(), back.Get("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := tokens.Extra("id_token").(string)
			id, err := provider.Verifier(&oidc.Config{ClientID: app.ID}).Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := id.VerifyAccessToken(tokens.AccessToken); err != nil {
				t.Error(err)
			}
			var claims struct {
				Email string `json:"email"`
			}
			if err := id.Claims(&claims); err != nil || claims.Email != email || id.Nonce != "a nonce" {
				t.Errorf("claims %+v, nonce %q, %v", claims, id.Nonce, err)
			}
			info, err := provider.UserInfo(t.Context(), config.TokenSource(t.Context(), tokens))
			if err != nil || info.Email != email || info.Subject != id.Subject {
				t.Errorf("userinfo %+v, %v", info, err)
			}

			// The library refreshes by itself once an access token has expired.
			spent := *tokens
			spent.Expiry = id.IssuedAt.Add(-1)
			next, err := config.TokenSource(t.Context(), &spent).Token()
			if err != nil || next.AccessToken == tokens.AccessToken || next.RefreshToken == tokens.RefreshToken {
				t.Errorf("refreshed: %v", err)
			}

			// Whoever is logged in is led straight back.
			if again := ada.visit(config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("prompt", "none")), callback).Query(); again.Get("code") == "" {
				t.Errorf("led back with %v", again)
			}
			if _, err := config.Exchange(t.Context(), back.Get("code"), oauth2.VerifierOption(verifier)); err == nil {
				t.Error("a code was good twice")
			}
		})
	}
}
