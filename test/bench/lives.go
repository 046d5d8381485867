package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

const (
	// lifeSteps is how many events a user's life has: see steps.
	lifeSteps = 10
	// cohort is how many users go through life together. Between two events of a user there are so many of others.
	cohort = 20_000
)

// life is a user, with the sessions that the user has.
type life struct {
	id       uuid.UUID
	sessions [4]uuid.UUID // the last one is of a failed login
}

func newLife() life {
	l := life{id: uuid.Must(uuid.NewV7())}
	for i := range l.sessions {
		l.sessions[i] = uuid.Must(uuid.NewV7())
	}
	return l
}

// live appends about so many events: users register, log in and out, and change something about themselves now and then.
func (l *logOn) live(ctx context.Context, events int) error {
	for left := events / lifeSteps; left > 0; {
		users := make([]life, min(left, cohort))
		for i := range users {
			users[i] = newLife()
		}
		left -= len(users)
		for step := range lifeSteps {
			var at atomic.Int64
			err := l.appendMany(ctx, len(users), func() (eventstore.Append, error) { return users[at.Add(1)-1].step(step) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// step is what a user does next.
func (u *life) step(n int) (eventstore.Append, error) {
	started := identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: time.Now().UTC().Add(90 * 24 * time.Hour)}
	ended := identity.SessionEnded{Reason: identity.EndedLogout}
	switch n {
	case 0:
		return registrationOf(u.id)
	case 1:
		var verified identity.EmailVerified
		verified.Personal.Email = registered(u.id).Personal.Email
		return u.own(1, verified), nil
	case 2:
		return u.session(0, eventstore.NoStream, started), nil
	case 3:
		return u.session(0, 1, ended), nil
	case 4:
		return u.session(1, eventstore.NoStream, started), nil
	case 5:
		return u.session(3, eventstore.NoStream, identity.LoginFailed{Reason: identity.MethodPassword}), nil
	case 6:
		return u.session(2, eventstore.NoStream, started), nil
	case 7:
		var updated identity.ProfileUpdated
		name := changedName
		updated.Personal.Name = &name
		return u.own(2, updated), nil
	case 8:
		return u.session(1, 1, ended), nil
	default:
		return u.own(3, plainEvent()), nil
	}
}

// changedName is what all users call themselves later.
const changedName = "Somebody Else"

func (u *life) own(version int, p identity.Payload) eventstore.Append {
	return u.append(eventstore.UserStream(u.id), eventstore.Expected(version), p)
}

func (u *life) session(n int, version eventstore.Expected, p identity.Payload) eventstore.Append {
	return u.append(eventstore.SessionStream(u.sessions[n], u.id), version, p)
}

func (u *life) append(s eventstore.Stream, version eventstore.Expected, p identity.Payload) eventstore.Append {
	m := requestMetadata(u.id)
	m.Actor = identity.ActorUser(u.id)
	return eventstore.Append{Stream: s, Expected: version, Events: []eventstore.NewEvent{identity.NewEvent(p)}, Metadata: m}
}
