package api

import (
	"net/http"

	"github.com/labstack/echo/v5"
)

// me answers GET /v1/me, with the user's own state.
func (a *api) me(c *echo.Context) error {
	u, err := a.Caller(c)
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, u.JSON())
}
