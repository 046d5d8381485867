package clients_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// A program without a browser logs in by x/oauth2, which keeps to the interval by itself.
func TestDevice(t *testing.T) {
	t.Parallel()
	tv := add(t, "tv", "--public", "--first-party", "--grant", "urn:ietf:params:oauth:grant-type:device_code", "--grant", "refresh_token", "--scope", "openid email")
	provider, err := oidc.NewProvider(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	config := oauth2.Config{ClientID: tv.ID, Endpoint: provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID, "email"}}
	asked, err := config.DeviceAuth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ada := newPerson(t)
	login := ada.do("GET", asked.VerificationURIComplete, nil).Header.Get("Location")
	page := ada.do("POST", issuer+login, url.Values{"email": {email}, "password": {password}}).Header.Get("Location")
	if issuer+page != asked.VerificationURIComplete {
		t.Errorf("after the login the browser is at %q, want %s", page, asked.VerificationURIComplete)
	}
	if r := ada.do("POST", issuer+"/device", url.Values{"user_code": {asked.UserCode}, "answer": {"allow"}}); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("the answer: %s", r.Status)
	}
	tokens, err := config.DeviceAccessToken(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: tv.ID}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	info, err := provider.UserInfo(t.Context(), config.TokenSource(t.Context(), tokens))
	if err != nil || info.Email != email || info.Subject != id.Subject || tokens.RefreshToken == "" {
		t.Errorf("userinfo %+v, %v", info, err)
	}
}
