package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
	"usher.example/server"
)

// After too many failures the answer is 429 and when to come back, for a right password too, and for
// an address that nobody has the same.
func TestASVS_6_3_1_6_3_8_ThrottledLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true, server: func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }})
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

// A login gives tokens that nobody had before, and ends the session that it came with.
func TestASVS_7_2_4_LoginTakesThePlaceOfASession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		s.user("bob@example.org")
		again := func(email, access string) tokens {
			return s.wantTokens(s.call("POST", "/v1/auth/login", credentials(email, secret), "Authorization", "Bearer "+access))
		}
		elsewhere := s.tokens("ada@example.org")
		seen := map[string]bool{}
		var before tokens
		for _, email := range []string{"ada@example.org", "ada@example.org", "bob@example.org", "ada@example.org"} {
			next := again(email, before.access)
			if seen[next.access] || seen[next.refresh] {
				t.Error("a login gave a token again")
			}
			seen[next.access], seen[next.refresh] = true, true
			if before.access != "" {
				s.want(s.as(before.access, "GET", "/v1/me", ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
				s.want(s.call("POST", "/v1/auth/refresh", body("refresh_token", before.refresh)), http.StatusUnauthorized, identity.CodeInvalidRefresh)
			}
			before = next
		}
		s.want(s.call("POST", "/v1/auth/login", credentials("ada@example.org", "not it at all"), "Authorization", "Bearer "+before.access),
			http.StatusUnauthorized, identity.CodeInvalidCredentials)
		s.want(s.as(before.access, "GET", "/v1/me", ""), http.StatusOK, "")
		s.want(s.as(elsewhere.access, "GET", "/v1/me", ""), http.StatusOK, "")
		again("ada@example.org", "no token")
		if n := strings.Count(s.as(elsewhere.access, "GET", "/v1/me/sessions", "").body, `"current":`); n != 3 {
			t.Errorf("%d sessions, want three", n)
		}
	})
}

// A network that asks too often is refused, and others are not.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		now := time.Now()
		limits := func(c *server.Config) { c.RateLimits, c.Now = true, func() time.Time { return now } }
		s := newStack(t, db, options{document: true, server: limits})
		behind := newStack(t, db, options{document: true, server: func(c *server.Config) {
			limits(c)
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		}})
		open := newStack(t, db, options{document: true})
		verify := func(s *stack, from string) answer {
			return s.call("POST", "/v1/auth/verify-email", body("code", "WRONG"), "X-Forwarded-For", from)
		}
		for n := range quotaCode.Burst {
			for _, s := range []*stack{s, behind, open} {
				if a := verify(s, "2001:db8:1:2::"+fmt.Sprintf("%x", n)); a.status != http.StatusUnprocessableEntity {
					t.Fatalf("request %d: %d %s", n, a.status, a.body)
				}
			}
		}
		for _, c := range []struct {
			name  string
			stack *stack
			from  string
			want  int
		}{
			{"too often", s, "2001:db8:1:2::1", http.StatusTooManyRequests},
			{"another client of a proxy that nobody has named", s, "203.0.113.7", http.StatusUnprocessableEntity},
			{"too often, through a proxy", behind, "2001:db8:1:2:3:4:5:6", http.StatusTooManyRequests},
			{"another network, through the same proxy", behind, "2001:db8:1:3::1", http.StatusUnprocessableEntity},
			{"limits are off", open, "2001:db8:1:2::1", http.StatusUnprocessableEntity},
		} {
			a := verify(c.stack, c.from)
			if a.status != c.want {
				t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, c.want)
			}
			if c.want == http.StatusTooManyRequests && (a.field(t, "code") != string(server.CodeRateLimited) || a.header.Get("Retry-After") != "1") {
				t.Errorf("%s: %s, Retry-After %q, want rate_limited for 1 s", c.name, a.body, a.header.Get("Retry-After"))
			}
		}
		// Logging out by a refresh token counts as all else does, for who is behind a proxy that nobody has named.
		for range quotaRefresh.Burst {
			r := httptest.NewRequest("POST", "/v1/auth/refresh", nil)
			r.RemoteAddr = "127.0.0.1:1"
			s.server.ServeHTTP(httptest.NewRecorder(), r)
		}
		s.want(s.call("POST", "/v1/auth/logout", body("refresh_token", "none"), "X-Forwarded-For", "203.0.113.7"), http.StatusUnauthorized, identity.CodeInvalidRefresh)
		families, err := s.server.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counted := ""
		for _, f := range families {
			if f.GetName() == "usher_rate_limited_total" {
				counted = f.String()
			}
		}
		if !strings.Contains(counted, "/v1/auth/verify-email") || !strings.Contains(counted, "value:1") {
			t.Errorf("usher_rate_limited_total: %s, want one of the route", counted)
		}
	})
}

// What a user changes is bounded for the user, on whatever network; what is read is not, and administrators have more.
func TestChangesOfAUserAreLimited(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newStack(t, openSQLite(t), options{document: true, server: func(c *server.Config) { c.RateLimits, c.Now = true, func() time.Time { return now } }})
	s.user("ada@example.org")
	s.user("bob@example.org")
	ada, bob := s.login("ada@example.org"), s.login("bob@example.org")
	change := func(access string) answer { return s.as(access, "PATCH", "/v1/me", body("name", "Ada")) }
	for n := range server.QuotaChange.Burst {
		if a := change(ada); a.status != http.StatusOK {
			t.Fatalf("change %d: %d %s", n, a.status, a.body)
		}
	}
	a := change(ada)
	s.want(a, http.StatusTooManyRequests, server.CodeRateLimited)
	if after := a.header.Get("Retry-After"); after != "1" {
		t.Errorf("Retry-After: %q, want 1", after)
	}
	s.want(s.as(ada, "DELETE", "/v1/me", body("current_password", string(secret))), http.StatusTooManyRequests, server.CodeRateLimited)
	s.want(s.as(ada, "GET", "/v1/me", ""), http.StatusOK, "")
	s.want(change(bob), http.StatusOK, "")
	now = now.Add(time.Second)
	s.want(change(ada), http.StatusOK, "")
}

// Hundreds of registrations and logins in a row are nothing out of the ordinary for somebody who tries usher out.
func TestRateLimitsLeaveRoom(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{
			identity: func(c *identity.Config) { c.RateLimits = true },
			server:   func(c *server.Config) { c.RateLimits = true },
		})
		for n := range 200 {
			email := fmt.Sprintf("user%d@example.org", n)
			s.want(s.call("POST", "/v1/auth/register", credentials(email, secret)), http.StatusCreated, "")
			for range 2 {
				s.wantTokens(s.call("POST", "/v1/auth/login", credentials(email, secret)))
			}
		}
	})
}

// What is recorded of a client is its own address, not that of a proxy, nor one that it made up.
func TestClientAddressIsRecorded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		for proxy, want := range map[string]string{"127.0.0.1/32": "203.0.113.7", "10.0.0.0/8": "127.0.0.1"} {
			s := newStack(t, db, options{server: func(c *server.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(proxy)} }})
			email := fmt.Sprintf("user@%s.example.org", strings.NewReplacer(".", "-", "/", "-").Replace(proxy))
			s.user(email)
			a := s.call("POST", "/v1/auth/login", credentials(email, secret), "X-Forwarded-For", "198.51.100.1, 203.0.113.7", "X-Real-Ip", "198.51.100.2")
			list := s.as(s.wantTokens(a).access, "GET", "/v1/me/sessions", "")
			if got := list.field(t, "items", "0", "address"); got != want {
				t.Errorf("behind %s: address %q, want %q", proxy, got, want)
			}
		}
	})
}
