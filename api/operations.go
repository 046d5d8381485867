package api

import (
	"net/http"

	"github.com/labstack/echo/v5"

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
func (a *api) showOutbox(c *echo.Context) error {
	if _, err := server.Query(c); err != nil {
		return err
	}
	o, err := a.Outbox(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, o)
}
