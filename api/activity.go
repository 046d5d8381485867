package api

import (
	"cmp"
	"context"
	"time"

	"github.com/google/uuid"

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
func (a *api) listOwnActivity(ctx context.Context, call *server.Call, in paging) (server.Answer, error) {
	found, err := a.activity(ctx, call, in, call.User.ID)
	own := page[ownActivity]{make([]ownActivity, len(found.Items)), found.NextCursor}
	for i, v := range found.Items {
		own.Items[i] = ownActivity{v.Position, v.Time, v.Session, v.Type, v.Details, v.Address, v.UserAgent}
	}
	return server.OK(own), err
}

// listActivity answers GET /v1/activity, from the read model: what happened to everybody, or to one user.
func (a *api) listActivity(ctx context.Context, call *server.Call, in struct {
	paging
	User string `query:"user"`
}) (server.Answer, error) {
	var user uuid.UUID
	if in.User != "" {
		var err error
		if user, err = uuid.Parse(in.User); err != nil || len(in.User) != 36 || user == uuid.Nil {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "user is the id of a user")
		}
	}
	found, err := a.activity(ctx, call, in.paging, user)
	return server.OK(found), err
}

// activity reads a page of what happened to a user, or to everybody for the nil UUID.
func (a *api) activity(ctx context.Context, call *server.Call, in paging, user uuid.UUID) (found page[projections.ActivityView], err error) {
	f := projections.ActivityFilter{User: user, Limit: in.Limit.size()}
	list := "activity of " + user.String()
	if f.Before, err = parsePositionCursor(a.CursorKey, list, in.Cursor); err != nil {
		return found, err
	}
	if err := a.awaitReadModel(ctx, call, projections.ActivityName); err != nil {
		return found, err
	}
	var more bool
	found.Items, more, err = a.Activity.List(ctx, f)
	if more {
		found.NextCursor = positionCursor(a.CursorKey, list, found.Items[len(found.Items)-1].Position)
	}
	return found, err
}

// listUserSessions answers GET /v1/users/{id}/sessions, from the read model: those that go on and those that have ended.
func (a *api) listUserSessions(ctx context.Context, call *server.Call, in struct {
	ofUser
	paging
	Open bool `query:"open"`
}) (server.Answer, error) {
	f := projections.SessionFilter{User: in.ID, Open: in.Open, Limit: in.Limit.size(), Cursor: in.Cursor}
	if err := a.Sessions.Check(f); err != nil {
		return server.Answer{}, err
	}
	if err := a.awaitReadModel(ctx, call, projections.SessionsName); err != nil {
		return server.Answer{}, err
	}
	found, err := a.Sessions.List(ctx, f)
	return server.OK(found), err
}

// showStats answers GET /v1/stats, from the read model. Without times it is of the last 30 days, or the last 48 hours.
func (a *api) showStats(ctx context.Context, call *server.Call, in struct {
	From     time.Time        `query:"from"`
	To       time.Time        `query:"to"`
	Interval projections.Span `query:"interval"`
}) (server.Answer, error) {
	span := cmp.Or(in.Interval, projections.SpanDay)
	if span.Length() == 0 {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "the interval is hour or day")
	}
	to := in.To
	if to.IsZero() {
		to = a.Now()
	}
	from := in.From
	if from.IsZero() {
		from = to.Add(-defaultSpans[span] * span.Length())
	}
	if err := a.Stats.Check(span, from, to); err != nil {
		return server.Answer{}, err
	}
	if err := a.awaitReadModel(ctx, call, projections.StatsName); err != nil {
		return server.Answer{}, err
	}
	items, err := a.Stats.Between(ctx, span, from, to)
	return server.OK(struct {
		Interval projections.Span      `json:"interval"`
		Items    []projections.Figures `json:"items"`
	}{span, items}), err
}

// defaultSpans are how many spans back statistics go.
var defaultSpans = map[projections.Span]time.Duration{projections.SpanHour: 48, projections.SpanDay: 30}
