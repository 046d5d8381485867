package oidc

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
)

// television registers an application for devices: a public one of ours, but for what change says.
func (s *stack) television(change func(*identity.ClientSettings)) app {
	s.tb.Helper()
	return s.app(func(c *identity.ClientSettings) {
		*c = identity.ClientSettings{Name: c.Name, FirstParty: true, Authentication: client.AuthenticationNone, Grants: []string{client.GrantDevice, client.GrantRefresh}}
		if change != nil {
			change(c)
		}
	})
}

// asks has a device ask, as the client.
func (s *stack) asks(a app, more ...string) reply {
	s.tb.Helper()
	form := url.Values{"client_id": {a.ID.String()}}
	if a.secret != "" {
		form.Set("client_secret", a.secret)
	}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.post(nil, pathDevice, form)
}

func (r reply) asked() (d deviceAsked) {
	r.tb.Helper()
	if err := json.Unmarshal([]byte(r.body), &d); err != nil || r.status != http.StatusOK {
		r.tb.Fatalf("answer %d %s, want codes", r.status, r.body)
	}
	return d
}

func (s *stack) poll(a app, d deviceAsked, more ...string) reply {
	s.tb.Helper()
	return s.token(a, append([]string{"grant_type", client.GrantDevice, "device_code", d.DeviceCode}, more...)...)
}

// answers says yes or no to a device, as the page does.
func (b *browser) answers(d deviceAsked, allow bool) {
	b.tb.Helper()
	code, ok := identity.ParseUserCode(d.UserCode)
	if !ok {
		b.tb.Fatalf("%q is no code", d.UserCode)
	}
	err := b.identity.AnswerDevice(b.tb.Context(), code, identity.DeviceAnswer{User: b.login.User.ID, Session: b.login.Session, Methods: []string{identity.MethodPassword}, Allow: allow})
	if err != nil {
		b.tb.Fatal(err)
	}
}

func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		of := newShared(t)
		s, other := newProcess(t, db, of), newProcess(t, db, of)
		ada := s.user("ada@example.org")
		tv := s.television(nil)
		d := s.asks(tv, "scope", "openid email").asked()
		if !regexp.MustCompile(`^[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}$`).MatchString(d.UserCode) || d.Page != issuerName+"/device" || d.Complete != d.Page+"?user_code="+d.UserCode || d.ExpiresIn != 600 || d.Interval != 5 {
			t.Errorf("the codes: %+v", d)
		}
		s.poll(tv, d).wantError("before any answer", http.StatusBadRequest, authorizationPending)
		other.poll(tv, d).wantError("too soon, elsewhere", http.StatusBadRequest, slowDown)
		ada.answers(d, true)
		first := other.poll(tv, d).granted()
		if first.RefreshToken == "" || first.IDToken == "" || first.Scope != "email openid" {
			t.Errorf("granted: %+v", first)
		}
		_, id := claims(t, first.IDToken)
		if id["sub"] != ada.login.User.ID.String() || id["aud"] != tv.ID.String() || id["email"] != "ada@example.org" || id["auth_time"] == nil || id["amr"] == nil {
			t.Errorf("the ID token: %v", id)
		}
		if got := s.bearer(pathUserinfo, first.AccessToken); got.status != http.StatusOK || !strings.Contains(got.body, "ada@example.org") {
			t.Errorf("userinfo: %d %s", got.status, got.body)
		}
		s.poll(tv, d).wantError("once more", http.StatusBadRequest, invalidGrant)
		s.refresh(tv, first.RefreshToken).granted()
		events, err := s.log.ReadAll(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if last := events[len(events)-1]; last.Type != identity.TypeSessionGranted || last.Metadata.Actor != identity.ActorDelegated(ada.login.User.ID, tv.ID) {
			t.Errorf("the last event is %s of %s", last.Type, last.Metadata.Actor)
		}
		// It goes on when the browser is logged out, and ends with all sessions.
		if _, err := s.identity.EndSession(t.Context(), ada.login.User.ID, ada.login.Session, identity.EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if got := s.bearer(pathUserinfo, first.AccessToken); got.status != http.StatusOK {
			t.Errorf("userinfo after the browser was logged out: %d %s", got.status, got.body)
		}
		if _, err := s.identity.RevokeSessions(t.Context(), ada.login.User.ID, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if got := s.bearer(pathUserinfo, first.AccessToken); got.status != http.StatusUnauthorized {
			t.Errorf("userinfo after all sessions were ended: %d %s", got.status, got.body)
		}
	})
}

func TestDeviceIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t))
	ada := s.user("ada@example.org")
	tv, shop := s.television(nil), s.app(nil)
	keeps := s.television(func(c *identity.ClientSettings) { c.Authentication = client.AuthenticationPost })
	s.asks(shop).wantError("a client without the grant", http.StatusBadRequest, unauthorizedClient)
	s.asks(app{}).wantError("no client", http.StatusUnauthorized, "invalid_client")
	s.asks(app{keeps.Client, ""}).wantError("no secret", http.StatusUnauthorized, "invalid_client")
	s.asks(app{keeps.Client, keeps.secret + "x"}).wantError("a wrong secret", http.StatusUnauthorized, "invalid_client")
	s.asks(tv, "scope", "users:write").wantError("a scope that the client has not", http.StatusBadRequest, invalidScope)
	s.asks(tv, "resource", "https://other.example").wantError("another resource", http.StatusBadRequest, invalidTarget)

	d := s.asks(keeps).asked()
	s.token(keeps, "grant_type", client.GrantDevice).wantError("no code", http.StatusBadRequest, invalidRequest)
	s.poll(tv, d).wantError("the code of another client", http.StatusBadRequest, invalidGrant)
	s.poll(keeps, deviceAsked{DeviceCode: d.DeviceCode + "x"}).wantError("a code that is none", http.StatusBadRequest, invalidGrant)
	s.poll(keeps, deviceAsked{DeviceCode: d.UserCode}).wantError("the user code", http.StatusBadRequest, invalidGrant)
	s.poll(app{keeps.Client, ""}, d).wantError("no secret", http.StatusUnauthorized, "invalid_client")
	s.poll(keeps, d, "resource", "https://other.example").wantError("another resource", http.StatusBadRequest, invalidTarget)
	ada.answers(d, false)
	s.poll(keeps, d).wantError("a no", http.StatusBadRequest, accessDenied)
	s.poll(keeps, d).wantError("a no, again", http.StatusBadRequest, accessDenied)

	d = s.asks(tv).asked()
	s.forward(10 * time.Minute)
	s.poll(tv, d).wantError("late", http.StatusBadRequest, expiredToken)

	// An application of others needs a consent, which can be taken back before the device comes.
	theirs := s.television(func(c *identity.ClientSettings) { c.FirstParty = false })
	consents := func(to app) {
		t.Helper()
		if _, err := s.identity.GiveConsent(t.Context(), ada.login.User.ID, to.ID.String(), []string{"openid"}, eventstore.Metadata{Correlation: uuid.New()}); err != nil {
			t.Fatal(err)
		}
	}
	ada = s.logIn("ada@example.org")
	d = s.asks(theirs).asked()
	ada.answers(d, true)
	s.poll(theirs, d).wantError("without a consent", http.StatusBadRequest, accessDenied)
	d = s.asks(theirs).asked()
	consents(theirs)
	ada.answers(d, true)
	s.poll(theirs, d).granted()
}
