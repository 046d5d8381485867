package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// counting is a database that counts what one request asks it: what comes with a context of countedRequest, and so nothing of what
// goes on beside.
type counting struct {
	database
	asked atomic.Int32
}

type countedRequest struct{}

func (c *counting) count(ctx context.Context) {
	if ctx.Value(countedRequest{}) != nil {
		c.asked.Add(1)
	}
}

func (c *counting) Query(ctx context.Context, sql string, args ...any) (eventstore.Rows, error) {
	c.count(ctx)
	return c.database.Query(ctx, sql, args...)
}

func (c *counting) QueryRow(ctx context.Context, sql string, args ...any) eventstore.Row {
	c.count(ctx)
	return c.database.QueryRow(ctx, sql, args...)
}

func (c *counting) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	c.count(ctx)
	return c.database.Exec(ctx, sql, args...)
}

func (c *counting) Transact(ctx context.Context, do func(eventstore.DB) error) error {
	c.count(ctx)
	return c.database.Transact(ctx, do)
}

func (c *counting) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	c.count(ctx)
	return c.database.Commit(ctx, batch)
}

func (c *counting) ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]eventstore.Event, error) {
	c.count(ctx)
	return c.database.ReadStream(ctx, stream, after, limit)
}

func (c *counting) StreamVersion(ctx context.Context, stream uuid.UUID) (int, error) {
	c.count(ctx)
	return c.database.StreamVersion(ctx, stream)
}

func (c *counting) Head(ctx context.Context) (int64, error) {
	c.count(ctx)
	return c.database.Head(ctx)
}

// statements is how many a request takes.
func (c *counting) statements(s *stack, path, body, authorization string) int32 {
	s.tb.Helper()
	r := httptest.NewRequestWithContext(context.WithValue(s.tb.Context(), countedRequest{}, true), "POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", formType)
	r.Header.Set("Authorization", authorization)
	before, answered := c.asked.Load(), httptest.NewRecorder()
	s.server.ServeHTTP(answered, r)
	if answered.Code != http.StatusOK {
		s.tb.Fatalf("%s: %d %s", path, answered.Code, answered.Body)
	}
	return c.asked.Load() - before
}

// A service that gets tokens, or asks about one, costs the database nothing once it is known.
func TestServicesTakeNoStatements(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		counted := &counting{database: db}
		s := newStack(t, counted, options{})
		s.user("ada@example.org")
		live := s.tokens("ada@example.org").access
		id, secret := s.addService(s.admin(), `{"name":"warehouse","scopes":["events:read"]}`)
		for path, body := range map[string]string{
			"/oauth2/token": form("grant_type", "client_credentials"),
			introspect:      form("token", live),
		} {
			s.server.Clients.Changed(uuid.Nil)
			if first := counted.statements(s, path, body, basic(id, secret)); first == 0 {
				t.Errorf("%s: nothing was counted where the client was not known", path)
			}
			devstack.Eventually(t, path+" takes no statement, twenty times in a row", func() bool { // the log is followed, and soon enough
				for range 20 {
					if counted.statements(s, path, body, basic(id, secret)) > 0 {
						return false
					}
				}
				return true
			})
		}
	})
}
