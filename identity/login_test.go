package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"usher/eventstore"
	"usher/eventstore/postgres"
	"usher/identity/password"
	"usher/internal/devstack"
	"usher/schema"
)

// ASVS 6.3.8: a wrong password is answered in the same words after the same time, whoever the address is of. At this cost
// hashing is most of the time; the bound is generous, and a login that skips hashing is far outside it.
func TestLoginTellsNothing(t *testing.T) {
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
	mustRegister(t, d.service(t, nil), "ada@example.org")

	hot := d.service(t, func(c *Config) { c.RateLimits = true })
	follow := run(t, func(ctx context.Context) error { return hot.Follow(ctx, nil) })
	eventually(t, "users are read from memory", func() bool { return hot.trust.holds(time.Now()) })
	hot.trust.caughtUp.Store(time.Now().Add(time.Hour).UnixNano()) // without Follow, whose own queries would be counted
	follow()
	hot.trust.caughtUp.Store(time.Now().Add(time.Hour).UnixNano())
	login := func(s *Service, email string, secret password.Password) error {
		_, err := s.Login(t.Context(), Credentials{Email: email, Password: secret, Metadata: eventstore.Metadata{Address: "192.0.2.1", UserAgent: "test"}})
		return err
	}
	for _, c := range []struct {
		name   string
		fresh  bool // nothing is in memory
		email  string
		secret password.Password
		want   int64
	}{
		{"a login of a user in memory", false, "ada@example.org", secret, 2},
		{"a login of a user who is not", true, "ada@example.org", secret, 3},
		{"a wrong password", true, "ada@example.org", wrong, 2},
		{"an unknown address", true, "nobody@example.org", wrong, 2},
	} {
		const times = 3
		var took int64
		for i := range times + 1 {
			s := hot
			if c.fresh {
				s = d.service(t, func(c *Config) { c.RateLimits = true })
			}
			before := trips.Count()
			if err := login(s, c.email, c.secret); err != nil && !errors.Is(err, ErrInvalidCredentials) {
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
