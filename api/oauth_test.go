package api

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

// service is a client that calls the server.
type service struct {
	*stack
	id     uuid.UUID
	secret client.Secret
}

func (s *stack) client(name string) service {
	s.tb.Helper()
	c, secret, _, err := s.server.Clients.Add(s.tb.Context(), identity.ClientSettings{Name: name}, uuid.Nil, byOperator())
	if err != nil {
		s.tb.Fatal(err)
	}
	return service{s, c.ID, secret}
}

func byOperator() eventstore.Metadata {
	return eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator}
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// form encodes parameters, given as names and values, as they stand.
func form(parameters ...string) string {
	var list []string
	for i := 0; i < len(parameters); i += 2 {
		list = append(list, url.QueryEscape(parameters[i])+"="+url.QueryEscape(parameters[i+1]))
	}
	return strings.Join(list, "&")
}

const (
	introspect = "/oauth2/introspect"
	revoke     = "/oauth2/revoke"
	formType   = "application/x-www-form-urlencoded"
)

func (c service) ask(path string, parameters ...string) answer {
	c.tb.Helper()
	return c.call("POST", path, form(parameters...), "Content-Type", formType, "Authorization", basic(c.id.String(), string(c.secret)))
}

// wantInactive fails unless nothing but that is said of a token.
func (c service) wantInactive(what string, parameters ...string) {
	c.tb.Helper()
	if a := c.ask(introspect, parameters...); a.status != http.StatusOK || a.body != `{"active":false}`+"\n" {
		c.tb.Errorf("%s: %d %s, want it inactive", what, a.status, a.body)
	}
}

func (c service) wantActive(what string, parameters ...string) answer {
	c.tb.Helper()
	a := c.ask(introspect, parameters...)
	if a.status != http.StatusOK || a.field(c.tb, "active") != "true" {
		c.tb.Fatalf("%s: %d %s, want it active", what, a.status, a.body)
	}
	return a
}

func TestIntrospect(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		ada := s.user("ada@example.org", identity.RoleGranted{Role: "writer"})
		c := s.client("shop")
		first := s.tokens("ada@example.org")

		var a answer
		devstack.Eventually(t, "the role is known", func() bool { // it was granted as another process would
			a = c.wantActive("an access token", "token", first.access, "token_type_hint", "access_token", "unknown", "x")
			return strings.Contains(a.body, "writer")
		})
		for field, want := range map[string]string{
			"token_type": "Bearer", "sub": ada.String(), "client_id": "usher", "roles": `["writer"]`, "iss": issuerName, "aud": `["usher"]`,
		} {
			if got := a.field(t, field); got != want {
				t.Errorf("%s is %s, want %s", field, got, want)
			}
		}
		if strings.Contains(a.body, "ada@") || strings.Contains(a.body, "Name") {
			t.Errorf("the answer has personal data: %s", a.body)
		}
		s.append(ada, identity.RoleRevoked{Role: "writer"})
		devstack.Eventually(t, "a role that was revoked is gone", func() bool {
			return !strings.Contains(c.wantActive("an access token", "token", first.access).body, "writer")
		})

		hint := []string{"token_type_hint", "refresh_token"}
		c.wantInactive("a refresh token that was not asked for", "token", first.refresh)
		c.wantInactive("a refresh token that was not asked for", "token", first.refresh, "token_type_hint", "access_token")
		a = c.wantActive("a refresh token", append(hint, "token", first.refresh)...)
		if a.field(t, "sub") != ada.String() || a.field(t, "client_id") != "usher" || a.field(t, "token_type") != "" || a.field(t, "exp") <= a.field(t, "iat") {
			t.Errorf("a refresh token is %s", a.body)
		}
		c.wantActive("an access token under the wrong hint", append(hint, "token", first.access)...)
		second := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", first.refresh)))
		c.wantActive("the refresh token before, whose reply may be lost", append(hint, "token", first.refresh)...)
		third := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", second.refresh)))
		c.wantInactive("a refresh token that was used", append(hint, "token", first.refresh)...)
		c.wantActive("the newest, after the old one was asked about", append(hint, "token", third.refresh)...)

		for _, rubbish := range []string{"x", "a.b.c", strings.Repeat("x", 9000), first.access + "x", third.refresh + "x"} {
			c.wantInactive("rubbish", append(hint, "token", rubbish)...)
			c.wantInactive("rubbish", "token", rubbish)
		}
		for name, raw := range forgedTokens(t, s, ada, first.access) {
			c.wantInactive(name, "token", raw)
		}

		s.want(s.as(first.access, "POST", "/v1/auth/logout", ""), http.StatusNoContent, "")
		c.wantInactive("an access token after logout", "token", third.access)
		c.wantInactive("a refresh token after logout", append(hint, "token", third.refresh)...)

		last := s.tokens("ada@example.org")
		if _, err := s.identity.LockUser(t.Context(), ada, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		c.wantInactive("an access token of a locked user", "token", last.access)
		c.wantInactive("a refresh token of a locked user", append(hint, "token", last.refresh)...)
	})
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		ada := s.user("ada@example.org")
		c := s.client("shop")
		for name, pick := range map[string]func(tokens) string{
			"access token":  func(t tokens) string { return t.access },
			"refresh token": func(t tokens) string { return t.refresh },
			"refresh token that was used": func(t tokens) string {
				s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", t.refresh)))
				return t.refresh
			},
		} {
			for _, hint := range []string{"", "access_token", "refresh_token", "other"} {
				given := s.tokens("ada@example.org")
				raw := pick(given)
				before := s.head()
				a := c.ask(revoke, "token", raw, "token_type_hint", hint)
				if a.status != http.StatusOK || a.body != "" || a.header.Get("Usher-Position") == "" {
					t.Errorf("%s, hint %q: %d %q", name, hint, a.status, a.body)
				}
				s.want(s.as(given.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
				s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", given.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
				events, err := s.log.ReadAll(t.Context(), before, 10)
				if err != nil || len(events) != 1 || events[0].Type != identity.TypeSessionEnded || events[0].Metadata.Actor != "client:"+c.id.String() ||
					!strings.Contains(string(events[0].Data), identity.EndedRevoked) {
					t.Errorf("%s, hint %q: events %+v, %v", name, hint, events, err)
				}
				if again := c.ask(revoke, "token", raw); again.status != http.StatusOK {
					t.Errorf("%s again: %d %s", name, again.status, again.body)
				}
			}
		}
		bystander := s.tokens("ada@example.org")
		before := s.head()
		for name, raw := range forgedTokens(t, s, ada, bystander.access) {
			if a := c.ask(revoke, "token", raw); a.status != http.StatusOK || a.body != "" {
				t.Errorf("%s: %d %s, want 200", name, a.status, a.body)
			}
		}
		if types := s.typesAfter(before); len(types) > 0 {
			t.Errorf("tokens that are none ended something: %v", types)
		}
		s.want(s.as(bystander.access, "GET", "/v1/me", ""), http.StatusOK, "")
	})
}

// Who calls has to prove to be a client, in one of two ways, and is told in OAuth's form what is wrong.
func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		access := s.login("ada@example.org")
		c, gone := s.client("shop"), s.client("gone")
		if _, err := s.server.Clients.Remove(t.Context(), gone.id, byOperator(), nil); err != nil {
			t.Fatal(err)
		}
		id, secret := c.id.String(), string(c.secret)
		right := basic(id, secret)
		raw := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
		for name, test := range map[string]struct {
			authorization string
			body          string
			contentType   string
			status        int
			code          string
		}{
			"Basic":                     {right, form("token", access), "", 200, ""},
			"Basic in lower case":       {"basic" + strings.TrimPrefix(right, "Basic"), form("token", access), "", 200, ""},
			"the form":                  {"", form("token", access, "client_id", id, "client_secret", secret), "", 200, ""},
			"Basic, and the id again":   {right, form("token", access, "client_id", id), "", 200, ""},
			"an empty parameter":        {right, form("token", access, "client_secret", ""), "", 200, ""},
			"both":                      {right, form("token", access, "client_id", id, "client_secret", secret), "", 400, "invalid_request"},
			"Basic, and another id":     {right, form("token", access, "client_id", "x"), "", 400, "invalid_request"},
			"nothing":                   {"", form("token", access), "", 401, "invalid_client"},
			"no body either":            {"", "", "", 401, "invalid_client"},
			"wrong secret":              {basic(id, secret+"x"), form("token", access), "", 401, "invalid_client"},
			"no secret":                 {basic(id, ""), form("token", access), "", 401, "invalid_client"},
			"secret of another":         {basic(id, string(gone.secret)), form("token", access), "", 401, "invalid_client"},
			"a client that was removed": {basic(gone.id.String(), string(gone.secret)), form("token", access), "", 401, "invalid_client"},
			"an unknown id":             {basic(uuid.Must(uuid.NewV7()).String(), secret), form("token", access), "", 401, "invalid_client"},
			"an id of no form":          {basic("shop", secret), form("token", access), "", 401, "invalid_client"},
			"the id in another form":    {basic("urn:uuid:"+id, secret), form("token", access), "", 401, "invalid_client"},
			"an empty id":               {basic("", secret), form("token", access), "", 401, "invalid_client"},
			"an id of NULs":             {basic("\x00", secret), form("token", access), "", 401, "invalid_client"},
			"the access token":          {"Bearer " + access, form("token", access), "", 401, "invalid_client"},
			"Basic without a colon":     {raw(id + secret), form("token", access), "", 401, "invalid_client"},
			"Basic of no base64":        {"Basic %%%", form("token", access), "", 401, "invalid_client"},
			"Basic, badly encoded":      {raw(id + ":%zz"), form("token", access), "", 401, "invalid_client"},
			"no token":                  {right, form("token_type_hint", "x"), "", 400, "invalid_request"},
			"no body":                   {right, "", "", 400, "invalid_request"},
			"an empty token":            {right, form("token", ""), "", 400, "invalid_request"},
			"two tokens":                {right, form("token", access, "token", access), "", 400, "invalid_request"},
			"no form":                   {right, "token=%zz", "", 400, "invalid_request"},
			"semicolons":                {right, "token=a;b=c", "", 400, "invalid_request"},
			"no Unicode":                {right, "token=%ff", "", 400, "invalid_request"},
			"a NUL":                     {right, "token=%00", "", 400, "invalid_request"},
			"JSON":                      {right, body("token", access), jsonType, 415, "invalid_request"},
			"a large body":              {right, form("token", strings.Repeat("x", 70<<10)), "", 413, "invalid_request"},
		} {
			contentType := test.contentType
			if contentType == "" {
				contentType = formType
			}
			for _, path := range []string{introspect, revoke} {
				if path == revoke && test.status == 200 {
					continue
				}
				before := s.head()
				a := s.call("POST", path, test.body, "Content-Type", contentType, "Authorization", test.authorization)
				if a.status != test.status {
					t.Errorf("%s %s: %d %s, want %d", path, name, a.status, a.body, test.status)
					continue
				}
				if test.code != "" && a.field(t, "error") != test.code {
					t.Errorf("%s %s: %s, want %s", path, name, a.body, test.code)
				}
				if strings.Contains(a.body, secret) || strings.Contains(a.body, id) {
					t.Errorf("%s %s: credentials are in the answer: %s", path, name, a.body)
				}
				if s.head() != before {
					t.Errorf("%s %s: %v happened", path, name, s.typesAfter(before))
				}
			}
		}
		if a := s.call("GET", introspect, ""); a.status != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d %s", a.status, a.body)
		}
		for place, text := range map[string]string{"log": s.output.String(), "clients": strings.Join(dump(t, db, "clients", "*"), "\n")} {
			if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
				t.Errorf("%s: a client's secret is in it", place)
			}
		}
	})
}

func TestOAuthErrorsOfOurs(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	c := s.client("shop")
	s.db.Close()
	a := c.ask(introspect, "token", "x")
	if a.status != http.StatusServiceUnavailable || a.field(t, "error") != "temporarily_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s, want temporarily_unavailable", a.status, a.body)
	}
}

// A token that was refused until now is not remembered as such, and one that was good is not remembered as that.
func TestIntrospectionIsOfThisMoment(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("ada@example.org")
	c := s.client("shop")
	given := s.tokens("ada@example.org")
	for range 3 {
		c.wantActive("an access token", "token", given.access)
	}
	s.want(s.as(given.access, "POST", "/v1/auth/logout", ""), http.StatusNoContent, "")
	c.wantInactive("right after logout", "token", given.access)
}
