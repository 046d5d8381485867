package clients_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/zitadel/oidc/v3/pkg/client/rp"
	httphelper "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// The relying party of zitadel/oidc, with the handlers that it brings along.
func TestZitadel(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)
	registered := add(t, "zitadel", "--first-party", "--redirect-uri", app.URL+"/callback", "--post-logout-redirect-uri", app.URL+"/bye")
	cookies := httphelper.NewCookieHandler([]byte("0123456789abcdef0123456789abcdef"), []byte("0123456789abcdef"), httphelper.WithUnsecure())
	party, err := rp.NewRelyingPartyOIDC(t.Context(), issuer, registered.ID, registered.Secret, app.URL+"/callback", []string{"openid", "email"},
		rp.WithCookieHandler(cookies), rp.WithPKCE(cookies))
	if err != nil {
		t.Fatal(err)
	}
	type login struct {
		info   *oidc.UserInfo
		tokens *oidc.Tokens[*oidc.IDTokenClaims]
	}
	logins := make(chan login, 1)
	mux.Handle("/login", rp.AuthURLHandler(func() string { return "a state" }, party))
	mux.Handle("/callback", rp.CodeExchangeHandler(rp.UserinfoCallback(
		func(_ http.ResponseWriter, _ *http.Request, tokens *oidc.Tokens[*oidc.IDTokenClaims], _ string, _ rp.RelyingParty, info *oidc.UserInfo) {
			logins <- login{info, tokens}
		}), party))
	ada := newPerson(t)
	if r := ada.do("GET", ada.visit(app.URL+"/login", app.URL+"/callback").String(), nil); r.StatusCode != http.StatusOK {
		t.Fatalf("the application answers %s", r.Status)
	}
	got := <-logins
	if got.info.Email != email || got.tokens.IDTokenClaims.Subject != got.info.Subject {
		t.Errorf("logged in %+v", got.info)
	}
	next, err := rp.RefreshTokens[*oidc.IDTokenClaims](t.Context(), party, got.tokens.RefreshToken, "", "")
	if err != nil || next.IDTokenClaims.Subject != got.info.Subject {
		t.Errorf("refreshed: %v", err)
	}
	to, err := rp.EndSession(t.Context(), party, got.tokens.IDToken, app.URL+"/bye", "s", "", nil)
	if err != nil {
		t.Fatal(err) // which asks by itself, without the browser
	}
	if to.String() != app.URL+"/bye?state=s" {
		t.Errorf("after the logout: %s", to)
	}
}
