package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// listProjections answers GET /v1/projections.
func (a *api) listProjections(c *echo.Context) error {
	if _, err := server.Query(c); err != nil {
		return err
	}
	list, err := a.Checkpoints.List(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Items []projections.Status `json:"items"`
	}{list})
}

// onProjection answers a request that names a projection in its path: it does what is asked, which needs the body that
// into points to, if any, and tells how the projection is then. This process has no right on the tables of read models: what
// takes one is asked of those that run projections, and answered with 202 where none has come to it in a few seconds.
func (a *api) onProjection(status int, body func() any, do func(ctx context.Context, name string, who commander, body any) (position int64, err error)) echo.HandlerFunc {
	return func(c *echo.Context) error {
		into := body()
		who, err := a.command(c, into)
		if err != nil {
			return err
		}
		// Checked for its form only: done twice is as good as done once.
		if _, err := server.IdempotencyKey(c); err != nil {
			return err
		}
		ctx, name := c.Request().Context(), c.Param("name")
		answer := status
		position, err := do(ctx, name, who, into)
		if errors.Is(err, projections.ErrRequested) {
			answer, err = http.StatusAccepted, nil
		}
		if err != nil {
			return explainOperator(err)
		}
		if position > 0 {
			server.SetPosition(c, position)
		}
		now, err := a.Checkpoints.Status(ctx, name)
		if err != nil {
			return explainOperator(err)
		}
		return c.JSON(answer, now)
	}
}

// explainOperator gives errors of what is asked of a projection, and not read from it, their codes.
func explainOperator(err error) error {
	var poison *projections.PoisonError
	switch {
	case errors.Is(err, projections.ErrUnknownProjection):
		return server.Refuse(identity.CodeNotFound, "there is no such projection, or no process has run it yet")
	case errors.Is(err, projections.ErrNotParked):
		return server.Refuse(server.CodeNotParked, "GET /v1/projections lists the events that are parked, and those that stopped a rebuild")
	case errors.As(err, &poison):
		return server.Refuse(server.CodePoisonEvent, "the %s at position %d of user %s; GET /v1/projections says why", poison.Type, poison.Position, poison.Subject)
	}
	return err
}

func nothing() any { return nil }

// pauseProjection answers POST /v1/projections/{name}/pause.
func (a *api) pauseProjection() echo.HandlerFunc {
	return a.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		return 0, a.Projections.Pause(ctx, name)
	})
}

// resumeProjection answers POST /v1/projections/{name}/resume.
func (a *api) resumeProjection() echo.HandlerFunc {
	return a.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		return 0, a.Projections.Resume(ctx, name)
	})
}

// rebuildProjection answers POST /v1/projections/{name}/rebuild: a process that runs projections does it.
func (a *api) rebuildProjection() echo.HandlerFunc {
	return a.onProjection(http.StatusAccepted, nothing, func(ctx context.Context, name string, who commander, _ any) (int64, error) {
		return 0, a.Projections.Request(ctx, name, who.metadata.Actor)
	})
}

// cancelRebuild answers DELETE /v1/projections/{name}/rebuild.
func (a *api) cancelRebuild() echo.HandlerFunc {
	return a.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		if err := a.Projections.RequestCancel(ctx, name); !errors.Is(err, projections.ErrNoRebuild) {
			return 0, err
		}
		return 0, nil
	})
}

// retryProjection answers POST /v1/projections/{name}/retry: for one user, or for all without one.
func (a *api) retryProjection() echo.HandlerFunc {
	type retry struct {
		User *uuid.UUID `json:"user"`
	}
	return a.onProjection(http.StatusOK, func() any { return &retry{} }, func(ctx context.Context, name string, _ commander, body any) (int64, error) {
		var user uuid.UUID
		if given := body.(*retry).User; given != nil {
			user = *given
		}
		return 0, a.Projections.RequestRetry(ctx, name, user)
	})
}

// skipEvent answers POST /v1/projections/{name}/skip.
func (a *api) skipEvent() echo.HandlerFunc {
	type skip struct {
		User     *uuid.UUID `json:"user"`
		Position int64      `json:"position"`
	}
	return a.onProjection(http.StatusOK, func() any { return &skip{} }, func(ctx context.Context, name string, who commander, body any) (int64, error) {
		b := body.(*skip)
		if b.User == nil || b.Position < 1 {
			return 0, server.Refuse(identity.CodeInvalidRequest, `the fields "user" and "position" say which event`)
		}
		return a.Projections.RequestSkip(ctx, name, *b.User, b.Position, who.metadata)
	})
}
