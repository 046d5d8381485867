package api

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// castAdministration makes the users whom the scenarios administer.
func castAdministration(t *testing.T, s *stack, c map[string]string) {
	t.Helper()
	for _, name := range []string{"mona", "lois"} {
		c[name] = s.user(name + "@example.org").String()
		c[name+"'s token"] = s.login(name + "@example.org")
	}
	c["mona's beginning"] = strconv.FormatInt(s.head()-1, 10)
}

var adminScenarios = []scenario{
	{name: "create", method: "POST", path: "/v1/users", as: "admin", status: 201,
		body:  `{"email":"New.User@example.org","password":"` + secret + `","name":" New ","roles":["writer","editor"],"email_verified":true,"attributes":{"plan":"paid"}}`,
		has:   []string{`"email":"New.User@example.org"`, `"name":"New"`, `"email_verified":true`, `"roles":["editor","writer"]`, `"attributes":{"plan":"paid"}`, `"version":5`},
		lacks: []string{secret, "hash", "password"}, answered: []string{"Cache-Control", "no-store"},
		events: []string{"user.registered", "user.role_granted", "user.role_granted", "user.email_verified", "user.profile_updated"}},
	{name: "created logs in", method: "POST", path: login, body: credentials("new.user@example.org", secret), status: 200, events: []string{"session.started"}},
	{name: "create, just an address", method: "POST", path: "/v1/users", as: "admin", body: body("email", "bare@example.org"), status: 201,
		has: []string{`"email_verified":false`, `"roles":[]`, `"attributes":{}`}, events: []string{"user.registered"}},
	{name: "created without a password does not log in", method: "POST", path: login, body: credentials("bare@example.org", secret), status: 401, code: identity.CodeInvalidCredentials},
	{name: "create, taken", method: "POST", path: "/v1/users", as: "admin", body: body("email", "ADA@example.org"), status: 409, code: identity.CodeEmailTaken, lacks: []string{"{ada}"}},
	{name: "create, no address", method: "POST", path: "/v1/users", as: "admin", body: `{}`, status: 400, code: identity.CodeInvalidRequest, has: []string{"email"}},
	{name: "create, empty", method: "POST", path: "/v1/users", as: "admin", status: 400, code: identity.CodeInvalidRequest, has: []string{"email"}},
	{name: "create, weak password", method: "POST", path: "/v1/users", as: "admin", body: credentials("weak@example.org", "short"), status: 422, code: identity.CodePasswordRefused, lacks: []string{"short\""}},
	{name: "create, role of no form", method: "POST", path: "/v1/users", as: "admin", body: `{"email":"x@example.org","roles":["Admin"]}`, status: 400, code: identity.CodeInvalidRequest},
	{name: "create, attributes of no form", method: "POST", path: "/v1/users", as: "admin", body: `{"email":"x@example.org","attributes":[]}`, status: 422, code: identity.CodeInvalidAttributes},
	{name: "create, nested attributes", method: "POST", path: "/v1/users", as: "admin", body: `{"email":"x@example.org","attributes":{"a":` + strings.Repeat("[", 6) + strings.Repeat("]", 6) + `}}`, status: 422, code: identity.CodeInvalidAttributes},
	{name: "create, unknown field", method: "POST", path: "/v1/users", as: "admin", body: `{"email":"x@example.org","status":"active"}`, status: 400, code: identity.CodeInvalidRequest},
	{name: "create, for users", method: "POST", path: "/v1/users", as: "ada", body: body("email", "x@example.org"), status: 403, code: identity.CodeForbidden},
	{name: "create, for nobody", method: "POST", path: "/v1/users", body: body("email", "x@example.org"), status: 401, code: identity.CodeUnauthenticated},
	{name: "create, idempotency key", method: "POST", path: "/v1/users", as: "admin", headers: []string{"Idempotency-Key", "c-1"}, body: body("email", "once@example.org"), status: 201, events: []string{"user.registered"}},
	{name: "create, idempotency key again", method: "POST", path: "/v1/users", as: "admin", headers: []string{"Idempotency-Key", "c-1"}, body: body("email", "once@example.org"), status: 201, has: []string{"once@example.org"}},
	{name: "create, idempotency key for another", method: "POST", path: "/v1/users", as: "admin", headers: []string{"Idempotency-Key", "c-1"}, body: body("email", "twice@example.org"),
		status: 422, code: identity.CodeKeyReused, lacks: []string{"once@example.org"}},

	{name: "change", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: `{"name":"Mona","attributes":{"plan":"paid","city":"Bath"},"email_verified":true}`, status: 200,
		has: []string{`"name":"Mona"`, `"plan":"paid"`, `"email_verified":true`}, answered: []string{"Cache-Control", "no-store"}, events: []string{"user.profile_updated", "user.email_verified"}},
	{name: "change to what is there", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: `{"name":"Mona","attributes":{"plan":"paid"}}`, status: 200, has: []string{`"city":"Bath"`}},
	{name: "change nothing, {}", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: `{}`, status: 200, has: []string{`"id":"{mona}"`}},
	{name: "change nothing, empty", method: "PATCH", path: "/v1/users/{mona}", as: "admin", status: 200, has: []string{`"id":"{mona}"`}},
	{name: "take an attribute away", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: `{"attributes":{"city":null}}`, status: 200, has: []string{`"attributes":{"plan":"paid"}`}, events: []string{"user.profile_updated"}},
	{name: "change the address", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: body("email", "Mona@example.net"), status: 200, has: []string{`"email":"Mona@example.net"`, `"email_verified":true`}, events: []string{"user.email_changed"}},
	{name: "log in with the other address", method: "POST", path: login, body: credentials("mona@example.net", secret), status: 200, events: []string{"session.started"}},
	{name: "change the address to a taken one", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: body("email", "ada@example.org"), status: 409, code: identity.CodeEmailTaken},
	{name: "take verification back", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: `{"email_verified":false}`, status: 400, code: identity.CodeInvalidRequest},
	{name: "change, bad name", method: "PATCH", path: "/v1/users/{mona}", as: "admin", body: body("name", "a\nb"), status: 422, code: identity.CodeInvalidName},
	{name: "change nobody", method: "PATCH", path: "/v1/users/{nobody}", as: "admin", body: body("name", "x"), status: 404, code: identity.CodeNotFound},
	{name: "change, for users", method: "PATCH", path: "/v1/users/{mona}", as: "mona", body: body("name", "x"), status: 403, code: identity.CodeForbidden},

	{name: "grant", method: "PUT", path: "/v1/users/{mona}/roles/writer", as: "admin", status: 204, answered: []string{"Cache-Control", "no-store"}, events: []string{"user.role_granted"}},
	{name: "grant again", method: "PUT", path: "/v1/users/{mona}/roles/writer", as: "admin", body: "{}", status: 204},
	{name: "grant a role of no form", method: "PUT", path: "/v1/users/{mona}/roles/Writer", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "grant, for users", method: "PUT", path: "/v1/users/{mona}/roles/admin", as: "mona", status: 403, code: identity.CodeForbidden},
	{name: "revoke", method: "DELETE", path: "/v1/users/{mona}/roles/writer", as: "admin", status: 204, events: []string{"user.role_revoked"}},
	{name: "revoke again", method: "DELETE", path: "/v1/users/{mona}/roles/writer", as: "admin", status: 204},
	{name: "revoke from nobody", method: "DELETE", path: "/v1/users/{nobody}/roles/writer", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "the last admin keeps the role", method: "DELETE", path: "/v1/users/{admin}/roles/admin", as: "admin", status: 409, code: identity.CodeLastAdmin},
	{name: "the last admin is not locked", method: "POST", path: "/v1/users/{admin}/lock", as: "admin", status: 409, code: identity.CodeLastAdmin},
	{name: "the last admin is not disabled", method: "POST", path: "/v1/users/{admin}/disable", as: "admin", status: 409, code: identity.CodeLastAdmin},

	{name: "send a password reset", method: "POST", path: "/v1/users/{mona}/password-reset", as: "admin", headers: []string{"Idempotency-Key", "r-1"}, status: 202, events: []string{"user.password_reset_requested"}},
	{name: "send it again, same key", method: "POST", path: "/v1/users/{mona}/password-reset", as: "admin", headers: []string{"Idempotency-Key", "r-1"}, status: 202},
	{name: "send another at once", method: "POST", path: "/v1/users/{mona}/password-reset", as: "admin", status: 429, code: identity.CodeThrottled},
	{name: "send one to nobody", method: "POST", path: "/v1/users/{nobody}/password-reset", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "end all sessions", method: "POST", path: "/v1/users/{mona}/logout-all", as: "admin", status: 204, events: []string{"session.ended", "session.ended"}},
	{name: "a token of an ended session", path: "/v1/me", as: "mona", status: 401, code: identity.CodeUnauthenticated},
	{name: "end no session", method: "POST", path: "/v1/users/{mona}/logout-all", as: "admin", status: 204},

	{name: "lock", method: "POST", path: "/v1/users/{lois}/lock", as: "admin", status: 204, events: []string{"user.locked", "session.ended"}},
	{name: "a token of who is locked", path: "/v1/me", as: "lois", status: 401, code: identity.CodeUnauthenticated},
	{name: "lock again", method: "POST", path: "/v1/users/{lois}/lock", as: "admin", body: "{}", status: 204},
	{name: "log in when locked", method: "POST", path: login, body: credentials("lois@example.org", secret), status: 403, code: identity.CodeUserLocked},
	{name: "send a reset to who is locked", method: "POST", path: "/v1/users/{lois}/password-reset", as: "admin", status: 403, code: identity.CodeUserLocked},
	{name: "disable who is locked", method: "POST", path: "/v1/users/{lois}/disable", as: "admin", status: 204, events: []string{"user.disabled"}},
	{name: "unlock who is disabled", method: "POST", path: "/v1/users/{lois}/unlock", as: "admin", status: 204, events: []string{"user.unlocked"}},
	{name: "disabled is what shows", path: "/v1/users/{lois}", as: "admin", status: 200, has: []string{`"status":"disabled"`}},
	{name: "enable", method: "POST", path: "/v1/users/{lois}/enable", as: "admin", status: 204, events: []string{"user.enabled"}},
	{name: "enable again", method: "POST", path: "/v1/users/{lois}/enable", as: "admin", status: 204},
	{name: "log in when enabled", method: "POST", path: login, body: credentials("lois@example.org", secret), status: 200, events: []string{"session.started"}},
	{name: "lock nobody", method: "POST", path: "/v1/users/{nobody}/lock", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "lock a session", method: "POST", path: "/v1/users/{session}/lock", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "lock with a field", method: "POST", path: "/v1/users/{lois}/lock", as: "admin", body: body("reason", "x"), status: 400, code: identity.CodeInvalidRequest},
	{name: "lock with a bad key", method: "POST", path: "/v1/users/{lois}/lock", as: "admin", headers: []string{"Idempotency-Key", "a b"}, status: 400, code: identity.CodeInvalidRequest},
	{name: "lock, for users", method: "POST", path: "/v1/users/{lois}/lock", as: "ada", status: 403, code: identity.CodeForbidden},

	{name: "mona today", path: "/v1/users/{mona}", as: "admin", status: 200, has: []string{`"email":"Mona@example.net"`}},
	{name: "mona at the beginning", path: "/v1/users/{mona}?at={mona's beginning}", as: "admin", status: 200, has: []string{`"email":"mona@example.org"`, `"name":"Name of mona@example.org"`}, lacks: []string{"paid"}},
	{name: "mona before there was one", path: "/v1/users/{mona}?at=1", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "mona before there was anything", path: "/v1/users/{mona}?at=0", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "mona before there was one, by time", path: "/v1/users/{mona}?at=2020-01-01T00:00:00%2B01:00", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "mona then, for users", path: "/v1/users/{mona}?at=1", as: "ada", status: 403, code: identity.CodeForbidden},
}

// A user as of a moment, and once the user's key is destroyed without what was forgotten.
func TestUserAtATime(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		admin := s.login("admin@example.org")
		ada := s.user("ada@example.org")
		events, err := s.log.ReadStream(t.Context(), ada, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		born := events[0].RecordedAt
		s.want(s.as(admin, "PATCH", "/v1/users/"+ada.String(), body("name", "Countess")), http.StatusOK, "")
		at := func(moment string) answer {
			return s.as(admin, "GET", "/v1/users/"+ada.String()+"?at="+strings.ReplaceAll(moment, "+", "%2B"), "")
		}
		for moment, name := range map[string]string{
			born.Format(time.RFC3339Nano):                                  "Name of ada@example.org",
			born.In(time.FixedZone("east", 7200)).Format(time.RFC3339Nano): "Name of ada@example.org",
			time.Now().Format(time.RFC3339Nano):                            "Countess",
			strconv.FormatInt(events[0].Position, 10):                      "Name of ada@example.org",
			strconv.FormatInt(s.head(), 10):                                "Countess",
		} {
			if a := at(moment); a.status != http.StatusOK || a.field(t, "name") != name {
				t.Errorf("at %s: %d %s, want the name %q", moment, a.status, a.body, name)
			}
		}
		s.want(at(born.Add(-time.Microsecond).Format(time.RFC3339Nano)), http.StatusNotFound, identity.CodeNotFound)

		before := strconv.FormatInt(s.head(), 10)
		s.append(ada, identity.Erased{})
		a := at(before)
		s.want(a, http.StatusOK, "")
		if a.field(t, "name") != "" || a.field(t, "email") != "" {
			t.Errorf("as of before the user was erased: %s, want nothing personal", a.body)
		}
		s.want(at(strconv.FormatInt(s.head(), 10)), http.StatusNotFound, identity.CodeNotFound)
	})
}

// Two administrators who revoke each other at once: one of them succeeds.
func TestAdminsRevokeEachOther(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		first, _, err := s.identity.EnsureAdmin(t.Context(), "first@example.org", secret)
		if err != nil {
			t.Fatal(err)
		}
		second := s.user("second@example.org")
		tokens := []string{s.login("first@example.org"), s.login("second@example.org")}
		for range 5 {
			s.want(s.as(tokens[0], "PUT", "/v1/users/"+second.String()+"/roles/admin", ""), http.StatusNoContent, "")
			answers := make(chan answer, 2)
			for i, id := range []uuid.UUID{second, first} {
				go func() { answers <- s.as(tokens[i], "DELETE", "/v1/users/"+id.String()+"/roles/admin", "") }()
			}
			a, b := <-answers, <-answers
			if a.status != http.StatusNoContent {
				a, b = b, a
			}
			// The other one finds that the role is gone already, or that the role is the last.
			s.want(a, http.StatusNoContent, "")
			if b.status != http.StatusForbidden && b.field(t, "code") != string(identity.CodeLastAdmin) {
				t.Errorf("%d %s, want one of the two refused", b.status, b.body)
			}
			u, err := s.identity.ReadUser(t.Context(), first)
			if err != nil {
				t.Fatal(err)
			}
			if !u.HasRole(identity.RoleAdmin) { // so that the first begins again
				first, second = second, first
				tokens[0], tokens[1] = tokens[1], tokens[0]
			}
		}
	})
}
