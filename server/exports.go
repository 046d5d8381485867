package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/identity/dossier"
)

// Exports are the files of everything there is of a user that this process writes, by whatever surface. Each holds the memory of a page of
// events and no connection to the database while its client is slow. There is one at a time of a user.
type Exports struct {
	Archive dossier.Archive
	// Most is how many there are at once; those beyond are refused. 16 when 0.
	Most int

	mu    sync.Mutex
	users map[uuid.UUID]bool
}

// begin notes an export of a user, and answers with what ends it. It fails with CodeThrottled where there is one of the user already.
func (e *Exports) begin(user uuid.UUID) (end func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.users[user]:
		return nil, Refuse(identity.CodeThrottled, "another export of this account is under way")
	case len(e.users) >= cmp.Or(e.Most, 16):
		return nil, Refuse(identity.CodeOverloaded, "too many exports are under way")
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

// Answer answers with everything there is of the caller, as a file. While it is written it is looked at again and again whether the
// caller may have it.
func (e *Exports) Answer(ctx context.Context, call *Call) Answer {
	return Written(func(c *echo.Context) error {
		end, err := e.begin(call.User.ID)
		if err != nil {
			return err
		}
		defer end()
		d, err := e.Archive.Open(ctx, call.User.ID, call.Session)
		if err != nil {
			return err
		}
		w := c.Response()
		w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		w.Header().Set(echo.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="usher-%s.json"`, call.server.Now().UTC().Format(time.DateOnly)))
		w.WriteHeader(http.StatusOK)
		if c.Request().Method == http.MethodHead {
			return nil
		}
		deadline := http.NewResponseController(w)
		return d.Write(ctx, w, func() error {
			// A server that can't be told has no such limit.
			if err := deadline.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
			return call.Again(ctx, call.server.Identity.SessionUser)
		})
	})
}
