package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

// A wrong password is answered in the same words after the same time, whoever the address is of. At this cost
// hashing is most of the time; the bound is generous, and a login that skips hashing is far outside it.
func TestASVS_6_3_8_LoginTellsNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.Passwords = pool(t, 7) })
		mustRegister(t, s, "known@example.org") // and not verified
		d.appendTo(t, s, mustRegister(t, s, "locked@example.org").ID, Locked{})
		d.appendTo(t, s, mustRegister(t, s, "disabled@example.org").ID, Disabled{})
		without := mustRegister(t, s, "without@example.org")
		if _, err := d.db.Exec(t.Context(), `DELETE FROM credentials WHERE user_id = $1`, without.ID); err != nil {
			t.Fatal(err)
		}
		emails := []string{"known@example.org", "locked@example.org", "disabled@example.org", "without@example.org", "unknown@example.org"}
		// The fastest of many is hardly touched by what else the machine does, if there are enough.
		fastest := map[string]time.Duration{}
		uneven := ""
		for round := range 200 {
			if round%accountFree == 0 {
				d.forgive(t)
			}
			for _, email := range emails {
				start := time.Now()
				_, err := s.Login(t.Context(), Credentials{Email: email, Password: "wrong password"})
				if took := time.Since(start); fastest[email] == 0 || took < fastest[email] {
					fastest[email] = took
				}
				var e *Error
				if !errors.As(err, &e) || *e != *wrongCredentials().(*Error) {
					t.Fatalf("%s: %v, want %v", email, err, wrongCredentials())
				}
			}
			uneven = ""
			for _, email := range emails {
				if ratio := float64(fastest[email]) / float64(fastest[emails[0]]); ratio < 0.75 || ratio > 1.33 {
					uneven += fmt.Sprintf("%s takes %v, %.2f of what a known address does\n", email, fastest[email], ratio)
				}
			}
			if round >= 8 && uneven == "" {
				return
			}
		}
		t.Error(uneven)
	})
}

func TestRoundTripsOfALogin(t *testing.T) {
	t.Parallel()
	dsn := devstack.Database(t, "identity", func(ctx context.Context, dsn string) error {
		migrate(ctx, t, func() (*schema.Migrator, error) { return schema.Postgres(dsn) })
		return nil
	})
	var trips devstack.RoundTrips
	store, err := postgres.Open(t.Context(), dsn, postgres.Options{Configure: trips.Configure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	d := newDatabase(t, store, store)
	p := withTOTP(t, d)
	codes := p.mustRecoveryCodes(t)
	recovery := func() (code FactorCode) {
		code, codes = codes[0], codes[1:]
		return code
	}
	mustRegister(t, p.s, "eve@example.org")

	process := func() *Service { return d.service(t, func(c *Config) { c.RateLimits, c.Now = true, p.at.Now }) }
	hot := process()
	follow := devstack.Background(t, func(ctx context.Context) error { return hot.Follow(ctx, nil) })
	devstack.Eventually(t, "users are read from memory", func() bool { return hot.trust.holds(p.at.Now()) })
	follow() // its own queries would be counted
	hot.trust.caughtUp.Store(p.at.Now().Add(time.Hour).UnixNano())
	login := func(s *Service, email string, secret password.Password, code FactorCode) error {
		_, err := s.Login(t.Context(), Credentials{
			Email: email, Password: secret, TOTP: code, Metadata: eventstore.Metadata{Address: "192.0.2.1", UserAgent: "test"},
		})
		return err
	}
	none := func() FactorCode { return "" }
	for _, c := range []struct {
		name   string
		fresh  bool // nothing is in memory
		email  string
		secret password.Password
		code   func() FactorCode
		want   int64
	}{
		{"a login of a user in memory", false, "eve@example.org", secret, none, 2},
		{"a login of a user who is not", true, "eve@example.org", secret, none, 3},
		{"a wrong password", true, "eve@example.org", wrong, none, 2},
		{"an unknown address", true, "nobody@example.org", wrong, none, 2},
		{"a login with a one-time password", false, "ada@example.org", secret, func() FactorCode { return p.next(t) }, 3},
		{"a login with a one-time password of a user who is not in memory", true, "ada@example.org", secret, func() FactorCode { return p.next(t) }, 4},
		{"a login with a recovery code", false, "ada@example.org", secret, recovery, 3},
		{"a login that lacks a one-time password", false, "ada@example.org", secret, none, 1},
	} {
		const times = 3
		var took int64
		for i := range times + 1 {
			s := hot
			if c.fresh {
				s = process()
			}
			code, before := c.code(), trips.Count()
			if err := login(s, c.email, c.secret, code); err != nil && !errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrTOTPRequired) {
				t.Fatalf("%s: %v", c.name, err)
			}
			// Whoever gets a new connection prepares the statements on it.
			if n := trips.Count() - before; i == 0 || n < took {
				took = n
			}
		}
		if took != c.want {
			t.Errorf("%s takes %d round trips, want %d", c.name, took, c.want)
		}
	}
}
