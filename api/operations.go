package api

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v5"
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
func (s *Server) showOutbox(c *echo.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	o, err := s.Config.Outbox(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, o)
}

// Check is one thing that has to be well for the server to be ready. Run says what is wrong.
type Check struct {
	Name string // for example "database"
	Run  func(context.Context) error
}
