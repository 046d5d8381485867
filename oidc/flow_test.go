package oidc

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/internal/devstack"
)

func TestCodeFlow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db)
		ada := s.user("ada@example.org")
		shop := s.app(nil)
		back := s.get(ada, pathAuthorize, shop.request()).back()
		if back.Get("state") != "s t" {
			t.Errorf("state %q", back.Get("state"))
		}
		answer := s.redeem(shop, back.Get("code"))
		first := answer.granted()
		if first.TokenType != "Bearer" || first.Scope != "email openid profile" || first.ExpiresIn != 3600 || first.RefreshToken == "" || answer.header.Get("Usher-Position") == "" {
			t.Errorf("granted %+v", first)
		}
		_, access := claims(t, first.AccessToken)
		head, id := claims(t, first.IDToken)
		if access["client_id"] != shop.ID.String() || access["aud"] != "usher" || access["scope"] != first.Scope || access["sub"] != ada.login.User.ID.String() {
			t.Errorf("access token %v", access)
		}
		want := map[string]any{
			"iss": issuerName, "sub": access["sub"], "aud": shop.ID.String(), "nonce": "n", "sid": access["sid"], "acr": classOne, "amr": []any{"pwd"},
			"email": "ada@example.org", "email_verified": false, "name": "Ada Lovelace", "auth_time": float64(ada.login.StartedAt.Unix()),
		}
		for name, value := range want {
			if diff := cmp.Diff(value, id[name]); diff != "" {
				t.Errorf("%s of the ID token (-want +got):\n%s", name, diff)
			}
		}
		if head["alg"] != "ES256" || id["sid"] == ada.login.Session.String() {
			t.Errorf("ID token %v, %v", head, id)
		}

		info := s.bearer(pathUserinfo, first.AccessToken)
		if info.status != http.StatusOK || !strings.Contains(info.body, `"sub":"`+ada.login.User.ID.String()+`"`) || !strings.Contains(info.body, `"email":"ada@example.org"`) {
			t.Errorf("userinfo: %d %s", info.status, info.body)
		}
		if refused := s.bearer(pathUserinfo, first.AccessToken+"x"); refused.status != http.StatusUnauthorized || !strings.Contains(refused.header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("userinfo with another token: %d %v", refused.status, refused.header)
		}

		narrow := s.refresh(shop, first.RefreshToken, "scope", "openid").granted()
		if _, narrowed := claims(t, narrow.AccessToken); narrow.Scope != "openid" || narrowed["sid"] != access["sid"] {
			t.Errorf("refreshed %+v", narrow)
		}
		if info := s.bearer(pathUserinfo, narrow.AccessToken); info.status != http.StatusOK || strings.Contains(info.body, "ada@") {
			t.Errorf("userinfo with the scope openid: %d %s", info.status, info.body)
		}
		wide := s.refresh(shop, narrow.RefreshToken).granted()
		s.refresh(shop, wide.RefreshToken, "scope", "users:write").wantError("more than was granted", 400, "invalid_scope")
		s.refresh(s.app(nil), wide.RefreshToken).wantError("another's refresh token", 400, "invalid_grant")
		s.refresh(shop, ada.refreshToken()).wantError("the refresh token of a login", 400, "invalid_grant")

		sessions, err := s.identity.Sessions(t.Context(), ada.login.User.ID, ada.login.Session)
		if err != nil || len(sessions) != 2 {
			t.Fatalf("sessions %+v, %v", sessions, err)
		}
		if _, err := s.identity.EndSession(t.Context(), ada.login.User.ID, ada.login.Session, identity.EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		s.refresh(shop, wide.RefreshToken).wantError("a refresh token once the session has ended", 400, "invalid_grant")
		if refused := s.bearer(pathUserinfo, wide.AccessToken); refused.status != http.StatusUnauthorized {
			t.Errorf("an access token once the session has ended: %d", refused.status)
		}
	})
}

func (b *browser) refreshToken() string { return string(b.login.Refresh) }

// wantRefused lets a client be led back with an error.
func (s *stack) wantRefused(what string, b *browser, request url.Values, code string) {
	s.tb.Helper()
	if q := s.get(b, pathAuthorize, request).back(); q.Get("error") != code || q.Get("code") != "" || q.Get("state") != request.Get("state") {
		s.tb.Errorf("%s: led back with %v, want %s", what, q, code)
	}
}

func TestASVS_10_4_1_NobodyIsLedToWhereNoClientHasSaid(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	shop := s.app(nil)
	for what, request := range map[string]url.Values{
		"no client":                   shop.request("client_id", ""),
		"an unknown client":           shop.request("client_id", uuid.NewString()),
		"no redirect URI":             shop.request("redirect_uri", ""),
		"another redirect URI":        shop.request("redirect_uri", "https://evil.example/cb"),
		"a longer redirect URI":       shop.request("redirect_uri", callback+"/x"),
		"a redirect URI with a query": shop.request("redirect_uri", callback+"?x=1"),
		"a parameter twice":           {"client_id": {shop.ID.String()}, "redirect_uri": {callback, callback}},
	} {
		if r := s.get(ada, pathAuthorize, request); r.status != http.StatusBadRequest || r.header.Get("Location") != "" || !strings.Contains(r.body, "<main") {
			t.Errorf("%s: %d to %q, want a page", what, r.status, r.header.Get("Location"))
		}
	}
}

func TestASVS_10_4_6_AuthorizeRefuses(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	shop := s.app(nil)
	for what, test := range map[string]struct {
		code string
		more []string
	}{
		"no response type":         {"invalid_request", []string{"response_type", ""}},
		"implicit":                 {"unsupported_response_type", []string{"response_type", "token"}},
		"hybrid":                   {"unsupported_response_type", []string{"response_type", "code id_token"}},
		"another response mode":    {"invalid_request", []string{"response_mode", "fragment"}},
		"no challenge":             {"invalid_request", []string{"code_challenge", ""}},
		"a plain challenge":        {"invalid_request", []string{"code_challenge_method", "plain"}},
		"no method":                {"invalid_request", []string{"code_challenge_method", ""}},
		"a short challenge":        {"invalid_request", []string{"code_challenge", "x"}},
		"a scope it can't have":    {"invalid_scope", []string{"scope", "openid users:write"}},
		"only unknown scopes":      {"invalid_scope", []string{"scope", "groups"}},
		"an unknown prompt":        {"invalid_request", []string{"prompt", "create"}},
		"none and another prompt":  {"invalid_request", []string{"prompt", "none login"}},
		"a negative age":           {"invalid_request", []string{"max_age", "-1"}},
		"another resource":         {"invalid_target", []string{"resource", "https://other.example"}},
		"a request object":         {"request_not_supported", []string{"request", "x.y.z"}},
		"a request by reference":   {"request_uri_not_supported", []string{"request_uri", "https://app.example/r"}},
		"no login, and none asked": {"login_required", []string{"prompt", "none", "max_age", "0"}},
	} {
		s.wantRefused(what, ada, shop.request(test.more...), test.code)
	}
	s.wantRefused("nobody is logged in", nil, shop.request("prompt", "none"), "login_required")
	s.wantRefused("nobody agreed", ada, s.app(func(c *identity.ClientSettings) { c.FirstParty = false }).request("prompt", "none"), "consent_required")

	// Unknown scopes beside known ones are passed over, and a query of the URI stays as it is.
	if code := ada.code(shop, "scope", "openid groups", "resource", issuerName+"/"); s.redeem(shop, code).granted().Scope != "openid" {
		t.Error("a scope that there is none of was not passed over")
	}
	other := s.app(func(c *identity.ClientSettings) { c.RedirectURIs = []string{callback + "?tenant=a%20b"} })
	if to := s.get(ada, pathAuthorize, other.request("redirect_uri", callback+"?tenant=a%20b")).header.Get("Location"); !strings.HasPrefix(to, callback+"?tenant=a%20b&code=") {
		t.Errorf("led back to %s", to)
	}
}

func TestAuthorizeAsksToLogIn(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	shop := s.app(nil)
	toLogin := func(b *browser, more ...string) url.Values {
		t.Helper()
		r := s.get(b, pathAuthorize, shop.request(append(more, "login_hint", "ada@example.org", "ui_locales", "de")...))
		u, err := url.Parse(r.header.Get("Location"))
		if err != nil || r.status != http.StatusSeeOther || u.Path != "/login" || u.Query().Get("login_hint") != "ada@example.org" || u.Query().Get("ui_locales") != "de" {
			t.Fatalf("%v: %d to %s", more, r.status, u)
		}
		back, err := url.Parse(u.Query().Get("return"))
		if err != nil || back.Path != pathAuthorize {
			t.Fatalf("%v: led back to %s", more, u.Query().Get("return"))
		}
		return back.Query()
	}
	toLogin(nil)
	s.forward(2 * time.Minute)
	toLogin(ada, "max_age", "60")
	for _, anew := range [][]string{{"prompt", "login"}, {"prompt", "select_account"}, {"max_age", "0"}} {
		again := toLogin(ada, anew...)
		if r := s.get(ada, pathAuthorize, again); r.status != http.StatusSeeOther || !strings.HasPrefix(r.header.Get("Location"), "/login?") {
			t.Errorf("%v: whoever did not log in anew goes on to %s", anew, r.header.Get("Location"))
		}
		s.forward(time.Second)
		if q := s.get(s.logIn("ada@example.org"), pathAuthorize, again).back(); q.Get("code") == "" {
			t.Errorf("%v: after the login: %v", anew, q)
		}
		s.forward(time.Minute)
	}

	// A form of another website comes without the cookie.
	r := s.post(nil, pathAuthorize, shop.request(), "Sec-Fetch-Site", "cross-site")
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != http.StatusSeeOther || u.Path != pathAuthorize {
		t.Fatalf("a form: %d to %s", r.status, u)
	}
	if q := s.get(ada, pathAuthorize, u.Query()).back(); q.Get("code") == "" {
		t.Errorf("a form: %v", q)
	}
}

func TestFormPost(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	r := s.get(s.user("ada@example.org"), pathAuthorize, s.app(nil).request("response_mode", "form_post", "state", `"><script>`))
	policy := r.header.Get("Content-Security-Policy")
	for _, has := range []string{`action="` + callback + `"`, `name="code" value="`, `name="iss" value="` + issuerName, `name="state" value="&#34;&gt;&lt;script&gt;"`, `<button type="submit">`} {
		if r.status != http.StatusOK || !strings.Contains(r.body, has) {
			t.Errorf("%d, without %s:\n%s", r.status, has, r.body)
		}
	}
	if !strings.Contains(policy, "form-action 'self' https://app.example;") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %s", policy)
	}
}

func TestASVS_10_4_3_RedeemRefuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db)
		ada := s.user("ada@example.org")
		shop := s.app(nil)
		code := ada.code(shop)
		s.redeem(shop, code, "code_verifier", strings.Repeat("x", 43)).wantError("another verifier", 400, "invalid_grant")
		s.redeem(shop, code, "code_verifier", "").wantError("no verifier", 400, "invalid_grant")
		s.redeem(shop, code, "redirect_uri", callback+"/").wantError("another redirect URI", 400, "invalid_grant")
		s.redeem(shop, code[:len(code)-1]).wantError("a code cut short", 400, "invalid_grant")
		s.redeem(s.app(nil), code).wantError("another client", 400, "invalid_grant")
		s.redeem(app{shop.Client, "usher_secret_x"}, code).wantError("a wrong secret", 401, "invalid_client")
		s.redeem(app{shop.Client, ""}, code).wantError("no secret", 401, "invalid_client")
		s.token(shop, "grant_type", "password").wantError("a grant that there is not", 400, "unsupported_grant_type")
		first := s.redeem(shop, code).granted() // none of these used it up

		s.redeem(shop, code).wantError("a second time", 400, "invalid_grant")
		s.refresh(shop, first.RefreshToken).wantError("what the first time began", 400, "invalid_grant")
		if r := s.bearer(pathUserinfo, first.AccessToken); r.status != http.StatusUnauthorized {
			t.Errorf("the access token of the first time: %d", r.status)
		}

		late := ada.code(shop)
		s.forward(codeLifetime + time.Second)
		s.redeem(shop, late).wantError("too late", 400, "invalid_grant")
		gone := ada.code(shop)
		if _, err := s.identity.EndSession(t.Context(), ada.login.User.ID, ada.login.Session, identity.EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		s.redeem(shop, gone).wantError("after the logout", 400, "invalid_grant")
	})
}

func TestASVS_10_4_10_ClientsOfOtherKinds(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	public := s.app(func(c *identity.ClientSettings) { c.Authentication = client.AuthenticationNone })
	g := s.redeem(public, ada.code(public)).granted()
	s.post(nil, pathIntrospect, url.Values{"client_id": {public.ID.String()}, "token": {g.AccessToken}}).wantError("a public client introspects", 401, "invalid_client")
	other := s.app(func(c *identity.ClientSettings) { c.Authentication = client.AuthenticationNone })
	for _, raw := range []string{g.AccessToken, g.RefreshToken, ada.refreshToken()} {
		s.post(nil, pathRevoke, url.Values{"client_id": {other.ID.String()}, "token": {raw}}).wantError("another's token", 400, "unauthorized_client")
	}
	if r := s.post(nil, pathRevoke, url.Values{"client_id": {public.ID.String()}, "token": {g.RefreshToken}}); r.status != http.StatusOK {
		t.Errorf("its own token: %d %s", r.status, r.body)
	}
	s.refresh(public, g.RefreshToken).wantError("after it was revoked", 400, "invalid_grant")

	old := s.app(func(c *identity.ClientSettings) { c.NoPKCE, c.IDTokenAlgorithm = true, "RS256" })
	s.wantRefused("no PKCE and no nonce", ada, old.request("code_challenge", "", "code_challenge_method", "", "nonce", ""), "invalid_request")
	code := ada.code(old, "code_challenge", "", "code_challenge_method", "")
	s.redeem(old, code).wantError("a verifier without a challenge", 400, "invalid_grant")
	if head, _ := claims(t, s.redeem(old, code, "code_verifier", "").granted().IDToken); head["alg"] != "RS256" {
		t.Errorf("signed by %v", head)
	}

	// What else usher's API may be asked for, a third party's token never may the account.
	if r := s.bearer(pathUserinfo, s.token(s.app(func(c *identity.ClientSettings) {
		c.RedirectURIs, c.PostLogoutRedirectURIs, c.Scopes = nil, nil, []string{"users:read"}
	}), "grant_type", "client_credentials").granted().AccessToken); r.status != http.StatusForbidden {
		t.Errorf("userinfo of a client itself: %d %s", r.status, r.body)
	}
}

// Two processes are sent one code by many at a time: one succeeds, and what it got has ended then.
func TestASVS_10_4_2_CodeIsUsedOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		of := newShared(t)
		a, b := newProcess(t, db, of), newProcess(t, db, of)
		ada := a.user("ada@example.org")
		shop := a.app(nil)
		for range *codes {
			code := ada.code(shop)
			replies := make([]reply, 6)
			var all sync.WaitGroup
			for i := range replies {
				all.Go(func() { replies[i] = []*stack{a, b}[i%2].redeem(shop, code) })
			}
			all.Wait()
			won := 0
			for _, r := range replies {
				if r.status == http.StatusOK {
					won++
					first := r.granted()
					a.refresh(shop, first.RefreshToken).wantError("what a code began that was shown again", 400, "invalid_grant")
					continue
				}
				r.wantError("the others", 400, "invalid_grant")
			}
			if won != 1 {
				t.Fatalf("%d of %d redeemed the code", won, len(replies))
			}
		}
	})
}

// Authorize and token together make few round trips: see the table of what has to be fast.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	trips := &devstack.RoundTrips{}
	s := newStack(t, openPostgres(t, postgres.Options{Configure: trips.Configure}))
	ada := s.user("ada@example.org")
	shop := s.app(nil)
	s.redeem(shop, ada.code(shop))                          // the client is known from here on
	devstack.Eventually(t, "few round trips", func() bool { // following the log makes some beside
		before := trips.Count()
		s.redeem(shop, ada.code(shop)).granted()
		return trips.Count()-before <= 3
	})
}
