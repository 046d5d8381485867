package server

import (
	"context"
	"strconv"
	"sync/atomic"

	"usher.example/identity"
)

// head remembers how far the log is known to reach, so that most positions can be checked without a query.
type head struct{ seen atomic.Int64 }

// MinPosition is the position that the request wants the answer to have; 0 for any. It fails with code invalid_position
// for what can't be one, and with code behind, at once, for one that the log itself has not reached: no read model is
// about to.
func (c *Call) MinPosition(ctx context.Context) (int64, error) {
	values := c.echo.Request().Header.Values(HeaderMinPosition)
	if len(values) == 0 {
		return 0, nil
	}
	position, ok := ParsePosition(values[0])
	if !ok || len(values) > 1 {
		return 0, Refuse(CodeInvalidPosition, "%s is a number that %s was given as", HeaderMinPosition, HeaderPosition)
	}
	if head, err := c.server.Reach(ctx, position); err != nil {
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

// Moment is the position that the log was at when at says, which is a position or a time that is not to come. It fails with
// code invalid_position or invalid_request.
func (s *Server) Moment(ctx context.Context, at string) (int64, error) {
	if position, ok := ParsePosition(at); ok {
		head, err := s.Reach(ctx, position)
		if err == nil && position > head {
			err = Refuse(CodeInvalidPosition, "the log is at %d", head)
		}
		return position, err
	}
	then, ok := parseTime(at)
	switch {
	case !ok:
		return 0, Refuse(identity.CodeInvalidRequest, "at is a position, or a time such as 2026-01-02T15:04:05Z, not before 1970")
	case then.After(s.Now()):
		return 0, Refuse(identity.CodeInvalidRequest, "at is a time that is still to come")
	}
	return s.Log.PositionAt(ctx, then)
}
