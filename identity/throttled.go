package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Throttling is what a user, or somebody else on the user's account, failed at of late.
type Throttling struct {
	Counted  string     `json:"counted"` // login, device, session or user_code: each is counted apart, and so waits apart
	Failures int        `json:"failures"`
	Since    time.Time  `json:"since"`           // the first time
	FailedAt time.Time  `json:"failed_at"`       // the last time
	Until    *time.Time `json:"until,omitempty"` // when the next attempt is looked at, where it has to wait
	ForgetAt time.Time  `json:"forget_at"`       // when all of it is forgotten, unless there is more
}

// Examined is a user as administrators see the user.
type Examined struct {
	*User
	Throttle []Throttling `json:"throttle"`
}

// Examine is a user's state, with what the user is throttled for. It fails as User does.
func (s *Service) Examine(ctx context.Context, u *User) (Examined, error) {
	list, err := s.Throttled(ctx, u.ID)
	return Examined{u, list}, err
}

// Throttled tells what keeps a user from logging in, or is about to: the failures on the account, the latest first. It fails
// with ErrNotFound, or as the database does.
func (s *Service) Throttled(ctx context.Context, user uuid.UUID) ([]Throttling, error) {
	u, err := s.User(ctx, user)
	if err != nil {
		return nil, err
	}
	email, err := ParseEmail(u.Email)
	if err != nil {
		return nil, err
	}
	now := s.now().UTC()
	rows, err := s.db.Query(ctx, `
		SELECT scope, failures, since, failed_at, forget_at FROM throttle
		 WHERE (user_id = $1 OR key = $2) AND forget_at > $3 ORDER BY failed_at DESC, key`, user, s.throttle.key(scopeLogin, email.Key()), now)
	if err != nil {
		return nil, fmt.Errorf("list failures: %w", err)
	}
	defer rows.Close()
	list := []Throttling{}
	for rows.Next() {
		var t Throttling
		if err := rows.Scan(&t.Counted, &t.Failures, &t.Since, &t.FailedAt, &t.ForgetAt); err != nil {
			return nil, fmt.Errorf("list failures: %w", err)
		}
		t.Since, t.FailedAt, t.ForgetAt = t.Since.UTC(), t.FailedAt.UTC(), t.ForgetAt.UTC()
		if wait := (failures{t.Failures, t.FailedAt, t.ForgetAt}).accountWait(now); wait > 0 {
			until := now.Add(wait)
			t.Until = &until
		}
		list = append(list, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list failures: %w", err)
	}
	return list, nil
}

// ThrottledPage is a part of the list of the users who are throttled.
type ThrottledPage struct {
	Users  []Examined
	Last   uuid.UUID // where the next page goes on; the nil UUID on the last
	Nobody int       // addresses that nobody has and that are throttled too, of which maxNobody are counted
}

// maxNobody bounds the addresses that nobody has and that are counted.
const maxNobody = 1000

// ThrottledUsers lists up to a number of the users on whose accounts an attempt has to wait now, in the order of their ids, after
// one of them. It finds them by an index of those who failed too often of late, however many users there are. It fails as the
// database does.
func (s *Service) ThrottledUsers(ctx context.Context, after uuid.UUID, limit int) (ThrottledPage, error) {
	page := ThrottledPage{Users: []Examined{}}
	now := s.now().UTC()
	ids, err := s.throttledIDs(ctx, now, after, limit+1)
	if err != nil {
		return ThrottledPage{}, fmt.Errorf("list who is throttled: %w", err)
	}
	if len(ids) > limit {
		ids = ids[:limit]
		page.Last = ids[limit-1]
	}
	for _, id := range ids {
		u, err := s.User(ctx, id)
		var examined Examined
		if err == nil {
			examined, err = s.Examine(ctx, u)
		}
		if errors.Is(err, ErrNotFound) { // erased meanwhile
			continue
		}
		if err != nil {
			return ThrottledPage{}, err
		}
		page.Users = append(page.Users, examined)
	}
	waits, args := waiting(now)
	err = s.db.QueryRow(ctx, fmt.Sprintf(throttledNobody, waits, len(args)+1), append(args, maxNobody)...).Scan(&page.Nobody)
	if err != nil {
		return ThrottledPage{}, fmt.Errorf("count the addresses that are throttled and that nobody has: %w", err)
	}
	return page, nil
}

// The statements of ThrottledUsers, but for the condition that waiting gives and the number of what comes after its arguments.
const (
	throttledIDs    = `SELECT DISTINCT user_id FROM throttle WHERE slowed AND (%[1]s) AND user_id > $%[2]d ORDER BY user_id LIMIT $%[3]d`
	throttledNobody = `SELECT count(*) FROM (SELECT 1 FROM throttle WHERE slowed AND (%[1]s) AND user_id IS NULL AND scope = '` + scopeLogin + `' LIMIT $%[2]d) nobody`
)

func (s *Service) throttledIDs(ctx context.Context, now time.Time, after uuid.UUID, limit int) (ids []uuid.UUID, err error) {
	waits, args := waiting(now)
	rows, err := s.db.Query(ctx, fmt.Sprintf(throttledIDs, waits, len(args)+1, len(args)+2), append(args, after, limit)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// waiting is accountWait as a condition on rows of the table throttle: the next attempt has to wait. No wait is longer than the
// failures are remembered.
func waiting(now time.Time) (condition string, args []any) {
	var terms []string
	for over := 0; ; over++ {
		wait := min(firstWait<<over, longestWait)
		is := "="
		if wait == longestWait {
			is = ">="
		}
		args = append(args, now.Add(-wait))
		terms = append(terms, fmt.Sprintf("failures %s %d AND failed_at > $%d", is, accountFree+over, len(args)))
		if wait == longestWait {
			return strings.Join(terms, " OR "), args
		}
	}
}
