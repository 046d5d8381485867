package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/server"
	"usher.example/token"
)

// scenario is a request and all that is to be said of its answer. {name} in path, headers and body stands for the value
// of that name in the cast.
type scenario struct {
	name     string
	method   string // GET when empty
	path     string
	as       string   // whose access token the request has
	headers  []string // names and values
	body     string
	status   int
	code     identity.Code // of the problem
	has      []string      // that the body contains
	lacks    []string      // that it must not contain
	answered []string      // names and values of headers
	events   []string      // types of the events that it appended
	silent   bool          // the answer does not tell their position
}

const (
	jsonType = "application/json"
	register = "/v1/auth/register"
	login    = "/v1/auth/login"
)

func body(fields ...string) string {
	m := map[string]string{}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func credentials(email, password string) string { return body("email", email, "password", password) }

var scenarios = slices.Concat([]scenario{
	{name: "register", method: "POST", path: register, body: body("email", " New@Example.org", "password", secret, "name", "New ✓"),
		status: 201, has: []string{`"email":"New@Example.org"`, `"name":"New ✓"`, `"status":"active"`, `"roles":[]`, `"email_verified":false`},
		lacks: []string{secret, "hash", "password"}, answered: []string{"Cache-Control", "no-store", "X-Content-Type-Options", "nosniff"},
		events: []string{"user.registered"}},
	{name: "register without a name", method: "POST", path: register, body: credentials("plain@example.org", secret),
		status: 201, has: []string{`"name":""`}, events: []string{"user.registered"}},
	{name: "register with a long passphrase", method: "POST", path: register, body: credentials("long@example.org", strings.Repeat("пароль", 80)),
		status: 201, events: []string{"user.registered"}},
	{name: "register with a content type that names UTF-8", method: "POST", path: register, headers: []string{"Content-Type", "application/json; charset=UTF-8"},
		body: credentials("utf8@example.org", secret), status: 201, events: []string{"user.registered"}},
	{name: "register a taken address", method: "POST", path: register, body: credentials("ADA@EXAMPLE.ORG", secret),
		status: 409, code: identity.CodeEmailTaken, lacks: []string{"{ada}"}},
	{name: "register, short password", method: "POST", path: register, body: credentials("x@example.org", "1234567"),
		status: 422, code: identity.CodePasswordRefused, has: []string{"shorter than 8"}, lacks: []string{"1234567"}},
	{name: "register, password over the bound", method: "POST", path: register, body: credentials("x@example.org", strings.Repeat("x", 1025)),
		status: 422, code: identity.CodePasswordRefused},
	{name: "register, name over the bound", method: "POST", path: register, body: body("email", "x@example.org", "password", secret, "name", strings.Repeat("x", 201)),
		status: 422, code: identity.CodeInvalidName},
	{name: "register, control character in the name", method: "POST", path: register, body: body("email", "x@example.org", "password", secret, "name", "a\x1bb"),
		status: 422, code: identity.CodeInvalidName},
	{name: "register, idempotency key", method: "POST", path: register, headers: []string{"Idempotency-Key", "k-1"}, body: credentials("idem@example.org", secret),
		status: 201, has: []string{"idem@example.org"}, events: []string{"user.registered"}},
	{name: "register, idempotency key again", method: "POST", path: register, headers: []string{"Idempotency-Key", "k-1"}, body: credentials("idem@example.org", secret),
		status: 201, has: []string{"idem@example.org"}},
	{name: "register, idempotency key for another body", method: "POST", path: register, headers: []string{"Idempotency-Key", "k-1"}, body: credentials("other@example.org", secret),
		status: 422, code: identity.CodeKeyReused, lacks: []string{"idem@example.org"}},
	{name: "register, bad idempotency key", method: "POST", path: register, headers: []string{"Idempotency-Key", "a b"}, body: credentials("x@example.org", secret),
		status: 400, code: identity.CodeInvalidRequest},

	{name: "log in", method: "POST", path: login, body: credentials("Ada@example.org", secret),
		status: 200, has: []string{`"token_type":"Bearer"`, `"expires_in":3600`, `"id":"{ada}"`, `"access_token":"ey`, `"refresh_token":"`, `"refresh_expires_in":`}, lacks: []string{secret},
		answered: []string{"Cache-Control", "no-store"}, events: []string{"session.started"}},
	{name: "log in, wrong password", method: "POST", path: login, body: credentials("ada@example.org", "wrong password"),
		status: 401, code: identity.CodeInvalidCredentials, lacks: []string{"wrong password", "{ada}", "ada@example.org"}, answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}},
	{name: "log in, unknown address", method: "POST", path: login, body: credentials("nobody@example.org", secret),
		status: 401, code: identity.CodeInvalidCredentials, answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}},
	{name: "log in, impossible password", method: "POST", path: login, body: credentials("ada@example.org", strings.Repeat("x", 5000)),
		status: 401, code: identity.CodeInvalidCredentials},
	{name: "log in, locked", method: "POST", path: login, body: credentials("locked@example.org", secret), status: 403, code: identity.CodeUserLocked},
	{name: "log in, locked, wrong password", method: "POST", path: login, body: credentials("locked@example.org", "wrong password"),
		status: 401, code: identity.CodeInvalidCredentials},
	{name: "log in, disabled", method: "POST", path: login, body: credentials("disabled@example.org", secret), status: 403, code: identity.CodeUserDisabled},
	{name: "log in, a code that is not needed", method: "POST", path: login, body: body("email", "ada@example.org", "password", secret, "totp", "123456"),
		status: 200, lacks: []string{"123456"}, events: []string{"session.started"}},

	{name: "me", path: "/v1/me", as: "ada", status: 200, has: []string{`"id":"{ada}"`, `"email":"ada@example.org"`}, lacks: []string{"hash"},
		answered: []string{"Cache-Control", "no-store", "Content-Type", jsonType, "X-Content-Type-Options", "nosniff"}},
	{name: "me, scheme in lower case", path: "/v1/me", headers: []string{"Authorization", "bearer {ada's token}"}, status: 200},
	{name: "me without a token", path: "/v1/me", status: 401, code: identity.CodeUnauthenticated, answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}},
	{name: "me of a user who was locked since", path: "/v1/me", as: "late", status: 401, code: identity.CodeUnauthenticated},

	{name: "users", path: "/v1/users?limit=200", as: "admin", status: 200, has: []string{`"id":"{ada}"`, `"id":"{admin}"`, `"status":"locked"`}, lacks: []string{"next_cursor", "hash"}},
	{name: "users by the beginning of the email", path: "/v1/users?query=LOCK", as: "admin", status: 200, has: []string{"locked@example.org"}, lacks: []string{"{ada}"}},
	{name: "users by what is inside of the email", path: "/v1/users?query=ocked@Exam", as: "admin", status: 200, has: []string{"locked@example.org"}, lacks: []string{"{ada}"}},
	{name: "users by what is inside of the name", path: "/v1/users?query=me%20of%20LOCKED", as: "admin", status: 200, has: []string{"locked@example.org"}, lacks: []string{"{ada}"}},
	{name: "users by two characters, which begin an email", path: "/v1/users?query=ad", as: "admin", status: 200, has: []string{"{ada}", "{admin}"}, lacks: []string{"{locked}"}},
	{name: "users who are not verified", path: "/v1/users?email_verified=false&query=ada@example", as: "admin", status: 200, has: []string{"{ada}"}},
	{name: "users who are verified", path: "/v1/users?email_verified=true&query=ada@example", as: "admin", status: 200, has: []string{`"items":[]`}},
	{name: "users by everything", path: "/v1/users?query=locked&status=locked&email_verified=false&created_after=2020-01-01T00:00:00Z", as: "admin", status: 200, has: []string{"{locked}"}},
	{name: "users by status", path: "/v1/users?status=disabled", as: "admin", status: 200, has: []string{"disabled@example.org"}, lacks: []string{"{ada}", "{locked}"}},
	{name: "users by role", path: "/v1/users?role=admin", as: "admin", status: 200, has: []string{"{admin}"}, lacks: []string{"{ada}"}},
	{name: "users by time", path: "/v1/users?created_after=2999-01-01T00:00:00Z", as: "admin", status: 200, has: []string{`"items":[]`}},
	{name: "users by time, none so old", path: "/v1/users?created_before=1999-01-01T00:00:00%2B02:00", as: "admin", status: 200, has: []string{`"items":[]`}},
	{name: "users at a position", path: "/v1/users?query=ada", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200, has: []string{"{ada}"}},
	{name: "users, for users", path: "/v1/users", as: "ada", status: 403, code: identity.CodeForbidden, lacks: []string{"admin@example.org"}},
	{name: "users, for nobody", path: "/v1/users", status: 401, code: identity.CodeUnauthenticated},
	{name: "user", path: "/v1/users/{ada}", as: "admin", status: 200, has: []string{`"id":"{ada}"`}},
	{name: "user at a position", path: "/v1/users/{ada}", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200, has: []string{`"id":"{ada}"`}},
	{name: "user, for the user", path: "/v1/users/{ada}", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "unknown user", path: "/v1/users/{nobody}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "user of no id", path: "/v1/users/1", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "user of an id in another form", path: "/v1/users/urn:uuid:{ada}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "a session is no user", path: "/v1/users/{session}", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "events of a user", path: "/v1/users/{ada}/events", as: "admin", status: 200,
		has:   []string{`"type":"user.registered"`, `"type":"session.started"`, `"subject":"{ada}"`, `"email":"ada@example.org"`, `"user_agent":"Go-http-client/1.1"`, `"address":"127.0.0.1"`},
		lacks: []string{secret, "hash", "{locked}"}},
	{name: "events of an unknown user", path: "/v1/users/{nobody}/events", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "events, for users", path: "/v1/users/{ada}/events", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "own activity", path: "/v1/me/activity", as: "ada", headers: []string{"Usher-Min-Position", "{head}"}, status: 200,
		has:   []string{`"type":"session.started"`, `"methods":["password"]`, `"type":"user.registered"`, `"user_agent":"Go-http-client/1.1"`, `"address":"127.0.0.1"`},
		lacks: []string{"ada@example.org", "{admin}", `"user":`, `"actor":`, secret}, answered: []string{"Cache-Control", "no-store"}},
	{name: "own activity, a page", path: "/v1/me/activity?limit=1", as: "ada", status: 200, has: []string{`"next_cursor":`}, lacks: []string{"user.registered"}},
	{name: "own activity, for nobody", path: "/v1/me/activity", status: 401, code: identity.CodeUnauthenticated},
	{name: "activity", path: "/v1/activity?limit=200", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200,
		has: []string{`"user":"{ada}"`, `"user":"{locked}"`, `"actor":"user:{ada}"`, `"type":"user.locked"`, `"type":"session.started"`}, lacks: []string{"@example.org", secret}},
	{name: "activity of a user", path: "/v1/activity?user={ada}", as: "admin", status: 200, has: []string{`"user":"{ada}"`}, lacks: []string{`"user":"{locked}"`, "user.locked"}},
	{name: "activity of nobody", path: "/v1/activity?user={nobody}", as: "admin", status: 200, has: []string{`"items":[]`}},
	{name: "activity, for users", path: "/v1/activity", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "sessions of a user", path: "/v1/users/{ada}/sessions", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200,
		has: []string{`"id":"{session}"`, `"user":"{ada}"`, `"methods":["password"]`, `"address":"127.0.0.1"`, `"expires_at":`}, lacks: []string{`"ended_at"`, "{locked}"}},
	{name: "open sessions of a user", path: "/v1/users/{ada}/sessions?open=true", as: "admin", status: 200, has: []string{`"id":"{session}"`}},
	{name: "sessions of nobody", path: "/v1/users/{nobody}/sessions", as: "admin", status: 200, has: []string{`"items":[]`}},
	{name: "sessions of no id", path: "/v1/users/1/sessions", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "sessions, for users", path: "/v1/users/{ada}/sessions", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "statistics", path: "/v1/stats", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200,
		has: []string{`"interval":"day"`, `"registrations":`, `"logins":`, `"failed_logins":`, `"active_users":`, `T00:00:00Z"`}, lacks: []string{`T01:`}},
	{name: "statistics by the hour", path: "/v1/stats?interval=hour&from=2026-01-01T00:30:00%2B02:00&to=2026-01-01T00:00:00Z", as: "admin", status: 200,
		has: []string{`"interval":"hour","items":[{"start":"2025-12-31T22:00:00Z","registrations":0,"logins":0,"failed_logins":0,"active_users":0},{"start":"2025-12-31T23:00:00Z"`}, lacks: []string{"2026-01-01"}},
	{name: "statistics, for users", path: "/v1/stats", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "projections", path: "/v1/projections", as: "admin", status: 200, has: []string{`"name":"users"`, `"state":"running"`}},
	{name: "projections, for users", path: "/v1/projections", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "projections, pause", method: "POST", path: "/v1/projections/users/pause", as: "admin", status: 200, has: []string{`"name":"users"`, `"state":"paused"`}},
	{name: "projections, pause again", method: "POST", path: "/v1/projections/users/pause", body: "{}", as: "admin", status: 200, has: []string{`"state":"paused"`}},
	{name: "projections, resume", method: "POST", path: "/v1/projections/users/resume", as: "admin", status: 200, has: []string{`"name":"users"`}, lacks: []string{`"state":"paused"`}},
	{name: "projections, rebuild of an unknown one", method: "POST", path: "/v1/projections/orders/rebuild", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "projections, pause of an unknown one", method: "POST", path: "/v1/projections/orders/pause", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "projections, resume of an unknown one", method: "POST", path: "/v1/projections/Users/resume", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "projections, skip in an unknown one", method: "POST", path: "/v1/projections/orders/skip", body: `{"user":"{ada}","position":1}`, as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "projections, retry in an unknown one", method: "POST", path: "/v1/projections/orders/retry", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "projections, cancel what is not there", method: "DELETE", path: "/v1/projections/users/rebuild", as: "admin", status: 200, lacks: []string{`"rebuild"`}},
	{name: "projections, retry, nothing parked", method: "POST", path: "/v1/projections/users/retry", as: "admin", status: 409, code: server.CodeNotParked},
	{name: "projections, retry a user, nothing parked", method: "POST", path: "/v1/projections/users/retry", body: `{"user":"{ada}"}`, as: "admin", status: 409, code: server.CodeNotParked},
	{name: "projections, retry nobody", method: "POST", path: "/v1/projections/users/retry", body: `{"user":"ada"}`, as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, skip, nothing parked", method: "POST", path: "/v1/projections/users/skip", body: `{"user":"{ada}","position":1}`, as: "admin", status: 409, code: server.CodeNotParked},
	{name: "projections, skip past the head", method: "POST", path: "/v1/projections/users/skip", body: `{"user":"{ada}","position":99999999}`, as: "admin", status: 409, code: server.CodeNotParked},
	{name: "projections, skip without a position", method: "POST", path: "/v1/projections/users/skip", body: `{"user":"{ada}"}`, as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, skip without a user", method: "POST", path: "/v1/projections/users/skip", body: `{"position":7}`, as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, skip with nothing", method: "POST", path: "/v1/projections/users/skip", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, skip at a bad position", method: "POST", path: "/v1/projections/users/skip", body: `{"user":"{ada}","position":-1}`, as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, pause with a field", method: "POST", path: "/v1/projections/users/pause", body: `{"for":"ever"}`, as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "projections, pause, for users", method: "POST", path: "/v1/projections/users/pause", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "projections, rebuild, for users", method: "POST", path: "/v1/projections/users/rebuild", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "projections, skip, for nobody", method: "POST", path: "/v1/projections/users/skip", status: 401, code: identity.CodeUnauthenticated},
	{name: "outbox", path: "/v1/outbox", as: "admin", status: 200, has: []string{`"state":"running"`}},
	{name: "outbox, for users", path: "/v1/outbox", as: "ada", status: 403, code: identity.CodeForbidden},

	{name: "keys", path: "/.well-known/jwks.json", status: 200, has: []string{`"kty":"EC"`}, lacks: []string{`"d":`}, answered: []string{"Cache-Control", "public, max-age=300"}},
	{name: "metadata", path: "/.well-known/oauth-authorization-server", status: 200, answered: []string{"Cache-Control", "public, max-age=300", "Content-Type", jsonType},
		has: []string{`"issuer":"https://usher.test"`, `"jwks_uri":"https://usher.test/.well-known/jwks.json"`, `"introspection_endpoint":"https://usher.test/oauth2/introspect"`, `"revocation_endpoint":"https://usher.test/oauth2/revoke"`, `["ES256"]`, `"token_endpoint":"https://usher.test/oauth2/token"`, `"grant_types_supported":["authorization_code","refresh_token","client_credentials","urn:ietf:params:oauth:grant-type:device_code","urn:ietf:params:oauth:grant-type:token-exchange"]`,
			`"authorization_endpoint":"https://usher.test/oauth2/authorize"`, `"id_token_signing_alg_values_supported":["ES256"`}},
	{name: "metadata of the API", path: "/.well-known/oauth-protected-resource", status: 200, answered: []string{"Cache-Control", "public, max-age=300", "Content-Type", jsonType},
		has: []string{`"resource":"https://usher.test"`, `"authorization_servers":["https://usher.test"]`, `"events:read"`}},
	{name: "nobody is told where to get a token", path: "/v1/me", status: 401, code: identity.CodeUnauthenticated,
		answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}},
	{name: "metadata, where libraries look", path: "/.well-known/openid-configuration", status: 200, has: []string{`"issuer":"https://usher.test"`}},
	{name: "index", path: "/", status: 200, has: []string{`"openapi":"https://usher.test/openapi.yaml"`}, answered: []string{"Content-Type", jsonType}},
	{name: "document", path: "/openapi.yaml", status: 200, has: []string{"openapi: 3.1"}},
	{name: "document in JSON", path: "/openapi.json", status: 200, has: []string{`"openapi":"3.1`, `"/v1/auth/login"`}, answered: []string{"Content-Type", jsonType}},
	{name: "document, as it was before", path: "/openapi.yaml", headers: []string{"If-None-Match", `"other", W/{document's tag}`}, status: 304, answered: []string{"Etag", "{document's tag}"}},
	{name: "document, any there is", path: "/openapi.yaml", headers: []string{"If-None-Match", "*"}, status: 304},
	{name: "document, other than before", path: "/openapi.yaml", headers: []string{"If-None-Match", `"other"`}, status: 200, answered: []string{"Etag", "{document's tag}"}},
	{name: "keys, as they were before", path: "/.well-known/jwks.json", headers: []string{"If-None-Match", "{keys' tag}"}, status: 304, answered: []string{"Cache-Control", "public, max-age=300"}},
	{name: "live", path: "/livez", status: 200, has: []string{"ok"}},
	{name: "ready", path: "/readyz", status: 200, has: []string{"ready"}},

	{name: "no such path", path: "/v1/nothing", status: 404, code: identity.CodeNotFound},
	{name: "no such method", method: "DELETE", path: "/v1/auth/login", status: 405, code: server.CodeMethodNotAllowed, answered: []string{"Allow", "OPTIONS, POST"}},
	{name: "HEAD of what has no GET", method: "HEAD", path: "/v1/auth/login", status: 405, answered: []string{"Allow", "OPTIONS, POST"}},
	{name: "no method but GET and HEAD", method: "POST", path: "/livez", status: 405, code: server.CodeMethodNotAllowed, answered: []string{"Allow", "OPTIONS, GET, HEAD"}},
	{name: "metrics are elsewhere", path: "/metrics", status: 404, code: identity.CodeNotFound},
}, badBodies(register, `"email":"x@example.org","password":"`+secret+`"`), badBodies(login, `"email":"ada@example.org","password":"`+secret+`"`),
	badEmails(), badTokens(), badQueries(), accountScenarios, adminScenarios, feedScenarios, eraseScenarios, factorScenarios, nullScenarios, addressScenarios, throttledScenarios, formScenarios)

// cast makes the users and tokens that the scenarios speak of.
func cast(t *testing.T, s *stack) map[string]string {
	t.Helper()
	admin, created, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	ada := s.user("ada@example.org")
	locked := s.user("locked@example.org", identity.Locked{})
	s.user("disabled@example.org", identity.Disabled{})
	late := s.user("late@example.org")
	c := map[string]string{
		"admin": admin.String(), "ada": ada.String(), "locked": locked.String(), "nobody": uuid.Must(uuid.NewV7()).String(),
		"admin's token": s.login("admin@example.org"), "ada's token": s.login("ada@example.org"), "late's token": s.login("late@example.org"),
	}
	s.append(late, identity.Locked{})
	events, err := s.log.ReadSubject(t.Context(), ada, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	c["session"] = events[1].Stream.ID.String()
	castAccounts(t, s, c)
	castAdministration(t, s, c)
	castErased(s, c)
	castFactors(s, c)
	for name, raw := range forgedTokens(t, s, ada, c["ada's token"]) {
		c[name+"'s token"] = raw
	}
	// The locks were appended as another process would.
	devstack.Eventually(t, "the lock is seen", func() bool {
		u, err := s.identity.User(t.Context(), late)
		return err == nil && u.Status == identity.StatusLocked
	})
	c["document's tag"] = s.call("GET", "/openapi.yaml", "").header.Get("Etag")
	c["keys' tag"] = s.call("GET", "/.well-known/jwks.json", "").header.Get("Etag")
	c["head"] = strconv.FormatInt(s.head(), 10)
	for name, path := range map[string]string{
		"users cursor": "/v1/users?limit=1", "events cursor": "/v1/users/" + c["admin"] + "/events?limit=1", "events cursor of ada": "/v1/users/" + c["ada"] + "/events?limit=1",
		"activity cursor": "/v1/activity?limit=1",
	} {
		a := s.call("GET", path, "", "Authorization", "Bearer "+c["admin's token"], "Usher-Min-Position", c["head"])
		if a.status != http.StatusOK {
			t.Fatal(a)
		}
		if c[name] = a.field(t, "next_cursor"); c[name] == "" {
			t.Fatal(name, a.body)
		}
	}
	return c
}

// whereToAsk is how every challenge ends.
const whereToAsk = `, resource_metadata="https://usher.test/.well-known/oauth-protected-resource"`

// forgedTokens are tokens that must not be accepted.
func forgedTokens(t *testing.T, s *stack, user uuid.UUID, good string) map[string]string {
	t.Helper()
	issue := func(c token.IssuerConfig, subject string) string {
		if c.Keys == nil {
			c.Keys = s.keys
		}
		if c.Issuer == "" {
			c.Issuer = issuerName
		}
		if c.Audience == nil {
			c.Audience = []string{audience}
		}
		c.Lifetime = time.Hour
		issuer, err := token.NewIssuer(c)
		if err != nil {
			t.Fatal(err)
		}
		raw, _, err := issuer.Issue(token.Grant{
			Subject: subject, Session: uuid.Must(uuid.NewV7()).String(), Roles: []string{"admin"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	at := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	foreign, err := token.GenerateKey(token.ES256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shared, err := token.GenerateKey(token.HS256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ring := func(k token.Key) *token.KeyRing {
		r, err := token.NewKeyRing(k)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	parts := strings.Split(good, ".")
	header := func(alg string) string {
		return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"typ":"at+jwt","kid":%q}`, alg, s.key.ID()))
	}
	swapped := strings.Split(issue(token.IssuerConfig{Keys: ring(shared)}, user.String()), ".")
	return map[string]string{
		"alg none":          header("none") + "." + parts[1] + ".",
		"alg none, signed":  header("none") + "." + parts[1] + "." + parts[2],
		"foreign key":       issue(token.IssuerConfig{Keys: ring(foreign)}, user.String()),
		"swapped algorithm": header("HS256") + "." + swapped[1] + "." + swapped[2],
		"expired":           issue(token.IssuerConfig{Now: at(-2 * time.Hour)}, user.String()),
		"future":            issue(token.IssuerConfig{Now: at(2 * time.Hour)}, user.String()),
		"wrong issuer":      issue(token.IssuerConfig{Issuer: "https://elsewhere.test"}, user.String()),
		"wrong audience":    issue(token.IssuerConfig{Audience: []string{"elsewhere"}}, user.String()),
		"no user":           issue(token.IssuerConfig{}, "service"),
		"unknown user":      issue(token.IssuerConfig{}, uuid.Must(uuid.NewV7()).String()),
		"altered":           parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"rubbish":           "x",
		"huge":              strings.Repeat("x", 9000),
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		var fay authenticator
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.UserAttributes, c.Now = []string{"city"}, fay.now }})
		s.project()
		fay.cast = cast(t, s)
		for _, sc := range scenarios {
			t.Run(sc.name, func(t *testing.T) {
				fill := func(text string) string { return fay.fill(t, text) }
				fay.learn(play(t, s, sc, fill).body)
			})
		}
		t.Run("ASVS_16_2_5_NoSecretIsKeptInTheClear", func(t *testing.T) {
			s.tb = t
			scanForSecrets(t, s, fay.cast)
		})
	})
}

func play(t *testing.T, s *stack, sc scenario, fill func(string) string) answer {
	s.tb = t
	before := s.head()
	headers := make([]string, len(sc.headers))
	for i, h := range sc.headers {
		headers[i] = fill(h)
	}
	if sc.as != "" {
		headers = append(headers, "Authorization", "Bearer "+fill("{"+sc.as+"'s token}"))
	}
	method := sc.method
	if method == "" {
		method = "GET"
	}
	a := s.call(method, fill(sc.path), fill(sc.body), headers...)
	if a.status != sc.status {
		t.Fatalf("%d %s, want %d", a.status, a.body, sc.status)
	}
	if sc.code != "" && a.field(t, "code") != string(sc.code) {
		t.Errorf("code %q, want %q", a.field(t, "code"), sc.code)
	}
	for _, text := range sc.has {
		if text = fill(text); !strings.Contains(a.body, text) {
			t.Errorf("%s\nlacks %s", a.body, text)
		}
	}
	for _, text := range sc.lacks {
		if text = fill(text); strings.Contains(a.body, text) {
			t.Errorf("%s\nhas %s", a.body, text)
		}
	}
	for i := 0; i < len(sc.answered); i += 2 {
		if got, want := a.header.Get(sc.answered[i]), fill(sc.answered[i+1]); got != want {
			t.Errorf("%s: %q, want %q", sc.answered[i], got, want)
		}
	}
	types := s.typesAfter(before)
	if diff := cmp.Diff(sc.events, types); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(types) > 0 {
		want := strconv.FormatInt(s.head(), 10)
		if sc.silent {
			want = ""
		}
		if got := a.header.Get("Usher-Position"); got != want {
			t.Errorf("Usher-Position %q, want %q", got, want)
		}
	}
	return a
}
