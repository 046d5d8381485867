package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/identity/password"
)

// A user who knows the present password sets another, and every other session ends.
func TestASVS_6_2_2_6_2_3_7_4_3_ChangePassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, elsewhere := loggedIn(t, d, nil)
		here := mustLogin(t, s)
		u := here.User
		reset := mustCode(t, s, u.ID, PurposeReset)
		d.appendTo(t, s, u.ID, emailWanted("eve@example.org"))
		email := mustCode(t, s, u.ID, PurposeEmail)
		before := len(d.events(t, s))
		change := func(present, next password.Password) (int64, error) {
			set, err := s.ChangePassword(t.Context(), PasswordChange{User: u.ID, Session: here.Session, Proof: Proof{Password: present}, New: next})
			return set.Position, err
		}
		for _, c := range []struct {
			present, next password.Password
			want          error
		}{
			{secret, "short", ErrPasswordRefused},
			{secret, "Ada@example.org", ErrPasswordRefused},
			{"wrong", "short", ErrPasswordRefused}, // which tells nothing of the present one
			{"wrong password", other, ErrInvalidCredentials},
			{"", other, ErrInvalidCredentials},
		} {
			if _, err := change(c.present, c.next); !errors.Is(err, c.want) {
				t.Errorf("ChangePassword() = %v, want %v", err, c.want)
			}
		}
		position, err := change(secret, other)
		if err != nil {
			t.Fatal(err)
		}
		events := d.events(t, s)
		if diff := cmp.Diff([]string{TypeUserPasswordChanged, TypeSessionEnded}, types(events[before:])); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if p, err := Decode[PasswordChanged](events[before]); err != nil || p.Reason != ReasonChange || p.Session != here.Session {
			t.Errorf("password changed: %+v, %v", p, err)
		}
		if last := events[len(events)-1].Position; position != last {
			t.Errorf("position %d, want %d", position, last)
		}
		wantRefused(t, s, "another session", elsewhere.Refresh)
		mustRefresh(t, s, here.Refresh)
		if err := s.logsIn(t, "ada@example.org", secret); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("Login() with the password before = %v, want %v", err, ErrInvalidCredentials)
		}
		if err := s.logsIn(t, "ada@example.org", other); err != nil {
			t.Errorf("Login() with the new password = %v", err)
		}
		// What somebody who knew the password before may have begun comes to nothing.
		if err := s.reset(t, reset, secret); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("ResetPassword() with a code from before = %v, want %v", err, ErrInvalidCode)
		}
		if err := s.verified(t, email); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("Verify() of an address that was wanted before = %v, want %v", err, ErrInvalidCode)
		}
	})
}

// Of many who know the password and change it at once, in two processes, one does.
func TestASVS_2_3_4_ChangePasswordAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		u := mustRegister(t, services[0], "ada@example.org")
		errs := make([]error, 20)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				next := password.Password(fmt.Sprintf("%s %d", string(other), i))
				_, errs[i] = services[i%2].ChangePassword(context.WithoutCancel(t.Context()), PasswordChange{User: u.ID, Proof: Proof{Password: secret}, New: next})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrThrottled):
				t.Errorf("ChangePassword() = %v", err)
			}
		}
		if won != 1 {
			t.Errorf("the password was changed %d times, want once", won)
		}
	})
}

func TestPasswordHistory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		policy, err := password.NewPolicy(password.PolicyConfig{History: 3})
		if err != nil {
			t.Fatal(err)
		}
		s := d.service(t, func(c *Config) { c.Policy = policy })
		u := mustRegister(t, s, "ada@example.org")
		d.appendTo(t, s, u.ID, verifyEmail(*u)[0])
		reset := func(p password.Password) error {
			t.Helper()
			return s.reset(t, mustCode(t, s, u.ID, PurposeReset), p)
		}
		wantReused := func(p password.Password) {
			t.Helper()
			if err := reset(p); !errors.Is(err, ErrPasswordRefused) || !strings.Contains(err.Error(), "used before") {
				t.Errorf("ResetPassword() to an earlier one = %v, want %v", err, ErrPasswordRefused)
			}
		}
		passwords := []password.Password{secret, "the second of four", "the third in a row", "number four at last"}
		for i, p := range passwords {
			if i > 0 {
				if err := reset(p); err != nil {
					t.Fatal(err)
				}
			}
			for _, earlier := range passwords[max(0, i-2) : i+1] {
				wantReused(earlier)
			}
		}
		if c, err := s.readCredential(t.Context(), u.ID); err != nil || len(c.history) != 2 {
			t.Errorf("%d earlier hashes are kept, %v, want 2", len(c.history), err)
		}
		if err := reset(passwords[0]); err != nil {
			t.Errorf("ResetPassword() to one of long ago = %v", err)
		}
		// The same password under another hash is no other password.
		before, err := s.readCredential(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		rehashing := d.service(t, func(c *Config) { c.Policy, c.Passwords = policy, pool(t, 5) })
		if err := rehashing.logsIn(t, "ada@example.org", passwords[0]); err != nil {
			t.Fatal(err)
		}
		after, err := s.readCredential(t.Context(), u.ID)
		if err != nil || after.hash == before.hash || !after.changed.Equal(before.changed) {
			t.Errorf("after a rehash: changed at %v, %v, want another hash and %v", after.changed, err, before.changed)
		}
		if diff := cmp.Diff(before.history, after.history); diff != "" {
			t.Errorf("a rehash changed the history")
		}
		wantReused(passwords[0])
		wantReused(passwords[3])
	})
}

// A password that is too old is good for no login, and only who knows it is told; a reset is the way out.
func TestPasswordMaxAge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now, c.PasswordMaxAge = at.Now, 90*24*time.Hour })
		u := mustRegister(t, s, "ada@example.org")
		at.add(89 * 24 * time.Hour)
		if err := s.logsIn(t, "ada@example.org", secret); err != nil {
			t.Errorf("Login() on the last day = %v", err)
		}
		at.add(2 * 24 * time.Hour)
		if err := s.logsIn(t, "ada@example.org", secret); !errors.Is(err, ErrPasswordExpired) {
			t.Errorf("Login() after that = %v, want %v", err, ErrPasswordExpired)
		}
		if err := s.logsIn(t, "ada@example.org", "wrong password"); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("Login() with a wrong one = %v, want %v", err, ErrInvalidCredentials)
		}
		if err := s.reset(t, mustCode(t, s, u.ID, PurposeReset), other); err != nil {
			t.Fatal(err)
		}
		if err := s.logsIn(t, "ada@example.org", other); err != nil {
			t.Errorf("Login() after a reset = %v", err)
		}
		d.appendTo(t, s, u.ID, Locked{})
		at.add(100 * 24 * time.Hour)
		if err := s.logsIn(t, "ada@example.org", other); !errors.Is(err, ErrUserLocked) {
			t.Errorf("Login() of a locked user = %v, want %v", err, ErrUserLocked)
		}
	})
}

// An administrator sets a password without the present one: it logs in at once, whatever was guessed before, no session goes on,
// and no code that was mailed before is good.
func TestSetPassword(t *testing.T) {
	t.Parallel()
	const next = password.Password("set by an operator")
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		ada := mustRegister(t, s, "ada@example.org").ID
		in, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		for range accountFree {
			if err := s.logsIn(t, "ada@example.org", "a wrong guess"); err == nil {
				t.Fatal("a guess logs in")
			}
		}
		result, err := s.SetPassword(t.Context(), ada, next, byAdmin)
		if err != nil || result.Unchanged || result.Position == 0 {
			t.Fatalf("SetPassword = %+v, %v", result, err)
		}
		if err := s.logsIn(t, "ada@example.org", next); err != nil {
			t.Errorf("login with the new password: %v", err)
		}
		if err := s.logsIn(t, "ada@example.org", secret); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("login with the password before = %v, want ErrInvalidCredentials", err)
		}
		if _, err := s.Refresh(t.Context(), in.Refresh, byAdmin); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("refresh of a session from before = %v, want ErrInvalidRefreshToken", err)
		}
		if _, err := s.SetPassword(t.Context(), ada, "short", byAdmin); !errors.Is(err, ErrPasswordRefused) {
			t.Errorf("a weak password = %v, want ErrPasswordRefused", err)
		}
	})
}
