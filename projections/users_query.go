package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/identity"
)

// Users queries the read model of users. Every query is one statement on the view of the live generation, so it sees
// one state of it, also while generations are exchanged.
type Users struct {
	DB eventstore.DB
	// CursorKey authenticates the cursors, so that nobody makes up one. It is the same in all processes.
	CursorKey []byte
}

// UserFilter says which users a list has. The zero value stands for all.
type UserFilter struct {
	Query         string          // what the email or the name begins with, whatever the case
	Status        identity.Status // "" for any
	Role          string          // a role that they have
	CreatedAfter  time.Time       // exclusive
	CreatedBefore time.Time       // exclusive
	Limit         int             // users on a page: DefaultLimit when 0, at most MaxLimit
	Cursor        string          // UserPage.NextCursor of the page before, for the same filter
}

// UserPage is a page of a list of users, newest first.
type UserPage struct {
	Items      []UserView `json:"items"`
	NextCursor string     `json:"next_cursor,omitempty"` // empty on the last page
}

// Sizes of pages.
const (
	DefaultLimit = 50
	MaxLimit     = 200
)

// List answers with a page of the users that a filter lets through, the newest first. Pages follow each other by the time
// and id of the last user, so users who come or go meanwhile neither shift a page nor make another user appear twice
// or be left out.
//
// It fails with ErrBadFilter, with ErrBadCursor for a cursor that was not given out for this filter, with
// ErrUnknownProjection while the read model does not exist, and with ErrOtherVersion where the live generation lacks a
// column.
func (q Users) List(ctx context.Context, f UserFilter) (UserPage, error) {
	size, err := pageSize(f.Limit)
	if err == nil {
		f.Limit, err = size, f.check()
	}
	if err != nil {
		return UserPage{}, fmt.Errorf("list users: %w", err)
	}
	sql, args, err := q.statement(f)
	if err != nil {
		return UserPage{}, fmt.Errorf("list users: %w", err)
	}
	rows, err := q.DB.Query(ctx, sql, args...)
	if err != nil {
		return UserPage{}, fmt.Errorf("list users: %w", explain(ctx, q.DB, UserProjection{}, err))
	}
	defer rows.Close()
	page := UserPage{Items: make([]UserView, 0, f.Limit)}
	for rows.Next() {
		if len(page.Items) == f.Limit { // one more than asked for: there is another page
			last := page.Items[f.Limit-1]
			page.NextCursor = encodeCursor(q.CursorKey, f.identity(), cursor{last.CreatedAt, last.ID})
			break
		}
		var u UserView
		if err := scanUser(rows, &u); err != nil {
			return UserPage{}, fmt.Errorf("list users: %w", err)
		}
		page.Items = append(page.Items, u)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return UserPage{}, fmt.Errorf("list users: %w", explain(ctx, q.DB, UserProjection{}, err))
	}
	return page, nil
}

// Get answers with a user. It fails with ErrNotFound, and as List does.
func (q Users) Get(ctx context.Context, id uuid.UUID) (UserView, error) {
	var u UserView
	err := scanUser(q.DB.QueryRow(ctx, "SELECT "+viewColumns+" FROM "+ViewName("users")+" WHERE id = $1", id), &u)
	if errors.Is(err, eventstore.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return UserView{}, fmt.Errorf("get user %s: %w", id, explain(ctx, q.DB, UserProjection{}, err))
	}
	return u, nil
}

func (f UserFilter) check() error {
	switch {
	case !validText(f.Query):
		return fmt.Errorf("%w: the query is not valid text", ErrBadFilter)
	case !validText(f.Role):
		return fmt.Errorf("%w: the role is not valid text", ErrBadFilter)
	}
	switch f.Status {
	case "", identity.StatusActive, identity.StatusLocked, identity.StatusDisabled:
		return nil
	}
	return fmt.Errorf("%w: the status is active, locked or disabled", ErrBadFilter)
}

const maxQuery = 512 // bytes, more than any email or name has

func validText(text string) bool {
	return len(text) <= maxQuery && utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// identity is what a cursor is bound to: everything that says which users the list has and in which order.
func (f UserFilter) identity() string {
	return fmt.Sprintf("users\x00%s\x00%s\x00%s\x00%d\x00%d", searchKey(f.Query), f.Status, f.Role,
		f.CreatedAfter.UnixMicro(), f.CreatedBefore.UnixMicro())
}

func (q Users) statement(f UserFilter) (sql string, args []any, err error) {
	var where []string
	add := func(condition string, values ...any) {
		names := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			names[i] = fmt.Sprintf("$%d", len(args))
		}
		where = append(where, fmt.Sprintf(condition, names...))
	}
	if key := searchKey(f.Query); key != "" {
		// A prefix is a range of the index; no text that begins with it comes after it and the last character of Unicode.
		add("(email_key >= %[1]s AND email_key < %[2]s OR name_key >= %[1]s AND name_key < %[2]s)", key, key+"\U0010FFFF")
	}
	if f.Status != "" {
		add("status = %s", string(f.Status))
	}
	if f.Role != "" {
		if q.DB.Dialect() == eventstore.SQLite {
			add("roles <> '[]' AND EXISTS (SELECT 1 FROM json_each(roles) WHERE value = %s)", f.Role)
		} else {
			add("roles <> '[]' AND roles ? %s", f.Role)
		}
	}
	if !f.CreatedAfter.IsZero() {
		add("created_at > %s", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		add("created_at < %s", f.CreatedBefore)
	}
	if f.Cursor != "" {
		c, err := decodeCursor(q.CursorKey, f.identity(), f.Cursor)
		if err != nil {
			return "", nil, err
		}
		add("(created_at, id) < (%s, %s)", c.createdAt, c.id)
	}
	sql = "SELECT " + viewColumns + " FROM " + ViewName("users")
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql + fmt.Sprintf(" ORDER BY created_at DESC, id DESC LIMIT %d", f.Limit+1), args, nil
}
