package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/crypto/bcrypt"

	"usher/eventstore"
	"usher/identity/password"
)

const (
	// loginCost is what deployments have unless they choose another.
	loginCost = password.DefaultCost
	// cheapCost is for benches that need logins and don't measure them.
	cheapCost = 4

	aPassword = "correct horse battery staple"
)

func loginBenches() []bench {
	return []bench{logins(4), logins(64)}
}

func logins(callers int) bench {
	return bench{
		about: fmt.Sprintf("log in over HTTP, %d clients, bcrypt cost %d", callers, loginCost),
		lines: []line{{
			name: fmt.Sprintf("login-%d", callers), subject: usher, yardstick: bare,
			against: "nothing but bcrypt of the same cost, on all CPUs", show: rate,
			targets: []target{cpuAtMost(1.1), rateAtLeast(0.95)},
		}},
		seconds: 4,
		setup:   func(s *stage) ([]side, error) { return loginSides(s, callers) },
	}
}

func loginSides(s *stage, callers int) ([]side, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	server, err := s.serve(l, serverConfig{Kind: usherServer, Cost: loginCost})
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
	hash, err := bcrypt.GenerateFromPassword([]byte(aPassword), loginCost)
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

// visitor is a user of a server.
type visitor struct {
	login []byte // the request
	me    []byte // the request; nil before a login
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
