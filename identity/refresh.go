package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// RefreshToken is the opaque text that a client exchanges for the next access token. It can't be printed by accident.
//
// Its content is, in base64url: its form (1 byte, 1), the session's id (16 bytes), a counter (8 bytes, big-endian), and an
// HMAC-SHA-256 over all that. The key of the HMAC comes from the master key and is in no database, so that whoever steals
// one can't make a token, and a token that nobody was given is refused without a query.
type RefreshToken string

func (RefreshToken) String() string       { return "[hidden]" }
func (RefreshToken) GoString() string     { return "[hidden]" }
func (RefreshToken) LogValue() slog.Value { return slog.StringValue("[hidden]") }

const (
	refreshForm    = 1
	refreshContent = 1 + 16 + 8
	refreshLength  = refreshContent + sha256.Size
)

var refreshText = base64.RawURLEncoding.Strict()

// refreshToken makes the token of a session with a counter. It is the same each time.
func (s *Service) refreshToken(session uuid.UUID, counter int64) RefreshToken {
	raw := make([]byte, 1, refreshLength)
	raw[0] = refreshForm
	raw = append(raw, session[:]...)
	raw = binary.BigEndian.AppendUint64(raw, uint64(counter))
	return RefreshToken(refreshText.EncodeToString(append(raw, s.refreshMAC(raw)...)))
}

// parseRefreshToken fails with ErrInvalidRefreshToken for everything that refreshToken did not make.
func (s *Service) parseRefreshToken(t RefreshToken) (session uuid.UUID, counter int64, err error) {
	if len(t) != refreshText.EncodedLen(refreshLength) {
		return uuid.Nil, 0, ErrInvalidRefreshToken
	}
	raw, err := refreshText.DecodeString(string(t))
	// The decoder passes over line breaks, which would give one token many texts.
	if err != nil || len(raw) != refreshLength || raw[0] != refreshForm || !hmac.Equal(raw[refreshContent:], s.refreshMAC(raw[:refreshContent])) {
		return uuid.Nil, 0, ErrInvalidRefreshToken
	}
	return uuid.UUID(raw[1:17]), int64(binary.BigEndian.Uint64(raw[17:refreshContent])), nil
}

func (s *Service) refreshMAC(content []byte) []byte {
	mac := hmac.New(sha256.New, s.refreshKey)
	mac.Write(content)
	return mac.Sum(nil)
}

// Refresh exchanges a refresh token for the next one.
//
// A session has one counter, and the newest token is the one that has it. The newest rotates. The one before it gets the
// same successor again, so that a reply that was lost, or two requests at once, log nobody out: for a while
// (Config.ReuseGrace), and beyond that until it is known that the reply has arrived (see Used), but not time after time (see
// shared). Anything older means that somebody has a copy: the session ends, and session.reuse_detected says so.
//
// The user, and the keys that the access token is signed with, are those of the log at that moment, whatever is in memory: the
// statement that rotates tells how new they have to be. So a role that another process has taken away is in no new token.
//
// It fails with ErrInvalidRefreshToken for a token that is not one, or whose session has ended, with ErrUserLocked or
// ErrUserDisabled, and as the database does.
func (s *Service) Refresh(ctx context.Context, t RefreshToken, m eventstore.Metadata) (LoginResult, error) {
	return s.refresh(ctx, t, Grantee{}, m)
}

// refresh is Refresh by the client that the session was granted to, none for one that is a login.
func (s *Service) refresh(ctx context.Context, t RefreshToken, by Grantee, m eventstore.Metadata) (LoginResult, error) {
	id, counter, err := s.parseRefreshToken(t)
	if err != nil {
		return LoginResult{}, err
	}
	row, err := s.rotate(ctx, id, counter, by, m)
	if err == nil && row.grant != nil && row.grant.Confirmation != "" && row.grant.Confirmation != by.Confirmation {
		err = ErrInvalidRefreshToken // whoever has the key gets the same successor all the same
	}
	if err != nil {
		return LoginResult{}, err
	}
	u, err := s.userSince(ctx, row.user, row.userVersion)
	switch {
	case errors.Is(err, ErrNotFound):
		return LoginResult{}, ErrInvalidRefreshToken
	case err != nil:
		return LoginResult{}, fmt.Errorf("read the user: %w", err)
	}
	if err := s.keepKeysAt(ctx, row.keysVersion); err != nil {
		return LoginResult{}, err
	}
	if err := mayLogIn(*u); err != nil {
		return LoginResult{}, err
	}
	if !u.hasRow(row) {
		return LoginResult{}, ErrInvalidRefreshToken
	}
	return s.loginResult(u, row, 0), nil
}

// Waits of a refresh for another one of the same session that is under way. Nothing waits on the row itself.
const (
	rotatePause = 2 * time.Millisecond
	rotateTries = 500
)

// rotate moves a session's counter on, or finds that it has been. Where the row says less than the token (it was restored
// from a backup), it is brought up to it: the token can only come from here.
func (s *Service) rotate(ctx context.Context, id uuid.UUID, counter int64, by Grantee, m eventstore.Metadata) (sessionRow, error) {
	for range rotateTries {
		row, err := s.tryRotate(ctx, id, counter, by)
		if err == nil || !errors.Is(err, eventstore.ErrNoRows) {
			return row, err
		}
		if row, err = s.session(ctx, id); err != nil {
			if errors.Is(err, ErrSessionEnded) {
				err = ErrInvalidRefreshToken
			}
			return row, err
		}
		switch {
		case row.grantedTo() != by.Client:
			return row, ErrInvalidRefreshToken
		case !s.goesOn(row), !row.rotated.After(s.idleSinceBy(by)):
			return row, s.refused(ctx, row, m, SessionEnded{Reason: EndedExpired})
		case row.orphaned:
			return row, s.refused(ctx, row, m, SessionEnded{Reason: EndedRevoked})
		case s.lostReply(row, counter) && !s.shared(row):
			if noted, err := s.noteLate(ctx, row); noted || err != nil {
				return row, err
			}
			continue // it was rotated again meanwhile
		case row.counter > counter:
			return row, s.refused(ctx, row, m, SessionReuseDetected{}, SessionEnded{Reason: EndedReuse})
		}
		if err := eventstore.Pause(ctx, rotatePause); err != nil {
			return row, err
		}
	}
	return sessionRow{}, fmt.Errorf("refresh session %s: %w: its row stays locked", id, eventstore.ErrUnavailable)
}

// lostReply says whether a token is the one before the newest, and may still get the same successor: its reply may have
// been lost.
func (s *Service) lostReply(row sessionRow, counter int64) bool {
	return row.counter == counter+1 && (row.used == nil || !s.isLate(row))
}

// Two who have one refresh token each get the same successor, one of them late, at every rotation: so each of the last lateRun
// was. Replies are lost now and then.
const (
	lateRun  = 3
	lateMask = 1<<lateRun - 1
)

// shared says whether a session, whose last reply is asked for again, is one that two share.
func (s *Service) shared(row sessionRow) bool { return s.isLate(row) && row.late|1 == lateMask }

// isLate says whether who asks for the last reply of a session again does so after the grace.
func (s *Service) isLate(row sessionRow) bool { return s.now().Sub(row.rotated) > s.reuseGrace }

// noteLate notes that the last reply was asked for again late. It answers with false if it is not the last any more.
func (s *Service) noteLate(ctx context.Context, row sessionRow) (bool, error) {
	if !s.isLate(row) || row.late&1 != 0 {
		return true, nil
	}
	n, err := s.db.Exec(ctx, `UPDATE sessions SET late = late | 1 WHERE session_id = $1 AND counter = $2`, row.id, row.counter)
	if err != nil {
		return false, fmt.Errorf("note a late refresh of session %s: %w", row.id, err)
	}
	return n == 1, nil
}

// refused ends a session whose token is refused because of it. It always fails, with ErrInvalidRefreshToken if it could.
func (s *Service) refused(ctx context.Context, row sessionRow, m eventstore.Metadata, payloads ...Payload) error {
	if _, err := s.endWithGrants(ctx, row, m, nil, payloads...); err != nil {
		return err
	}
	return ErrInvalidRefreshToken
}

// tryRotate is the one statement of a refresh: it moves the counter on, if it is the token's and nobody else is about to.
// It fails with eventstore.ErrNoRows otherwise.
func (s *Service) tryRotate(ctx context.Context, id uuid.UUID, counter int64, by Grantee) (sessionRow, error) {
	free := ""
	if s.db.Dialect() == eventstore.Postgres {
		free = "FOR UPDATE SKIP LOCKED"
	}
	row := sessionRow{id: id, counter: counter + 1, rotated: s.now().UTC()}
	var parent *uuid.UUID
	var granted *string
	err := s.db.QueryRow(ctx, `
		UPDATE sessions SET counter = $4, rotated_at = $5, used_at = NULL, late = (late * 2) & `+strconv.Itoa(lateMask)+`
		 WHERE session_id = (SELECT session_id FROM sessions
		                      WHERE session_id = $2 AND counter <= $3 AND expires_at > $5 AND rotated_at > $6 AND coalesce(granted_to, '') = $7
		                        AND NOT `+orphaned+` `+free+`)
		RETURNING user_id, started_at, expires_at, parent_id, granted, `+streamVersions,
		keysStream().ID, id, counter, row.counter, row.rotated, s.idleSinceBy(by), by.Client).
		Scan(&row.user, &row.started, &row.expiresAt, &parent, &granted, &row.userVersion, &row.keysVersion)
	if err == nil {
		row.grant, err = grantOf(parent, granted)
	}
	return row, err
}

// loginResult is what a session gives its client.
func (s *Service) loginResult(u *User, row sessionRow, position int64) LoginResult {
	idle := row.rotated.Add(s.sessionIdle)
	if idle.After(row.expiresAt) {
		idle = row.expiresAt
	}
	return LoginResult{
		User: u, Session: row.id, Grant: row.grant, StartedAt: row.started.UTC(), ExpiresAt: row.expiresAt.UTC(), Position: position,
		Refresh: s.refreshToken(row.id, row.counter), RefreshExpiresAt: idle.UTC(),
	}
}

// RefreshInfo is what is known of a refresh token.
type RefreshInfo struct {
	User      *User
	Grant     *Grant // nil for one of a login
	Session   uuid.UUID
	IssuedAt  time.Time
	ExpiresAt time.Time // unless it is used before
}

// InspectRefresh tells about a refresh token that Refresh would take, and changes nothing. It fails with
// ErrInvalidRefreshToken for any other, or as the database does.
func (s *Service) InspectRefresh(ctx context.Context, t RefreshToken) (RefreshInfo, error) {
	id, counter, err := s.parseRefreshToken(t)
	if err != nil {
		return RefreshInfo{}, err
	}
	row, err := s.session(ctx, id)
	switch {
	case errors.Is(err, ErrSessionEnded):
		return RefreshInfo{}, ErrInvalidRefreshToken
	case err != nil:
		return RefreshInfo{}, err
	case !s.goesOn(row), row.counter > counter && !s.lostReply(row, counter):
		return RefreshInfo{}, ErrInvalidRefreshToken
	}
	u, err := s.User(ctx, row.user)
	switch {
	case errors.Is(err, ErrNotFound):
		return RefreshInfo{}, ErrInvalidRefreshToken
	case err != nil:
		return RefreshInfo{}, fmt.Errorf("read the user: %w", err)
	case !u.hasRow(row):
		return RefreshInfo{}, ErrInvalidRefreshToken
	}
	return RefreshInfo{User: u, Grant: row.grant, Session: row.id, IssuedAt: row.rotated.UTC(), ExpiresAt: s.loginResult(u, row, 0).RefreshExpiresAt}, nil
}

// EndSessionOf ends the session of a refresh token, of whatever age, if permit lets it: it is asked of the grant that the session is,
// nil for a login, and may be nil. It fails with ErrInvalidRefreshToken for a token that is not one. A session that has ended already
// is no error. Metadata without an actor is that of the session's user.
func (s *Service) EndSessionOf(ctx context.Context, t RefreshToken, reason string, permit func(*Grant) error, m eventstore.Metadata) (eventstore.Result, error) {
	id, _, err := s.parseRefreshToken(t)
	if err != nil {
		return eventstore.Result{}, err
	}
	row, err := s.session(ctx, id)
	if errors.Is(err, ErrSessionEnded) {
		return eventstore.Result{}, nil
	}
	if err != nil {
		return eventstore.Result{}, err
	}
	if permit != nil {
		if err := permit(row.grant); err != nil {
			return eventstore.Result{}, err
		}
	}
	if m.Actor == "" {
		m.Actor = ActorUser(row.user)
	}
	return s.endWithGrants(ctx, row, m, nil, SessionEnded{Reason: reason})
}
