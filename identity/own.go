package identity

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// EndOwnSession ends a session for its user, who is logged in to another and has begun that lately, or shows to be the user.
// It fails with ErrNotFound where the user has no such session, with CodeInvalidRequest where a proof is needed, as every
// call that takes a Proof does, or with ErrSessionEnded where the one that asks has ended.
func (s *Service) EndOwnSession(ctx context.Context, user, current, session uuid.UUID, p Proof, m eventstore.Metadata) (eventstore.Result, error) {
	if session == current { // that is logging out
		return s.EndSession(ctx, user, session, EndedRevoked, m)
	}
	shown, err := s.confirm(ctx, user, current, p, m)
	if err == nil {
		err = s.stillHolds(ctx, shown)
	}
	if err != nil {
		return eventstore.Result{}, err
	}
	row, err := s.session(ctx, session)
	switch {
	case errors.Is(err, ErrSessionEnded), err == nil && row.user != user:
		return eventstore.Result{}, refuse(CodeNotFound, "there is no such session")
	case err != nil:
		return eventstore.Result{}, err
	}
	return s.endWithGrants(ctx, row, m, &shown, SessionEnded{Reason: EndedRevoked})
}

// EndOwnSessions ends every session of a user who asks for it in one of them. It fails as EndOwnSession does.
func (s *Service) EndOwnSessions(ctx context.Context, user, current uuid.UUID, p Proof, m eventstore.Metadata) (int64, error) {
	shown, err := s.confirm(ctx, user, current, p, m)
	if err == nil {
		err = s.stillHolds(ctx, shown)
	}
	if err != nil {
		return 0, err
	}
	if err := s.forgetDevices(ctx, user); err != nil {
		return 0, err
	}
	return s.endSessions(ctx, user, uuid.Nil, EndedLogout, m, &shown)
}

// EndOtherSessions ends every session of a user but that in which it is asked for. It fails as EndOwnSession does.
func (s *Service) EndOtherSessions(ctx context.Context, user, current uuid.UUID, p Proof, m eventstore.Metadata) (int64, error) {
	shown, err := s.confirm(ctx, user, current, p, m)
	if err == nil {
		err = s.stillHolds(ctx, shown)
	}
	if err != nil {
		return 0, err
	}
	return s.endSessions(ctx, user, current, EndedRevoked, m, &shown)
}
