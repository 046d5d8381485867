package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/crypto/bcrypt"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
)

const (
	// loginCost is what deployments have unless they choose another.
	loginCost = password.DefaultCost
	// cheapCost is for benches that need logins and don't measure them.
	cheapCost = 4

	aPassword = "correct horse battery staple"
)

func loginBenches() []bench {
	return []bench{
		logins("login-4", 4, loginCost, cpuAtMost(1.1), rateAtLeast(0.95)),
		logins("login-64", 64, loginCost, cpuAtMost(1.1), rateAtLeast(0.95)),
		logins("login-16", 16, 10, cpuAtMost(1.1)),
		grownLogins(),
	}
}

func logins(name string, callers, cost int, targets ...target) bench {
	return bench{
		about: fmt.Sprintf("log in over HTTP, %d clients, bcrypt cost %d", callers, cost),
		lines: []line{{
			name: name, subject: usher, yardstick: bare,
			against: "nothing but bcrypt of the same cost, on all CPUs", show: rate,
			targets: targets,
		}},
		seconds: 4,
		setup:   func(s *stage) ([]side, error) { return loginSides(s, callers, cost) },
	}
}

func loginSides(s *stage, callers, cost int) ([]side, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	server, err := s.serve(l, serverConfig{Kind: usherServer, Cost: cost})
	if err != nil {
		return nil, err
	}
	u, err := s.register(server, 1)
	if err != nil {
		return nil, err
	}
	clients, err := s.dial(server, callers)
	if err != nil {
		return nil, err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(aPassword), cost)
	if err != nil {
		return nil, err
	}
	return []side{
		{name: usher, counts: []*process{server.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(_ context.Context, caller int) error {
				_, err := clients[caller].do(u[0].login)
				return err
			})
		}},
		{name: bare, counts: []*process{s.self}, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, runtime.NumCPU(), length, func(context.Context, int) error {
				return bcrypt.CompareHashAndPassword(hash, []byte(aPassword))
			})
		}},
	}, nil
}

// grownLogins compares logins of a user with a long history with those of a new one.
func grownLogins() bench {
	const grown, fresh, events = "grown user", "new user", 10_000
	return bench{
		about: fmt.Sprintf("log in a user whose stream has %d events, bcrypt cost %d", events, cheapCost),
		lines: []line{{
			name: "login-grown", subject: grown, yardstick: fresh, against: "log in a new user", show: rate,
			targets: []target{cpuAtMost(1.2)},
		}},
		setup: func(s *stage) ([]side, error) {
			l, err := s.openLog(eventstore.Options{})
			if err != nil {
				return nil, err
			}
			server, err := s.serve(l, serverConfig{Kind: usherServer, Cost: cheapCost})
			if err != nil {
				return nil, err
			}
			users, err := s.register(server, 2)
			if err != nil {
				return nil, err
			}
			if err := l.grow(s.ctx, events); err != nil {
				return nil, err
			}
			var sides []side
			for i, name := range []string{grown, fresh} {
				clients, err := s.dial(server, 1)
				if err != nil {
					return nil, err
				}
				sides = append(sides, side{name: name, counts: []*process{server.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
					return hammer(ctx, 1, length, func(context.Context, int) error {
						_, err := clients[0].do(users[i].login)
						return err
					})
				}})
			}
			return sides, nil
		},
	}
}

// grow appends events to the stream of the log's first user.
func (l *logOn) grow(ctx context.Context, events int) error {
	first, err := l.log.ReadAll(ctx, 0, 10)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(first, func(e eventstore.Event) bool { return e.Type == identity.TypeUserRegistered })
	if at < 0 {
		return errors.New("nobody has registered")
	}
	name := "Some Body Else"
	var p identity.ProfileUpdated
	p.Personal.Name = &name
	for n := 0; n < events; n += eventstore.MaxEvents {
		_, err := l.log.Append(ctx, eventstore.Append{
			Stream: first[at].Stream, Expected: eventstore.AnyVersion,
			Events: slices.Repeat([]eventstore.NewEvent{identity.NewEvent(p)}, min(eventstore.MaxEvents, events-n)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// visitor is a user of a server.
type visitor struct {
	login   []byte // the request
	me      []byte // the request; nil before a login
	access  string // the token; empty before a login
	refresh string // the same
}

// register makes users.
func (s *stage) register(server *httpServer, n int) ([]visitor, error) {
	c, err := dial(server.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	list := make([]visitor, n)
	for i := range list {
		email := fmt.Sprintf("visitor-%d@example.org", i)
		r, err := request(server.address, registerPath, "", registerBody{email, aPassword, "Some Body"})
		if err != nil {
			return nil, err
		}
		if _, err := c.do(r); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
		if list[i].login, err = request(server.address, loginPath, "", loginBody{email, aPassword}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// enter logs a user in.
func (v *visitor) enter(server *httpServer) error {
	c, err := dial(server.address)
	if err != nil {
		return err
	}
	defer c.close()
	body, err := c.do(v.login)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	var answer loginAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	v.access, v.refresh = answer.AccessToken, answer.RefreshToken
	v.me, err = request(server.address, mePath, answer.AccessToken, nil)
	return err
}

// dial opens connections.
func (s *stage) dial(server *httpServer, n int) ([]*client, error) {
	clients := make([]*client, n)
	for i := range clients {
		c, err := dial(server.address)
		if err != nil {
			return nil, err
		}
		clients[i] = c
	}
	s.after(func() error {
		var errs []error
		for _, c := range clients {
			errs = append(errs, c.close())
		}
		return errors.Join(errs...)
	})
	return clients, nil
}
