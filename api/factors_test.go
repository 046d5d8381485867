package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"usher.example/identity"
)

const (
	ownTOTP       = "/v1/me/totp"
	confirmTOTP   = "/v1/me/totp/confirm"
	recoveryCodes = "/v1/me/recovery-codes"
)

// castFactors makes the user whose second factor the scenarios set up, use and lose.
func castFactors(s *stack, c map[string]string) {
	s.tb.Helper()
	c["fay"] = s.user("fay@example.org", verified("fay@example.org")).String()
	c["fay's token"] = s.login("fay@example.org")
}

// verified is the event of a user who has shown to read mail at an address.
func verified(email string) identity.Payload {
	var p identity.EmailVerified
	p.Personal.Email = email
	return p
}

// authenticator is what fay has at hand: the secret and the recovery codes that the answers told, and a clock that she may
// wait on.
type authenticator struct {
	waited atomic.Int64
	cast   map[string]string
}

func (a *authenticator) now() time.Time { return time.Now().Add(time.Duration(a.waited.Load())) }

// learn notes the secrets that an answer tells.
func (a *authenticator) learn(body string) {
	var told struct {
		Secret  string   `json:"secret"`
		URL     string   `json:"otpauth_url"`
		Codes   []string `json:"codes"`
		Refresh string   `json:"refresh_token"`
	}
	if json.Unmarshal([]byte(body), &told) != nil { // it is empty, or no object
		return
	}
	if told.URL != "" {
		a.cast["totp secret"] = told.Secret
	}
	if told.Codes != nil {
		a.cast["first recovery code"], a.cast["second recovery code"], a.cast["last recovery code"] = told.Codes[0], told.Codes[1], told.Codes[len(told.Codes)-1]
	}
	if told.Refresh != "" {
		a.cast["last refresh token"] = told.Refresh
	}
}

// fill puts the values of the cast into a text. {one-time password} is one that was not used before.
func (a *authenticator) fill(t *testing.T, text string) string {
	t.Helper()
	if strings.Contains(text, "{one-time password}") {
		a.waited.Add(int64(30 * time.Second))
		code, err := totp.GenerateCode(a.cast["totp secret"], a.now())
		if err != nil {
			t.Fatal(err)
		}
		a.cast["one-time password"], a.cast["used one-time password"] = code, code
	}
	var pairs []string
	for name, value := range a.cast {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// proofBody is the body of a request that takes one.
func proofBody(password, code string, more ...string) string {
	fields := append([]string{"current_password", password}, more...)
	if code != "" {
		fields = append(fields, "totp", code)
	}
	return body(fields...)
}

// asksForTheFactor is a call of fay's that takes a proof, with every proof that does not suffice.
func asksForTheFactor(name, method, path, password string, more ...string) []scenario {
	refused := func(what, password, code string, want identity.Code) scenario {
		return scenario{name: name + ", " + what, method: method, path: path, as: "fay", body: proofBody(password, code, more...), status: 401, code: want,
			lacks: []string{"000000", password}, answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}}
	}
	return []scenario{
		refused("no code", password, "", identity.CodeTOTPRequired),
		refused("wrong code", password, "000000", identity.CodeInvalidCredentials),
		refused("wrong password, right code", "wrong password", "{last recovery code}", identity.CodeInvalidCredentials),
	}
}

// setsUpTOTP are the calls that give fay a second factor.
func setsUpTOTP(name, password string) []scenario {
	return []scenario{
		{name: name + ", start", method: "POST", path: ownTOTP, as: "fay", body: proofBody(password, ""), status: 200, has: []string{`"secret":"`, `"otpauth_url":"otpauth://totp/`}},
		{name: name + ", confirm", method: "POST", path: confirmTOTP, as: "fay", body: body("code", "{one-time password}"), status: 204, events: []string{"user.totp_enabled"}},
	}
}

func loginWith(code string) string {
	return body("email", "fay@example.org", "password", secret, "totp", code)
}

var factorScenarios = slices.Concat([]scenario{
	{name: "factor, nothing to confirm", method: "POST", path: confirmTOTP, as: "fay", body: body("code", "123456"), status: 409, code: identity.CodeTOTPNotEnabled},
	{name: "factor, no recovery codes without one", method: "POST", path: recoveryCodes, as: "fay", body: proofBody(secret, ""), status: 409, code: identity.CodeTOTPNotEnabled},
	{name: "factor, wrong password", method: "POST", path: ownTOTP, as: "fay", body: proofBody("wrong password", ""), status: 401, code: identity.CodeInvalidCredentials,
		lacks: []string{"secret"}},
	{name: "factor, no password", method: "POST", path: ownTOTP, as: "fay", status: 400, code: identity.CodeInvalidRequest, has: []string{"current_password"}},
	{name: "factor, address not verified", method: "POST", path: ownTOTP, as: "ada", body: proofBody(secret, ""), status: 403, code: identity.CodeEmailNotVerified,
		has: []string{"verify-email/resend"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "factor, unknown field", method: "POST", path: ownTOTP, as: "fay", body: proofBody(secret, "", "digits", "8"), status: 400, code: identity.CodeInvalidRequest},
	{name: "factor, for nobody", method: "POST", path: ownTOTP, body: proofBody(secret, ""), status: 401, code: identity.CodeUnauthenticated},
	{name: "factor, start", method: "POST", path: ownTOTP, as: "fay", body: proofBody(secret, ""), status: 200,
		has: []string{`"secret":"`, `"otpauth_url":"otpauth://totp/usher:fay@example.org?`}, answered: []string{"Cache-Control", "no-store"}},
	{name: "factor, log in while it is not confirmed", method: "POST", path: login, body: credentials("fay@example.org", secret), status: 200, events: []string{"session.started"}},
	{name: "factor, confirm with a wrong code", method: "POST", path: confirmTOTP, as: "fay", body: body("code", "00000"), status: 422, code: identity.CodeInvalidCode,
		lacks: []string{"00000"}},
	{name: "factor, confirm with nothing", method: "POST", path: confirmTOTP, as: "fay", status: 400, code: identity.CodeInvalidRequest, has: []string{`\"code\" is needed`}},
	{name: "factor, confirm for nobody", method: "POST", path: confirmTOTP, body: body("code", "123456"), status: 401, code: identity.CodeUnauthenticated},
	{name: "factor, confirm", method: "POST", path: confirmTOTP, as: "fay", body: body("code", "{one-time password}"), status: 204,
		events: []string{"user.totp_enabled"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "factor, shown", path: "/v1/me", as: "fay", status: 200, has: []string{`"totp_enabled":true`}, lacks: []string{"{totp secret}"}},
	{name: "factor, start again", method: "POST", path: ownTOTP, as: "fay", body: proofBody(secret, ""), status: 409, code: identity.CodeTOTPEnabled,
		lacks: []string{"{totp secret}"}},
	{name: "factor, confirm again", method: "POST", path: confirmTOTP, as: "fay", body: body("code", "{one-time password}"), status: 409, code: identity.CodeTOTPEnabled},

	{name: "factor, log in without a code", method: "POST", path: login, body: credentials("fay@example.org", secret), status: 401, code: identity.CodeTOTPRequired,
		lacks: []string{"access_token", "{fay}"}, answered: []string{"WWW-Authenticate", `Bearer realm="usher"` + whereToAsk}},
	{name: "factor, log in with a wrong code", method: "POST", path: login, body: loginWith("000000"), status: 401, code: identity.CodeInvalidCredentials,
		lacks: []string{"access_token", "{fay}", "000000"}},
	{name: "factor, log in with a wrong password and a right code", method: "POST", path: login, status: 401, code: identity.CodeInvalidCredentials,
		body: body("email", "fay@example.org", "password", "wrong password", "totp", "{one-time password}")},
	{name: "factor, log in", method: "POST", path: login, body: loginWith("{one-time password}"), status: 200, has: []string{`"access_token":`, `"totp_enabled":true`},
		events: []string{"session.started"}},
	{name: "factor, log in with a code that was used", method: "POST", path: login, body: loginWith("{used one-time password}"), status: 401, code: identity.CodeInvalidCredentials},

	{name: "recovery codes", method: "POST", path: recoveryCodes, as: "fay", body: proofBody(secret, "{one-time password}"), status: 200, has: []string{`"codes":["`},
		lacks: []string{"{totp secret}"}, events: []string{"user.recovery_codes_generated"}, answered: []string{"Cache-Control", "no-store"}},
	{name: "recovery codes, for nobody", method: "POST", path: recoveryCodes, body: proofBody(secret, ""), status: 401, code: identity.CodeUnauthenticated},
}, asksForTheFactor("recovery codes", "POST", recoveryCodes, secret), []scenario{
	{name: "recovery codes, log in with one", method: "POST", path: login, body: loginWith("{first recovery code}"), status: 200, events: []string{"session.started"}},
	{name: "recovery codes, log in with one again", method: "POST", path: login, body: loginWith("{first recovery code}"), status: 401, code: identity.CodeInvalidCredentials},
	{name: "factor, shown for an address that is taken", method: "POST", path: ownEmail, as: "fay", body: proofBody(secret, "{one-time password}", "email", "ada@example.org"),
		status: 409, code: identity.CodeEmailTaken},
}, asksForTheFactor("factor and password", "POST", ownPassword, secret, "new_password", newSecret), []scenario{
	{name: "factor and password", method: "POST", path: ownPassword, as: "fay", body: proofBody(secret, "{second recovery code}", "new_password", newSecret), status: 204,
		events: []string{"user.password_changed", "session.ended", "session.ended", "session.ended"}},
}, asksForTheFactor("factor and address", "POST", ownEmail, newSecret, "email", "fay@example.net"), []scenario{
	{name: "factor and address", method: "POST", path: ownEmail, as: "fay", body: proofBody(newSecret, "{one-time password}", "email", "fay@example.net"), status: 202,
		events: []string{"user.email_change_requested"}},
}, asksForTheFactor("factor, taken away", "DELETE", ownTOTP, newSecret), []scenario{
	{name: "factor, taken away, no password", method: "DELETE", path: ownTOTP, as: "fay", body: body("totp", "{one-time password}"), status: 400, code: identity.CodeInvalidRequest},
	{name: "factor, taken away, for nobody", method: "DELETE", path: ownTOTP, body: proofBody(newSecret, ""), status: 401, code: identity.CodeUnauthenticated},
	{name: "factor, taken away", method: "DELETE", path: ownTOTP, as: "fay", body: proofBody(newSecret, "{one-time password}"), status: 204, events: []string{"user.totp_disabled"},
		answered: []string{"Cache-Control", "no-store"}},
	{name: "factor, taken away again", method: "DELETE", path: ownTOTP, as: "fay", body: proofBody(newSecret, ""), status: 204},
	{name: "factor, shown to be gone", path: "/v1/me", as: "fay", status: 200, has: []string{`"totp_enabled":false`}},
	{name: "factor, log in without it", method: "POST", path: login, body: credentials("fay@example.org", newSecret), status: 200, events: []string{"session.started"}},

	{name: "factor of a user, for users", method: "DELETE", path: "/v1/users/{fay}/totp", as: "fay", status: 403, code: identity.CodeForbidden},
	{name: "factor of a user, for nobody", method: "DELETE", path: "/v1/users/{fay}/totp", status: 401, code: identity.CodeUnauthenticated},
	{name: "factor of an unknown user", method: "DELETE", path: "/v1/users/{nobody}/totp", as: "admin", status: 404, code: identity.CodeNotFound},
	{name: "factor of a user who has none", method: "DELETE", path: "/v1/users/{fay}/totp", as: "admin", status: 204},
}, setsUpTOTP("factor that is lost", newSecret), []scenario{
	{name: "factor of a user", method: "DELETE", path: "/v1/users/{fay}/totp", as: "admin", status: 204, events: []string{"user.totp_disabled"}},
	{name: "factor of a user, log in without it", method: "POST", path: login, body: credentials("fay@example.org", newSecret), status: 200, events: []string{"session.started"}},
}, setsUpTOTP("factor of who is erased", newSecret), asksForTheFactor("factor and erasure", "DELETE", "/v1/me", newSecret), []scenario{
	{name: "factor and erasure", method: "DELETE", path: "/v1/me", as: "fay", body: proofBody(newSecret, "{one-time password}"), status: 204,
		events: []string{"session.ended", "session.ended", "session.ended", "user.erased"}},
})

// A user whose second factor is another from now on can end every session that began before: the others one by one, or
// all of them.
func TestASVS_7_4_3_SessionsCanEndAfterAFactorChanged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		fay := authenticator{cast: map[string]string{}}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Now = fay.now }})
		s.user("fay@example.org", verified("fay@example.org"))
		here, there := s.tokens("fay@example.org"), s.tokens("fay@example.org")
		started := s.as(here.access, "POST", ownTOTP, proofBody(secret, ""))
		s.want(started, http.StatusOK, "")
		fay.learn(started.body)
		s.want(s.as(here.access, "POST", confirmTOTP, fay.fill(t, body("code", "{one-time password}"))), http.StatusNoContent, "")

		sessions := s.as(here.access, "GET", "/v1/me/sessions", "")
		other := sessions.field(t, "items", "0", "id")
		if sessions.field(t, "items", "0", "current") == "true" {
			other = sessions.field(t, "items", "1", "id")
		}
		s.want(s.as(here.access, "DELETE", "/v1/me/sessions/"+other, ""), http.StatusNoContent, "")
		s.want(s.as(there.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.want(s.as(here.access, "GET", "/v1/me", ""), http.StatusOK, "")
		s.want(s.as(here.access, "POST", "/v1/auth/logout-all", ""), http.StatusNoContent, "")
		s.want(s.as(here.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	})
}
