package postgres

import (
	"context"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// connected are those who want to know of connections that were made. The zero value is ready.
type connected struct {
	mu   sync.Mutex
	list []func()
}

func (c *connected) add(made func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, made)
}

func (c *connected) tell() {
	c.mu.Lock()
	list := slices.Clone(c.list)
	c.mu.Unlock()
	for _, made := range list {
		made()
	}
}

// after is what a pool does with a connection that it has made: what it did before, and tell.
func (c *connected) after(before func(context.Context, *pgx.Conn) error) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		c.tell()
		return nil
	}
}
