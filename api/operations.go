package api

import (
	"context"

	"usher.example/server"
)

// Outbox is the state of the relay, for GET /v1/outbox.
type Outbox struct {
	Head      int64  `json:"head"`      // position of the newest event
	Published int64  `json:"published"` // position of the newest event that was published
	Lag       int64  `json:"lag"`
	State     string `json:"state"`
	Error     string `json:"error,omitempty"`
}

// showOutbox answers GET /v1/outbox.
func (a *api) showOutbox(ctx context.Context, _ *server.Call, _ server.Nothing) (server.Answer, error) {
	o, err := a.Outbox(ctx)
	return server.OK(o), err
}
