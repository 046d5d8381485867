package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

// addService registers a client by the API and answers with it.
func (s *stack) addService(access, body string) (id, secret string) {
	s.tb.Helper()
	a := s.want(s.as(access, "POST", "/v1/clients", body), http.StatusCreated, "")
	return a.field(s.tb, "client_id"), a.field(s.tb, "client_secret")
}

// grant asks for a token as a client.
func (s *stack) grant(id, secret string, parameters ...string) answer {
	s.tb.Helper()
	return s.call("POST", "/oauth2/token", form(append([]string{"grant_type", "client_credentials"}, parameters...)...), "Content-Type", formType, "Authorization", basic(id, secret))
}

func (s *stack) wantOAuth(a answer, status int, code string) {
	s.tb.Helper()
	if a.status != status || a.field(s.tb, "error") != code {
		s.tb.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
	}
}

// A service gets a token of its own, reads what its scope says, and loses it with the scope, in every process.
func TestServiceOfItsOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
		admin := s.login("admin@example.org")
		id, secret := s.addService(admin, `{"name":"warehouse","scopes":["events:read","users:read"]}`)

		a := s.want(s.grant(id, secret), http.StatusOK, "")
		if scope := a.field(t, "scope"); scope != "events:read users:read" {
			t.Errorf("the scope is %q", scope)
		}
		access := a.field(t, "access_token")
		narrow := s.want(s.grant(id, secret, "scope", "events:read"), http.StatusOK, "").field(t, "access_token")
		if a := s.want(s.as(access, "GET", "/v1/events?type=user.registered", ""), http.StatusOK, ""); !strings.Contains(a.body, "ada@example.org") {
			t.Errorf("without personal fields though the scope is users:read: %s", a.body)
		}
		if a := s.want(s.as(narrow, "GET", "/v1/events?type=user.registered", ""), http.StatusOK, ""); strings.Contains(a.body, "ada@example.org") || strings.Contains(a.body, "user_agent") {
			t.Errorf("personal fields without the scope users:read: %s", a.body)
		}
		s.want(s.as(narrow, "GET", "/v1/users", ""), http.StatusForbidden, "insufficient_scope")
		s.want(s.as(access, "POST", "/v1/users", `{"email":"bob@example.org"}`), http.StatusForbidden, "insufficient_scope")
		s.want(s.as(access, "GET", "/v1/me", ""), http.StatusForbidden, identity.CodeForbidden)

		s.wantOAuth(s.grant(id, secret, "scope", "users:write"), http.StatusBadRequest, "invalid_scope")
		s.wantOAuth(s.grant(id, secret, "scope", "account:read"), http.StatusBadRequest, "invalid_scope")
		s.wantOAuth(s.grant(id, secret, "resource", "https://other.example"), http.StatusBadRequest, "invalid_target")
		s.want(s.grant(id, secret, "resource", "https://usher.test"), http.StatusOK, "")
		s.wantOAuth(s.grant(id, secret+"x"), http.StatusUnauthorized, "invalid_client")
		s.wantOAuth(s.call("POST", "/oauth2/token", form("grant_type", "password"), "Content-Type", formType, "Authorization", basic(id, secret)), http.StatusBadRequest, "unsupported_grant_type")
		s.wantOAuth(s.call("POST", "/oauth2/token", "", "Content-Type", formType, "Authorization", basic(id, secret)), http.StatusBadRequest, "invalid_request")
		asker, askersSecret := s.addService(admin, `{"name":"asker"}`)
		s.wantOAuth(s.grant(asker, askersSecret), http.StatusBadRequest, "unauthorized_client")

		seen := service{s, uuid.MustParse(asker), client.Secret(askersSecret)}.wantActive("a service's token", "token", access)
		if sub, scope := seen.field(t, "sub"), seen.field(t, "scope"); sub != id || scope != "events:read users:read" {
			t.Errorf("introspected: sub %s, scope %q", sub, scope)
		}
		s.want(s.as(admin, "PATCH", "/v1/clients/"+id, `{"scopes":["events:read"]}`), http.StatusOK, "")
		s.want(s.as(access, "GET", "/v1/users", ""), http.StatusForbidden, "insufficient_scope")
		s.want(s.as(admin, "DELETE", "/v1/clients/"+id, ""), http.StatusNoContent, "")
		s.want(s.as(narrow, "GET", "/v1/events", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.wantOAuth(s.grant(id, secret), http.StatusUnauthorized, "invalid_client")
	})
}

// A key goes as a bearer token, is revoked at once, and tells a typing error from a wrong one.
func TestKeysAsBearers(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin := s.login("admin@example.org")
	id, secret := s.addService(admin, `{"name":"nightly","scopes":["operate:read","users:write"]}`)
	made := s.want(s.as(admin, "POST", "/v1/clients/"+id+"/keys", `{"scopes":["operate:read"]}`), http.StatusCreated, "")
	key := made.field(t, "key")
	s.want(s.as(key, "GET", "/v1/outbox", ""), http.StatusOK, "")
	s.want(s.as(key, "GET", "/v1/users", ""), http.StatusForbidden, "insufficient_scope")
	if a := s.want(s.as(key[:len(key)-1], "GET", "/v1/outbox", ""), http.StatusUnauthorized, identity.CodeUnauthenticated); !strings.Contains(a.body, "checksum") {
		t.Errorf("a key that was cut off: %s", a.body)
	}
	shown := s.want(s.as(admin, "GET", "/v1/clients/"+id, ""), http.StatusOK, "")
	if strings.Contains(shown.body, key) || shown.field(t, "credentials", "1", "last_used_at") == "" || !strings.HasPrefix(key, shown.field(t, "credentials", "1", "prefix")) {
		t.Errorf("the client is shown as %s", shown.body)
	}
	// What a key does has its client as the actor.
	writer := s.want(s.as(admin, "POST", "/v1/clients/"+id+"/keys", `{"scopes":["users:write"]}`), http.StatusCreated, "").field(t, "key")
	before := s.head()
	s.want(s.as(writer, "POST", "/v1/users", `{"email":"bob@example.org"}`), http.StatusCreated, "")
	events, err := s.log.ReadAll(t.Context(), before, 10)
	if err != nil || len(events) == 0 || events[0].Metadata.Actor != "client:"+id {
		t.Errorf("events = %+v, %v", events, err)
	}
	mine := service{s, uuid.MustParse(id), client.Secret(secret)}
	mine.wantActive("a key", "token", key)
	s.want(mine.ask(revoke, "token", key), http.StatusOK, "")
	mine.wantInactive("a key that was revoked", "token", key)
	s.want(s.as(key, "GET", "/v1/outbox", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	other := s.client("other")
	s.wantOAuth(other.ask(revoke, "token", writer), http.StatusBadRequest, "unauthorized_client")
	access := s.grant(id, secret).field(t, "access_token")
	s.wantOAuth(mine.ask(revoke, "token", access), http.StatusBadRequest, "unsupported_token_type")
	s.wantOAuth(other.ask(revoke, "token", access), http.StatusBadRequest, "unauthorized_client")
}

// Nobody makes more of a client than they are themselves.
func TestClientsGiveNoRights(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin := s.login("admin@example.org")
	id, secret := s.addService(admin, `{"name":"setup","scopes":["clients:write","events:read"]}`)
	strong, _ := s.addService(admin, `{"name":"strong","scopes":["users:write"]}`)
	setup := s.grant(id, secret).field(t, "access_token")

	weak, _ := s.addService(setup, `{"name":"weak","scopes":["events:read"]}`)
	s.want(s.as(setup, "POST", "/v1/clients", `{"name":"more","scopes":["users:write"]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "POST", "/v1/clients", `{"name":"more","redirect_uris":["https://more.example/"],"first_party":true}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "PATCH", "/v1/clients/"+weak, `{"scopes":["users:write"]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "PATCH", "/v1/clients/"+id, `{"scopes":["clients:write","users:read"]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "PATCH", "/v1/clients/"+strong, `{"scopes":[]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "POST", "/v1/clients/"+strong+"/secrets", ""), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "POST", "/v1/clients/"+strong+"/keys", `{"scopes":["users:write"]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "POST", "/v1/clients/"+weak+"/secrets", ""), http.StatusCreated, "")
	s.want(s.as(setup, "POST", "/v1/clients", `{"name":"more","redirect_uris":["https://more.example/"],"scopes":["openid"]}`), http.StatusForbidden, identity.CodeForbidden)
	s.want(s.as(setup, "DELETE", "/v1/clients/"+strong, ""), http.StatusForbidden, identity.CodeForbidden)
	shown := s.want(s.as(admin, "GET", "/v1/clients/"+strong, ""), http.StatusOK, "")
	s.want(s.as(setup, "DELETE", "/v1/clients/"+strong+"/credentials/"+shown.field(t, "credentials", "0", "id"), ""), http.StatusForbidden, identity.CodeForbidden)
}

// A service that may write does not become what it may not read, by a webhook, by a role, or by a user who may more.
func TestWritingIsNoWayToReading(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	ada := s.user("ada@example.org")
	other := s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin := s.login("admin@example.org")
	token := func(name, scopes string) string {
		t.Helper()
		id, secret := s.addService(admin, `{"name":"`+name+`","scopes":[`+scopes+`]}`)
		return s.grant(id, secret).field(t, "access_token")
	}
	hook := s.want(s.as(admin, "POST", "/v1/webhooks", `{"url":"http://127.0.0.1:1/"}`), http.StatusCreated, "").field(t, "id")
	hooker := token("hooker", `"webhooks:write"`)
	before := s.head()
	for _, call := range [][3]string{
		{"POST", "/v1/webhooks", `{"url":"http://127.0.0.1:1/x","from":1}`}, {"PATCH", "/v1/webhooks/" + hook, `{"url":"http://127.0.0.1:1/x"}`},
		{"PATCH", "/v1/webhooks/" + hook, `{"events":["user.*"]}`}, {"PATCH", "/v1/webhooks/" + hook, `{"rotate_secret":true}`},
	} {
		s.want(s.as(hooker, call[0], call[1], call[2]), http.StatusForbidden, "insufficient_scope")
	}
	s.want(s.as(token("reader", `"webhooks:write","events:read"`), "POST", "/v1/webhooks", `{"url":"http://127.0.0.1:1/x"}`), http.StatusForbidden, "insufficient_scope")

	writer := token("writer", `"users:write","users:read"`)
	for _, call := range [][3]string{
		{"PUT", "/v1/users/" + ada.String() + "/roles/admin", ""}, {"PUT", "/v1/users/" + ada.String() + "/roles/operator", ""},
		{"DELETE", "/v1/users/" + other.String() + "/roles/admin", ""}, {"POST", "/v1/users", `{"email":"eve@example.org","roles":["admin"]}`},
		{"PATCH", "/v1/users/" + other.String(), `{"email":"eve@example.org"}`}, {"POST", "/v1/users/" + other.String() + "/password-reset", ""},
		{"DELETE", "/v1/users/" + other.String(), ""}, {"POST", "/v1/users/" + other.String() + "/lock", ""}, {"DELETE", "/v1/users/" + other.String() + "/totp", ""},
	} {
		s.want(s.as(writer, call[0], call[1], call[2]), http.StatusForbidden, "insufficient_scope")
	}
	s.want(s.as(token("blind", `"users:write"`), "PATCH", "/v1/users/"+ada.String(), `{}`), http.StatusForbidden, "insufficient_scope")
	if happened := s.typesAfter(before); slices.ContainsFunc(happened, func(e string) bool { return !strings.HasPrefix(e, "client.") }) {
		t.Errorf("%v happened", happened)
	}
	s.want(s.as(writer, "PUT", "/v1/users/"+ada.String()+"/roles/writer", ""), http.StatusNoContent, "")
	s.want(s.as(writer, "PATCH", "/v1/users/"+ada.String(), `{"name":"Ada"}`), http.StatusOK, "")
	s.want(s.as(writer, "POST", "/v1/users/"+ada.String()+"/lock", ""), http.StatusNoContent, "")
}

// What is taken from whoever waits for events is not in what they get.
func TestLongPollThatLosesARight(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin := s.login("admin@example.org")
	id, secret := s.addService(admin, `{"name":"warehouse","scopes":["events:read","users:read"]}`)
	access := s.grant(id, secret).field(t, "access_token")
	polled := make(chan answer, 1)
	go func() {
		polled <- s.as(access, "GET", "/v1/events?type=user.registered&wait=60&after="+strconv.FormatInt(s.head(), 10), "")
	}()
	devstack.Eventually(t, "it waits", func() bool { return s.server.feed.waiting.Load() == 1 })
	s.want(s.as(admin, "PATCH", "/v1/clients/"+id, `{"scopes":["events:read"]}`), http.StatusOK, "")
	s.user("ada@example.org")
	if a := receive(t, "the poll", polled); a.status != http.StatusOK || !strings.Contains(a.body, "user.registered") || strings.Contains(a.body, "ada@example.org") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestClientsAPI(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin := s.login("admin@example.org")
	var names []string
	for _, name := range []string{"c", "a", "b"} {
		s.addService(admin, `{"name":"`+name+`"}`)
		names = append(names, name)
	}
	var listed []string
	for cursor := ""; ; {
		a := s.want(s.as(admin, "GET", "/v1/clients?limit=2&cursor="+url.QueryEscape(cursor), ""), http.StatusOK, "")
		for _, i := range []string{"0", "1"} {
			if strings.Count(a.body, `"name"`) > map[string]int{"0": 0, "1": 1}[i] {
				listed = append(listed, a.field(t, "items", i, "name"))
			}
		}
		if cursor = a.field(t, "next_cursor"); cursor == "" {
			break
		}
	}
	if !slices.Equal(listed, names) {
		t.Errorf("listed %v, want %v", listed, names)
	}
	s.want(s.as(admin, "POST", "/v1/clients", `{"name":"a"}`), http.StatusConflict, identity.CodeConflict)
	for _, body := range []string{`{}`, `{"name":"A"}`, `{"name":"x","redirect_uris":["http://x.example/"]}`, `{"name":"x","scopes":["user:read"]}`, `{"name":"x","jwks":{"keys":[]}}`} {
		s.want(s.as(admin, "POST", "/v1/clients", body), http.StatusUnprocessableEntity, identity.CodeInvalidClient)
	}
	s.want(s.as(admin, "GET", "/v1/clients/"+uuid.NewString(), ""), http.StatusNotFound, identity.CodeNotFound)
	key := []string{"Authorization", "Bearer " + admin, "Idempotency-Key", "once"}
	s.want(s.call("POST", "/v1/clients", `{"name":"once"}`, key...), http.StatusCreated, "")
	if a := s.want(s.call("POST", "/v1/clients", `{"name":"once"}`, key...), http.StatusConflict, identity.CodeConflict); !strings.Contains(a.body, "shown only once") {
		t.Errorf("repeated: %s", a.body)
	}
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	id, _ := s.addService(admin, `{"name":"keyed","scopes":["events:read"]}`)
	a := s.want(s.as(admin, "POST", "/v1/clients/"+id+"/keys", `{"scopes":["events:read"],"expires_at":"`+until+`"}`), http.StatusCreated, "")
	credential := a.field(t, "credentials", "1", "id")
	s.want(s.as(admin, "DELETE", "/v1/clients/"+id+"/credentials/"+credential, ""), http.StatusNoContent, "")
	s.want(s.as(admin, "DELETE", "/v1/clients/"+id+"/credentials/"+credential, ""), http.StatusNotFound, identity.CodeNotFound)
	s.want(s.as(a.field(t, "key"), "GET", "/v1/events", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
}
