package server

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// Query reads a request's query, strictly: each parameter known and at most once.
func Query(c *echo.Context, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, Refuse(identity.CodeInvalidRequest, "the query is not valid")
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, Refuse(identity.CodeInvalidRequest, "the parameter %s is unknown", Quote(name))
		}
		if len(list) > 1 {
			return nil, Refuse(identity.CodeInvalidRequest, "the parameter %s is there twice", Quote(name))
		}
	}
	return values, nil
}

// BoolParameter reads a parameter that is true or false; nil for one that is not there.
func BoolParameter(values url.Values, name string) (*bool, error) {
	switch text := values.Get(name); {
	case !values.Has(name):
		return nil, nil
	case text == "true" || text == "false":
		yes := text == "true"
		return &yes, nil
	}
	return nil, Refuse(identity.CodeInvalidRequest, "%s is true or false", name)
}

// TimeParameter reads a parameter that is a time; the zero time for one that is not there.
func TimeParameter(values url.Values, name string) (time.Time, error) {
	text := values.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1970 {
		return time.Time{}, Refuse(identity.CodeInvalidRequest, "%s is a time such as 2026-01-02T15:04:05Z, not before 1970", name)
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// head remembers how far the log is known to reach, so that most positions can be checked without a query.
type head struct{ seen atomic.Int64 }

// MinPosition is the position that the request wants the answer to have; 0 for any. It fails with code invalid_position
// for what can't be one, and with code behind, at once, for one that the log itself has not reached: no read model is
// about to.
func (s *Server) MinPosition(c *echo.Context) (int64, error) {
	values := c.Request().Header.Values(HeaderMinPosition)
	if len(values) == 0 {
		return 0, nil
	}
	position, ok := ParsePosition(values[0])
	if !ok || len(values) > 1 {
		return 0, Refuse(CodeInvalidPosition, "%s is a number that %s was given as", HeaderMinPosition, HeaderPosition)
	}
	if head, err := s.Reach(c.Request().Context(), position); err != nil {
		return 0, err
	} else if position > head {
		return 0, Refuse(identity.CodeBehind, "the log is at %d", head)
	}
	return position, nil
}

// ParsePosition reads a position, or 0, which stands for the beginning of the log. It has one text only.
func ParsePosition(text string) (int64, bool) {
	position, err := strconv.ParseInt(text, 10, 64)
	return position, err == nil && position >= 0 && strconv.FormatInt(position, 10) == text
}

// Reach is a position that the log has for certain: at least the wanted one, or else where the log ends.
func (s *Server) Reach(ctx context.Context, wanted int64) (int64, error) {
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

// Moment reads the parameter at, a position or a time that is not to come: the position that the log was at then. It fails
// with code invalid_position or invalid_request.
func (s *Server) Moment(ctx context.Context, values url.Values) (int64, error) {
	if position, ok := ParsePosition(values.Get("at")); ok {
		head, err := s.Reach(ctx, position)
		if err == nil && position > head {
			err = Refuse(CodeInvalidPosition, "the log is at %d", head)
		}
		return position, err
	}
	at, err := TimeParameter(values, "at")
	switch {
	case err != nil || at.IsZero():
		return 0, Refuse(identity.CodeInvalidRequest, "at is a position, or a time such as 2026-01-02T15:04:05Z, not before 1970")
	case at.After(s.Now()):
		return 0, Refuse(identity.CodeInvalidRequest, "at is a time that is still to come")
	}
	return s.Log.PositionAt(ctx, at)
}
