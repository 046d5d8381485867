package api

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// usersQuery is which users are asked for.
type usersQuery struct {
	paging
	Email         *string         `query:"email"`
	Throttled     *string         `query:"throttled"`
	Query         string          `query:"query"`
	Status        identity.Status `query:"status"`
	Role          string          `query:"role"`
	EmailVerified *bool           `query:"email_verified"`
	CreatedAfter  time.Time       `query:"created_after"`
	CreatedBefore time.Time       `query:"created_before"`
}

// listUsers answers GET /v1/users, from the read model, but for an exact address and for who is throttled.
func (a *api) listUsers(ctx context.Context, call *server.Call, in usersQuery) (server.Answer, error) {
	switch {
	case in.Email != nil:
		return a.listUserWith(ctx, call, *in.Email)
	case in.Throttled != nil:
		return a.listThrottledUsers(ctx, call, in)
	}
	f := projections.UserFilter{
		Query: in.Query, Status: in.Status, Role: in.Role, EmailVerified: in.EmailVerified, CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore,
		Limit: in.Limit.size(), Cursor: in.Cursor,
	}
	if err := a.Users.Check(f); err != nil {
		return server.Answer{}, err
	}
	if err := a.awaitReadModel(ctx, call, projections.UsersName); err != nil {
		return server.Answer{}, err
	}
	found, err := a.Users.List(ctx, f)
	return server.OK(found), err
}

// listUserWith answers GET /v1/users?email=, with the one user who has the address, or with none. As with one who is named by
// an id it needs no read model: the reservation of the address says who it is, and the log how the user is, each
// found by its key and as of now, however many users there are.
func (a *api) listUserWith(ctx context.Context, call *server.Call, email string) (server.Answer, error) {
	for name := range call.Query {
		if name != "email" && name != "limit" {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "an email names one user; the parameter %s can't go with it", server.Quote(name))
		}
	}
	var refusal *identity.Error
	if _, err := identity.ParseEmail(email); errors.As(err, &refusal) {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "%s; in a query a + is written %%2B", refusal.Detail)
	}
	if _, err := call.MinPosition(ctx); err != nil {
		return server.Answer{}, err
	}
	id, err := a.Identity.UserWith(ctx, email)
	found := page[json.RawMessage]{Items: []json.RawMessage{}}
	if err == nil {
		var u *identity.User
		if u, err = a.Identity.ReadUser(ctx, id); err == nil {
			found.Items = append(found.Items, u.JSON())
		}
	}
	if err != nil && !errors.Is(err, identity.ErrNotFound) { // which one who was erased meanwhile is too
		return server.Answer{}, err
	}
	return server.OK(found), nil
}

// throttledUsers is a page of the users who are throttled.
type throttledUsers struct {
	page[identity.Examined]
	Nobody int `json:"unknown_addresses"`
}

// listThrottledUsers answers GET /v1/users?throttled=true, from what was failed at of late: as of now, and without a read model.
func (a *api) listThrottledUsers(ctx context.Context, call *server.Call, in usersQuery) (server.Answer, error) {
	const list = "throttled users"
	for name := range call.Query {
		if !slices.Contains([]string{"throttled", "limit", "cursor"}, name) {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "throttled goes with limit and cursor alone, not with %s", server.Quote(name))
		}
	}
	if *in.Throttled != "true" {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "throttled is true, or left out for all users")
	}
	after, err := parseIDCursor(a.CursorKey, list, in.Cursor)
	if err != nil {
		return server.Answer{}, err
	}
	if _, err := call.MinPosition(ctx); err != nil {
		return server.Answer{}, err
	}
	found, err := a.Identity.ThrottledUsers(ctx, after, in.Limit.size())
	if err != nil {
		return server.Answer{}, err
	}
	answer := throttledUsers{page[identity.Examined]{Items: found.Users}, found.Nobody}
	if found.Last != uuid.Nil {
		answer.NextCursor = idCursor(a.CursorKey, list, found.Last)
	}
	return server.OK(answer), nil
}

// showUser answers GET /v1/users/{id}, with the user's own state: it needs no read model. With a minimum position it is
// read from the log, which has every position that was ever given out; with the parameter at, as of then.
func (a *api) showUser(ctx context.Context, call *server.Call, in struct {
	ofUser
	At *string `query:"at"`
}) (server.Answer, error) {
	if in.At != nil {
		return a.showUserAt(ctx, call, in.ID, *in.At)
	}
	read := a.Identity.User
	switch position, err := call.MinPosition(ctx); {
	case err != nil:
		return server.Answer{}, err
	case position > 0:
		read = a.Identity.ReadUser
	}
	u, err := read(ctx, in.ID)
	if err != nil {
		return server.Answer{}, err
	}
	examined, err := a.Identity.Examine(ctx, u)
	return server.OK(examined), err
}

func (a *api) showUserAt(ctx context.Context, call *server.Call, id uuid.UUID, at string) (server.Answer, error) {
	then, err := a.Moment(ctx, at)
	if err != nil {
		return server.Answer{}, err
	}
	if _, err := call.MinPosition(ctx); err != nil {
		return server.Answer{}, err
	}
	u, err := a.Identity.UserAt(ctx, id, then)
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(json.RawMessage(u.JSON())), nil
}

// listUserEvents answers GET /v1/users/{id}/events, from the log: everything about a user, the oldest first.
func (a *api) listUserEvents(ctx context.Context, call *server.Call, in struct {
	ofUser
	paging
}) (server.Answer, error) {
	list := "events of " + in.ID.String()
	after, err := parsePositionCursor(a.CursorKey, list, in.Cursor)
	if err != nil {
		return server.Answer{}, err
	}
	if _, err := call.MinPosition(ctx); err != nil {
		return server.Answer{}, err
	}
	size := in.Limit.size()
	events, err := a.Log.ReadSubject(ctx, in.ID, after, size+1)
	if err != nil {
		return server.Answer{}, err
	}
	if len(events) == 0 && after == 0 {
		return server.Answer{}, server.Refuse(identity.CodeNotFound, "there is no such user")
	}
	return server.OK(pageOf(viewEvents(events, call.Caller), size, func(last EventView) string { return positionCursor(a.CursorKey, list, last.Position) })), nil
}
