package oidc

import (
	"slices"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// The classes of logins (acr): by one factor, or by two.
const (
	classOne = "urn:usher:acr:1"
	classTwo = "urn:usher:acr:2"
)

func class(methods []string) string {
	if len(methods) > 1 {
		return classTwo
	}
	return classOne
}

// claimsThere are the claims that ID tokens and userinfo have.
var claimsThere = []string{
	"acr", "amr", "aud", "auth_time", "email", "email_verified", "exp", "iat", "iss", "locale", "name", "nonce", "sid", "sub", "updated_at",
}

// profile is what scopes tell about a user (OpenID Connect Core, section 5.4). What is not known is left out.
func profile(u *identity.User, scopes []string) map[string]any {
	claims := map[string]any{}
	if slices.Contains(scopes, client.ScopeEmail) {
		claims["email"], claims["email_verified"] = u.Email, u.EmailVerified
	}
	if slices.Contains(scopes, client.ScopeProfile) {
		if u.Name != "" {
			claims["name"] = u.Name
		}
		if locale := u.Locale(); locale != "" {
			claims["locale"] = locale
		}
		claims["updated_at"] = u.UpdatedAt.Unix()
	}
	return claims
}

// userinfo answers GET and POST /oauth2/userinfo (OpenID Connect Core, section 5.3).
func (p *provider) userinfo(call *server.Call) (server.Answer, error) {
	if err := call.Identify(); err != nil {
		return server.Answer{}, err
	}
	if call.User == nil || !slices.Contains(call.Scopes, client.ScopeOpenID) {
		return server.Answer{}, server.Lacks(client.ScopeOpenID)
	}
	claims := profile(call.User, call.Scopes)
	claims["sub"] = call.User.ID.String()
	return server.OK(claims), nil
}
