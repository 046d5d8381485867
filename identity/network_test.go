package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

// Whoever tries one password on many accounts is slowed down by the network that it comes from, if that is wanted; and nobody is
// shut out by it who has the right password.
func TestASVS_6_3_1_ThrottleOfANetwork(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now, c.RateLimits = now.Now, true })
		off := d.service(t, func(c *Config) { c.Now = now.Now })
		var waited time.Duration
		s.throttle.pause = func(_ context.Context, wait time.Duration) error { waited = wait; return nil }
		off.throttle.pause = s.throttle.pause
		mustRegister(t, s, "ada@example.org")
		try := func(s *Service, n int, secret password.Password, m eventstore.Metadata) string {
			email := "ada@example.org"
			if n >= 0 {
				email = fmt.Sprintf("nobody%d@example.org", n)
			}
			_, err := s.Login(t.Context(), Credentials{Email: email, Password: secret, Metadata: m})
			return outcome(err)
		}
		at := func(address string) eventstore.Metadata { return eventstore.Metadata{Address: address} }
		for n := range networkFree {
			if got := try(s, n, wrong, at(fmt.Sprintf("2001:db8:1:2::%x", n))); got != string(CodeInvalidCredentials) || waited != 0 {
				t.Fatalf("guess %d: %s after %v", n, got, waited)
			}
		}
		for _, c := range []struct {
			name    string
			service *Service
			account int
			from    eventstore.Metadata
			want    string
			waits   time.Duration
		}{
			{"the right password", s, -1, at("2001:db8:1:2:ffff::1"), "ok", 0},
			{"at once after it", s, -1, at("2001:db8:1:2::1"), "ok", networkPace},
			{"another guess", s, 1000, at("2001:db8:1:2::1"), string(CodeInvalidCredentials), 2 * networkPace},
			{"another network", s, -1, at("2001:db8:1:3::1"), "ok", 0},
			{"another by the same address", s, -1, eventstore.Metadata{Address: "2001:db8:1:2::1", Network: "203.0.113.7 by a proxy"}, "ok", 0},
			{"no address", s, -1, at(""), "ok", 0},
			{"limits are off", off, -1, at("2001:db8:1:2::1"), "ok", 0},
		} {
			waited = 0
			if got := try(c.service, c.account, secret, c.from); got != c.want || waited != c.waits {
				t.Errorf("%s: %s after %v, want %s after %v", c.name, got, waited, c.want, c.waits)
			}
		}
		now.add(networkWindow)
		waited = 0
		for n := range 2 {
			if got := try(s, 2000+n, wrong, at("2001:db8:1:2::1")); got != string(CodeInvalidCredentials) || waited != 0 {
				t.Errorf("after the window: %s after %v", got, waited)
			}
		}
		// A process forgets the networks that are slowed down no longer by itself: only one of all tidies up the database.
		over := failures{networkFree, now.Now(), now.Now().Add(networkWindow)}
		for n := range 3 {
			email, err := ParseEmail("ada@example.org")
			if err != nil {
				t.Fatal(err)
			}
			a := s.throttle.begin(email, fmt.Sprintf("192.0.2.%d", n))
			if err := a.wait(t.Context(), failures{}, over); err != nil {
				t.Error(err)
			}
			a.leave()
			now.add(2 * networkPace)
		}
		if n := len(s.throttle.paces); n != 1 {
			t.Errorf("%d networks are kept, want the last", n)
		}
	})
}

// Those who wait for their turn are few, and each on another account.
func TestPaceIsBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.RateLimits = true })
		hold := make(chan struct{})
		s.throttle.pause = func(ctx context.Context, _ time.Duration) error {
			select {
			case <-hold:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		over := failures{networkFree, time.Now(), time.Now().Add(networkWindow)}
		attempt := func(ctx context.Context, account int) error {
			email, err := ParseEmail(fmt.Sprintf("user%d@example.org", account))
			if err != nil {
				return err
			}
			a := s.throttle.begin(email, "192.0.2.1")
			defer a.leave()
			return a.wait(ctx, failures{}, over)
		}
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		waiting := func(n int) {
			t.Helper()
			devstack.Eventually(t, "so many wait", func() bool {
				s.throttle.mu.Lock()
				defer s.throttle.mu.Unlock()
				for _, p := range s.throttle.paces {
					return len(p.waiting) == n
				}
				return n == 0
			})
		}
		wg.Go(func() {
			if err := attempt(ctx, 0); !errors.Is(err, context.Canceled) {
				t.Errorf("one that goes away: %v", err)
			}
		})
		waiting(1)
		if err := attempt(t.Context(), 0); !errors.Is(err, ErrThrottled) {
			t.Errorf("another on the same account: %v, want throttled", err)
		}
		for n := range maxPaced - 1 {
			wg.Go(func() {
				if err := attempt(t.Context(), n+1); err != nil {
					t.Error(err)
				}
			})
		}
		waiting(maxPaced)
		if err := attempt(t.Context(), 100); !errors.Is(err, ErrThrottled) {
			t.Errorf("one too many: %v, want throttled", err)
		}
		leave()
		waiting(maxPaced - 1)
		close(hold)
		wg.Wait()
	})
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1":              "192.0.2.1",
		"::ffff:192.0.2.1":       "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":   "2001:db8:1:2::/64",
		"2001:DB8:1:2::":         "2001:db8:1:2::/64",
		"fe80::1%eth0":           "fe80::/64",
		"":                       "",
		"example.org":            "",
		"192.0.2.1:80":           "",
		"192.0.2.1, 192.0.2.2":   "",
		"[2001:db8:1:2:3:4:5:6]": "",
	} {
		if got := Network(address); got != want {
			t.Errorf("Network(%q) = %q, want %q", address, got, want)
		}
	}
}
