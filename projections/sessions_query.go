package projections

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Sessions queries the read model of sessions.
type Sessions struct {
	DB        eventstore.DB
	CursorKey []byte // as that of Users
}

// SessionFilter says which sessions of a user a list has.
type SessionFilter struct {
	User   uuid.UUID
	Open   bool   // only those that have not ended
	Limit  int    // sessions on a page: DefaultLimit when 0, at most MaxLimit
	Cursor string // SessionPage.NextCursor of the page before, for the same filter
}

// SessionPage is a page of a list of sessions, the newest first.
type SessionPage struct {
	Items      []SessionView `json:"items"`
	NextCursor string        `json:"next_cursor,omitempty"` // empty on the last page
}

// List answers with a page of a user's sessions, the newest first. It fails as Users.List does.
func (q Sessions) List(ctx context.Context, f SessionFilter) (SessionPage, error) {
	page, err := q.list(ctx, f)
	if err != nil {
		return SessionPage{}, fmt.Errorf("list sessions of %s: %w", f.User, err)
	}
	return page, nil
}

// Check fails as List does for a cursor that can't be, and reads nothing: for who would wait before a list is read.
func (q Sessions) Check(f SessionFilter) error {
	_, err := q.begin(f)
	return err
}

// begin is where a page begins.
func (q Sessions) begin(f SessionFilter) (at cursor, err error) {
	if f.Cursor == "" {
		return cursor{}, nil
	}
	return decodeCursor(q.CursorKey, f.identity(), f.Cursor)
}

// identity is what a cursor is bound to.
func (f SessionFilter) identity() string { return fmt.Sprintf("sessions\x00%s\x00%t", f.User, f.Open) }

func (q Sessions) list(ctx context.Context, f SessionFilter) (page SessionPage, err error) {
	if f.Limit, err = pageSize(f.Limit); err != nil {
		return page, err
	}
	sql, args := "SELECT "+sessionView+" FROM "+ViewName(q.DB.Dialect(), SessionsName)+" WHERE subject = $1", []any{f.User}
	at, err := q.begin(f)
	if err != nil {
		return page, err
	}
	if at != (cursor{}) {
		sql, args = sql+" AND id < $2", append(args, at.id)
	}
	if f.Open {
		sql += " AND ended_at IS NULL"
	}
	rows, err := q.DB.Query(ctx, sql+fmt.Sprintf(" ORDER BY id DESC LIMIT %d", f.Limit+1), args...)
	if err != nil {
		return page, explain(ctx, q.DB, SessionProjection{}, err)
	}
	defer rows.Close()
	page.Items = make([]SessionView, 0, f.Limit)
	for rows.Next() {
		if len(page.Items) == f.Limit { // one more than asked for: there is another page
			last := page.Items[f.Limit-1]
			page.NextCursor = encodeCursor(q.CursorKey, f.identity(), cursor{last.StartedAt, last.ID})
			break
		}
		var s SessionView
		if err := scanSession(rows, &s); err != nil {
			return page, err
		}
		page.Items = append(page.Items, s)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return page, explain(ctx, q.DB, SessionProjection{}, err)
	}
	return page, nil
}
