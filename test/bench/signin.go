package main

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
)

// signInBenches measure the page that everybody sees who comes to log in.
func signInBenches() []bench {
	const (
		constant = "bare, a constant"
		callers  = 64
	)
	return []bench{{
		about: "GET /login, 64 connections",
		lines: []line{{
			name: "sign-in", subject: usher, yardstick: constant, against: "bare Echo handler that returns the same bytes", show: rate,
			targets: []target{cpuAtMost(2)},
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
			page, err := request(server.address, "/login", "", nil)
			if err != nil {
				return nil, err
			}
			c, err := dial(server.address)
			if err != nil {
				return nil, err
			}
			defer c.close()
			answer, err := c.do(page)
			if err != nil {
				return nil, err
			}
			bare, err := s.serve(l, serverConfig{Kind: barePage, Me: slices.Clone(answer)})
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, one := range []struct {
				name string
				at   *httpServer
			}{{usher, server}, {constant, bare}} {
				clients, err := s.dial(one.at, callers)
				if err != nil {
					return nil, err
				}
				sides = append(sides, side{name: one.name, counts: []*process{one.at.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
					return hammer(ctx, callers, length, func(_ context.Context, caller int) error {
						_, err := clients[caller].do(page)
						return err
					})
				}})
			}
			return sides, nil
		},
	}}
}

// bareLoginPage is the least that a page can be.
func bareLoginPage(html []byte) http.Handler {
	e := echo.New()
	e.GET("/login", func(c *echo.Context) error { return c.HTMLBlob(http.StatusOK, html) })
	return e
}
