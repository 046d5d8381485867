package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/server"
)

// exports are those that are under way in this process. Each holds the memory of a page of events and no connection to the database
// while its client is slow.
type exports struct {
	mu    sync.Mutex
	users map[uuid.UUID]bool
}

// maxExports bounds them; those beyond are refused at once.
const maxExports = 16

// begin notes an export of a user, and answers with what ends it. It fails with CodeThrottled where there is one of the user already.
func (e *exports) begin(user uuid.UUID) (end func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.users[user]:
		return nil, server.Refuse(identity.CodeThrottled, "another export of this account is under way")
	case len(e.users) >= maxExports:
		return nil, server.Refuse(identity.CodeOverloaded, "too many exports are under way")
	}
	if e.users == nil {
		e.users = map[uuid.UUID]bool{}
	}
	e.users[user] = true
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.users, user)
	}, nil
}

// exportMe answers GET /v1/me/export, with everything there is of the caller: for a session that began lately, since whoever stole one
// must not have it all.
func (a *api) exportMe(ctx context.Context, call *server.Call, _ server.Nothing) (server.Answer, error) {
	if !a.Identity.BeganLately(call.Session) {
		return server.Answer{}, server.Refuse(identity.CodeForbidden, "the session began too long ago for this; log in again, or send the current_password by POST")
	}
	return a.export(ctx, call), nil
}

// exportMeProven answers POST /v1/me/export, which is GET for whoever shows to be the user.
func (a *api) exportMeProven(ctx context.Context, call *server.Call, in optionalProof) (server.Answer, error) {
	if err := a.Identity.Confirm(ctx, call.User.ID, call.Session, in.of(call), call.Metadata()); err != nil {
		return server.Answer{}, err
	}
	return a.export(ctx, call), nil
}

func (a *api) export(ctx context.Context, call *server.Call) server.Answer {
	return server.Written(func(c *echo.Context) error {
		end, err := a.exports.begin(call.User.ID)
		if err != nil {
			return err
		}
		defer end()
		d, err := a.Dossiers.Open(ctx, call.User.ID, call.Session)
		if err != nil {
			return err
		}
		w := c.Response()
		w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		w.Header().Set(echo.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="usher-%s.json"`, a.Now().UTC().Format(time.DateOnly)))
		w.WriteHeader(http.StatusOK)
		if c.Request().Method == http.MethodHead {
			return nil
		}
		deadline := http.NewResponseController(w)
		return d.Write(ctx, w, func() error {
			// A server that can't be told has no such limit.
			if err := deadline.SetWriteDeadline(time.Now().Add(server.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
			return call.Again(ctx, a.Identity.SessionUser)
		})
	})
}
