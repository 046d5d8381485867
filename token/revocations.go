package token

import (
	"cmp"
	"sync"
	"time"

	"github.com/google/uuid"
)

// DefaultRevocations is how many revocations are held at most, about 50 bytes
// each.
const DefaultRevocations = 1 << 20

// Revocations is the set of sessions that have ended, and of consents that
// were withdrawn, while access tokens of
// theirs may still be unexpired. Its Revoked is what [VerifierConfig] asks for.
// It is safe for concurrent use; the zero value is not ready, see
// [NewRevocations].
//
// It learns of what it is told, by package subscription from the stream of
// events, and forgets each revocation once the last token that it could
// concern has expired. When more come than it holds, it starts over, and
// refuses every token that was issued until then: their clients refresh them,
// and whoever's session has ended can't.
type Revocations struct {
	lifetime time.Duration
	limit    int
	now      func() time.Time

	mu sync.RWMutex
	// Two generations: what was told in this lifetime and what in the one
	// before, so that forgetting is one assignment.
	recent, older revoked
	began         time.Time // of recent
	floor         time.Time // tokens issued until then are refused
}

type revoked struct {
	sessions map[uuid.UUID]struct{}
	users    map[uuid.UUID]ending
	consents map[consent]time.Time // by whose, until when sessions began that have ended
}

// consent is what a user lets a client do.
type consent struct {
	user   uuid.UUID
	client string
}

// ending is what ended the sessions of a user.
type ending struct {
	before time.Time // sessions that began before
	except uuid.UUID // all but this one
}

// RevocationsConfig sets up [Revocations].
type RevocationsConfig struct {
	Lifetime time.Duration    // the longest that an access token lives, required
	Limit    int              // zero stands for DefaultRevocations
	Now      func() time.Time // nil stands for time.Now
}

// NewRevocations makes an empty set.
func NewRevocations(config RevocationsConfig) *Revocations {
	r := &Revocations{lifetime: config.Lifetime, limit: cmp.Or(config.Limit, DefaultRevocations), now: config.Now}
	if r.now == nil {
		r.now = time.Now
	}
	r.recent, r.older, r.began = newRevoked(), newRevoked(), r.now()
	return r
}

func newRevoked() revoked {
	return revoked{sessions: map[uuid.UUID]struct{}{}, users: map[uuid.UUID]ending{}, consents: map[consent]time.Time{}}
}

func (r revoked) size() int { return len(r.sessions) + len(r.users) + len(r.consents) }

// EndSession revokes the tokens of one session.
func (r *Revocations) EndSession(session uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	r.recent.sessions[session] = struct{}{}
}

// EndUser revokes the tokens of every session of a user that began before a
// moment, except one; the nil UUID stands for none. When a session began is
// part of its id, which is a UUIDv7.
func (r *Revocations) EndUser(user uuid.UUID, before time.Time, except uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	// An older exception is over with the sessions that the newer ending ends.
	if e, ok := r.recent.users[user]; !ok || e.before.Before(before) {
		r.recent.users[user] = ending{before, except}
	}
}

// EndConsent revokes the tokens that a client has for a user, of sessions that
// began before a moment: the user lets it do nothing any more, or did not for
// a while.
func (r *Revocations) EndConsent(user uuid.UUID, client string, before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if c := (consent{user, client}); r.recent.consents[c].Before(before) {
		r.recent.consents[c] = before
	}
}

// Renew forgets what was told so far, once everything that still matters has
// been told anew and done is called: what it was told of may not have happened,
// as after a restore. Until then both count.
func (r *Revocations) Renew() (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for session := range r.recent.sessions {
		r.older.sessions[session] = struct{}{}
	}
	for user, e := range r.recent.users {
		if known, ok := r.older.users[user]; !ok || known.before.Before(e.before) {
			r.older.users[user] = e
		}
	}
	for c, before := range r.recent.consents {
		if r.older.consents[c].Before(before) {
			r.older.consents[c] = before
		}
	}
	r.recent, r.began = newRevoked(), r.now()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.older = newRevoked()
	}
}

// turn drops what no token can be concerned by, and starts over when the set
// is full.
func (r *Revocations) turn() {
	now := r.now()
	if now.Sub(r.began) > r.lifetime {
		r.older, r.recent, r.began = r.recent, newRevoked(), now
	}
	if r.recent.size()+r.older.size() >= r.limit {
		r.older, r.recent, r.began, r.floor = newRevoked(), newRevoked(), now, now
	}
}

// Revoked reports whether a token's session has ended. A token without a
// session, or whose session is not one of usher's, is not known to be.
func (r *Revocations) Revoked(claims Claims) bool {
	session, err := uuid.Parse(claims.Session)
	if err != nil {
		return false
	}
	user, err := uuid.Parse(claims.Subject)
	if err != nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.floor.IsZero() && !claims.IssuedAt.After(r.floor) {
		return true
	}
	for _, g := range []*revoked{&r.recent, &r.older} {
		if _, ended := g.sessions[session]; ended {
			return true
		}
		if e, ended := g.users[user]; ended && session != e.except && began(session).Before(e.before) {
			return true
		}
		if before, ended := g.consents[consent{user, claims.Client}]; ended && began(session).Before(before) {
			return true
		}
	}
	return false
}

// began is when a UUIDv7 was made, to the millisecond.
func began(id uuid.UUID) time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms)
}
