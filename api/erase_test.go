package api

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"usher.example/identity"
)

// castErased makes the users whom the scenarios erase.
func castErased(s *stack, c map[string]string) {
	s.tb.Helper()
	for _, name := range []string{"erin", "zoe"} {
		c[name] = s.user(name + "@example.org").String()
		c[name+"'s token"] = s.login(name + "@example.org")
	}
}

var eraseScenarios = []scenario{
	{name: "erase me, no password", method: "DELETE", path: "/v1/me", as: "erin", status: 400, code: identity.CodeInvalidRequest, has: []string{"current_password"}},
	{name: "erase me, wrong password", method: "DELETE", path: "/v1/me", as: "erin", body: body("current_password", "wrong password"),
		status: 401, code: identity.CodeInvalidCredentials, lacks: []string{"wrong password"}},
	{name: "erase me, nobody", method: "DELETE", path: "/v1/me", body: body("current_password", secret), status: 401, code: identity.CodeUnauthenticated},
	{name: "erase me, unknown field", method: "DELETE", path: "/v1/me", as: "erin", body: body("current_password", secret, "id", "{ada}"),
		status: 400, code: identity.CodeInvalidRequest},
	{name: "erase the last administrator", method: "DELETE", path: "/v1/me", as: "admin", body: body("current_password", secret), status: 409, code: identity.CodeLastAdmin},
	{name: "erase the last administrator by id", method: "DELETE", path: "/v1/users/{admin}", as: "admin", status: 409, code: identity.CodeLastAdmin},
	{name: "erase me", method: "DELETE", path: "/v1/me", as: "erin", body: body("current_password", secret), status: 204,
		events: []string{"session.ended", "user.erased"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "erase me again", method: "DELETE", path: "/v1/me", as: "erin", body: body("current_password", secret), status: 401, code: identity.CodeUnauthenticated},
	{name: "me, erased", path: "/v1/me", as: "erin", status: 401, code: identity.CodeUnauthenticated},
	{name: "log in, erased", method: "POST", path: login, body: credentials("erin@example.org", secret), status: 401, code: identity.CodeInvalidCredentials},

	{name: "erase a user, for users", method: "DELETE", path: "/v1/users/{zoe}", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "erase a user, for nobody", method: "DELETE", path: "/v1/users/{zoe}", status: 401, code: identity.CodeUnauthenticated},
	{name: "erase an unknown user", method: "DELETE", path: "/v1/users/{nobody}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "erase a session", method: "DELETE", path: "/v1/users/{session}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "erase a user of no id", method: "DELETE", path: "/v1/users/1", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "erase a user", method: "DELETE", path: "/v1/users/{zoe}", as: "admin", status: 204, events: []string{"session.ended", "user.erased"}},
	{name: "erase a user again", method: "DELETE", path: "/v1/users/{zoe}", as: "admin", status: 204},
	{name: "erased user", path: "/v1/users/{zoe}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "events of an erased user", path: "/v1/users/{zoe}/events", as: "admin", status: 200,
		has: []string{`"type":"user.registered"`, `"type":"user.erased"`, `"forgotten":true`}, lacks: []string{"zoe@", "Go-http-client", "127.0.0.1"}},
	{name: "an erased user's token", path: "/v1/me", as: "zoe", status: 401, code: identity.CodeUnauthenticated},
	{name: "register an erased user's address", method: "POST", path: register, body: credentials("zoe@example.org", secret), status: 201,
		lacks: []string{"{zoe}"}, events: []string{"user.registered"}},
}

// A read at the position that an erasure answered with finds nobody.
func TestErasedUserLeavesTheReadModel(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.project()
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		ada := s.user("ada@example.org")
		admin := s.login("admin@example.org")
		find := func(position string) answer {
			t.Helper()
			a := s.call("GET", "/v1/users?query=ada", "", "Authorization", "Bearer "+admin, "Usher-Min-Position", position)
			s.want(a, http.StatusOK, "")
			return a
		}
		if a := find(strconv.FormatInt(s.head(), 10)); !strings.Contains(a.body, ada.String()) {
			t.Errorf("%s lacks the user", a.body)
		}
		erased := s.as(admin, "DELETE", "/v1/users/"+ada.String(), "")
		s.want(erased, http.StatusNoContent, "")
		if a := find(erased.header.Get("Usher-Position")); strings.Contains(a.body, ada.String()) {
			t.Errorf("%s has the user still", a.body)
		}
	})
}

// Without its ledger nobody is erased, and the reason is for the log only.
func TestEraseWithoutTheLedger(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		ledger := identity.Ledger{Path: filepath.Join(t.TempDir(), "none", "erasures.log")}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Ledger = &ledger }})
		s.user("ada@example.org")
		ada := s.tokens("ada@example.org")
		s.want(s.as(ada.access, "DELETE", "/v1/me", body("current_password", secret)), http.StatusServiceUnavailable, identity.CodeUnavailable)
		s.want(s.as(ada.access, "GET", "/v1/me", ""), http.StatusOK, "")
		if logged := s.output.String(); !strings.Contains(logged, "write the erasure ledger") || !strings.Contains(logged, ledger.Path) {
			t.Errorf("the log says %q", logged)
		}
		if err := os.Mkdir(filepath.Dir(ledger.Path), 0o700); err != nil {
			t.Fatal(err)
		}
		s.want(s.as(ada.access, "DELETE", "/v1/me", body("current_password", secret)), http.StatusNoContent, "")
		if list, err := ledger.Read(); len(list) != 1 || err != nil {
			t.Errorf("the ledger has %v, %v", list, err)
		}
	})
}
