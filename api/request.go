package api

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/server"
)

// pathID is the id in a request's path. What is none is not found.
func pathID(c *echo.Context, missing string) (uuid.UUID, error) {
	text := c.Param("id")
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 {
		return uuid.Nil, server.Refuse(identity.CodeNotFound, "%s", missing)
	}
	return id, nil
}

// commander is a caller whose request is to change something.
type commander struct {
	server.Caller
	metadata eventstore.Metadata
}

// command reads a request that changes something: who sends it, and its body, strictly, into the struct that into points
// to; nil for a request without content. Whether the caller may, and not too often, is known before anything is said of the
// body.
func (a *api) command(c *echo.Context, into any) (commander, error) {
	who, err := a.Caller(c)
	if err != nil {
		return commander{}, err
	}
	of := &server.QuotaChange
	if who.HasRole(identity.RoleAdmin) {
		of = &server.QuotaAdmin
	}
	if err := a.Spend(c, of, who.ID.String()); err != nil {
		return commander{}, err
	}
	if into == nil {
		into = &struct{}{}
	}
	if err := server.Decode(c, into); err != nil {
		return commander{}, err
	}
	m, err := server.Metadata(c, identity.ActorUser(who.ID))
	return commander{who, m}, err
}

// done answers a request that changed something and has nothing to tell but where.
func done(c *echo.Context, position int64) error {
	if position > 0 {
		server.SetPosition(c, position)
	}
	return c.NoContent(http.StatusNoContent)
}
