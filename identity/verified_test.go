package identity

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// recorded has everything appended that follows failed attempts, and answers with the events of the log.
func (d *database) recorded(t *testing.T, s *Service) []string {
	t.Helper()
	devstack.Background(t, s.RecordFailures)() // it appends what waits before it ends
	return types(d.events(t, s))
}

// Where a login needs a verified address, who has none is told so, for the right password only.
func TestLoginNeedsVerifiedEmail(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.LoginNeedsVerifiedEmail = true })
		u := mustRegister(t, s, "ada@example.org")
		for _, c := range []struct{ name, want string }{
			{"before", string(CodeEmailNotVerified)},
			{"again: it is no failure", string(CodeEmailNotVerified)},
		} {
			if got := s.try(t, "ada@example.org", secret); got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
		if got := s.try(t, "ada@example.org", wrong); got != string(CodeInvalidCredentials) {
			t.Errorf("wrong password: %s", got)
		}
		if err := s.verified(t, mustCode(t, s, u.ID, PurposeVerify)); err != nil {
			t.Fatal(err)
		}
		if got := s.try(t, "ada@example.org", secret); got != "ok" {
			t.Errorf("verified: %s", got)
		}
		if _, _, err := s.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		if got := s.try(t, "admin@example.org", secret); got != "ok" {
			t.Errorf("the first administrator: %s", got)
		}
	})
}

// Where registrations tell nothing, logins after them don't either: the answers, the work and the throttle are the same for
// an address that was taken, under a password that is wrong, and for one that was free, under the right one. Only whoever
// reads mail there learns more: a code comes again, or that there is an account.
func TestASVS_6_3_8_LoginTellsNoMoreThanTheRegistration(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.EnumerationSafe, c.Now = true, now.Now })
		owner, _, err := s.CreateUser(t.Context(), NewUser{Email: "ada@example.org", Password: secret, EmailVerified: true})
		if err != nil {
			t.Fatal(err)
		}
		const probe = "the passphrase of a prober"
		seen := map[string][]string{}
		reads := map[string][]int64{}
		for _, email := range []string{"ada@example.org", "bob@example.org"} {
			if _, err := s.Register(t.Context(), Registration{Email: email, Password: probe}); err != nil {
				t.Fatal(err)
			}
			for range accountFree + 1 {
				before := d.streams.Load()
				seen[email] = append(seen[email], s.try(t, email, probe))
				reads[email] = append(reads[email], d.streams.Load()-before)
			}
		}
		if diff := cmp.Diff(seen["ada@example.org"], seen["bob@example.org"]); diff != "" {
			t.Errorf("answers (-taken +free):\n%s", diff)
		}
		if last := seen["bob@example.org"][accountFree]; last != "throttled 10s" {
			t.Errorf("after as many as are free: %s", last)
		}
		if diff := cmp.Diff(reads["ada@example.org"], reads["bob@example.org"]); diff != "" {
			t.Errorf("reads of users (-taken +free):\n%s", diff)
		}
		// All that follows is a mail to each, and the failures of who has the account.
		want := []string{TypeUserRegistered, TypeUserEmailVerified, TypeUserRegistered,
			TypeUserLoginFailed, TypeUserLoginFailed, TypeUserLoginFailed, TypeUserLoginFailed, TypeUserRegisteredAgain, TypeUserEmailVerificationRequested}
		got := d.recorded(t, s)
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// And who has the account logs in as ever.
		now.add(time.Minute)
		if got := s.try(t, owner.Email, secret); got != "ok" {
			t.Errorf("the owner: %s", got)
		}
	})
}

// Who has an address that is registered once more is mailed, a few times at most; not if that user can't log in.
func TestOwnerIsToldOfAnotherRegistration(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.EnumerationSafe, c.Now = true, now.Now })
		again := func(email string) []string {
			t.Helper()
			before := len(d.events(t, s))
			if _, err := s.Register(t.Context(), Registration{Email: email, Password: other}); err != nil {
				t.Fatal(err)
			}
			return d.recorded(t, s)[before:]
		}
		if _, _, err := s.CreateUser(t.Context(), NewUser{Email: "ada@example.org", Password: secret, EmailVerified: true}); err != nil {
			t.Fatal(err)
		}
		eve, _, err := s.CreateUser(t.Context(), NewUser{Email: "eve@example.org", Password: secret, EmailVerified: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.LockUser(t.Context(), eve.ID, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		none := []string{}
		for i, c := range []struct {
			email string
			wait  time.Duration
			want  []string
		}{
			{"ada@example.org", 0, []string{TypeUserRegisteredAgain}},
			{"ADA@example.org", 0, none},
			{"ada@example.org", 10 * askPause, []string{TypeUserRegisteredAgain}},
			{"eve@example.org", 0, none},
			{"bob@example.org", 0, []string{TypeUserRegistered}},
			{"bob@example.org", 0, []string{TypeUserEmailVerificationRequested}},
		} {
			now.add(c.wait)
			if diff := cmp.Diff(c.want, again(c.email)); diff != "" {
				t.Errorf("%d, %s (-want +got):\n%s", i, c.email, diff)
			}
		}
		if _, err := s.UserWith(t.Context(), "nobody@example.org"); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		s.handOver(t.Context(), failure{reason: reasonTaken, email: mustEmail(t, "nobody@example.org"), metadata: eventstore.Metadata{Correlation: uuid.New()}})
		before := len(d.events(t, s))
		if got := d.recorded(t, s)[before:]; len(got) != 0 {
			t.Errorf("an address that was let go of meanwhile: %v", got)
		}
	})
}

func mustEmail(t *testing.T, text string) Email {
	t.Helper()
	e, err := ParseEmail(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
