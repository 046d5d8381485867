package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"usher.example/identity"
	"usher.example/server"
)

// The device of a login is given out, taken back, and is for its user: who comes from there gets in past the guesses of
// strangers. A reset gives its device one as well.
func TestUsherDevice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		first := s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret))
		tokens := s.wantTokens(first)
		phone := first.header.Get("Usher-Device")
		if phone == "" {
			t.Fatal("a login gives out no device")
		}
		for range 4 {
			s.want(s.call("POST", "/v1/auth/login", credentials("ada@example.org", "wrong password")), http.StatusUnauthorized, identity.CodeInvalidCredentials)
		}
		s.want(s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret)), http.StatusTooManyRequests, identity.CodeThrottled)
		again := s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret), "Usher-Device", phone)
		s.wantTokens(again)
		if got := again.header.Get("Usher-Device"); got != phone {
			t.Error("a device that is known is given another token")
		}
		// A session is not kept from what it may do, and the password that is changed in it gives the device another token.
		changed := s.as(tokens.access, "POST", "/v1/me/password", body("current_password", secret, "new_password", "another good password"))
		s.want(changed, http.StatusNoContent, "")
		next := changed.header.Get("Usher-Device")
		for range 4 {
			s.want(s.call("POST", "/v1/auth/login", credentials("ada@example.org", "wrong password"), "Usher-Device", phone), http.StatusUnauthorized, identity.CodeInvalidCredentials)
		}
		s.want(s.call("POST", "/v1/auth/login", credentials("ada@example.org", "another good password"), "Usher-Device", phone), http.StatusTooManyRequests, identity.CodeThrottled)
		s.wantTokens(s.call("POST", "/v1/auth/login", credentials("ada@example.org", "another good password"), "Usher-Device", next))
	})
}

// Administrators see who is throttled, and for what; others don't, nor does a look at the past.
func TestThrottleIsShown(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	ada := s.user("ada@example.org")
	s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
	admin, self := s.login("admin@example.org"), s.login("ada@example.org")
	for range 4 {
		s.call("POST", "/v1/auth/login", credentials("ada@example.org", "wrong password"))
	}
	var shown struct {
		Email    string                `json:"email"`
		Throttle []identity.Throttling `json:"throttle"`
	}
	a := s.as(admin, "GET", "/v1/users/"+ada.String(), "")
	if err := json.Unmarshal([]byte(a.body), &shown); err != nil || shown.Email != "ada@example.org" {
		t.Fatalf("%v: %s", err, a.body)
	}
	if len(shown.Throttle) != 1 || shown.Throttle[0].Counted != "login" || shown.Throttle[0].Failures != 4 || shown.Throttle[0].Until == nil {
		t.Errorf("throttle: %s", a.body)
	}
	for _, a := range []answer{s.as(self, "GET", "/v1/me", ""), s.as(admin, "GET", fmt.Sprintf("/v1/users/%s?at=%d", ada, s.head()), "")} {
		var other map[string]any
		if err := json.Unmarshal([]byte(a.body), &other); err != nil || other["email"] != "ada@example.org" || other["throttle"] != nil {
			t.Errorf("%v: %s", err, a.body)
		}
	}
	s.want(s.as(admin, "POST", "/v1/users/"+ada.String()+"/unlock", ""), http.StatusNoContent, "")
	s.wantTokens(s.call("POST", "/v1/auth/login", credentials("ada@example.org", secret)))
}

// Administrators find who is throttled, a page after the other, without a read model.
func TestThrottledUsersAreListed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		admin := s.admin()
		s.user("cleo@example.org")
		for _, name := range []string{"ada", "bob"} {
			s.user(name + "@example.org")
		}
		for _, name := range []string{"ada", "bob", "nobody"} {
			for range 4 {
				s.call("POST", "/v1/auth/login", credentials(name+"@example.org", "wrong password"))
			}
		}
		type listed struct {
			Items []struct {
				Email    string                `json:"email"`
				Throttle []identity.Throttling `json:"throttle"`
			} `json:"items"`
			Next   string `json:"next_cursor"`
			Nobody *int   `json:"unknown_addresses"`
		}
		var got []string
		for cursor := ""; ; {
			a := s.as(admin, "GET", "/v1/users?throttled=true&limit=1"+cursor, "")
			var l listed
			if err := json.Unmarshal([]byte(a.body), &l); err != nil || a.status != http.StatusOK || len(l.Items) != 1 || l.Nobody == nil || *l.Nobody != 1 {
				t.Fatalf("%v: %v", err, a)
			}
			got = append(got, l.Items[0].Email)
			if why := l.Items[0].Throttle; len(why) != 1 || why[0].Counted != "login" || why[0].Failures != 4 || why[0].Since.IsZero() || why[0].Until == nil {
				t.Errorf("why: %s", a.body)
			}
			if l.Next == "" {
				break
			}
			cursor = "&cursor=" + l.Next
		}
		if want := []string{"ada@example.org", "bob@example.org"}; !slices.Equal(got, want) {
			t.Errorf("throttled are %q, want %q", got, want)
		}
		if a := s.as(admin, "GET", "/v1/users?email=ada@example.org", ""); strings.Contains(a.body, "unknown_addresses") || strings.Contains(a.body, `"throttle"`) {
			t.Errorf("users by address: %s", a.body)
		}
	})
}

// Who may ask for the throttled users, and how.
var throttledScenarios = []scenario{
	{name: "throttled, of which there are none", path: "/v1/users?throttled=true", as: "admin", status: 200, has: []string{`"items":[`, `"unknown_addresses":`}, lacks: []string{"{ada}"}},
	{name: "throttled, ahead of the log", path: "/v1/users?throttled=true", as: "admin", headers: []string{"Usher-Min-Position", "99999999"}, status: 503, code: identity.CodeBehind},
	{name: "throttled, for users", path: "/v1/users?throttled=true", as: "ada", status: 403, code: identity.CodeForbidden},
	{name: "throttled, for nobody", path: "/v1/users?throttled=true", status: 401, code: identity.CodeUnauthenticated},
	{name: "not throttled", path: "/v1/users?throttled=false", as: "admin", status: 400, code: identity.CodeInvalidRequest, has: []string{"left out"}},
	{name: "throttled, and a status", path: "/v1/users?throttled=true&status=active", as: "admin", status: 400, code: identity.CodeInvalidRequest, has: []string{`\"status\"`}},
	{name: "throttled, too many", path: "/v1/users?throttled=true&limit=201", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "throttled, a cursor of none", path: "/v1/users?throttled=true&cursor=AAFrZ2F3c2VjcmV0LWN1cnNvcg", as: "admin", status: 400, code: server.CodeInvalidCursor},
}
