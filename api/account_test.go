package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/server"
)

const (
	verifyEmail = "/v1/auth/verify-email"
	resend      = "/v1/auth/verify-email/resend"
	forgot      = "/v1/auth/password/forgot"
	reset       = "/v1/auth/password/reset"
	ownPassword = "/v1/me/password"
	ownEmail    = "/v1/me/email"
	newSecret   = "a wholly different phrase"
)

// code makes a code as the mailer does.
func (s *stack) code(user uuid.UUID, p identity.Purpose) string {
	s.tb.Helper()
	code, _, err := s.identity.NewCode(s.tb.Context(), user, p)
	if err != nil {
		s.tb.Fatal(err)
	}
	return string(code)
}

// castAccounts makes the users whose accounts the scenarios change.
func castAccounts(t *testing.T, s *stack, c map[string]string) {
	t.Helper()
	for _, name := range []string{"vera", "rita", "carl", "pia", "emil"} {
		id := s.user(name + "@example.org")
		c[name] = id.String()
		c[name+"'s token"] = s.login(name + "@example.org")
		switch name {
		case "pia":
			c["other pia's token"] = s.login("pia@example.org")
			continue
		case "emil":
			continue
		case "carl":
			var wanted identity.EmailChangeRequested
			wanted.Personal.Email = "Carl@example.net"
			s.append(id, wanted)
			c[name+"'s email code"] = s.code(id, identity.PurposeEmail)
			continue
		}
		c[name+"'s verify code"] = s.code(id, identity.PurposeVerify)
		c[name+"'s reset code"] = s.code(id, identity.PurposeReset)
	}
}

var accountScenarios = []scenario{
	{name: "resend, with a token", method: "POST", path: resend, as: "vera", status: 202, events: []string{"user.email_verification_requested"},
		answered: []string{"Cache-Control", "no-store"}},
	{name: "resend, with a token, at once", method: "POST", path: resend, as: "vera", status: 429, code: identity.CodeThrottled},
	{name: "resend, by address, at once", method: "POST", path: resend, body: body("email", "vera@example.org"), status: 202},
	{name: "resend, by address", method: "POST", path: resend, body: body("email", "RITA@example.org"), status: 202,
		events: []string{"user.email_verification_requested"}, silent: true},
	{name: "resend, unknown address", method: "POST", path: resend, body: body("email", "nobody@example.org"), status: 202},
	{name: "resend, locked", method: "POST", path: resend, body: body("email", "locked@example.org"), status: 202},
	{name: "resend, no address", method: "POST", path: resend, body: body("email", "nobody"), status: 422, code: identity.CodeInvalidEmail},
	{name: "resend for nobody", method: "POST", path: resend, status: 400, code: identity.CodeInvalidRequest, has: []string{"email"}},
	{name: "resend, bad token", method: "POST", path: resend, as: "expired", status: 401, code: identity.CodeUnauthenticated},

	{name: "verify", method: "POST", path: verifyEmail, body: body("code", "{vera's verify code}"), status: 204, events: []string{"user.email_verified"},
		answered: []string{"Cache-Control", "no-store"}},
	{name: "verify again", method: "POST", path: verifyEmail, body: body("code", "{vera's verify code}"), status: 409, code: identity.CodeAlreadyDone, lacks: []string{"{vera's verify code}"}},
	{name: "verified", path: "/v1/me", as: "vera", status: 200, has: []string{`"email_verified":true`}},
	{name: "resend when verified", method: "POST", path: resend, as: "vera", status: 202},
	{name: "verify, wrong code", method: "POST", path: verifyEmail, body: body("code", "AAAAAAAAAAAAAAAAAAAAAAAAAA"), status: 422, code: identity.CodeInvalidCode},
	{name: "verify, endless code", method: "POST", path: verifyEmail, body: body("code", strings.Repeat("A", 50000)), status: 422, code: identity.CodeInvalidCode},
	{name: "verify, code to reset", method: "POST", path: verifyEmail, body: body("code", "{vera's reset code}"), status: 422, code: identity.CodeInvalidCode},
	{name: "verify, no code", method: "POST", path: verifyEmail, body: "{}", status: 400, code: identity.CodeInvalidRequest, has: []string{`\"code\" is needed`}},
	// A secret is in no URL.
	{name: "verify, code in the query", method: "POST", path: verifyEmail + "?code={rita's verify code}", status: 400, code: identity.CodeInvalidRequest},
	{name: "verify by a link", path: verifyEmail + "?code={rita's verify code}", status: 405, code: server.CodeMethodNotAllowed},
	{name: "change the address", method: "POST", path: verifyEmail, body: body("code", "{carl's email code}"), status: 204, events: []string{"user.email_changed"}},
	{name: "changed address", path: "/v1/me", as: "carl", status: 200, has: []string{`"email":"Carl@example.net"`, `"email_verified":true`}},
	{name: "log in with the changed address", method: "POST", path: login, body: credentials("carl@example.net", secret), status: 200, events: []string{"session.started"}},
	{name: "log in with the address before", method: "POST", path: login, body: credentials("carl@example.org", secret), status: 401, code: identity.CodeInvalidCredentials},

	{name: "forgot", method: "POST", path: forgot, body: body("email", "Rita@example.org"), status: 202, silent: true,
		events: []string{"user.password_reset_requested"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "forgot, at once", method: "POST", path: forgot, body: body("email", "rita@example.org"), status: 202},
	{name: "forgot, unknown address", method: "POST", path: forgot, body: body("email", "nobody@example.org"), status: 202, answered: []string{"Cache-Control", "no-store"}},
	{name: "forgot, disabled", method: "POST", path: forgot, body: body("email", "disabled@example.org"), status: 202},
	{name: "forgot, no address", method: "POST", path: forgot, body: body("email", "@"), status: 422, code: identity.CodeInvalidEmail},
	{name: "forgot, nothing", method: "POST", path: forgot, status: 400, code: identity.CodeInvalidRequest, has: []string{`\"email\" is needed`}},
	{name: "reset, refused password", method: "POST", path: reset, body: body("code", "{rita's reset code}", "new_password", "rita"), status: 422,
		code: identity.CodePasswordRefused, lacks: []string{"{rita's reset code}"}},
	{name: "reset, code to verify", method: "POST", path: reset, body: body("code", "{rita's verify code}", "new_password", newSecret), status: 422, code: identity.CodeInvalidCode},
	{name: "reset, wrong code and refused password", method: "POST", path: reset, body: body("code", "A", "new_password", "x"), status: 422, code: identity.CodeInvalidCode},
	{name: "reset, no password", method: "POST", path: reset, body: body("code", "{rita's reset code}"), status: 400, code: identity.CodeInvalidRequest, has: []string{"new_password"}},
	{name: "reset", method: "POST", path: reset, body: body("code", "{rita's reset code}", "new_password", newSecret), status: 204,
		events: []string{"user.email_verified", "user.password_changed", "session.ended"}},
	{name: "reset again", method: "POST", path: reset, body: body("code", "{rita's reset code}", "new_password", newSecret), status: 409, code: identity.CodeAlreadyDone},
	{name: "a session from before the reset", path: "/v1/me", as: "rita", status: 401, code: identity.CodeUnauthenticated},
	{name: "log in with the password before", method: "POST", path: login, body: credentials("rita@example.org", secret), status: 401, code: identity.CodeInvalidCredentials},
	{name: "log in after the reset", method: "POST", path: login, body: credentials("rita@example.org", newSecret), status: 200, has: []string{`"email_verified":true`},
		events: []string{"session.started"}},

	// Users change their passwords, and have to know the present one.
	{name: "password, wrong present one", method: "POST", path: ownPassword, as: "pia", body: body("current_password", "wrong password", "new_password", newSecret),
		status: 401, code: identity.CodeInvalidCredentials, lacks: []string{"wrong password", newSecret}},
	{name: "password, no present one", method: "POST", path: ownPassword, as: "pia", body: body("new_password", newSecret), status: 400, code: identity.CodeInvalidRequest,
		has: []string{"current_password"}},
	{name: "password, no new one", method: "POST", path: ownPassword, as: "pia", body: body("current_password", secret), status: 400, code: identity.CodeInvalidRequest,
		has: []string{"new_password"}},
	{name: "password, refused", method: "POST", path: ownPassword, as: "pia", body: body("current_password", secret, "new_password", "pia@example.org"), status: 422,
		code: identity.CodePasswordRefused, lacks: []string{"pia@example.org"}},
	{name: "password, without a token", method: "POST", path: ownPassword, body: body("current_password", secret, "new_password", newSecret), status: 401, code: identity.CodeUnauthenticated},
	{name: "password", method: "POST", path: ownPassword, as: "pia", body: body("current_password", secret, "new_password", newSecret), status: 204,
		events: []string{"user.password_changed", "session.ended"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "password, the session goes on", path: "/v1/me", as: "pia", status: 200},
	// The others end.
	{name: "password, another session", path: "/v1/me", as: "other pia", status: 401, code: identity.CodeUnauthenticated},
	{name: "password, log in with the one before", method: "POST", path: login, body: credentials("pia@example.org", secret), status: 401, code: identity.CodeInvalidCredentials},
	{name: "password, log in", method: "POST", path: login, body: credentials("pia@example.org", newSecret), status: 200, events: []string{"session.started"}},

	{name: "address, wrong password", method: "POST", path: ownEmail, as: "emil", body: body("current_password", "wrong password", "email", "emil@example.net"),
		status: 401, code: identity.CodeInvalidCredentials},
	{name: "address, no password", method: "POST", path: ownEmail, as: "emil", body: body("email", "emil@example.net"), status: 400, code: identity.CodeInvalidRequest,
		has: []string{"current_password"}},
	{name: "address, none", method: "POST", path: ownEmail, as: "emil", body: body("current_password", secret, "email", "emil"), status: 422, code: identity.CodeInvalidEmail},
	{name: "address, the present one", method: "POST", path: ownEmail, as: "emil", body: body("current_password", secret, "email", "emil@example.org"), status: 422, code: identity.CodeInvalidEmail},
	{name: "address, taken", method: "POST", path: ownEmail, as: "emil", body: body("current_password", secret, "email", "ADA@example.org"), status: 409, code: identity.CodeEmailTaken,
		lacks: []string{"{ada}"}},
	{name: "address", method: "POST", path: ownEmail, as: "emil", body: body("current_password", secret, "email", "Emil@example.net"), status: 202,
		events: []string{"user.email_change_requested"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "address, at once", method: "POST", path: ownEmail, as: "emil", body: body("current_password", secret, "email", "emil@example.com"), status: 429,
		code: identity.CodeThrottled},
	{name: "address, as before until it is confirmed", path: "/v1/me", as: "emil", status: 200, has: []string{`"email":"emil@example.org"`}, lacks: []string{"example.net"}},
	{name: "address, without a token", method: "POST", path: ownEmail, body: body("current_password", secret, "email", "x@example.net"), status: 401, code: identity.CodeUnauthenticated},

	{name: "profile", method: "PATCH", path: "/v1/me", as: "vera", body: `{"name":" Vera ✓ ","attributes":{"city":"Bath"}}`, status: 200,
		has: []string{`"name":"Vera ✓"`, `"attributes":{"city":"Bath"}`}, events: []string{"user.profile_updated"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "profile as it is", method: "PATCH", path: "/v1/me", as: "vera", body: `{"name":"Vera ✓"}`, status: 200, has: []string{`"name":"Vera ✓"`}},
	{name: "profile, nothing", method: "PATCH", path: "/v1/me", as: "vera", status: 200},
	{name: "profile, an attribute taken away", method: "PATCH", path: "/v1/me", as: "vera", body: `{"attributes":{"city":null}}`, status: 200,
		has: []string{`"attributes":{}`}, events: []string{"user.profile_updated"}},
	{name: "profile, an attribute that is not the user's to set", method: "PATCH", path: "/v1/me", as: "vera", body: `{"attributes":{"plan":"paid"}}`, status: 403, code: identity.CodeForbidden},
	{name: "profile, attributes of another kind", method: "PATCH", path: "/v1/me", as: "vera", body: `{"attributes":[1]}`, status: 422},
	{name: "profile, control character", method: "PATCH", path: "/v1/me", as: "vera", body: `{"name":"a\u001bb"}`, status: 422, code: identity.CodeInvalidName},
	{name: "profile, a field that is no profile", method: "PATCH", path: "/v1/me", as: "vera", body: `{"roles":["admin"]}`, status: 400, code: identity.CodeInvalidRequest, has: []string{"roles"}},
	{name: "profile, without a token", method: "PATCH", path: "/v1/me", body: `{"name":"x"}`, status: 401, code: identity.CodeUnauthenticated},
}

// Whether anybody has an address does not show in the time of the answer either. The bound is generous: answers are spread
// over a small part of the even time, and one that does not wait for it is far outside.
func TestASVS_6_3_8_EvenTime(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		for _, email := range []string{"ada@example.org", "nobody@example.org"} {
			for _, path := range []string{forgot, resend} {
				begin := time.Now()
				s.want(s.call("POST", path, body("email", email)), http.StatusAccepted, "")
				if took := time.Since(begin); took < server.EvenTime {
					t.Errorf("%s for %s: after %v, want %v or later", path, email, took, server.EvenTime)
				}
			}
		}
	})
}
