package client

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"usher.example/identity"
	"usher.example/token"
)

// How a client proves at the token endpoint who it is (RFC 7591, section 2).
const (
	AuthenticationNone   = "none" // it can't: it is public
	AuthenticationBasic  = "client_secret_basic"
	AuthenticationPost   = "client_secret_post" // either may be used by who has a secret
	AuthenticationSigned = "private_key_jwt"
)

// The grants, by their grant_type.
const (
	GrantCode              = "authorization_code"
	GrantRefresh           = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantDevice            = "urn:ietf:params:oauth:grant-type:device_code"
	GrantExchange          = "urn:ietf:params:oauth:grant-type:token-exchange"
)

var (
	authentications = []string{AuthenticationNone, AuthenticationBasic, AuthenticationPost, AuthenticationSigned}
	grants          = []string{GrantCode, GrantRefresh, GrantClientCredentials, GrantDevice, GrantExchange}
	// idTokenAlgorithms can be chosen: those in which every deployment can sign ID tokens, but for ES256, which may not be there.
	idTokenAlgorithms = []string{string(token.ES256), string(token.RS256)}
	nameForm          = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

const (
	maxListed = 64
	maxURI    = 2048
	maxJWKS   = 16 << 10
	maxSpan   = 90 * 24 * time.Hour
)

// complete gives settings that were left out what fits the others, and puts lists in order.
func complete(s identity.ClientSettings) identity.ClientSettings {
	if s.Authentication == "" {
		s.Authentication = AuthenticationBasic
		if len(s.JWKS) > 0 || s.JWKSURI != "" {
			s.Authentication = AuthenticationSigned
		}
	}
	if len(s.Grants) == 0 {
		switch {
		case len(s.RedirectURIs) > 0:
			s.Grants = []string{GrantCode, GrantRefresh}
		case len(s.Scopes) > 0 && s.Authentication != AuthenticationNone:
			s.Grants = []string{GrantClientCredentials}
		}
	}
	if len(s.Scopes) == 0 && (slices.Contains(s.Grants, GrantCode) || slices.Contains(s.Grants, GrantDevice)) {
		s.Scopes = slices.Clone(userScopes)
	}
	for _, list := range []*[]string{&s.RedirectURIs, &s.PostLogoutRedirectURIs, &s.AllowedOrigins, &s.Grants, &s.Scopes} {
		if *list == nil {
			*list = []string{}
		}
	}
	slices.Sort(s.Scopes)
	s.Scopes = slices.Compact(s.Scopes)
	return s
}

// check says what is wrong with settings, with an *identity.Error of CodeInvalidClient.
func check(s identity.ClientSettings) error {
	if !nameForm.MatchString(s.Name) {
		return refuse("a name is of at most 63 lower-case letters, digits, dots, - and _, and begins with a letter or digit")
	}
	if s.Name == token.LoginClient {
		return refuse("the name %s is the client_id of usher's own login", s.Name)
	}
	if !slices.Contains(authentications, s.Authentication) {
		return refuse("authentication is one of %s", strings.Join(authentications, ", "))
	}
	for _, list := range []struct {
		name   string
		values []string
		check  func(string) error
	}{
		{"redirect_uris", s.RedirectURIs, checkRedirect}, {"post_logout_redirect_uris", s.PostLogoutRedirectURIs, checkRedirect},
		{"allowed_origins", s.AllowedOrigins, checkOrigin},
		{"grants", s.Grants, func(g string) error { return oneOf(g, grants) }},
		{"scopes", s.Scopes, func(scope string) error { return oneOf(scope, append(slices.Clone(userScopes), Scopes...)) }},
	} {
		if len(list.values) > maxListed {
			return refuse("%s has more than %d values", list.name, maxListed)
		}
		for i, v := range list.values {
			if err := list.check(v); err != nil {
				return refuse("%s: %q %s", list.name, v, err)
			}
			if slices.Contains(list.values[:i], v) {
				return refuse("%s: %q is there twice", list.name, v)
			}
		}
	}
	if err := checkKeys(s); err != nil {
		return err
	}
	for name, seconds := range map[string]int{"access_token_seconds": s.AccessTokenSeconds, "refresh_token_seconds": s.RefreshTokenSeconds} {
		if seconds < 0 || seconds > int(maxSpan/time.Second) {
			return refuse("%s is a number of seconds up to %d, or 0 for the default", name, int(maxSpan/time.Second))
		}
	}
	return checkTogether(s)
}

// checkTogether says which settings don't go together.
func checkTogether(s identity.ClientSettings) error {
	has := func(grant string) bool { return slices.Contains(s.Grants, grant) }
	own := slices.ContainsFunc(s.Scopes, func(scope string) bool { return scope == ScopeAccountRead || scope == ScopeAccountWrite })
	switch {
	case has(GrantCode) && len(s.RedirectURIs) == 0:
		return refuse("the grant %s needs a redirect URI", GrantCode)
	case !has(GrantCode) && len(s.RedirectURIs) > 0:
		return refuse("redirect URIs are for the grant %s", GrantCode)
	case has(GrantRefresh) && !has(GrantCode) && !has(GrantDevice):
		return refuse("the grant %s comes after %s or %s", GrantRefresh, GrantCode, GrantDevice)
	case s.Authentication == AuthenticationNone && has(GrantClientCredentials):
		return refuse("a public client can't prove who it is, which the grant %s is made of", GrantClientCredentials)
	case s.Authentication == AuthenticationNone && has(GrantExchange):
		return refuse("a public client can't prove who it is, which the grant %s needs", GrantExchange)
	case s.NoPKCE && (s.Authentication == AuthenticationNone || !has(GrantCode)):
		return refuse("only a client that can prove who it is, and has the grant %s, can do without PKCE", GrantCode)
	case s.IDTokenAlgorithm != "" && !slices.Contains(idTokenAlgorithms, s.IDTokenAlgorithm):
		return refuse("id_token_signed_response_alg is one of %s, or left out", strings.Join(idTokenAlgorithms, ", "))
	case own && !s.FirstParty:
		return refuse("the scopes %s and %s are for first-party clients", ScopeAccountRead, ScopeAccountWrite)
	}
	return nil
}

func checkKeys(s identity.ClientSettings) error {
	given := len(s.JWKS) > 0 || s.JWKSURI != ""
	switch {
	case s.Authentication == AuthenticationSigned && (len(s.JWKS) > 0) == (s.JWKSURI != ""):
		return refuse("%s needs the public keys as jwks or as jwks_uri, one of both", AuthenticationSigned)
	case s.Authentication != AuthenticationSigned && given:
		return refuse("jwks and jwks_uri are for %s", AuthenticationSigned)
	case len(s.JWKS) > maxJWKS:
		return refuse("jwks is longer than %d bytes", maxJWKS)
	}
	if len(s.JWKS) > 0 {
		var set struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal(s.JWKS, &set); err != nil || len(set.Keys) == 0 {
			return refuse(`jwks is a JWK Set with one key at least: {"keys": [...]} (RFC 7517, section 5)`)
		}
		for _, key := range set.Keys {
			var private struct {
				D, K json.RawMessage
			}
			if err := json.Unmarshal(key, &private); err != nil || private.D != nil || private.K != nil {
				return refuse("jwks has a key that is not a public one; keep private keys where they are")
			}
		}
		switch keys, err := token.ParsePublicKeys(s.JWKS); {
		case err != nil || len(keys) == 0:
			return refuse("jwks has no key that is of use: for %s, of P-256, Ed25519, or RSA from 2048 bits, and not for encryption", strings.Join(token.PublicAlgorithms, ", "))
		case len(keys) > maxKeys:
			return refuse("jwks has more than %d keys", maxKeys)
		}
	}
	if s.JWKSURI != "" {
		if u, err := parseURI(s.JWKSURI); err != nil || u.Scheme != "https" && !isLoopback(u) {
			return refuse("jwks_uri is an https URL")
		}
	}
	return nil
}

func oneOf(value string, known []string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("is none of %s", strings.Join(known, ", "))
}

func parseURI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || len(text) > maxURI || u.Scheme == "":
		return nil, fmt.Errorf("is not a whole URL of at most %d characters", maxURI)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
		return nil, fmt.Errorf("has characters that a URL has to have percent-encoded")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return nil, fmt.Errorf("has a fragment")
	case u.User != nil:
		return nil, fmt.Errorf("has a user in it")
	case strings.Contains(u.Host, "*"):
		return nil, fmt.Errorf("has a wildcard; each is compared as it stands")
	}
	return u, nil
}

// checkRedirect allows https, http on this machine alone, and schemes of an app's own that have a dot (RFC 8252, section 7).
func checkRedirect(text string) error {
	u, err := parseURI(text)
	switch {
	case err != nil:
		return err
	case u.Scheme == "https" && u.Host != "", isLoopback(u):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("is not safe: http is for localhost, 127.0.0.1 and [::1]")
	case strings.Contains(u.Scheme, ".") && u.Host == "":
		return nil
	}
	return fmt.Errorf("is neither https nor of a scheme that has a dot, such as com.example.app:/callback")
}

// checkOrigin wants an origin as browsers write it.
func checkOrigin(text string) error {
	u, err := parseURI(text)
	switch {
	case err != nil:
		return err
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.Scheme+"://"+strings.ToLower(u.Host) != text:
		return fmt.Errorf("is not an origin, such as https://app.example")
	case u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("names the port that goes without saying, which browsers leave out")
	case u.Scheme == "http" && !isLoopback(u):
		return fmt.Errorf("is not safe: http is for localhost, 127.0.0.1 and [::1]")
	}
	return nil
}

// isLoopback says whether a URL is plain http to this machine.
func isLoopback(u *url.URL) bool {
	if u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// RedirectsTo says whether a redirect URI is one of a client's: the same text as one that is registered, but that the port of one on
// a loopback address is free, which an app gets when it starts (RFC 8252, section 7.3).
func (c Client) RedirectsTo(uri string) bool { return among(c.RedirectURIs, uri) }

// LogsOutTo says the same of a URI to go to after a logout.
func (c Client) LogsOutTo(uri string) bool { return among(c.PostLogoutRedirectURIs, uri) }

func among(list []string, uri string) bool {
	if slices.Contains(list, uri) {
		return true
	}
	asked, err := parseURI(uri)
	if err != nil || net.ParseIP(asked.Hostname()) == nil || !isLoopback(asked) {
		return false
	}
	return slices.ContainsFunc(list, func(registered string) bool {
		u, err := url.Parse(registered)
		return err == nil && isLoopback(u) && withoutPort(u) == withoutPort(asked)
	})
}

func withoutPort(u *url.URL) string {
	bare := *u
	bare.Host = u.Hostname()
	return bare.String()
}

func refuse(format string, args ...any) error {
	return &identity.Error{Code: identity.CodeInvalidClient, Detail: fmt.Sprintf(format, args...)}
}
