package oidc

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// logoutRequest is a wish of an application, with what more says put in.
func (a app) logoutRequest(hint string, more ...string) url.Values {
	q := url.Values{"post_logout_redirect_uri": {"https://app.example/bye"}, "state": {"s t"}, "id_token_hint": {hint}}
	for i := 0; i < len(more); i += 2 {
		if q.Set(more[i], more[i+1]); more[i+1] == "" {
			q.Del(more[i])
		}
	}
	return q
}

const bye = "https://app.example/bye?state=s+t"

func TestLogout(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db)
		ada := s.user("ada@example.org")
		shop := s.app(nil)
		mine := s.redeem(shop, ada.code(shop)).granted()

		// An ID token of the very session ends it without a question, and all that was granted in it.
		r := s.get(ada, pathLogout, shop.logoutRequest(mine.IDToken))
		if r.status != http.StatusSeeOther || r.header.Get("Location") != bye || !strings.Contains(r.header.Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("%d to %q, cookie %q", r.status, r.header.Get("Location"), r.header.Get("Set-Cookie"))
		}
		s.refresh(shop, mine.RefreshToken).wantError("a grant of the session that has ended", 400, "invalid_grant")
		if r := s.get(ada, pathLogout, shop.logoutRequest(mine.IDToken)); r.header.Get("Location") != bye {
			t.Errorf("where nobody is logged in: %d to %q", r.status, r.header.Get("Location"))
		}

		// In any other session it asks, and so without an ID token.
		again := s.logIn("ada@example.org")
		for what, request := range map[string]url.Values{
			"an ID token of another session": shop.logoutRequest(mine.IDToken),
			"a client_id alone":              shop.logoutRequest("", "id_token_hint", "", "client_id", shop.ID.String()),
			"nothing":                        {},
		} {
			r := s.get(again, pathLogout, request)
			if r.status != http.StatusOK || !strings.Contains(r.body, `<button type="submit">`) || !strings.Contains(r.body, `name="usher_sure"`) {
				t.Errorf("%s: %d to %q\n%s", what, r.status, r.header.Get("Location"), r.body)
			}
			if policy := r.header.Get("Content-Security-Policy"); strings.Contains(policy, "app.example") != (what != "nothing") {
				t.Errorf("%s: policy %s", what, policy)
			}
			if sure := s.get(again, pathLogout, url.Values{paramLogoutSure: {"yes"}}); sure.status != http.StatusOK {
				t.Errorf("by a link that says so: %d to %s", sure.status, sure.header.Get("Location"))
			}
		}
		sure := shop.logoutRequest(mine.IDToken, paramLogoutSure, "yes")
		if r := s.post(again, pathLogout, sure, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"); r.status != http.StatusOK {
			t.Errorf("by a form of another website: %d to %s", r.status, r.header.Get("Location"))
		}
		if r := s.post(nil, pathLogout, sure, "Sec-Fetch-Site", "cross-site", "Origin", "https://app.example"); !strings.HasPrefix(r.header.Get("Location"), pathLogout+"?") {
			t.Errorf("by a form of another website, without our cookies: %d to %s", r.status, r.header.Get("Location"))
		}
		if r := s.post(again, pathLogout, sure, "Sec-Fetch-Site", "same-origin"); r.status != http.StatusSeeOther || r.header.Get("Location") != bye {
			t.Errorf("by the button: %d to %s", r.status, r.header.Get("Location"))
		}
		if r := s.get(again, pathAuthorize, shop.request()); !strings.HasPrefix(r.header.Get("Location"), "/login?") {
			t.Errorf("after the logout: %d to %s", r.status, r.header.Get("Location"))
		}

		for what, request := range map[string]url.Values{
			"another URI":           shop.logoutRequest(mine.IDToken, "post_logout_redirect_uri", "https://evil.example/"),
			"a URI, and no client":  shop.logoutRequest("", "id_token_hint", ""),
			"no ID token":           shop.logoutRequest(mine.AccessToken),
			"another client's":      shop.logoutRequest(mine.IDToken, "client_id", s.app(nil).ID.String()),
			"an ID token cut short": shop.logoutRequest(mine.IDToken[:len(mine.IDToken)-4]),
		} {
			if r := s.get(ada, pathLogout, request); r.status != http.StatusBadRequest || r.header.Get("Location") != "" {
				t.Errorf("%s: %d to %q", what, r.status, r.header.Get("Location"))
			}
		}
	})
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	r := s.do(httptest.NewRequest("GET", issuerName+"/.well-known/openid-configuration", nil))
	for _, has := range []string{
		`"issuer":"https://usher.test"`, `"authorization_endpoint":"https://usher.test/oauth2/authorize"`, `"userinfo_endpoint":"https://usher.test/oauth2/userinfo"`,
		`"device_authorization_endpoint":"https://usher.test/oauth2/device_authorization"`,
		`"end_session_endpoint":"https://usher.test/oauth2/logout"`, `"response_types_supported":["code"]`, `"code_challenge_methods_supported":["S256"]`,
		`"id_token_signing_alg_values_supported":["ES256","RS256"]`, `"authorization_response_iss_parameter_supported":true`, `"none"]`, `"request_uri_parameter_supported":false`,
		`"openid"`, `"ui_locales_supported":["en"`,
	} {
		if !strings.Contains(r.body, has) {
			t.Errorf("%s lacks %s", r.body, has)
		}
	}
	if r := s.do(httptest.NewRequest("GET", issuerName+pathKeys, nil)); !strings.Contains(r.body, `"alg":"RS256"`) || !strings.Contains(r.body, `"alg":"ES256"`) {
		t.Errorf("keys %s", r.body)
	}
}
