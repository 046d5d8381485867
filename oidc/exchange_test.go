package oidc

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/token"
)

// service registers a client that exchanges tokens: one of ours with a secret, but for what change says.
func (s *stack) service(change func(*identity.ClientSettings)) app {
	s.tb.Helper()
	return s.app(func(c *identity.ClientSettings) {
		*c = identity.ClientSettings{Name: c.Name, FirstParty: true, Authentication: client.AuthenticationPost, Grants: []string{client.GrantExchange},
			Scopes: []string{client.ScopeAccountRead, client.ScopeEmail, client.ScopeOpenID, client.ScopeUsersRead}}
		if change != nil {
			change(c)
		}
	})
}

// access is a token of a browser's user, as a login of usher's own gives it but for what change says.
func (s *stack) access(b *browser, change func(*token.Grant)) string {
	s.tb.Helper()
	issuer, err := token.NewIssuer(token.IssuerConfig{Keys: s.keys, Issuer: issuerName, Audience: []string{"usher"}, Lifetime: 10 * time.Minute})
	if err != nil {
		s.tb.Fatal(err)
	}
	g := token.Grant{Subject: b.login.User.ID.String(), Session: b.login.Session.String(), Scopes: client.Scopes}
	if change != nil {
		change(&g)
	}
	raw, _, err := issuer.Issue(g)
	if err != nil {
		s.tb.Fatal(err)
	}
	return raw
}

func (s *stack) exchanges(a app, subject string, more ...string) reply {
	s.tb.Helper()
	return s.token(a, append([]string{"grant_type", client.GrantExchange, "subject_token", subject, "subject_token_type", typeAccessToken}, more...)...)
}

func TestExchange(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db)
		ada := s.user("ada@example.org")
		front, back := s.service(nil), s.service(func(c *identity.ClientSettings) { c.Scopes = []string{client.ScopeAccountRead} })
		subject := s.access(ada, func(g *token.Grant) { g.Audience = []string{"usher", "orders"} })
		first := s.exchanges(front, subject, "requested_token_type", typeAccessToken).granted()
		if first.IssuedType != typeAccessToken || first.Scope != "account:read users:read" || first.RefreshToken != "" || first.IDToken != "" || first.ExpiresIn > 600 {
			t.Errorf("the answer: %+v", first)
		}
		second := s.exchanges(back, first.AccessToken, "scope", client.ScopeAccountRead).granted()
		_, got := claims(t, second.AccessToken)
		_, of := claims(t, subject)
		want := map[string]any{"sub": of["sub"], "sid": of["sid"], "aud": of["aud"], "client_id": back.ID.String(), "scope": "account:read", "exp": of["exp"],
			"act": map[string]any{"sub": back.ID.String(), "act": map[string]any{"sub": front.ID.String()}}}
		for name := range got {
			if _, known := want[name]; !known {
				delete(got, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the claims (-want +got):\n%s", diff)
		}
		_, who, err := s.server.Verify(t.Context(), second.AccessToken)
		if err != nil || who.Actor() != identity.ActorDelegated(ada.login.User.ID, back.ID) {
			t.Errorf("the actor is %s, %v", who.Actor(), err)
		}
		shown := s.post(nil, pathIntrospect, map[string][]string{"client_id": {front.ID.String()}, "client_secret": {front.secret}, "token": {second.AccessToken}})
		if !strings.Contains(shown.body, `"act":{"sub":"`+back.ID.String()+`","act":{"sub":"`+front.ID.String()+`"}}`) {
			t.Errorf("introspected: %s", shown.body)
		}
		narrow := s.exchanges(front, subject, "audience", "orders").granted()
		if _, got := claims(t, narrow.AccessToken); got["aud"] != "orders" {
			t.Errorf("aud = %v", got["aud"])
		}
		// It is not for the client to end the session, and ends with it.
		s.post(nil, pathRevoke, map[string][]string{"client_id": {back.ID.String()}, "client_secret": {back.secret}, "token": {second.AccessToken}}).
			wantError("revoked", http.StatusBadRequest, unsupportedTokenType)
		if _, _, err := s.server.Verify(t.Context(), subject); err != nil {
			t.Errorf("the subject's token after that: %v", err)
		}
		if _, err := s.identity.EndSession(t.Context(), ada.login.User.ID, ada.login.Session, identity.EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.server.Verify(t.Context(), second.AccessToken); err == nil {
			t.Error("an exchanged token is good after the session has ended")
		}
		s.exchanges(front, subject).wantError("after the session has ended", http.StatusBadRequest, invalidRequest)
	})
}

func TestExchangeIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	service, shop := s.service(nil), s.app(nil)
	good := s.access(ada, nil)
	for what, c := range map[string]struct {
		reply reply
		code  string
	}{
		"a client without the grant": {s.exchanges(shop, good), unauthorizedClient},
		"no token":                   {s.exchanges(service, ""), invalidRequest},
		"another type":               {s.exchanges(service, good, "subject_token_type", "urn:ietf:params:oauth:token-type:id_token"), invalidRequest},
		"for another type":           {s.exchanges(service, good, "requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), invalidRequest},
		"another actor":              {s.exchanges(service, good, "actor_token", good), invalidRequest},
		"nonsense":                   {s.exchanges(service, good+"x"), invalidRequest},
		"a refresh token":            {s.exchanges(service, string(ada.login.Refresh)), invalidRequest},
		"a client's own token":       {s.exchanges(service, s.access(ada, func(g *token.Grant) { g.Subject, g.Client, g.Session = service.ID.String(), service.ID.String(), "" })), invalidRequest},
		"for others":                 {s.exchanges(service, s.access(ada, func(g *token.Grant) { g.Audience = []string{"orders"} })), invalidRequest},
		"a key that is not shown":    {s.exchanges(service, s.access(ada, func(g *token.Grant) { g.Confirmation = "thumbprint" })), invalidRequest},
		"too many hands":             {s.exchanges(service, s.access(ada, func(g *token.Grant) { g.Actors = []string{"a", "b", "c", "d"} })), invalidRequest},
		"more than the client may":   {s.exchanges(service, good, "scope", "users:write"), invalidScope},
		"more than the token has":    {s.exchanges(service, s.access(ada, func(g *token.Grant) { g.Client, g.Scopes = service.ID.String(), []string{"users:read"} }), "scope", "account:read"), invalidScope},
		"another audience":           {s.exchanges(service, good, "audience", "orders"), invalidTarget},
		"another resource":           {s.exchanges(service, good, "resource", "https://other.example"), invalidTarget},
	} {
		c.reply.wantError(what, http.StatusBadRequest, c.code)
	}
	s.exchanges(app{service.Client, ""}, good).wantError("without the secret", http.StatusUnauthorized, "invalid_client")

	// An application of others does what the user lets it do.
	theirs := s.service(func(c *identity.ClientSettings) {
		c.FirstParty, c.Scopes = false, []string{client.ScopeEventsRead, client.ScopeUsersRead}
	})
	s.exchanges(theirs, good).wantError("without a consent", http.StatusBadRequest, accessDenied)
	if _, err := s.identity.GiveConsent(t.Context(), ada.login.User.ID, theirs.ID.String(), []string{client.ScopeUsersRead}, eventstore.Metadata{Correlation: uuid.New()}); err != nil {
		t.Fatal(err)
	}
	if got := s.exchanges(theirs, good).granted(); got.Scope != client.ScopeUsersRead {
		t.Errorf("the scope is %q", got.Scope)
	}
	s.exchanges(theirs, good, "scope", client.ScopeEventsRead).wantError("more than the consent", http.StatusBadRequest, invalidScope)
}
