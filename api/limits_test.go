package api

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"usher/identity"
)

// ASVS 6.3.1 and 6.3.8: after too many failures the answer is 429 and when to come back, for a right password too, and for
// an address that nobody has the same.
func TestThrottledLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		var answers []answer
		for _, email := range []string{"ada@example.org", "nobody@example.org"} {
			for range 4 {
				s.want(s.call("POST", "/v1/auth/login", credentials(email, "wrong password")), http.StatusUnauthorized, identity.CodeInvalidCredentials)
			}
			a := s.call("POST", "/v1/auth/login", credentials(email, secret), "X-Request-Id", "01980000-0000-7000-8000-00000000000a")
			s.want(a, http.StatusTooManyRequests, identity.CodeThrottled)
			if after := a.header.Get("Retry-After"); after != "10" {
				t.Errorf("Retry-After: %q, want 10", after)
			}
			a.header.Del("Date")
			answers = append(answers, a)
		}
		if diff := cmp.Diff(answers[0], answers[1], cmp.AllowUnexported(answer{})); diff != "" {
			t.Errorf("the answer tells whether anybody has the address (-ada +nobody):\n%s", diff)
		}
	})
}

// ASVS 7.2.4: a login gives tokens that nobody had before.
func TestLoginGivesNewTokens(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		seen := map[string]bool{}
		var before tokens
		for range 3 {
			next := s.wantTokens(s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret), "Authorization", "Bearer "+before.access))
			if seen[next.access] || seen[next.refresh] {
				t.Error("a login gave a token again")
			}
			seen[next.access], seen[next.refresh] = true, true
			before = next
		}
	})
}
