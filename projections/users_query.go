package projections

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Users queries the read model of users. Every answer is that of one statement on the views of the live generation, so it
// is of one state of it, also while generations are exchanged.
type Users struct {
	DB eventstore.DB
	// CursorKey authenticates the cursors, so that nobody makes up one. It is the same in all processes.
	CursorKey []byte
}

// UserFilter says which users a list has. The zero value stands for all.
type UserFilter struct {
	Query         string          // what is in the email or the name, whatever the case; a short one is what either begins with
	Status        identity.Status // "" for any
	Role          string          // a role that they have
	EmailVerified *bool           // nil for either
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
// How a page is found, whomever the filter lets through and however many users there are, stands in users_search.go.
//
// It fails with ErrBadFilter, with ErrBadCursor for a cursor that was not given out for this filter, with
// ErrUnknownProjection while the read model does not exist, and with ErrOtherVersion where the live generation lacks a
// column.
func (q Users) List(ctx context.Context, f UserFilter) (UserPage, error) {
	page, err := q.list(ctx, f)
	if err != nil {
		return UserPage{}, fmt.Errorf("list users: %w", err)
	}
	return page, nil
}

func (q Users) list(ctx context.Context, f UserFilter) (page UserPage, err error) {
	if f.Limit, err = pageSize(f.Limit); err != nil {
		return page, err
	}
	at, err := q.begin(f)
	if err != nil {
		return page, err
	}
	return q.search(ctx, f, at)
}

// Check fails as List does for a filter or a cursor that can't be, and reads nothing: for who would wait before a list is read.
func (q Users) Check(f UserFilter) error {
	_, err := q.begin(f)
	return err
}

// begin is where a page begins.
func (q Users) begin(f UserFilter) (at cursor, err error) {
	if err := f.check(); err != nil || f.Cursor == "" {
		return cursor{}, err
	}
	return decodeCursor(q.CursorKey, f.identity(), f.Cursor)
}

// Get answers with a user. It fails with ErrNotFound, and as List does.
func (q Users) Get(ctx context.Context, id uuid.UUID) (UserView, error) {
	var u UserView
	err := scanUser(q.DB.QueryRow(ctx, "SELECT "+viewColumns+" FROM "+ViewName(q.DB.Dialect(), UsersName)+" WHERE id = $1", id), &u)
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
		return badFilter("the query is not valid text")
	case !validText(f.Role):
		return badFilter("the role is not valid text")
	}
	switch f.Status {
	case "", identity.StatusActive, identity.StatusLocked, identity.StatusDisabled:
		return nil
	}
	return badFilter("the status is active, locked or disabled")
}

const maxQuery = 512 // bytes, more than any email or name has

func validText(text string) bool {
	return len(text) <= maxQuery && utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// identity is what a cursor is bound to: everything that says which users the list has and in which order.
func (f UserFilter) identity() string {
	verified := ""
	if f.EmailVerified != nil {
		verified = strconv.FormatBool(*f.EmailVerified)
	}
	return fmt.Sprintf("users\x00%s\x00%s\x00%s\x00%s\x00%d\x00%d", searchKey(f.Query), f.Status, f.Role, verified,
		f.CreatedAfter.UnixMicro(), f.CreatedBefore.UnixMicro())
}

// span is the part of the list that a page is of.
func (f UserFilter) span(at cursor) (list []condition) {
	if !f.CreatedAfter.IsZero() {
		list = append(list, condition{"created_at > %s", []any{f.CreatedAfter}})
	}
	if !f.CreatedBefore.IsZero() {
		list = append(list, condition{"created_at < %s", []any{f.CreatedBefore}})
	}
	if at != (cursor{}) {
		list = append(list, condition{"(created_at, id) < (%s, %s)", []any{at.createdAt, at.id}})
	}
	return list
}

// conditions are those that a user has to meet wherever in the list.
func (f UserFilter) conditions(d eventstore.Dialect) (list []condition) {
	add := func(format string, args ...any) { list = append(list, condition{format, args}) }
	switch key := searchKey(f.Query); {
	case key == "":
	case isShort(key):
		// No text that begins with it comes after it and the last character of Unicode.
		add("(email_key >= %[1]s AND email_key < %[2]s OR name_key >= %[1]s AND name_key < %[2]s)", key, key+"\U0010FFFF")
	case d == eventstore.SQLite:
		add("(instr(email_key, %[1]s) > 0 OR instr(name_key, %[1]s) > 0)", key)
	default:
		add("(strpos(email_key, %[1]s) > 0 OR strpos(name_key, %[1]s) > 0)", key)
	}
	if f.Status != "" {
		add("status = %s", string(f.Status))
	}
	if f.EmailVerified != nil {
		add("email_verified = %s", *f.EmailVerified)
	}
	switch {
	case f.Role == "":
	case d == eventstore.SQLite:
		add("EXISTS (SELECT 1 FROM json_each(roles) WHERE value = %s)", f.Role)
	default:
		add("roles ? %s", f.Role)
	}
	return list
}
