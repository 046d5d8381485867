package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"usher.example/identity"
	"usher.example/internal/devstack"
)

// tokens are what a login and a refresh give.
type tokens struct{ access, refresh string }

func (s *stack) tokens(email string) tokens {
	s.tb.Helper()
	return s.wantTokens(s.call("POST", "/v1/auth/login", credentials(email, secret)))
}

func (s *stack) wantTokens(a answer) tokens {
	s.tb.Helper()
	if a.status != http.StatusOK {
		s.tb.Fatalf("%d %s, want tokens", a.status, a.body)
	}
	return tokens{a.field(s.tb, "access_token"), a.field(s.tb, "refresh_token")}
}

// as calls with an access token.
func (s *stack) as(access, method, path, body string, headers ...string) answer {
	s.tb.Helper()
	return s.call(method, path, body, append(headers, "Authorization", "Bearer "+access)...)
}

// want fails the test unless a request was answered like that, and passes the answer on.
func (s *stack) want(a answer, status int, code identity.Code) answer {
	s.tb.Helper()
	if a.status != status || code != "" && a.field(s.tb, "code") != string(code) {
		s.tb.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
	}
	return a
}

// After a logout none of the session's tokens is of any use.
func TestASVS_7_4_1_LogoutEndsTheSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		first := s.tokens("ada@example.org")
		second := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", first.refresh)))
		if second.refresh == first.refresh || second.access == first.access {
			t.Error("a refresh gave a token again")
		}
		again := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", first.refresh)))
		if again.refresh != second.refresh {
			t.Error("a repeated refresh gave another successor")
		}
		for _, access := range []string{first.access, second.access, again.access} {
			s.want(s.as(access, "GET", "/v1/me", ""), http.StatusOK, "")
		}
		s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", "no token")), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(s.call("POST", "/v1/auth/refresh", ""), http.StatusBadRequest, identity.CodeInvalidRequest)

		a := s.as(first.access, "POST", "/v1/auth/logout", "")
		s.want(a, http.StatusNoContent, "")
		if a.header.Get("Usher-Position") == "" {
			t.Error("logout answers without a position")
		}
		for _, access := range []string{first.access, second.access, again.access} {
			s.want(s.as(access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		}
		s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", again.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(s.as(first.access, "POST", "/v1/auth/logout", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.want(s.call("POST", "/v1/auth/logout", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	})
}

// Whoever has been away for so long that the access token has expired logs out with the refresh token, of whatever age, and
// any number of times.
func TestLogoutWithTheRefreshToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		ada := s.user("ada@example.org")
		first, other := s.tokens("ada@example.org"), s.tokens("ada@example.org")
		second := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", first.refresh)))
		with := func(refresh string, headers ...string) answer {
			return s.call("POST", "/v1/auth/logout", body("refresh_token", refresh), headers...)
		}
		s.want(with("no token"), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(with(first.refresh[:len(first.refresh)-1]), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(s.as(first.access, "GET", "/v1/me", ""), http.StatusOK, "")

		before := s.head()
		s.want(with(first.refresh, "Authorization", "Bearer expired"), http.StatusNoContent, "")
		events, err := s.log.ReadAll(t.Context(), before, 10)
		if err != nil || len(events) != 1 || events[0].Type != identity.TypeSessionEnded || events[0].Metadata.Actor != identity.ActorUser(ada) {
			t.Errorf("events %+v, %v, want the end of the session by its user", events, err)
		}
		s.want(s.as(second.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", second.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(with(second.refresh), http.StatusNoContent, "")
		s.want(s.as(other.access, "GET", "/v1/me", ""), http.StatusOK, "")

		// The refresh token says which session, also beside an access token of another.
		third := s.tokens("ada@example.org")
		s.want(with(third.refresh, "Authorization", "Bearer "+other.access), http.StatusNoContent, "")
		s.want(s.as(third.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.want(s.as(other.access, "GET", "/v1/me", ""), http.StatusOK, "")
	})
}

func TestReuseEndsTheSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		stolen := s.tokens("ada@example.org")
		next := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", stolen.refresh)))
		newest := s.wantTokens(s.call("POST", "/v1/auth/refresh", body("refresh_token", next.refresh)))
		s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", stolen.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		s.want(s.as(newest.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	})
}

// The access token of a refresh, once it is used, shows that the reply has arrived: whoever comes late with the refresh token
// of before has a copy.
func TestUseOfARefreshIsNoted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		past := &clock{now: time.Now().Add(-time.Hour)}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Now = past.read }})
		devstack.Background(t, s.identity.RecordUses)
		s.user("ada@example.org")
		first := s.tokens("ada@example.org")
		past.add(time.Hour)
		refresh := func() answer { return s.call("POST", "/v1/auth/refresh", body("refresh_token", first.refresh)) }
		second := s.wantTokens(refresh())
		past.add(time.Minute)
		s.wantTokens(refresh())
		s.want(s.as(second.access, "GET", "/v1/me", ""), http.StatusOK, "")
		devstack.Eventually(t, "the use is noted", func() bool { return refresh().status == http.StatusUnauthorized })
		s.want(s.as(second.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	})
}

// Users see their sessions and end any or all of them.
func TestASVS_7_5_2_UsersSeeAndEndTheirSessions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		s.user("bob@example.org")
		here, there, bob := s.tokens("ada@example.org"), s.tokens("ada@example.org"), s.tokens("bob@example.org")
		a := s.as(here.access, "GET", "/v1/me/sessions", "")
		s.want(a, http.StatusOK, "")
		if n := strings.Count(a.body, `"user_agent":"Go-http-client/1.1","address":"127.0.0.1"`); n != 2 || strings.Count(a.body, `"current":true`) != 1 {
			t.Errorf("sessions = %s, want two, one of them the current one", a.body)
		}
		other := a.field(t, "items", "0", "id")
		if a.field(t, "items", "0", "current") == "true" {
			other = a.field(t, "items", "1", "id")
		}
		s.want(s.as(bob.access, "DELETE", "/v1/me/sessions/"+other, ""), http.StatusNotFound, identity.CodeNotFound)
		s.want(s.as(there.access, "GET", "/v1/me", ""), http.StatusOK, "")
		s.want(s.as(here.access, "DELETE", "/v1/me/sessions/"+other, ""), http.StatusNoContent, "")
		s.want(s.as(there.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		s.want(s.as(here.access, "DELETE", "/v1/me/sessions/"+other, ""), http.StatusNotFound, identity.CodeNotFound)
		s.want(s.as(here.access, "DELETE", "/v1/me/sessions/none", ""), http.StatusNotFound, identity.CodeNotFound)

		more := s.tokens("ada@example.org")
		s.want(s.as(here.access, "POST", "/v1/auth/logout-all", ""), http.StatusNoContent, "")
		for _, access := range []string{here.access, more.access} {
			s.want(s.as(access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
		}
		s.want(s.as(bob.access, "GET", "/v1/me", ""), http.StatusOK, "")
	})
}

// A session that began a while ago is not enough to end the others: it takes the password.
func TestASVS_7_5_2_OldSessionsEndOthersWithThePassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		now := &clock{now: time.Now()}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Now = now.read }})
		s.user("ada@example.org")
		other := func() string {
			return s.as(s.tokens("ada@example.org").access, "GET", "/v1/me/sessions", "").field(t, "items", "0", "id")
		}
		old := s.tokens("ada@example.org")
		now.add(14 * time.Minute)
		s.want(s.as(old.access, "DELETE", "/v1/me/sessions/"+other(), ""), http.StatusNoContent, "")
		now.add(2 * time.Minute)
		for _, call := range []struct{ method, path string }{{"DELETE", "/v1/me/sessions/" + other()}, {"POST", "/v1/auth/logout-all"}} {
			s.want(s.as(old.access, call.method, call.path, ""), http.StatusBadRequest, identity.CodeInvalidRequest)
			s.want(s.as(old.access, call.method, call.path, body("current_password", "not it at all")), http.StatusUnauthorized, identity.CodeInvalidCredentials)
			s.want(s.as(old.access, call.method, call.path, body("current_password", secret)), http.StatusNoContent, "")
		}
		// For its own end it is enough.
		last := s.tokens("ada@example.org")
		own := s.as(last.access, "GET", "/v1/me/sessions", "").field(t, "items", "0", "id")
		now.add(time.Hour)
		s.want(s.as(last.access, "DELETE", "/v1/me/sessions/"+own, ""), http.StatusNoContent, "")
	})
}

// When an account is locked, disabled or erased, all its sessions end.
func TestASVS_7_4_2_ClosedAccountHasNoSessions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		admin := s.administrator()
		for name, call := range map[string]struct{ method, path string }{
			"lock": {"POST", "/lock"}, "disable": {"POST", "/disable"}, "erase": {"DELETE", ""},
		} {
			email := name + "@example.org"
			id := s.user(email)
			here, there := s.tokens(email), s.tokens(email)
			s.want(s.as(admin, call.method, "/v1/users/"+id.String()+call.path, ""), http.StatusNoContent, "")
			for _, ended := range []tokens{here, there} {
				s.want(s.as(ended.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
				if a := s.call("POST", "/v1/auth/refresh", body("refresh_token", ended.refresh)); a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
					t.Errorf("%s: refresh: %d %s", name, a.status, a.body)
				}
			}
		}
	})
}

// Administrators end the sessions of a user.
func TestASVS_7_4_5_AdministratorsEndSessions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		admin := s.administrator()
		ada := s.user("ada@example.org")
		s.user("bob@example.org")
		here, there, bob := s.tokens("ada@example.org"), s.tokens("ada@example.org"), s.tokens("bob@example.org")
		s.want(s.as(bob.access, "POST", "/v1/users/"+ada.String()+"/logout-all", ""), http.StatusForbidden, identity.CodeForbidden)
		s.want(s.as(admin, "POST", "/v1/users/"+ada.String()+"/logout-all", ""), http.StatusNoContent, "")
		for _, ended := range []tokens{here, there} {
			s.want(s.as(ended.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
			s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", ended.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		}
		s.want(s.as(bob.access, "GET", "/v1/me", ""), http.StatusOK, "")
		s.want(s.as(s.tokens("ada@example.org").access, "GET", "/v1/me", ""), http.StatusOK, "")
	})
}

// administrator makes an administrator, and answers with an access token.
func (s *stack) administrator() string {
	s.tb.Helper()
	if _, _, err := s.identity.EnsureAdmin(s.tb.Context(), "root@example.org", secret); err != nil {
		s.tb.Fatal(err)
	}
	return s.tokens("root@example.org").access
}
