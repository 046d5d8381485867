package projections

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"usher.example/eventstore"
)

// Those whom a filter lets through may be few, and anywhere in the list. Two ways lead to the next page of them:
//
//   - Walking the list from where the page begins, in the order of its index. The more users the filter lets through, the
//     sooner the page is full.
//   - Looking them up in the index of terms, which knows no order: whoever it names has to be read and sorted. The fewer
//     they are, the sooner that is done.
//
// For a filter that lets through one in a hundred, or in a thousand, both are slow. So the index of terms is asked about
// a stretch of the list: who has these terms and was created in one of these eras. How long it has to be is told by how
// many were found on a shorter one. Where the index names a crowd, a shorter stretch is looked at.
const (
	nearby    = 256  // users whom every search walks
	crowd     = 1000 // users named by the index of terms that are too many to read
	mostTries = 8    // stretches that are looked at
	growth    = 32   // how many times longer than the one before the next stretch may be
	few       = 500  // users in all of the list who can be looked up at once
)

// errCrowd reports that the index of terms names more users than are read.
var errCrowd = errors.New("a crowd")

// search answers with a page: that of its last statement, whatever the ones before it saw.
func (q Users) search(ctx context.Context, f UserFilter, at cursor) (UserPage, error) {
	d := q.DB.Dialect()
	page, err := q.page(ctx, f, f.walk(d, at))
	if err != nil || page.NextCursor != "" || len(f.conditions(d)) == 0 {
		return page, err
	}
	s, err := q.stretch(ctx, f, at, len(page.Items))
	if errors.Is(err, eventstore.ErrNoRows) { // the list is no longer than that
		return q.page(ctx, f, f.lookUp(d, at, time.Time{}, s.newest, 0))
	}
	if err != nil {
		return page, err
	}
	for try := 1; ; try++ {
		most := s.next(f.Limit, try)
		page, err = q.page(ctx, f, f.lookUp(d, at, s.oldest(), s.newest, most))
		switch {
		case errors.Is(err, errCrowd):
			s.crowded = s.length
		case err != nil || page.NextCursor != "" || s.length == s.whole:
			return page, err
		default:
			s.short, s.found = s.length, len(page.Items)
		}
	}
}

// stretch is a part of the list, from where a page begins back to some time.
type stretch struct {
	newest  time.Time // of the users from where the page begins
	length  time.Duration
	whole   time.Duration // a length that has all of the list
	short   time.Duration // the longest that is known not to fill the page
	found   int           // on that one
	crowded time.Duration // the shortest that is known to have a crowd; 0 while none is
}

// stretch is the one that was walked. It fails with eventstore.ErrNoRows where the list ends before.
func (q Users) stretch(ctx context.Context, f UserFilter, at cursor, found int) (stretch, error) {
	name := ViewName(q.DB.Dialect(), UsersName)
	ends := statement{sql: "SELECT (SELECT created_at FROM " + name}
	ends.where(f.span(at)...)
	ends.sql += listOrder + "1), (SELECT created_at FROM " + name
	ends.where(f.span(at)...)
	ends.sql += listOrder + "1 OFFSET " + strconv.Itoa(nearby-1) + "), (SELECT created_at FROM " + name + " ORDER BY created_at, id LIMIT 1)"
	var newest, edge, oldest *time.Time
	if err := q.DB.QueryRow(ctx, ends.sql, ends.args...).Scan(&newest, &edge, &oldest); err != nil {
		return stretch{}, explain(ctx, q.DB, UserProjection{}, err)
	}
	s := stretch{found: found}
	if newest != nil {
		s.newest = *newest
	}
	if edge == nil {
		return s, eventstore.ErrNoRows
	}
	s.short = max(s.newest.Sub(*edge), time.Second)
	if f.CreatedAfter.After(*oldest) {
		oldest = &f.CreatedAfter
	}
	s.whole = s.newest.Sub(*oldest) + time.Second
	return s, nil
}

// oldest is how far back the stretch goes; zero where it does so as far as there are users.
func (s *stretch) oldest() time.Time {
	if s.length == s.whole {
		return time.Time{}
	}
	return s.newest.Add(-s.length)
}

// next makes it the length that should fill a page without being crowded, and says how many may be read on it; 0 is any
// number.
func (s *stretch) next(limit, try int) (most int) {
	switch {
	case s.crowded > 0 && (s.crowded < 2*s.short || try > mostTries): // there is none: the crowd is read
		s.length, s.crowded = s.crowded, 0
		return 0
	case float64(s.found+1)*float64(s.whole)/float64(s.short) <= few || try > mostTries:
		s.length = s.whole
		return 0
	}
	// Twice as many as fill the page, because they are not spread evenly.
	times := min(2*float64(limit+1)/max(float64(s.found), 1), growth)
	length := float64(s.short) * max(times, 2)
	if s.crowded > 0 {
		length = min(length, math.Sqrt(float64(s.short)*float64(s.crowded)))
	}
	if s.length = s.whole; length < float64(s.whole) {
		s.length = time.Duration(length)
	}
	return crowd
}

// statement is one under construction.
type statement struct {
	sql  string
	args []any
	most int // users who are numbered at the most; 0 for any number
}

// condition is a format of its arguments' placeholders.
type condition struct {
	format string
	args   []any
}

// all adds the arguments of conditions, and answers with the text that all of them are met.
func (s *statement) all(conditions []condition) string {
	texts := make([]string, len(conditions))
	for i, c := range conditions {
		names := make([]any, len(c.args))
		for k, arg := range c.args {
			s.args = append(s.args, arg)
			names[k] = fmt.Sprintf("$%d", len(s.args))
		}
		texts[i] = fmt.Sprintf(c.format, names...)
	}
	return strings.Join(texts, " AND ")
}

func (s *statement) where(conditions ...condition) {
	if len(conditions) > 0 {
		s.sql += " WHERE " + s.all(conditions)
	}
}

const listOrder = " ORDER BY created_at DESC, id DESC LIMIT "

// walk looks for the filter's users among those nearby, who come next in the list.
func (f UserFilter) walk(d eventstore.Dialect, at cursor) statement {
	s := statement{sql: "SELECT " + viewColumns + ", 0 FROM "}
	conditions := f.conditions(d)
	if len(conditions) > 0 {
		s.sql += "(SELECT * FROM "
	}
	s.sql += ViewName(d, UsersName)
	s.where(f.span(at)...)
	if len(conditions) > 0 {
		s.sql += listOrder + strconv.Itoa(nearby) + ") AS u"
		s.where(conditions...)
	}
	s.sql += listOrder + strconv.Itoa(f.Limit+1)
	return s
}

// lookUp looks for the filter's users in the index of terms, on a stretch of the list or, where oldest is zero, in all of
// it. It numbers the users as the index names them; where there are more than most, the first of the answer is past it.
// A most of 0 is no bound.
func (f UserFilter) lookUp(d eventstore.Dialect, at cursor, oldest, newest time.Time, most int) statement {
	s := statement{sql: "SELECT " + viewColumns + ", 0 FROM (SELECT * FROM " + ViewName(d, UsersName), most: most}
	if most > 0 {
		s.sql = "SELECT " + viewColumns + ", number FROM (SELECT u.*, row_number() OVER () AS number FROM (SELECT * FROM " + ViewName(d, UsersName)
	}
	conditions := append(f.conditions(d), f.span(at)...)
	if !oldest.IsZero() {
		conditions = append(conditions, condition{"created_at >= %s", []any{oldest}})
	} else {
		oldest = f.CreatedAfter
	}
	var eras terms
	if !oldest.IsZero() {
		eras = erasBetween(oldest, newest.Add(time.Minute)) // whoever has come since is at the front of the list
	}
	s.where(f.indexed(d, eras)...)
	if most > 0 {
		past := "number > " + strconv.Itoa(most)
		s.sql += " LIMIT " + strconv.Itoa(most+1) + ") AS u) AS u WHERE (" + past + " OR " + s.all(conditions) + ") ORDER BY " + past + " DESC, "
	} else {
		// The bound keeps the planner from taking the index of the list for the conditions that follow.
		if d == eventstore.SQLite {
			s.sql += " LIMIT -1) AS u"
		} else {
			s.sql += " OFFSET 0) AS u"
		}
		s.where(conditions...)
		s.sql += " ORDER BY "
	}
	s.sql += "created_at DESC, id DESC LIMIT " + strconv.Itoa(f.Limit+1)
	return s
}

// indexed are the conditions that the index of terms is asked with.
func (f UserFilter) indexed(d eventstore.Dialect, eras terms) (list []condition) {
	all, one := f.terms()
	var match []string
	for _, c := range []struct {
		terms
		postgres, sqlite string
	}{{all, "@>", "AND"}, {one, "&&", "OR"}, {eras, "&&", "OR"}} {
		if len(c.terms) > 0 {
			// In a SELECT of their own the planner does not know the terms, and has one plan whatever they are.
			list = append(list, condition{"terms " + c.postgres + " (SELECT CAST(%s AS int[]))", []any{c.array()}})
			match = append(match, c.match(c.sqlite))
		}
	}
	if d == eventstore.SQLite {
		query := strings.Join(match, " AND ")
		list = []condition{{"first_position IN (SELECT first_position FROM " + ViewName(d, "user_terms") + " WHERE query = %s)", []any{query}}}
	}
	return list
}

// page runs a statement that answers with one user more than the page has. It fails with errCrowd where the statement
// has a bound and was past it.
func (q Users) page(ctx context.Context, f UserFilter, s statement) (UserPage, error) {
	rows, err := q.DB.Query(ctx, s.sql, s.args...)
	if err != nil {
		return UserPage{}, explain(ctx, q.DB, UserProjection{}, err)
	}
	defer rows.Close()
	page := UserPage{Items: make([]UserView, 0, f.Limit)}
	for rows.Next() {
		if len(page.Items) == f.Limit { // there is another page
			last := page.Items[f.Limit-1]
			page.NextCursor = encodeCursor(q.CursorKey, f.identity(), cursor{last.CreatedAt, last.ID})
			break
		}
		var u UserView
		var number int
		if err := scanUser(rows, &u, &number); err != nil {
			return UserPage{}, err
		}
		if s.most > 0 && number > s.most {
			return UserPage{}, errCrowd
		}
		page.Items = append(page.Items, u)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return UserPage{}, explain(ctx, q.DB, UserProjection{}, err)
	}
	return page, nil
}
