package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// EnsureAdmin makes the first administrator of a deployment, once: later calls, with whatever address, and calls of
// other processes at the same moment, find that there was one and make none. It answers with the administrator's id.
//
// The operator's word is enough for the address: nobody else could have named it, so it counts as verified, as one does that an
// administrator sets.
//
// It fails with ErrInvalidEmail, ErrPasswordRefused, or ErrEmailTaken where a user who registered has the address:
// making an administrator of whoever registered it first would be a way in.
func (s *Service) EnsureAdmin(ctx context.Context, address string, secret password.Password) (id uuid.UUID, created bool, err error) {
	email, err := ParseEmail(address)
	if err != nil {
		return uuid.Nil, false, err
	}
	if id, err = s.reservedBy(ctx, onlyFirstAdmin); err != nil || id != uuid.Nil {
		return id, false, err
	}
	a, _, err := s.newUser(ctx, email, "", secret, eventstore.Metadata{}, RoleAdmin)
	if err != nil {
		return uuid.Nil, false, err
	}
	a.Events = append(a.Events, newEvents(verifyEmail(User{Email: email.String()}))...)
	a.Reserve = append([]eventstore.Reservation{onlyFirstAdmin}, a.Reserve...)
	a.Metadata = eventstore.Metadata{Correlation: a.Stream.ID, Actor: ActorSystem}
	_, err = s.append(ctx, a)
	var reserved *eventstore.ReservationError
	switch {
	case err == nil:
		return a.Stream.ID, true, nil
	case errors.As(err, &reserved) && reserved.Scope == scopeFirstAdmin:
		id, err = s.reservedBy(ctx, onlyFirstAdmin)
		return id, false, err
	case errors.Is(err, eventstore.ErrReserved):
		return uuid.Nil, false, refuse(CodeEmailTaken, "a user who is no administrator has the address")
	}
	return uuid.Nil, false, fmt.Errorf("make the first administrator: %w", err)
}
