package identity

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// uses are the sessions whose access tokens were seen here, to be noted beside the log.
type uses struct {
	mu      sync.Mutex
	seen    *simplelru.LRU[uuid.UUID, time.Time] // when the newest token was issued that was seen, by session
	waiting chan use
}

// use is an access token that was seen.
type use struct {
	session uuid.UUID
	issued  time.Time
}

const (
	maxUses   = 1 << 16         // sessions in memory
	maxWaits  = 1024            // uses that wait to be noted
	useLimit  = 5 * time.Second // for one
	loginsOwn = time.Second     // after a session's start its access token is that of the login
)

func newUses() *uses {
	seen, err := simplelru.NewLRU[uuid.UUID, time.Time](maxUses, nil)
	if err != nil { // only for a size of 0
		panic(err)
	}
	return &uses{seen: seen, waiting: make(chan use, maxWaits)}
}

// Used notes that an access token of a session was used, by the token's id, which is a UUIDv7 and so tells when it was issued.
// Whoever uses the token that came with the newest refresh has its reply, so that the refresh token before is not needed any
// more, and is somebody's copy if it comes after Config.ReuseGrace. Services that verify access tokens themselves are not heard:
// there the next refresh tells.
//
// It looks into memory, and does not block. RecordUses has to run; what it can't keep up with is not noted.
func (s *Service) Used(session, token uuid.UUID) {
	issued := sessionStart(token)
	if issued.Sub(sessionStart(session)) < loginsOwn || !s.uses.first(session, issued) {
		return
	}
	select {
	case s.uses.waiting <- use{session, issued}:
	default:
	}
}

// first says whether a token is newer than all of its session's that were seen.
func (u *uses) first(session uuid.UUID, issued time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if newest, ok := u.seen.Get(session); ok && !issued.After(newest) {
		return false
	}
	u.seen.Add(session, issued)
	return true
}

// RecordUses notes the uses of access tokens beside the log until ctx ends, and returns its cause. One that can't be noted is
// logged, and a refresh token may be retried for longer than it need be.
func (s *Service) RecordUses(ctx context.Context) error {
	for {
		select {
		case u := <-s.uses.waiting:
			if err := s.recordUse(ctx, u); err != nil && ctx.Err() == nil {
				s.logger.WarnContext(ctx, "it is not noted that a session goes on", slog.Any("error", err))
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Service) recordUse(ctx context.Context, u use) error {
	ctx, cancel := context.WithTimeout(ctx, useLimit)
	defer cancel()
	// The id has milliseconds. A token of before the rotation says nothing of the reply to it.
	_, err := s.db.Exec(ctx, `UPDATE sessions SET used_at = $2 WHERE session_id = $1 AND used_at IS NULL AND counter > 0 AND rotated_at < $3`,
		u.session, s.now().UTC(), u.issued.Add(time.Millisecond))
	if err != nil {
		return fmt.Errorf("note the use of session %s: %w", u.session, err)
	}
	return nil
}
