package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// Session is one login on one device that goes on.
type Session struct {
	ID         uuid.UUID `json:"id"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`        // when its refresh token was last rotated
	UserAgent  string    `json:"user_agent"`          // of the login
	Address    string    `json:"address"`             // of the login
	Current    bool      `json:"current"`             // the session that asks
	Client     string    `json:"client_id,omitempty"` // whose grant it is; "" for a login
}

// sessionRow is the refresh state of a session.
type sessionRow struct {
	id, user                    uuid.UUID
	counter                     int64
	started, rotated, expiresAt time.Time
	used                        *time.Time // see Service.Used; nil after a rotation
	late                        int        // see shared
	grant                       *Grant     // nil for a session that is none
	orphaned                    bool       // a grant, and the session that it was under has ended

	userVersion, keysVersion int // of the streams of the user and of the signing keys, when the row was read or written
}

// grantedTo is the client whose grant a session is, "" for a session that is none.
func (r sessionRow) grantedTo() string {
	if r.grant == nil {
		return ""
	}
	return r.grant.Client
}

// hasRow says whether a session can still go on, as far as the user's own stream tells.
func (u *User) hasRow(r sessionRow) bool {
	return u.hasSession(r.id, r.started) && !u.withdrew(r.grantedTo(), r.started)
}

// newSessionID is a UUIDv7 whose time is that of the session's start, in milliseconds: access tokens carry it, and so
// tell when their session began.
func newSessionID(started time.Time) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.Nil, err
	}
	ms := started.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id, nil
}

// sessionStart is the time that newSessionID put into the id, and what any UUIDv7 has in its place.
func sessionStart(id uuid.UUID) time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

// beginning is when a session of a user begins that is started now: to the millisecond, and never among those that the
// user's own stream has ended, even where the clock of this machine lags behind that of the database.
func (s *Service) beginning(u *User) time.Time {
	now := s.now().UTC().Truncate(time.Millisecond)
	if now.Before(u.sessionsFrom) {
		now = u.sessionsFrom.Truncate(time.Millisecond).Add(time.Millisecond)
	}
	return now
}

// startSession starts a session of a user who has shown to be one. u is the user's state as far as it is known, and the
// result has it as it is where the session begins.
func (s *Service) startSession(ctx context.Context, shown proven, u *User, methods []string, m eventstore.Metadata, more ...eventstore.StateChange) (LoginResult, error) {
	row := sessionRow{user: u.ID}
	result, err := s.appendProven(ctx, shown, u, func(present *User) (eventstore.Append, error) {
		u = present
		row.started = s.beginning(u)
		row.rotated, row.expiresAt = row.started, row.started.Add(s.sessionMax)
		payloads, err := startSession(*u, methods, row.expiresAt)
		if err != nil {
			return eventstore.Append{}, err
		}
		if row.id, err = newSessionID(row.started); err != nil {
			return eventstore.Append{}, err
		}
		client, err := s.sealClient(ctx, u.ID, row.id, m)
		if err != nil {
			return eventstore.Append{}, err
		}
		stored := newRow("sessions", map[string]any{
			"session_id": row.id, "user_id": u.ID, "counter": 0, "late": 0, "client": client,
			"started_at": row.started, "rotated_at": row.rotated, "expires_at": row.expiresAt,
		})
		return eventstore.Append{
			Stream:   eventstore.SessionStream(row.id, u.ID),
			Expected: eventstore.NoStream,
			Events:   newEvents(payloads),
			Metadata: m,
			State:    append([]eventstore.StateChange{stored}, more...),
			Given:    s.keysInUse(),
		}, nil
	})
	if erased(err) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalidCredentials) { // since the credentials were checked
		err = wrongCredentials()
	}
	if err != nil {
		return LoginResult{}, err
	}
	return s.loginResult(u, row, result.Position), nil
}

// client is what a session shows of the device that it began on.
type client struct {
	Address   string `json:"address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// sealClient is the stored form of the client that the metadata names, sealed with the user's own key; nil for none.
func (s *Service) sealClient(ctx context.Context, user, session uuid.UUID, m eventstore.Metadata) (any, error) {
	if m.Address == "" && m.UserAgent == "" {
		return nil, nil
	}
	sealed, err := s.log.Sealer().SealFor(ctx, user, sessionPlace(session), marshal(client{m.Address, m.UserAgent}))
	if err != nil {
		return nil, fmt.Errorf("seal the session's client: %w", err)
	}
	return bytea(sealed), nil
}

func sessionPlace(session uuid.UUID) string { return "sessions/" + session.String() }

// SessionUser answers with the state of a user whose session goes on. It fails with ErrSessionEnded where the session has
// ended, or the user is not active, or there is no such user.
//
// From memory it knows what the user's own stream says of all the user's sessions; that a single one has ended it knows
// only while it has to read the log each time. Whoever verifies access tokens is told of those by Config.SessionEnded. That one
// never began, since the log is another one by now, it finds out by itself: see doubts.
func (s *Service) SessionUser(ctx context.Context, user, session uuid.UUID) (*User, error) {
	trusted := s.trust.holds(s.now())
	u, err := s.User(ctx, user)
	verdict := mayGoOn(u, session, err)
	if err == nil && errors.Is(verdict, ErrSessionEnded) && sessionStart(session).After(u.UpdatedAt) {
		// It began after all that memory knows of the user, who was let in again by then: what was said of that has not come yet.
		u, err = s.ReadUser(ctx, user)
		verdict = mayGoOn(u, session, err)
	}
	if err = verdict; err != nil {
		return nil, err
	}
	settle, doubted := s.doubts.about(session, s.now())
	if trusted && !doubted {
		return u, nil
	}
	if u, err = s.ownSession(ctx, u, session); err == nil && doubted {
		settle()
	}
	return u, err
}

// ReadSessionUser is SessionUser from the log: it knows of everything that was committed before the call.
func (s *Service) ReadSessionUser(ctx context.Context, user, session uuid.UUID) (*User, error) {
	u, err := s.ReadUser(ctx, user)
	if err = mayGoOn(u, session, err); err != nil {
		return nil, err
	}
	return s.ownSession(ctx, u, session)
}

// mayGoOn fails with ErrSessionEnded unless a session of the user, who was read with that error, can go on as far as the user's
// own stream tells.
func mayGoOn(u *User, session uuid.UUID, err error) error {
	if errors.Is(err, ErrNotFound) || err == nil && !u.hasSession(session, sessionStart(session)) {
		return ErrSessionEnded
	}
	return err
}

// ownSession lets a user pass whose session has not ended by itself.
func (s *Service) ownSession(ctx context.Context, u *User, session uuid.UUID) (*User, error) {
	row, err := s.session(ctx, session)
	if err != nil {
		return nil, err
	}
	if row.user != u.ID {
		return nil, ErrSessionEnded
	}
	return u, nil
}

// orphaned is whether a session is a grant under one that has ended.
const orphaned = `(parent_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM sessions p WHERE p.session_id = sessions.parent_id))`

// sessionColumns are those that tell whether a session is over. It is used for as long as a grant under it is.
const sessionColumns = `
	SELECT session_id, user_id, counter, started_at, expires_at,
	       coalesce((SELECT max(g.rotated_at) FROM sessions g WHERE g.parent_id = sessions.session_id AND g.rotated_at > sessions.rotated_at), rotated_at),
	       ` + orphaned + `, granted_to FROM sessions `

// streamVersions are the columns of the versions of a session's row, with the id of the stream of signing keys as $1.
const streamVersions = `coalesce((SELECT version FROM streams WHERE stream = sessions.user_id), 0), coalesce((SELECT version FROM streams WHERE stream = $1), 0)`

// session reads the row of a session. It fails with ErrSessionEnded where there is none.
func (s *Service) session(ctx context.Context, id uuid.UUID) (r sessionRow, err error) {
	var parent *uuid.UUID
	var granted *string
	err = s.db.QueryRow(ctx, `
		SELECT session_id, user_id, counter, started_at, rotated_at, expires_at, used_at, late, parent_id, granted, `+orphaned+`, `+streamVersions+` FROM sessions WHERE session_id = $2`,
		keysStream().ID, id).Scan(&r.id, &r.user, &r.counter, &r.started, &r.rotated, &r.expiresAt, &r.used, &r.late, &parent, &granted, &r.orphaned, &r.userVersion, &r.keysVersion)
	if errors.Is(err, eventstore.ErrNoRows) {
		return r, ErrSessionEnded
	}
	if err == nil {
		r.grant, err = grantOf(parent, granted)
	}
	if err != nil {
		return r, fmt.Errorf("read session %s: %w", id, err)
	}
	return r, nil
}

// Sessions lists a user's sessions that go on, the last used first. current is marked.
func (s *Service) Sessions(ctx context.Context, user, current uuid.UUID) ([]Session, error) {
	u, err := s.User(ctx, user)
	if err != nil {
		return nil, err
	}
	rows, err := s.db.Query(ctx, `
		SELECT session_id, started_at, rotated_at, client, coalesce(granted_to, '') FROM sessions
		 WHERE user_id = $1 AND expires_at > $2 AND rotated_at > $3
		 ORDER BY rotated_at DESC, session_id DESC`, user, s.now().UTC(), s.idleSince())
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer rows.Close()
	list := []Session{}
	var sealed [][]byte
	for rows.Next() {
		var v Session
		var client []byte
		if err := rows.Scan(&v.ID, &v.CreatedAt, &v.LastUsedAt, &client, &v.Client); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		if u.hasSession(v.ID, v.CreatedAt) && !u.withdrew(v.Client, v.CreatedAt) {
			v.CreatedAt, v.LastUsedAt, v.Current = v.CreatedAt.UTC(), v.LastUsedAt.UTC(), v.ID == current
			list, sealed = append(list, v), append(sealed, client)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	for i := range list {
		if sealed[i] == nil {
			continue
		}
		raw, err := s.log.Sealer().OpenFor(ctx, user, sessionPlace(list[i].ID), sealed[i])
		if erased(err) {
			return nil, noSuchUser()
		}
		var c client
		if err == nil {
			err = json.Unmarshal(raw, &c)
		}
		switch {
		case err != nil && (eventstore.General(err) || ctx.Err() != nil):
			return nil, fmt.Errorf("open session %s: %w", list[i].ID, err)
		case err != nil: // a session that can't be shown as a whole can be ended all the same, as the others can
			s.logger.ErrorContext(ctx, "what a session began on can't be read", slog.String("session", list[i].ID.String()), slog.Any("error", err))
			continue
		}
		list[i].Address, list[i].UserAgent = c.Address, c.UserAgent
	}
	return list, nil
}

// EndSession ends one session of a user. It fails with ErrNotFound where the user has no such session.
func (s *Service) EndSession(ctx context.Context, user, session uuid.UUID, reason string, m eventstore.Metadata) (eventstore.Result, error) {
	row, err := s.session(ctx, session)
	switch {
	case errors.Is(err, ErrSessionEnded), err == nil && row.user != user:
		return eventstore.Result{}, refuse(CodeNotFound, "there is no such session")
	case err != nil:
		return eventstore.Result{}, err
	}
	return s.endWithGrants(ctx, row, m, nil, SessionEnded{Reason: reason})
}

// EndSessions ends every session of a user but one; the nil UUID spares none. It answers with the last position that it
// wrote, 0 if none. Sessions that begin meanwhile go on.
func (s *Service) EndSessions(ctx context.Context, user, except uuid.UUID, reason string, m eventstore.Metadata) (int64, error) {
	return s.endSessions(ctx, user, except, reason, m, nil)
}

// endSessions is EndSessions, on the strength of a proof where there is one.
func (s *Service) endSessions(ctx context.Context, user, except uuid.UUID, reason string, m eventstore.Metadata, shown *proven) (int64, error) {
	if err := s.denyDevices(ctx, user); err != nil {
		return 0, err
	}
	ids, err := s.sessionIDs(ctx, `user_id = $1`, user)
	if err != nil {
		return 0, err
	}
	if i := slices.Index(ids, except); i >= 0 {
		ids = slices.Delete(ids, i, i+1)
	}
	return s.endEach(ctx, user, ids, reason, m, shown)
}

// endEach ends sessions of a user, and answers as EndSessions does.
func (s *Service) endEach(ctx context.Context, user uuid.UUID, ids []uuid.UUID, reason string, m eventstore.Metadata, shown *proven) (int64, error) {
	positions := make([]int64, len(ids))
	var g errgroup.Group // they share commits
	g.SetLimit(maxEnding)
	for i, id := range ids {
		g.Go(func() error {
			r, err := s.endSession(ctx, id, user, m, shown, SessionEnded{Reason: reason})
			positions[i] = r.Position
			return err
		})
	}
	err := g.Wait()
	last := int64(0)
	for _, p := range positions {
		last = max(last, p)
	}
	return last, err
}

const maxEnding = 64 // appends at a time

// sessionIDs are the sessions that a condition is true of.
func (s *Service) sessionIDs(ctx context.Context, condition string, args ...any) (ids []uuid.UUID, err error) {
	rows, err := s.db.Query(ctx, `SELECT session_id FROM sessions WHERE `+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return ids, nil
}

// endSession appends what ends a session and removes its row, on the strength of a proof where there is one. A session that
// somebody else has ended meanwhile has ended, and so has that of a user who was erased: that is no error.
func (s *Service) endSession(ctx context.Context, session, user uuid.UUID, m eventstore.Metadata, shown *proven, payloads ...Payload) (eventstore.Result, error) {
	end := eventstore.Append{
		Stream:   eventstore.SessionStream(session, user),
		Expected: sessionOpen,
		Events:   newEvents(payloads),
		Metadata: m,
		State:    []eventstore.StateChange{dropRow("sessions", map[string]any{"session_id": session})},
	}
	var result eventstore.Result
	var err error
	if shown == nil {
		result, err = s.log.Append(ctx, end)
	} else if u, read := s.ReadUser(ctx, user); read != nil {
		err = read
	} else {
		result, err = s.appendProven(ctx, *shown, u, func(*User) (eventstore.Append, error) { return end, nil })
	}
	if errors.Is(err, eventstore.ErrWrongExpectedVersion) || erased(err) || errors.Is(err, ErrNotFound) {
		err = nil
	}
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("end session %s: %w", session, err)
	}
	s.sessionEnded(session)
	return result, nil
}

// sessionOpen is the version of a session's stream while the session goes on: it has begun, and nothing came after.
const sessionOpen eventstore.Expected = 1

// endEverySession ends the sessions that an event of the user's own stream has ended already, so that each is told of by
// an event and has no row. Should it not come that far, they have ended all the same, and ExpireSessions finds the rows.
func (s *Service) endEverySession(ctx context.Context, user, except uuid.UUID, reason string, m eventstore.Metadata) int64 {
	last, err := s.EndSessions(context.WithoutCancel(ctx), user, except, reason, m)
	if err != nil {
		s.logger.WarnContext(ctx, "sessions that have ended are still listed", slog.String("user", user.String()), slog.Any("error", err))
	}
	return last
}

// goesOn says whether a session is within its limits.
func (s *Service) goesOn(row sessionRow) bool {
	return s.now().Before(row.expiresAt) && row.rotated.After(s.idleSince())
}

// idleSince is when a session that is idle for too long was last used.
func (s *Service) idleSince() time.Time { return s.now().UTC().Add(-s.sessionIdle) }
