package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// listProjections answers GET /v1/projections.
func (a *api) listProjections(ctx context.Context, _ *server.Call, _ server.Nothing) (server.Answer, error) {
	list, err := a.Checkpoints.List(ctx)
	return server.OK(page[projections.Status]{Items: list}), err
}

// ofProjection is a path that names a projection.
type ofProjection struct {
	Name string `path:"name"`
}

// onProjection answers a call that names a projection in its path, and is done by a command that needs no more than that.
func (a *api) onProjection(status int, do func(ctx context.Context, name string) error) server.Handler {
	return server.Handle(func(ctx context.Context, _ *server.Call, in ofProjection) (server.Answer, error) {
		return a.asked(ctx, in.Name, status, 0, do(ctx, in.Name))
	})
}

// asked answers with how a projection is after something was asked of it, and what came of that. This process has no right on the
// tables of read models: what takes one is asked of those that run projections, and answered with 202 where none has come to
// it in a few seconds.
func (a *api) asked(ctx context.Context, name string, status int, position int64, err error) (server.Answer, error) {
	if errors.Is(err, projections.ErrRequested) {
		status, err = http.StatusAccepted, nil
	}
	if err != nil {
		return server.Answer{}, explainOperator(err)
	}
	now, err := a.Checkpoints.Status(ctx, name)
	if err != nil {
		return server.Answer{}, explainOperator(err)
	}
	return server.With(status, now).At(position), nil
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

// rebuildProjection answers POST /v1/projections/{name}/rebuild: a process that runs projections does it.
func (a *api) rebuildProjection(ctx context.Context, call *server.Call, in ofProjection) (server.Answer, error) {
	return a.asked(ctx, in.Name, http.StatusAccepted, 0, a.Projections.Request(ctx, in.Name, call.Actor()))
}

// cancelRebuild cancels a rebuild; where there is none, that is as well.
func (a *api) cancelRebuild(ctx context.Context, name string) error {
	err := a.Projections.RequestCancel(ctx, name)
	if errors.Is(err, projections.ErrNoRebuild) {
		err = nil
	}
	return err
}

// retryProjection answers POST /v1/projections/{name}/retry: for one user, or for all without one.
func (a *api) retryProjection(ctx context.Context, _ *server.Call, in struct {
	ofProjection
	User uuid.UUID `json:"user"`
}) (server.Answer, error) {
	return a.asked(ctx, in.Name, http.StatusOK, 0, a.Projections.RequestRetry(ctx, in.Name, in.User))
}

// skipEvent answers POST /v1/projections/{name}/skip.
func (a *api) skipEvent(ctx context.Context, call *server.Call, in struct {
	ofProjection
	User     *uuid.UUID `json:"user"`
	Position int64      `json:"position"`
}) (server.Answer, error) {
	if in.User == nil || in.Position < 1 {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, `the fields "user" and "position" say which event`)
	}
	position, err := a.Projections.RequestSkip(ctx, in.Name, *in.User, in.Position, call.Metadata())
	return a.asked(ctx, in.Name, http.StatusOK, position, err)
}
