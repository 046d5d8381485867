package api

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/projections"
)

// query reads a request's query, strictly: each parameter known and at most once.
func query(c *echo.Context, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, refuse(identity.CodeInvalidRequest, "the query is not valid")
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, refuse(identity.CodeInvalidRequest, "the parameter %s is unknown", quote(name))
		}
		if len(list) > 1 {
			return nil, refuse(identity.CodeInvalidRequest, "the parameter %s is there twice", quote(name))
		}
	}
	return values, nil
}

// limit reads how many items a page has at most.
func limit(values url.Values) (int, error) { return limitUpTo(values, projections.MaxLimit) }

func limitUpTo(values url.Values, most int) (int, error) {
	text := values.Get("limit")
	if text == "" {
		return projections.DefaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, refuse(identity.CodeInvalidRequest, "the limit is a number from 1 to %d", most)
	}
	return n, nil
}

// boolParameter reads a parameter that is true or false; nil for one that is not there.
func boolParameter(values url.Values, name string) (*bool, error) {
	switch text := values.Get(name); {
	case !values.Has(name):
		return nil, nil
	case text == "true" || text == "false":
		yes := text == "true"
		return &yes, nil
	}
	return nil, refuse(identity.CodeInvalidRequest, "%s is true or false", name)
}

func timeParameter(values url.Values, name string) (time.Time, error) {
	text := values.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1970 {
		return time.Time{}, refuse(identity.CodeInvalidRequest, "%s is a time such as 2026-01-02T15:04:05Z, not before 1970", name)
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// head remembers how far the log is known to reach, so that most positions can be checked without a query.
type head struct{ seen atomic.Int64 }

// minPosition is the position that the request wants the answer to have; 0 for any. It fails with code invalid_position
// for what can't be one, and with code behind, at once, for one that the log itself has not reached: no read model is
// about to.
func (s *Server) minPosition(c *echo.Context) (int64, error) {
	values := c.Request().Header.Values(headerMinPosition)
	if len(values) == 0 {
		return 0, nil
	}
	position, ok := parsePosition(values[0])
	if !ok || len(values) > 1 {
		return 0, refuse(codeInvalidPosition, "%s is a number that %s was given as", headerMinPosition, headerPosition)
	}
	if head, err := s.reach(c.Request().Context(), position); err != nil {
		return 0, err
	} else if position > head {
		return 0, refuse(identity.CodeBehind, "the log is at %d", head)
	}
	return position, nil
}

// parsePosition reads a position, or 0, which stands for the beginning of the log. It has one text only.
func parsePosition(text string) (int64, bool) {
	position, err := strconv.ParseInt(text, 10, 64)
	return position, err == nil && position >= 0 && strconv.FormatInt(position, 10) == text
}

// reach is a position that the log has for certain: at least the wanted one, or else where the log ends.
func (s *Server) reach(ctx context.Context, wanted int64) (int64, error) {
	if seen := s.head.seen.Load(); wanted <= seen {
		return seen, nil
	}
	head, err := s.Log.Head(ctx)
	if err != nil {
		return 0, err
	}
	for seen := s.head.seen.Load(); head > seen && !s.head.seen.CompareAndSwap(seen, head); seen = s.head.seen.Load() {
	}
	return head, nil
}

// moment reads the parameter at, a position or a time that is not to come: the position that the log was at then. It fails
// with code invalid_position or invalid_request.
func (s *Server) moment(ctx context.Context, values url.Values) (int64, error) {
	if position, ok := parsePosition(values.Get("at")); ok {
		head, err := s.reach(ctx, position)
		if err == nil && position > head {
			err = refuse(codeInvalidPosition, "the log is at %d", head)
		}
		return position, err
	}
	at, err := timeParameter(values, "at")
	switch {
	case err != nil || at.IsZero():
		return 0, refuse(identity.CodeInvalidRequest, "at is a position, or a time such as 2026-01-02T15:04:05Z, not before 1970")
	case at.After(s.Now()):
		return 0, refuse(identity.CodeInvalidRequest, "at is a time that is still to come")
	}
	return s.Log.PositionAt(ctx, at)
}

// awaitReadModel waits until a read model has the position that the request asks for, for a bounded time.
func (s *Server) awaitReadModel(c *echo.Context, name string) error {
	position, err := s.minPosition(c)
	if err != nil || position == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.PositionWait)
	defer cancel()
	if err := s.Checkpoints.Await(ctx, name, position); err != nil {
		return err
	}
	return s.again(c, s.Identity.SessionUser)
}
