package api

import (
	"context"
	"strconv"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// paging is which part of a list is asked for.
type paging struct {
	Limit  limit  `query:"limit"`
	Cursor string `query:"cursor"`
}

// limit is how many items a page has at most.
type limit int

// UnmarshalText reads a limit.
func (l *limit) UnmarshalText(text []byte) error {
	n, err := parseLimit(string(text), projections.MaxLimit)
	*l = limit(n)
	return err
}

// size is the limit, where none is given the usual one.
func (l limit) size() int {
	if l == 0 {
		return projections.DefaultLimit
	}
	return int(l)
}

func parseLimit(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, server.Refuse(identity.CodeInvalidRequest, "the limit is a number from 1 to %d", most)
	}
	return n, nil
}

// awaitReadModel waits until a read model has the position that the request asks for, for a bounded time.
func (a *api) awaitReadModel(ctx context.Context, call *server.Call, name string) error {
	position, err := call.MinPosition(ctx)
	if err != nil || position == 0 {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, a.PositionWait)
	defer cancel()
	if err := a.Checkpoints.Await(bounded, name, position); err != nil {
		return err
	}
	return call.Again(bounded, a.Identity.SessionUser)
}
