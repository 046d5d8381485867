package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
)

// listProjections answers GET /v1/projections.
func (s *Server) listProjections(c *echo.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	list, err := s.Checkpoints.List(c.Request().Context())
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
func (s *Server) onProjection(status int, body func() any, do func(ctx context.Context, name string, who commander, body any) (position int64, err error)) echo.HandlerFunc {
	return func(c *echo.Context) error {
		into := body()
		who, err := s.command(c, into)
		if err != nil {
			return err
		}
		// Checked for its form only: done twice is as good as done once.
		if _, err := idempotencyKey(c); err != nil {
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
			setPosition(c, position)
		}
		now, err := s.Checkpoints.Status(ctx, name)
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
		return refuse(identity.CodeNotFound, "there is no such projection, or no process has run it yet")
	case errors.Is(err, projections.ErrNotParked):
		return refuse(codeNotParked, "GET /v1/projections lists the events that are parked, and those that stopped a rebuild")
	case errors.As(err, &poison):
		return refuse(codePoisonEvent, "the %s at position %d of user %s; GET /v1/projections says why", poison.Type, poison.Position, poison.Subject)
	}
	return err
}

func nothing() any { return nil }

// pauseProjection answers POST /v1/projections/{name}/pause.
func (s *Server) pauseProjection() echo.HandlerFunc {
	return s.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		return 0, s.Projections.Pause(ctx, name)
	})
}

// resumeProjection answers POST /v1/projections/{name}/resume.
func (s *Server) resumeProjection() echo.HandlerFunc {
	return s.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		return 0, s.Projections.Resume(ctx, name)
	})
}

// rebuildProjection answers POST /v1/projections/{name}/rebuild: a process that runs projections does it.
func (s *Server) rebuildProjection() echo.HandlerFunc {
	return s.onProjection(http.StatusAccepted, nothing, func(ctx context.Context, name string, who commander, _ any) (int64, error) {
		return 0, s.Projections.Request(ctx, name, who.metadata.Actor)
	})
}

// cancelRebuild answers DELETE /v1/projections/{name}/rebuild.
func (s *Server) cancelRebuild() echo.HandlerFunc {
	return s.onProjection(http.StatusOK, nothing, func(ctx context.Context, name string, _ commander, _ any) (int64, error) {
		if err := s.Projections.RequestCancel(ctx, name); !errors.Is(err, projections.ErrNoRebuild) {
			return 0, err
		}
		return 0, nil
	})
}

// retryProjection answers POST /v1/projections/{name}/retry: for one user, or for all without one.
func (s *Server) retryProjection() echo.HandlerFunc {
	type retry struct {
		User *uuid.UUID `json:"user"`
	}
	return s.onProjection(http.StatusOK, func() any { return &retry{} }, func(ctx context.Context, name string, _ commander, body any) (int64, error) {
		var user uuid.UUID
		if given := body.(*retry).User; given != nil {
			user = *given
		}
		return 0, s.Projections.RequestRetry(ctx, name, user)
	})
}

// skipEvent answers POST /v1/projections/{name}/skip.
func (s *Server) skipEvent() echo.HandlerFunc {
	type skip struct {
		User     *uuid.UUID `json:"user"`
		Position int64      `json:"position"`
	}
	return s.onProjection(http.StatusOK, func() any { return &skip{} }, func(ctx context.Context, name string, who commander, body any) (int64, error) {
		b := body.(*skip)
		if b.User == nil || b.Position < 1 {
			return 0, refuse(identity.CodeInvalidRequest, `the fields "user" and "position" say which event`)
		}
		return s.Projections.RequestSkip(ctx, name, *b.User, b.Position, who.metadata)
	})
}
