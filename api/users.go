package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// noUser is what a path that names no user is answered with.
const noUser = "there is no such user"

// listUsers answers GET /v1/users, from the read model, but for an exact address and for who is throttled.
func (a *api) listUsers(c *echo.Context) error {
	values, err := server.Query(c, "email", "throttled", "query", "status", "role", "email_verified", "created_after", "created_before", "limit", "cursor")
	if err != nil {
		return err
	}
	if values.Has("email") {
		return a.listUserWith(c, values)
	}
	if values.Has("throttled") {
		return a.listThrottledUsers(c, values)
	}
	f := projections.UserFilter{
		Query: values.Get("query"), Status: identity.Status(values.Get("status")), Role: values.Get("role"), Cursor: values.Get("cursor"),
	}
	if f.Limit, err = limit(values); err != nil {
		return err
	}
	if f.EmailVerified, err = server.BoolParameter(values, "email_verified"); err != nil {
		return err
	}
	if f.CreatedAfter, err = server.TimeParameter(values, "created_after"); err != nil {
		return err
	}
	if f.CreatedBefore, err = server.TimeParameter(values, "created_before"); err != nil {
		return err
	}
	if err := a.Users.Check(f); err != nil {
		return err
	}
	if err := a.awaitReadModel(c, projections.UsersName); err != nil {
		return err
	}
	page, err := a.Users.List(c.Request().Context(), f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, page)
}

// listUserWith answers GET /v1/users?email=, with the one user who has the address, or with none. As with one who is named by
// an id it needs no read model: the reservation of the address says who it is, and the log how the user is, each
// found by its key and as of now, however many users there are.
func (a *api) listUserWith(c *echo.Context, values url.Values) error {
	for name := range values {
		if name != "email" && name != "limit" {
			return server.Refuse(identity.CodeInvalidRequest, "an email names one user; the parameter %s can't go with it", server.Quote(name))
		}
	}
	if _, err := limit(values); err != nil {
		return err
	}
	var refusal *identity.Error
	if _, err := identity.ParseEmail(values.Get("email")); errors.As(err, &refusal) {
		return server.Refuse(identity.CodeInvalidRequest, "%s; in a query a + is written %%2B", refusal.Detail)
	}
	if _, err := a.MinPosition(c); err != nil {
		return err
	}
	ctx := c.Request().Context()
	id, err := a.Identity.UserWith(ctx, values.Get("email"))
	found := page[json.RawMessage]{Items: []json.RawMessage{}}
	if err == nil {
		var u *identity.User
		if u, err = a.Identity.ReadUser(ctx, id); err == nil {
			found.Items = append(found.Items, u.JSON())
		}
	}
	if err != nil && !errors.Is(err, identity.ErrNotFound) { // which one who was erased meanwhile is too
		return err
	}
	return c.JSON(http.StatusOK, found)
}

// throttledUsers is a page of the users who are throttled.
type throttledUsers struct {
	page[identity.Examined]
	Nobody int `json:"unknown_addresses"`
}

// listThrottledUsers answers GET /v1/users?throttled=true, from what was failed at of late: as of now, and without a read model.
func (a *api) listThrottledUsers(c *echo.Context, values url.Values) error {
	const list = "throttled users"
	for name := range values {
		if !slices.Contains([]string{"throttled", "limit", "cursor"}, name) {
			return server.Refuse(identity.CodeInvalidRequest, "throttled goes with limit and cursor alone, not with %s", server.Quote(name))
		}
	}
	if values.Get("throttled") != "true" {
		return server.Refuse(identity.CodeInvalidRequest, "throttled is true, or left out for all users")
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	after, err := parseIDCursor(a.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	if _, err := a.MinPosition(c); err != nil {
		return err
	}
	found, err := a.Identity.ThrottledUsers(c.Request().Context(), after, size)
	if err != nil {
		return err
	}
	answer := throttledUsers{page[identity.Examined]{Items: found.Users}, found.Nobody}
	if found.Last != uuid.Nil {
		answer.NextCursor = idCursor(a.CursorKey, list, found.Last)
	}
	return c.JSON(http.StatusOK, answer)
}

// showUser answers GET /v1/users/{id}, with the user's own state: it needs no read model. With a minimum position it is
// read from the log, which has every position that was ever given out; with the parameter at, as of then.
func (a *api) showUser(c *echo.Context) error {
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	values, err := server.Query(c, "at")
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	var at int64
	if values.Has("at") {
		if at, err = a.Moment(ctx, values); err != nil {
			return err
		}
	}
	position, err := a.MinPosition(c)
	if err != nil {
		return err
	}
	var u *identity.User
	switch {
	case values.Has("at"):
		u, err = a.Identity.UserAt(ctx, id, at)
	case position > 0:
		u, err = a.Identity.ReadUser(ctx, id)
	default:
		u, err = a.Identity.User(ctx, id)
	}
	if err != nil {
		return err
	}
	if values.Has("at") {
		return c.JSONBlob(http.StatusOK, u.JSON())
	}
	examined, err := a.Identity.Examine(ctx, u)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, examined)
}

// listUserEvents answers GET /v1/users/{id}/events, from the log: everything about a user, the oldest first.
func (a *api) listUserEvents(c *echo.Context) error {
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	values, err := server.Query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	list := "events of " + id.String()
	after, err := parsePositionCursor(a.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	if _, err := a.MinPosition(c); err != nil {
		return err
	}
	events, err := a.Log.ReadSubject(c.Request().Context(), id, after, size+1)
	if err != nil {
		return err
	}
	if len(events) == 0 && after == 0 {
		return server.Refuse(identity.CodeNotFound, noUser)
	}
	views := make([]EventView, len(events))
	for i, e := range events {
		views[i] = ViewEvent(e)
	}
	return c.JSON(http.StatusOK, pageOf(views, size, func(last EventView) string { return positionCursor(a.CursorKey, list, last.Position) }))
}
