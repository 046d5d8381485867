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
)

// noUser is what a path that names no user is answered with.
const noUser = "there is no such user"

// listUsers answers GET /v1/users, from the read model, but for an exact address and for who is throttled.
func (s *Server) listUsers(c *echo.Context) error {
	values, err := query(c, "email", "throttled", "query", "status", "role", "email_verified", "created_after", "created_before", "limit", "cursor")
	if err != nil {
		return err
	}
	if values.Has("email") {
		return s.listUserWith(c, values)
	}
	if values.Has("throttled") {
		return s.listThrottledUsers(c, values)
	}
	f := projections.UserFilter{
		Query: values.Get("query"), Status: identity.Status(values.Get("status")), Role: values.Get("role"), Cursor: values.Get("cursor"),
	}
	if f.Limit, err = limit(values); err != nil {
		return err
	}
	if f.EmailVerified, err = boolParameter(values, "email_verified"); err != nil {
		return err
	}
	if f.CreatedAfter, err = timeParameter(values, "created_after"); err != nil {
		return err
	}
	if f.CreatedBefore, err = timeParameter(values, "created_before"); err != nil {
		return err
	}
	if err := s.Users.Check(f); err != nil {
		return err
	}
	if err := s.awaitReadModel(c, projections.UsersName); err != nil {
		return err
	}
	page, err := s.Users.List(c.Request().Context(), f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, page)
}

// listUserWith answers GET /v1/users?email=, with the one user who has the address, or with none. As with one who is named by
// an id it needs no read model: the reservation of the address says who it is, and the log how the user is, each
// found by its key and as of now, however many users there are.
func (s *Server) listUserWith(c *echo.Context, values url.Values) error {
	for name := range values {
		if name != "email" && name != "limit" {
			return refuse(identity.CodeInvalidRequest, "an email names one user; the parameter %s can't go with it", quote(name))
		}
	}
	if _, err := limit(values); err != nil {
		return err
	}
	var refusal *identity.Error
	if _, err := identity.ParseEmail(values.Get("email")); errors.As(err, &refusal) {
		return refuse(identity.CodeInvalidRequest, "%s; in a query a + is written %%2B", refusal.Detail)
	}
	if _, err := s.minPosition(c); err != nil {
		return err
	}
	ctx := c.Request().Context()
	id, err := s.Identity.UserWith(ctx, values.Get("email"))
	found := page[json.RawMessage]{Items: []json.RawMessage{}}
	if err == nil {
		var u *identity.User
		if u, err = s.Identity.ReadUser(ctx, id); err == nil {
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
func (s *Server) listThrottledUsers(c *echo.Context, values url.Values) error {
	const list = "throttled users"
	for name := range values {
		if !slices.Contains([]string{"throttled", "limit", "cursor"}, name) {
			return refuse(identity.CodeInvalidRequest, "throttled goes with limit and cursor alone, not with %s", quote(name))
		}
	}
	if values.Get("throttled") != "true" {
		return refuse(identity.CodeInvalidRequest, "throttled is true, or left out for all users")
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	after, err := parseIDCursor(s.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	if _, err := s.minPosition(c); err != nil {
		return err
	}
	found, err := s.Identity.ThrottledUsers(c.Request().Context(), after, size)
	if err != nil {
		return err
	}
	answer := throttledUsers{page[identity.Examined]{Items: found.Users}, found.Nobody}
	if found.Last != uuid.Nil {
		answer.NextCursor = idCursor(s.CursorKey, list, found.Last)
	}
	return c.JSON(http.StatusOK, answer)
}

// showUser answers GET /v1/users/{id}, with the user's own state: it needs no read model. With a minimum position it is
// read from the log, which has every position that was ever given out; with the parameter at, as of then.
func (s *Server) showUser(c *echo.Context) error {
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	values, err := query(c, "at")
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	var at int64
	if values.Has("at") {
		if at, err = s.moment(ctx, values); err != nil {
			return err
		}
	}
	position, err := s.minPosition(c)
	if err != nil {
		return err
	}
	var u *identity.User
	switch {
	case values.Has("at"):
		u, err = s.Identity.UserAt(ctx, id, at)
	case position > 0:
		u, err = s.Identity.ReadUser(ctx, id)
	default:
		u, err = s.Identity.User(ctx, id)
	}
	if err != nil {
		return err
	}
	if values.Has("at") {
		return c.JSONBlob(http.StatusOK, u.JSON())
	}
	examined, err := s.Identity.Examine(ctx, u)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, examined)
}

// listUserEvents answers GET /v1/users/{id}/events, from the log: everything about a user, the oldest first.
func (s *Server) listUserEvents(c *echo.Context) error {
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	values, err := query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	list := "events of " + id.String()
	after, err := parsePositionCursor(s.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	if _, err := s.minPosition(c); err != nil {
		return err
	}
	events, err := s.Log.ReadSubject(c.Request().Context(), id, after, size+1)
	if err != nil {
		return err
	}
	if len(events) == 0 && after == 0 {
		return refuse(identity.CodeNotFound, noUser)
	}
	views := make([]EventView, len(events))
	for i, e := range events {
		views[i] = ViewEvent(e)
	}
	return c.JSON(http.StatusOK, pageOf(views, size, func(last EventView) string { return positionCursor(s.CursorKey, list, last.Position) }))
}
