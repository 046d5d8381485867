package api

import (
	"context"
	"net/url"
	"strconv"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// limit reads how many items a page has at most.
func limit(values url.Values) (int, error) { return limitUpTo(values, projections.MaxLimit) }

func limitUpTo(values url.Values, most int) (int, error) {
	text := values.Get("limit")
	if text == "" {
		return projections.DefaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, server.Refuse(identity.CodeInvalidRequest, "the limit is a number from 1 to %d", most)
	}
	return n, nil
}

// awaitReadModel waits until a read model has the position that the request asks for, for a bounded time.
func (a *api) awaitReadModel(c *echo.Context, name string) error {
	position, err := a.MinPosition(c)
	if err != nil || position == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), a.PositionWait)
	defer cancel()
	if err := a.Checkpoints.Await(ctx, name, position); err != nil {
		return err
	}
	return a.Again(c, a.Identity.SessionUser)
}
