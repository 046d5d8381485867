package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// BrowserToken is the opaque text by which a browser shows which session it has. It can't be printed by accident.
//
// Its content is, in base64url: its form (1 byte, 1), the user's id, the session's id (16 bytes each), what proved who it is (1 byte,
// see methodBits), when the session ends at the latest, and when the log was last asked about it (8 bytes each, Unix seconds,
// big-endian), and an HMAC-SHA-256 over all that, under a key that is in no database.
//
// While it is younger than an access token may get it is as good as one: memory tells whether its session goes on. Then the log is
// asked, once, and gives another: see KeepBrowser. So it is both tokens of a session in one, but for that those before it go on
// to be good until they have been idle for too long: a browser that loads two pages at once must not be logged out by that.
type BrowserToken string

func (BrowserToken) String() string       { return "[hidden]" }
func (BrowserToken) GoString() string     { return "[hidden]" }
func (BrowserToken) LogValue() slog.Value { return slog.StringValue("[hidden]") }

const (
	browserForm    = 1
	browserContent = 1 + 16 + 16 + 1 + 8 + 8
	browserLength  = browserContent + sha256.Size
)

// methodBits are what the methods of a login are in a BrowserToken.
var methodBits = []string{MethodPassword, MethodTOTP, MethodRecoveryCode}

// BrowserSession is the session that a browser has, as its token says.
type BrowserSession struct {
	ID, User  uuid.UUID
	Methods   []string  // that proved who it is: MethodPassword, …
	ExpiresAt time.Time // at the latest
	SeenAt    time.Time // when the log was last asked about it
}

// BeganAt is when somebody proved who it is.
func (b BrowserSession) BeganAt() time.Time { return sessionStart(b.ID) }

// BrowserSession is the session that a login has begun, for a browser to have.
func (r LoginResult) BrowserSession() BrowserSession {
	return BrowserSession{ID: r.Session, User: r.User.ID, Methods: r.Methods, ExpiresAt: r.ExpiresAt, SeenAt: r.StartedAt}
}

// BrowserToken is the token of a session that a browser has.
func (s *Service) BrowserToken(b BrowserSession) BrowserToken {
	raw := make([]byte, 1, browserLength)
	raw[0] = browserForm
	raw = append(append(raw, b.User[:]...), b.ID[:]...)
	var methods byte
	for i, bit := range methodBits {
		for _, m := range b.Methods {
			if m == bit {
				methods |= 1 << i
			}
		}
	}
	raw = append(raw, methods)
	raw = binary.BigEndian.AppendUint64(raw, uint64(b.ExpiresAt.Unix()))
	raw = binary.BigEndian.AppendUint64(raw, uint64(b.SeenAt.Unix()))
	return BrowserToken(refreshText.EncodeToString(append(raw, s.codeMAC("browser", string(raw))...)))
}

// ReadBrowser is the session of a token. It fails with ErrSessionEnded for everything that BrowserToken did not make, and for a
// token that is past its limits. What has become of the session since is not looked at.
func (s *Service) ReadBrowser(t BrowserToken) (BrowserSession, error) {
	if len(t) != refreshText.EncodedLen(browserLength) {
		return BrowserSession{}, ErrSessionEnded
	}
	raw, err := refreshText.DecodeString(string(t))
	// The decoder passes over line breaks, which would give one token many texts.
	if err != nil || len(raw) != browserLength || raw[0] != browserForm || !hmac.Equal(raw[browserContent:], s.codeMAC("browser", string(raw[:browserContent]))) {
		return BrowserSession{}, ErrSessionEnded
	}
	b := BrowserSession{
		User: uuid.UUID(raw[1:17]), ID: uuid.UUID(raw[17:33]),
		ExpiresAt: time.Unix(int64(binary.BigEndian.Uint64(raw[34:42])), 0).UTC(),
		SeenAt:    time.Unix(int64(binary.BigEndian.Uint64(raw[42:browserContent])), 0).UTC(),
	}
	for i, bit := range methodBits {
		if raw[33]>>i&1 == 1 {
			b.Methods = append(b.Methods, bit)
		}
	}
	now := s.now()
	if !now.Before(b.ExpiresAt) || !b.SeenAt.After(now.Add(-s.sessionIdle)) {
		return BrowserSession{}, ErrSessionEnded
	}
	return b, nil
}

// IsFresh says whether memory knows all that can have become of a browser's session: what ended since the log was last asked about
// it. It does for as long as access tokens are good.
func (s *Service) IsFresh(b BrowserSession) bool { return s.now().Sub(b.SeenAt) < s.accessLifetime }

// IdleUntil is when a browser's session ends unless it is used before.
func (s *Service) IdleUntil(b BrowserSession) time.Time {
	if idle := b.SeenAt.Add(s.sessionIdle); idle.Before(b.ExpiresAt) {
		return idle
	}
	return b.ExpiresAt
}

// KeepBrowser asks the log about a browser's session, and notes that it is in use: it is to a browser what Refresh is to other
// clients. It is one statement, and waits for nobody who does the same. It fails with ErrSessionEnded where the session has ended or
// is past its limits, and as the database does.
func (s *Service) KeepBrowser(ctx context.Context, b BrowserSession, m eventstore.Metadata) (BrowserSession, error) {
	free := ""
	if s.db.Dialect() == eventstore.Postgres {
		free = "FOR UPDATE SKIP LOCKED"
	}
	now := s.now().UTC()
	err := s.db.QueryRow(ctx, `
		UPDATE sessions SET rotated_at = $3
		 WHERE session_id = (SELECT session_id FROM sessions
		                      WHERE session_id = $1 AND user_id = $2 AND expires_at > $3 AND rotated_at > $4 AND rotated_at <= $3 `+free+`)
		RETURNING `+eventstore.Relaxed(s.db.Dialect()), b.ID, b.User, now, s.idleSince()).Scan(new(string))
	if errors.Is(err, eventstore.ErrNoRows) { // it has ended, or somebody notes the same at the moment
		row, err := s.session(ctx, b.ID)
		switch {
		case err != nil:
			return BrowserSession{}, err
		case row.user != b.User:
			return BrowserSession{}, ErrSessionEnded
		case !s.goesOn(row):
			m.Actor = ActorSystem
			if _, err := s.endWithGrants(ctx, row, m, nil, SessionEnded{Reason: EndedExpired}); err != nil {
				return BrowserSession{}, err
			}
			return BrowserSession{}, ErrSessionEnded
		}
	} else if err != nil {
		return BrowserSession{}, fmt.Errorf("note the use of session %s: %w", b.ID, err)
	}
	b.SeenAt = now
	return b, nil
}
