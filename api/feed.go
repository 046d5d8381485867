package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/server"
)

// Bounds of the feed.
const (
	maxFeedPage = 1000
	feedSpan    = 20_000 // events that one request looks at
	maxFeedWait = 60     // seconds
	maxWaiting  = 64     // requests that wait for events; those beyond are refused at once
	// feedPause is how long a request that waits, and was woken by events that it does not want, leaves the log alone.
	feedPause = 50 * time.Millisecond
)

// feed is what requests for the feed share.
type feed struct {
	waiting atomic.Int64
}

// feedQuery is which part of the log a request asks for.
type feedQuery struct {
	After  *string   `query:"after"`
	Cursor *string   `query:"cursor"`
	Type   *string   `query:"type"`
	Limit  feedLimit `query:"limit"`
	Wait   feedWait  `query:"wait"`
}

// feedLimit is how many events a page has at most.
type feedLimit struct{ limit }

// UnmarshalText reads a limit.
func (l *feedLimit) UnmarshalText(text []byte) error {
	n, err := parseLimit(string(text), maxFeedPage)
	l.limit = limit(n)
	return err
}

// feedWait is how long a request waits for events.
type feedWait time.Duration

// UnmarshalText reads a number of seconds.
func (w *feedWait) UnmarshalText(text []byte) error {
	seconds, err := strconv.Atoi(string(text))
	if err != nil || seconds < 0 || seconds > maxFeedWait {
		return server.Refuse(identity.CodeInvalidRequest, "wait is a number of seconds from 0 to %d", maxFeedWait)
	}
	*w = feedWait(time.Duration(seconds) * time.Second)
	return nil
}

// part is a part of the log.
type part struct {
	after  int64
	limit  int
	wait   time.Duration
	wanted func(eventType string) bool
}

// listEvents answers GET /v1/events, the whole log as a feed: events in the order of their positions. A page always says how
// far it looked, also when it found nothing: who goes on from there misses nothing and sees nothing twice. A page that
// looked no further than where it began is at the end of the log; with a wait it is answered once there is something, or
// the time is up.
func (a *api) listEvents(ctx context.Context, call *server.Call, in feedQuery) (server.Answer, error) {
	f, err := a.part(ctx, in)
	if err != nil {
		return server.Answer{}, err
	}
	if _, err := call.MinPosition(ctx); err != nil {
		return server.Answer{}, err
	}
	events, through, err := a.scan(ctx, f)
	if err == nil && through == f.after && f.wait > 0 {
		if events, through, err = a.awaitEvents(ctx, call, f); err == nil {
			err = call.Again(ctx, a.Identity.ReadSessionUser)
		}
	}
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(page[EventView]{viewEvents(events, call.Caller), strconv.FormatInt(through, 10)}), nil
}

func (a *api) scan(ctx context.Context, f part) ([]eventstore.Event, int64, error) {
	return a.Log.Scan(ctx, f.after, f.limit, feedSpan, f.wanted)
}

// awaitEvents waits at the end of the log until there is an event that is wanted, or the time is up. Commits of this process
// wake it, and so does whatever identity.Service.Follow finds of other processes.
func (a *api) awaitEvents(ctx context.Context, call *server.Call, f part) (events []eventstore.Event, through int64, err error) {
	if a.feed.waiting.Add(1) > maxWaiting {
		a.feed.waiting.Add(-1)
		return nil, 0, server.Refuse(identity.CodeOverloaded, "too many requests wait for events")
	}
	defer a.feed.waiting.Add(-1)
	// A server that can't be told has no such limit.
	err = http.NewResponseController(call.Echo().Response()).SetWriteDeadline(time.Now().Add(f.wait + server.WriteTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, 0, err
	}
	committed, stop := a.Log.Watch()
	defer stop()
	over := time.NewTimer(f.wait)
	defer over.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		followed := a.Identity.Followed()
		events, through, err = a.scan(ctx, f)
		if err != nil || len(events) > 0 || through-f.after >= feedSpan {
			return events, through, err
		}
		f.after = through
		pause.Reset(feedPause)
		select {
		case <-committed:
		case <-followed:
		case <-over.C:
			return events, through, nil
		case <-a.Closing():
			return events, through, nil
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		if err := call.Again(ctx, a.Identity.SessionUser); err != nil {
			return nil, 0, err // what woke it may have been a lock
		}
	}
}

func (a *api) part(ctx context.Context, in feedQuery) (f part, err error) {
	f = part{limit: in.Limit.size(), wait: time.Duration(in.Wait)}
	from, name := in.After, "after"
	if in.Cursor != nil { // under the name that other lists have for it
		from, name = in.Cursor, "cursor"
	}
	if in.After != nil && in.Cursor != nil {
		return f, server.Refuse(identity.CodeInvalidRequest, "after and cursor are the same; one of them will do")
	}
	if from != nil {
		position, ok := server.ParsePosition(*from)
		if !ok {
			return f, server.Refuse(server.CodeInvalidPosition, "%s is a position, or the next_cursor of a page", name)
		}
		head, err := a.Reach(ctx, position)
		if err != nil {
			return f, err
		}
		if position > head { // whoever has read as far as that has read another log, or this one before it was restored
			return f, server.Refuse(server.CodeInvalidPosition, "the log is at %d", head)
		}
		f.after = position
	}
	f.wanted, err = typeFilter(in.Type)
	return f, err
}

var typeForm = regexp.MustCompile(`^[a-z_]{1,64}\.([a-z_]{1,64}|\*)$`)

// typeFilter reads the parameter type: a type of events, or all that begin with a word, such as user.*
func typeFilter(text *string) (func(string) bool, error) {
	if text == nil {
		return func(string) bool { return true }, nil
	}
	if !typeForm.MatchString(*text) {
		return nil, server.Refuse(identity.CodeInvalidRequest, "type is a type of events, such as user.registered, or the beginning of some, such as user.*")
	}
	if prefix, all := strings.CutSuffix(*text, "*"); all {
		return func(t string) bool { return strings.HasPrefix(t, prefix) }, nil
	}
	return func(t string) bool { return t == *text }, nil
}
