package api

import (
	"net/http"
	"strings"
	"testing"

	"usher/identity"
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
func (s *stack) as(access, method, path, body string) answer {
	s.tb.Helper()
	return s.call(method, path, body, "Authorization", "Bearer "+access)
}

func (s *stack) want(a answer, status int, code identity.Code) {
	s.tb.Helper()
	if a.status != status || code != "" && a.field(s.tb, "code") != string(code) {
		s.tb.Errorf("%d %s, want %d %s", a.status, a.body, status, code)
	}
}

func TestRefreshAndLogout(t *testing.T) {
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

func TestSessions(t *testing.T) {
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
