package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Activity queries the read model of what happened.
type Activity struct{ DB eventstore.DB }

// ActivityFilter says what a list of what happened has.
type ActivityFilter struct {
	User   uuid.UUID // what is about this user; the nil UUID for everything
	Before int64     // a position: what happened before it; 0 for the newest
	Limit  int       // DefaultLimit when 0, at most MaxLimit
}

// List answers with what happened, the newest first, and says whether there is more before that. It fails with
// ErrBadFilter, and as Users.List does.
func (q Activity) List(ctx context.Context, f ActivityFilter) (items []ActivityView, more bool, err error) {
	if items, more, err = q.list(ctx, f); err != nil {
		return nil, false, fmt.Errorf("list activity: %w", err)
	}
	return items, more, nil
}

func (q Activity) list(ctx context.Context, f ActivityFilter) (items []ActivityView, more bool, err error) {
	if f.Limit, err = pageSize(f.Limit); err != nil {
		return nil, false, err
	}
	var where []string
	var args []any
	if f.User != uuid.Nil {
		args = append(args, f.User)
		where = append(where, fmt.Sprintf("subject = $%d", len(args)))
	}
	if f.Before > 0 {
		args = append(args, f.Before)
		where = append(where, fmt.Sprintf("position < $%d", len(args)))
	}
	sql := "SELECT subject, position, time, session, type, actor, CAST(details AS text), address, user_agent FROM " + ViewName(q.DB.Dialect(), ActivityName)
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	rows, err := q.DB.Query(ctx, sql+fmt.Sprintf(" ORDER BY position DESC LIMIT %d", f.Limit+1), args...)
	if err != nil {
		return nil, false, explain(ctx, q.DB, ActivityProjection{}, err)
	}
	defer rows.Close()
	items = make([]ActivityView, 0, f.Limit)
	for rows.Next() {
		if more = len(items) == f.Limit; more {
			break
		}
		a, err := scanActivity(rows)
		if err != nil {
			return nil, false, err
		}
		items = append(items, a)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, false, explain(ctx, q.DB, ActivityProjection{}, err)
	}
	return items, more, nil
}

func scanActivity(row eventstore.Row) (a ActivityView, err error) {
	var details string
	if err := row.Scan(&a.User, &a.Position, &a.Time, &a.Session, &a.Type, &a.Actor, &details, &a.Address, &a.UserAgent); err != nil {
		return a, err
	}
	a.Time = a.Time.UTC()
	return a, json.Unmarshal([]byte(details), &a.Details)
}
