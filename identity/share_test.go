package identity

import (
	"errors"
	"fmt"
	"testing"

	"usher.example/eventstore"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

// Every call that hashes takes its place in the share of its own site, network and account: a crowd that has filled the queue
// makes room for each of them, from as many networks as it comes if one client can have them all.
func TestCrowdKeepsNobodyFromHashing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		ready := d.service(t, nil)
		u := mustRegister(t, ready, "ada@example.org")
		session, err := ready.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		m := eventstore.Metadata{Address: "198.51.100.1"}
		key := CommandID("register", "k")
		if _, err := ready.Register(t.Context(), Registration{Email: "eve@example.org", Password: secret, CommandID: key}); err != nil {
			t.Fatal(err)
		}
		const bound = 4
		for name, call := range map[string]func(*Service) error{
			"login": func(s *Service) error {
				_, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret, Metadata: m})
				return err
			},
			"login of nobody": func(s *Service) error {
				_, err := s.Login(t.Context(), Credentials{Email: "nobody@example.org", Password: secret, Metadata: m})
				if errors.Is(err, ErrInvalidCredentials) {
					return nil
				}
				return err
			},
			"registration": func(s *Service) error {
				_, err := s.Register(t.Context(), Registration{Email: "bob@example.org", Password: secret, Metadata: m})
				return err
			},
			"registration again": func(s *Service) error {
				_, err := s.Register(t.Context(), Registration{Email: "eve@example.org", Password: secret, CommandID: key, Metadata: m})
				return err
			},
			"proof in a session": func(s *Service) error {
				_, err := s.confirm(t.Context(), u.ID, session.Session, Proof{Password: secret}, m)
				return err
			},
			"new user of an administrator": func(s *Service) error {
				_, _, err := s.CreateUser(t.Context(), NewUser{Email: "kim@example.org", Password: secret, Metadata: m})
				return err
			},
		} {
			waiting, err := password.NewPool(password.PoolConfig{Cost: password.MinCost, Workers: 1, Queue: bound})
			if err != nil {
				t.Fatal(err)
			}
			s := d.service(t, func(c *Config) { c.Passwords = waiting })
			d.forgive(t)
			crowd, done := make(chan error, bound), make(chan error, 1)
			for i := range bound {
				go func() {
					_, err := s.Login(t.Context(), Credentials{Email: fmt.Sprintf("crowd%d@example.org", i), Password: wrong,
						Metadata: eventstore.Metadata{Address: fmt.Sprintf("2001:db8:1:%x::66", i)}})
					crowd <- err
				}()
			}
			devstack.Eventually(t, "the crowd fills the queue", func() bool { return waiting.Queued() == bound })
			go func() { done <- call(s) }()
			if err := <-crowd; !errors.Is(err, password.ErrOverloaded) {
				t.Errorf("%s: one of the crowd: %v, want that it had to make room", name, err)
			}
			devstack.Background(t, waiting.Run)
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for range bound - 1 {
				if err := <-crowd; !errors.Is(err, ErrInvalidCredentials) {
					t.Errorf("%s: another of the crowd: %v", name, err)
				}
			}
		}
	})
}
