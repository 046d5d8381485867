package main

import (
	"context"
	"slices"
	"time"

	"usher.example/eventstore"
)

func meBenches() []bench {
	const (
		remembering = "bare, remembers tokens"
		forgetful   = "bare, verifies each time"
		callers     = 64
	)
	return []bench{{
		about: "GET /v1/me, 64 connections, a token each",
		lines: []line{
			{
				name: "me", subject: usher, yardstick: remembering, against: "bare Echo handler, verifies the token, remembers those verified", show: rate,
				targets: []target{cpuAtMost(1.5)},
			},
			{
				name: "me-each", subject: usher, yardstick: forgetful, against: "bare Echo handler, verifies the signature each time", show: rate,
				targets: []target{cpuAtMost(1.5)},
			},
		},
		setup: func(s *stage) ([]side, error) {
			l, err := s.openLog(eventstore.Options{})
			if err != nil {
				return nil, err
			}
			server, err := s.serve(l, serverConfig{Kind: usherServer, Cost: cheapCost})
			if err != nil {
				return nil, err
			}
			one, err := s.register(server, 1)
			if err != nil {
				return nil, err
			}
			tokens := slices.Repeat(one, callers)
			for i := range tokens {
				if err := tokens[i].enter(server); err != nil {
					return nil, err
				}
			}
			ours, err := meSide(s, usher, server, tokens)
			if err != nil {
				return nil, err
			}
			c, err := dial(server.address)
			if err != nil {
				return nil, err
			}
			defer c.close()
			answer, err := c.do(tokens[0].me)
			if err != nil {
				return nil, err
			}
			answer = slices.Clone(answer)
			sides := []side{ours}
			for _, yardstick := range []struct {
				name string
				kind serverKind
			}{{remembering, bareRemembering}, {forgetful, bareServer}} {
				server, err := s.serve(l, serverConfig{Kind: yardstick.kind, Cost: cheapCost, Me: answer})
				if err != nil {
					return nil, err
				}
				side, err := meSide(s, yardstick.name, server, tokens)
				if err != nil {
					return nil, err
				}
				sides = append(sides, side)
			}
			return sides, nil
		},
	}}
}

// meSide has each visitor ask over and over who they are. Only the server's CPU is counted, and the database's.
func meSide(s *stage, name string, server *httpServer, visitors []visitor) (side, error) {
	clients, err := s.dial(server, len(visitors))
	if err != nil {
		return side{}, err
	}
	return side{name: name, counts: []*process{server.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
		return hammer(ctx, len(visitors), length, func(_ context.Context, caller int) error {
			_, err := clients[caller].do(visitors[caller].me)
			return err
		})
	}}, nil
}
