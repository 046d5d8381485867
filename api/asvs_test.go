package api

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// The tests of this file are named after the requirements of OWASP ASVS 5.0 that they show to be met.

// class is who may make a call.
type class string

const (
	anyone  class = "anyone" // no access token is needed, and a bad one does no harm
	public  class = "public" // the same, and the answer may be kept
	self    class = "self"   // who is logged in, about themselves
	owner   class = "owner"  // who is logged in and owns what the path names; it is not there for others
	admins  class = "admins" // administrators
	clients class = "client" // services that are set up as clients, which no user is
	apps    class = "apps"   // applications that a user has logged in to, which none of the callers is
	pages   class = "pages"  // browsers, by a cookie: see package oidc
)

// calls says of every call who may make it.
var calls = map[string]class{
	"GET /.well-known/jwks.json":                  public,
	"GET /.well-known/openid-configuration":       public,
	"GET /.well-known/oauth-authorization-server": public,
	"GET /.well-known/oauth-protected-resource":   public,
	"GET /":             public,
	"GET /openapi.yaml": public,
	"GET /openapi.json": public,
	"GET /livez":        anyone,
	"GET /readyz":       anyone,

	"POST /oauth2/token":                clients,
	"POST /oauth2/introspect":           clients,
	"POST /oauth2/device_authorization": clients,
	"POST /oauth2/revoke":               clients,
	"GET /oauth2/userinfo":              apps,
	"POST /oauth2/userinfo":             apps,
	"GET /oauth2/authorize":             pages,
	"POST /oauth2/authorize":            pages,
	"GET /oauth2/logout":                pages,
	"POST /oauth2/logout":               pages,
	"GET /consent":                      pages,
	"POST /consent":                     pages,

	"POST /v1/auth/register":            anyone,
	"POST /v1/auth/login":               anyone,
	"POST /v1/auth/refresh":             anyone,
	"POST /v1/auth/verify-email":        anyone,
	"POST /v1/auth/verify-email/resend": anyone,
	"POST /v1/auth/password/forgot":     anyone,
	"POST /v1/auth/password/reset":      anyone,
	"POST /v1/auth/logout":              self,
	"POST /v1/auth/logout-all":          self,

	"GET /v1/me":                     self,
	"PATCH /v1/me":                   self,
	"DELETE /v1/me":                  self,
	"POST /v1/me/password":           self,
	"POST /v1/me/email":              self,
	"GET /v1/me/sessions":            self,
	"POST /v1/me/totp":               self,
	"POST /v1/me/totp/confirm":       self,
	"DELETE /v1/me/totp":             self,
	"POST /v1/me/recovery-codes":     self,
	"DELETE /v1/me/sessions/:id":     owner,
	"GET /v1/me/consents":            self,
	"DELETE /v1/me/consents/:client": self,
	"GET /v1/me/activity":            self,
	"GET /v1/me/export":              self,
	"POST /v1/me/export":             self,

	"GET /v1/webhooks":                                   admins,
	"POST /v1/webhooks":                                  admins,
	"GET /v1/webhooks/:id":                               admins,
	"PATCH /v1/webhooks/:id":                             admins,
	"DELETE /v1/webhooks/:id":                            admins,
	"GET /v1/webhooks/:id/deliveries":                    admins,
	"POST /v1/webhooks/:id/deliveries/:delivery/redrive": admins,
	"POST /v1/webhooks/:id/redrive":                      admins,
	"POST /v1/webhooks/:id/test":                         admins,

	"GET /v1/users":                        admins,
	"POST /v1/users":                       admins,
	"GET /v1/users/:id":                    admins,
	"PATCH /v1/users/:id":                  admins,
	"DELETE /v1/users/:id":                 admins,
	"GET /v1/users/:id/events":             admins,
	"POST /v1/users/:id/lock":              admins,
	"POST /v1/users/:id/unlock":            admins,
	"POST /v1/users/:id/disable":           admins,
	"POST /v1/users/:id/enable":            admins,
	"POST /v1/users/:id/password-reset":    admins,
	"POST /v1/users/:id/logout-all":        admins,
	"PUT /v1/users/:id/roles/:role":        admins,
	"DELETE /v1/users/:id/totp":            admins,
	"DELETE /v1/users/:id/roles/:role":     admins,
	"GET /v1/users/:id/sessions":           admins,
	"GET /v1/events":                       admins,
	"GET /v1/activity":                     admins,
	"GET /v1/stats":                        admins,
	"GET /v1/projections":                  admins,
	"POST /v1/projections/:name/pause":     admins,
	"POST /v1/projections/:name/resume":    admins,
	"POST /v1/projections/:name/rebuild":   admins,
	"DELETE /v1/projections/:name/rebuild": admins,
	"POST /v1/projections/:name/retry":     admins,
	"POST /v1/projections/:name/skip":      admins,
	"GET /v1/outbox":                       admins,

	"GET /v1/clients":                                admins,
	"POST /v1/clients":                               admins,
	"GET /v1/clients/:id":                            admins,
	"PATCH /v1/clients/:id":                          admins,
	"DELETE /v1/clients/:id":                         admins,
	"POST /v1/clients/:id/secrets":                   admins,
	"POST /v1/clients/:id/keys":                      admins,
	"DELETE /v1/clients/:id/credentials/:credential": admins,
}

// The kinds of callers.
var callers = []string{"nobody", "the user", "another user", "an administrator", "an ended session", "a locked user"}

// Every call, made by every kind of caller: who may not make it is refused, and nothing happens. Where a path names a user or
// a session, it is that of "the user". A call that is not classified fails.
func TestASVS_8_2_2_EveryCallByEveryCaller(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		s.project()
		for _, name := range []string{"admin", "deputy"} {
			if _, _, err := s.identity.CreateUser(t.Context(), identity.NewUser{Email: name + "@example.org", Password: secret, Roles: []string{identity.RoleAdmin}}); err != nil {
				t.Fatal(err)
			}
		}
		ended := s.tokens("admin@example.org").access
		s.want(s.as(ended, "POST", "/v1/auth/logout", ""), http.StatusNoContent, "")
		lockedAdmin := s.user("locked@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
		locked := s.tokens("locked@example.org").access
		if _, err := s.identity.LockUser(t.Context(), lockedAdmin, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		var on *scene
		for _, route := range s.server.Endpoints() {
			name := route.Method + " " + route.Path
			if route.Method == http.MethodHead || strings.HasPrefix(route.Path, look.AssetsPath) { // that of GET: see TestHead
				continue
			}
			who, known := calls[name]
			if who == pages {
				continue
			}
			if !known {
				t.Errorf("%s: who may make the call? Say so in calls", name)
				continue
			}
			for _, caller := range callers {
				if on == nil {
					on = s.newScene(ended, locked)
				}
				var headers []string
				if access := on.tokens[caller]; access != "" {
					headers = []string{"Authorization", "Bearer " + access}
				}
				before := s.head()
				a := s.call(route.Method, on.replacer.Replace(route.Path), "", headers...)
				checkAccess(t, name, who, caller, a)
				happened := slices.DeleteFunc(s.typesAfter(before), func(what string) bool {
					return what == identity.TypeProjectionRebuilt // of a rebuild that an administrator asked for before
				})
				if a.status >= 400 && len(happened) != 0 {
					t.Errorf("%s by %s: %d, and %v happened", name, caller, a.status, happened)
				}
				checkCaching(t, name, who, a)
				if a.status < 400 && route.Method != http.MethodGet {
					on = nil // what there was is no longer as it was
				}
			}
		}
		routes := map[string]bool{}
		for _, route := range s.server.Endpoints() {
			routes[route.Method+" "+route.Path] = true
		}
		for name := range calls {
			if !routes[name] {
				t.Errorf("%s is classified and no call", name)
			}
		}
	})
}

// scene is what a call is made on, until one changes something in it.
type scene struct {
	tokens   map[string]string // access tokens of the callers who have one
	replacer *strings.Replacer // puts what there is into a path
}

// newScene makes a user with a session beside that of the caller, another user, and a webhook with a dead letter.
func (s *stack) newScene(ended, locked string) *scene {
	s.tb.Helper()
	number := s.head() // which no scene before had
	mine, others := fmt.Sprintf("user%d@example.org", number), fmt.Sprintf("other%d@example.org", number)
	user := s.user(mine)
	s.user(others)
	session := s.sessionOf(mine, user)
	hook, delivery := s.webhookWithDeadLetter()
	service := s.client(fmt.Sprintf("service%d", number))
	registered, err := s.server.Clients.Read(s.tb.Context(), service.id)
	if err != nil {
		s.tb.Fatal(err)
	}
	return &scene{
		tokens: map[string]string{
			"the user": s.login(mine), "another user": s.login(others), "an administrator": s.login("admin@example.org"), "an ended session": ended, "a locked user": locked,
		},
		replacer: strings.NewReplacer("/me/sessions/:id", "/me/sessions/"+session, "/webhooks/:id", "/webhooks/"+hook.String(),
			"/clients/:id", "/clients/"+service.id.String(), ":credential", registered.Credentials[0].ID.String(), ":delivery", delivery.String(),
			":id", user.String(), ":role", "writer", ":name", "users"),
	}
}

func checkAccess(t *testing.T, name string, who class, caller string, a answer) {
	t.Helper()
	status, code := 0, identity.Code("") // 0: the call may be made
	in := caller == "the user" || caller == "another user" || caller == "an administrator"
	switch {
	case who == anyone || who == public:
		// A refusal may come of a body that lacks something, or of a token that was sent for no need.
		if caller == "nobody" && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden) {
			t.Errorf("%s by nobody: %d %s", name, a.status, a.body)
		}
	case who == clients:
		status = http.StatusUnauthorized
	case !in:
		status, code = http.StatusUnauthorized, identity.CodeUnauthenticated
	case who == apps:
		status, code = http.StatusForbidden, server.CodeInsufficientScope
	case who == owner && caller != "the user":
		status, code = http.StatusNotFound, identity.CodeNotFound
	case who == admins && caller != "an administrator":
		status, code = http.StatusForbidden, identity.CodeForbidden
	}
	got := identity.Code("")
	if a.status >= 400 {
		got = identity.Code(a.field(t, "code"))
	}
	switch {
	case a.status >= http.StatusInternalServerError:
		t.Errorf("%s by %s: %d %s", name, caller, a.status, a.body)
	case status != 0 && (a.status != status || got != code):
		t.Errorf("%s by %s: %d %s, want %d %s", name, caller, a.status, a.body, status, code)
	case status == 0 && in && (got == identity.CodeUnauthenticated || got == identity.CodeForbidden || got == identity.CodeNotFound):
		t.Errorf("%s by %s: %d %s, want it done", name, caller, a.status, a.body)
	}
}

var publicCaching = regexp.MustCompile(`^public, max-age=[0-9]+$`)

func checkCaching(t *testing.T, name string, who class, a answer) {
	t.Helper()
	got := a.header.Get("Cache-Control")
	if who == public && a.status == http.StatusOK {
		if !publicCaching.MatchString(got) {
			t.Errorf("%s: Cache-Control %q", name, got)
		}
		return
	}
	if got != "no-store" {
		t.Errorf("%s: %d with Cache-Control %q, want no-store", name, a.status, got)
	}
}

// sessionOf starts a session of a user and answers with its id.
func (s *stack) sessionOf(email string, user uuid.UUID) string {
	s.tb.Helper()
	s.login(email)
	list, err := s.identity.Sessions(s.tb.Context(), user, uuid.Nil)
	if err != nil || len(list) != 1 {
		s.tb.Fatal(list, err)
	}
	return list[0].ID.String()
}

// No answer is kept, whoever asks and whatever it says, but for those that are public: the test above looks at every answer
// to every call. Here are those to what is no call.
func TestASVS_14_3_2_NothingIsCached(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		for _, call := range []string{
			"POST /", "GET /v1/nothing", "DELETE /v1/auth/login", "GET /openapi.yaml/", "POST /.well-known/jwks.json", "GET /v1/users/%00", "OPTIONS /v1/me", "HEAD /v1/me",
		} {
			method, path, _ := strings.Cut(call, " ")
			checkCaching(t, call, anyone, s.call(method, path, ""))
		}
	})
}

// A secret goes into a body or a header, never into a URL: the document has none in a path or a query, an access token in a
// query lets nobody in, no call that needs another secret takes it from there, and what was sent there all the same is not
// logged.
func TestASVS_14_2_1_NoSecretInURLs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		access := s.login("admin@example.org")
		const value = "a-secret-in-a-url"
		query := "?access_token=" + access
		for _, name := range []string{"password", "current_password", "new_password", "code", "totp", "refresh_token", "token", "client_secret"} {
			query += "&" + name + "=" + value
		}
		sensitive := regexp.MustCompile("password|code|totp|token|secret|key")
		needsOne := func(o *openapi3.Operation) bool {
			if o.RequestBody == nil || o.RequestBody.Value.Content["application/json"] == nil {
				return false
			}
			return slices.ContainsFunc(o.RequestBody.Value.Content["application/json"].Schema.Value.Required, sensitive.MatchString)
		}
		parameter := regexp.MustCompile(`\{(\w+)\}`)
		before := s.head()
		for path, item := range loadDocument(t).doc.Paths.Map() {
			for method, operation := range item.Operations() {
				for _, p := range append(item.Parameters, operation.Parameters...) {
					// The standards have these in a query: two are no secret, and the last says who somebody is, and proves nothing.
					standard := slices.Contains([]string{"code_challenge", "code_challenge_method", "id_token_hint"}, p.Value.Name)
					if p.Value.In != "header" && !standard && sensitive.MatchString(strings.ToLower(p.Value.Name)) {
						t.Errorf("%s %s has %s in its %s", method, path, p.Value.Name, p.Value.In)
					}
				}
				url := parameter.ReplaceAllString(path, "0198c0de-0000-7000-8000-000000000000") + query
				who := calls[method+" "+parameter.ReplaceAllString(path, ":$1")]
				a := s.call(method, url, "")
				if (who == self || who == owner || who == admins) && a.status != http.StatusUnauthorized {
					t.Errorf("%s %s with an access token in its query: %d %s, want 401", method, path, a.status, a.body)
				}
				if needsOne(operation) {
					a = s.as(access, method, url, "")
					s.want(a, http.StatusBadRequest, identity.CodeInvalidRequest)
				}
				if strings.Contains(a.body, value) {
					t.Errorf("%s %s answers with a secret from its query: %s", method, path, a.body)
				}
			}
		}
		if happened := s.typesAfter(before); len(happened) > 0 {
			t.Errorf("%v happened", happened)
		}
		if logged := s.output.String(); !strings.Contains(logged, "/v1/users") || strings.Contains(logged, value) || strings.Contains(logged, access) {
			t.Error("a secret from a query is logged, or no request is")
		}
	})
}

// What a proxy would say of a client counts only from a proxy: a client says nothing about itself but its user agent.
func TestASVS_4_1_3_ClientsSetNoHeaderOfAProxy(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		ada := s.user("ada@example.org")
		eve := s.user("eve@example.org")
		claims := []string{
			"X-Forwarded-For", "203.0.113.7", "X-Real-Ip", "203.0.113.7", "Forwarded", "for=203.0.113.7", "True-Client-Ip", "203.0.113.7", "Cf-Connecting-Ip", "203.0.113.7",
			"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "X-Original-Url", "/v1/users", "X-Rewrite-Url", "/v1/users", "X-Http-Method-Override", "DELETE",
			"X-User-Id", eve.String(), "X-Forwarded-User", "eve@example.org", "X-Remote-User", "eve@example.org", "X-Auth-Roles", "admin",
		}
		a := s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret), claims...)
		s.want(a, http.StatusOK, "")
		access := append([]string{"Authorization", "Bearer " + a.field(t, "access_token")}, claims...)
		if me := s.call("GET", "/v1/me", "", access...); me.status != http.StatusOK || me.field(t, "id") != ada.String() {
			t.Errorf("me: %d %s, want %s", me.status, me.body, ada)
		}
		s.want(s.call("GET", "/v1/users", "", access...), http.StatusForbidden, identity.CodeForbidden)
		sessions := s.call("GET", "/v1/me/sessions", "", access...)
		if sessions.field(t, "items", "0", "address") != "127.0.0.1" {
			t.Errorf("sessions: %s, want the address of the connection", sessions.body)
		}
		events, err := s.log.ReadAll(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Metadata.Address != "" && e.Metadata.Address != "127.0.0.1" {
				t.Errorf("%s: address %s", e.Type, e.Metadata.Address)
			}
		}
	})
}
