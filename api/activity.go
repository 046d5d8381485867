package api

import (
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
	"usher.example/server"
)

// ownActivity is something that happened, as the user whom it is about is told: who else had a hand in it is not said.
type ownActivity struct {
	Position  int64                       `json:"position"`
	Time      time.Time                   `json:"time"`
	Session   uuid.UUID                   `json:"session,omitzero"`
	Type      string                      `json:"type"`
	Details   projections.ActivityDetails `json:"details"`
	Address   string                      `json:"address,omitempty"`
	UserAgent string                      `json:"user_agent,omitempty"`
}

// listOwnActivity answers GET /v1/me/activity, from the read model: what happened to the user, the newest first.
func (a *api) listOwnActivity(c *echo.Context) error {
	who, err := a.Caller(c)
	if err != nil {
		return err
	}
	values, err := server.Query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	items, next, err := a.activity(c, values, who.ID)
	if err != nil {
		return err
	}
	page := struct {
		Items      []ownActivity `json:"items"`
		NextCursor string        `json:"next_cursor,omitempty"`
	}{make([]ownActivity, len(items)), next}
	for i, item := range items {
		page.Items[i] = ownActivity{item.Position, item.Time, item.Session, item.Type, item.Details, item.Address, item.UserAgent}
	}
	return c.JSON(http.StatusOK, page)
}

// listActivity answers GET /v1/activity, from the read model: what happened to everybody, or to one user.
func (a *api) listActivity(c *echo.Context) error {
	values, err := server.Query(c, "user", "limit", "cursor")
	if err != nil {
		return err
	}
	var user uuid.UUID
	if text := values.Get("user"); text != "" {
		if user, err = uuid.Parse(text); err != nil || len(text) != 36 || user == uuid.Nil {
			return server.Refuse(identity.CodeInvalidRequest, "user is the id of a user")
		}
	}
	items, next, err := a.activity(c, values, user)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Items      []projections.ActivityView `json:"items"`
		NextCursor string                     `json:"next_cursor,omitempty"`
	}{items, next})
}

// activity reads a page of what happened to a user, or to everybody for the nil UUID.
func (a *api) activity(c *echo.Context, values url.Values, user uuid.UUID) (items []projections.ActivityView, next string, err error) {
	f := projections.ActivityFilter{User: user}
	if f.Limit, err = limit(values); err != nil {
		return nil, "", err
	}
	list := "activity of " + user.String()
	if f.Before, err = parsePositionCursor(a.CursorKey, list, values.Get("cursor")); err != nil {
		return nil, "", err
	}
	if err := a.awaitReadModel(c, projections.ActivityName); err != nil {
		return nil, "", err
	}
	items, more, err := a.Activity.List(c.Request().Context(), f)
	if more {
		next = positionCursor(a.CursorKey, list, items[len(items)-1].Position)
	}
	return items, next, err
}

// listUserSessions answers GET /v1/users/{id}/sessions, from the read model: those that go on and those that have ended.
func (a *api) listUserSessions(c *echo.Context) error {
	id, err := pathID(c, noUser)
	if err != nil {
		return err
	}
	values, err := server.Query(c, "open", "limit", "cursor")
	if err != nil {
		return err
	}
	f := projections.SessionFilter{User: id, Cursor: values.Get("cursor")}
	switch values.Get("open") {
	case "true":
		f.Open = true
	case "", "false":
	default:
		return server.Refuse(identity.CodeInvalidRequest, "open is true or false")
	}
	if f.Limit, err = limit(values); err != nil {
		return err
	}
	if err := a.Sessions.Check(f); err != nil {
		return err
	}
	if err := a.awaitReadModel(c, projections.SessionsName); err != nil {
		return err
	}
	page, err := a.Sessions.List(c.Request().Context(), f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, page)
}

// showStats answers GET /v1/stats, from the read model. Without times it is of the last 30 days, or the last 48 hours.
func (a *api) showStats(c *echo.Context) error {
	values, err := server.Query(c, "from", "to", "interval")
	if err != nil {
		return err
	}
	span := projections.SpanDay
	if text := values.Get("interval"); text != "" {
		span = projections.Span(text)
	}
	if span.Length() == 0 {
		return server.Refuse(identity.CodeInvalidRequest, "the interval is hour or day")
	}
	from, err := server.TimeParameter(values, "from")
	if err != nil {
		return err
	}
	to, err := server.TimeParameter(values, "to")
	if err != nil {
		return err
	}
	if to.IsZero() {
		to = a.Now()
	}
	if from.IsZero() {
		from = to.Add(-defaultSpans[span] * span.Length())
	}
	if err := a.Stats.Check(span, from, to); err != nil {
		return err
	}
	if err := a.awaitReadModel(c, projections.StatsName); err != nil {
		return err
	}
	items, err := a.Stats.Between(c.Request().Context(), span, from, to)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Interval projections.Span      `json:"interval"`
		Items    []projections.Figures `json:"items"`
	}{span, items})
}

// defaultSpans are how many spans back statistics go.
var defaultSpans = map[projections.Span]time.Duration{projections.SpanHour: 48, projections.SpanDay: 30}
