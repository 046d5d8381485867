package api

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
	"usher.example/server"
)

// keyed calls with an idempotency key, and maybe an access token.
func (s *stack) keyed(key, path, body, access string) answer {
	s.tb.Helper()
	headers := []string{"Idempotency-Key", key}
	if access != "" {
		headers = append(headers, "Authorization", "Bearer "+access)
	}
	return s.call("POST", path, body, headers...)
}

// wantReplay makes a request, and again as if its answer had been lost: it is done once, and answered in the same way.
func (s *stack) wantReplay(path, body, access string, status int, events ...string) {
	s.tb.Helper()
	before := s.head()
	key := "key of " + path
	key = strings.ReplaceAll(key, " ", "-")
	for range 2 {
		if a := s.keyed(key, path, body, access); a.status != status {
			s.tb.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
		if diff := cmp.Diff(events, s.typesAfter(before)); diff != "" {
			s.tb.Errorf("%s: events (-want +got):\n%s", path, diff)
		}
	}
}

func TestRepeatedRequests(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		now := &clock{now: time.Now()}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Now = now.read }})
		ada := s.user("ada@example.org")
		access := s.login("ada@example.org")

		s.wantReplay(resend, "", access, http.StatusAccepted, "user.email_verification_requested")
		if a := s.keyed("another", resend, "", access); a.status != http.StatusTooManyRequests {
			t.Errorf("another key: %d %s, want 429", a.status, a.body)
		}
		for _, path := range []string{resend, forgot} {
			now.add(2 * time.Minute) // between two mails that are asked for
			before := s.head()
			for range 2 {
				s.keyed("k", path, body("email", "ada@example.org"), "")
				now.add(2 * time.Minute)
			}
			s.keyed("k", path, body("email", "ADA@example.org"), "") // which is another request
			if n := len(s.typesAfter(before)); n != 2 {
				t.Errorf("%s: %d mails asked for, want 2", path, n)
			}
		}

		verify := body("code", s.code(ada, identity.PurposeVerify))
		s.wantReplay(verifyEmail, verify, "", http.StatusNoContent, "user.email_verified")
		s.want(s.call("POST", verifyEmail, verify), http.StatusConflict, identity.CodeAlreadyDone)
		s.want(s.keyed("k", verifyEmail, verify, ""), http.StatusConflict, identity.CodeAlreadyDone)
		s.want(s.keyed("key-of-"+verifyEmail, verifyEmail, body("code", "AAAAAAAAAAAAAAAAAAAAAAAAAA"), ""), http.StatusUnprocessableEntity, "")

		code := s.code(ada, identity.PurposeReset)
		s.wantReplay(reset, body("code", code, "new_password", newSecret), "", http.StatusNoContent, "user.password_changed", "session.ended")
		s.want(s.keyed("key-of-"+reset, reset, body("code", code, "new_password", newSecret+"!"), ""), http.StatusConflict, identity.CodeAlreadyDone)
		if a := s.call("POST", login, credentials("ada@example.org", newSecret)); a.status != http.StatusOK {
			t.Errorf("login: %d %s", a.status, a.body)
		}

		// Secrets are not kept to be given out again: two logins are two.
		before := s.head()
		first, second := s.keyed("k", login, credentials("ada@example.org", newSecret), ""), s.keyed("k", login, credentials("ada@example.org", newSecret), "")
		if len(s.typesAfter(before)) != 2 || first.field(t, "access_token") == second.field(t, "access_token") {
			t.Error("a login with the same key was answered with the same tokens")
		}

		access = second.field(t, "access_token")
		s.wantReplay(ownEmail, body("current_password", newSecret, "email", "ada@example.net"), access, http.StatusAccepted, "user.email_change_requested")
		s.wantReplay(ownPassword, body("current_password", newSecret, "new_password", newSecret+"!"), access, http.StatusNoContent,
			"user.password_changed", "session.ended", "session.ended")
		if a := s.keyed("key-of-"+ownPassword, ownPassword, body("current_password", newSecret, "new_password", newSecret+"?"), access); a.status != http.StatusUnauthorized {
			t.Errorf("another password with the same key: %d %s, want 401", a.status, a.body)
		}
	})
}

// Every POST takes a key, and refuses one of a bad form.
func TestEveryPostTakesAKey(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
		t.Fatal(err)
	}
	access := s.login("admin@example.org")
	parameter := regexp.MustCompile(`\{\w+\}`)
	for path, item := range loadDocument(t).doc.Paths.Map() {
		if item.Post == nil || strings.HasPrefix(path, "/oauth2/") {
			continue
		}
		if item.Post.Parameters.GetByInAndName("header", server.HeaderIdempotencyKey) == nil {
			t.Errorf("POST %s has no %s in the document", path, server.HeaderIdempotencyKey)
		}
		before := s.head()
		for _, key := range []string{"a b", strings.Repeat("x", 256)} {
			a := s.keyed(key, parameter.ReplaceAllString(path, "0198c0de-0000-7000-8000-000000000000"), "", access)
			if a.status != http.StatusBadRequest || !strings.Contains(a.body, server.HeaderIdempotencyKey) {
				t.Errorf("POST %s with the key %.10q: %d %s, want 400", path, key, a.status, a.body)
			}
		}
		if s.head() != before {
			t.Errorf("POST %s with a bad key: %v", path, s.typesAfter(before))
		}
	}
}
