package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Grant is what a user lets a client do in the user's name, for as long as it lasts. It is a session of the client's own, with a
// refresh token of its own, under the one that the user was logged in to: it ends with that, as well as by itself.
type Grant struct {
	Client   string   `json:"client"` // its client_id
	Scopes   []string `json:"scopes"`
	Audience []string `json:"audience,omitempty"` // whom its access tokens are for: usher itself when empty
	// Confirmation is the thumbprint of the key without which its refresh token is no good; "" for none.
	Confirmation string `json:"jkt,omitempty"`

	Parent   uuid.UUID `json:"-"`         // the session that it is under; the nil UUID for one that stands by itself
	AuthTime time.Time `json:"auth_time"` // when the user logged in to that
	Methods  []string  `json:"methods"`   // that the user logged in by
}

// NewGrant names a grant that may begin. It can begin once: see StartGrant.
func (s *Service) NewGrant() (uuid.UUID, error) { return newSessionID(s.now()) }

// ErrGrantStarted: the grant has begun before.
var ErrGrantStarted = errors.New("the grant has begun before")

// StartGrant has a grant of a user begin, which was named when the user agreed to it. However many processes are asked to at a
// time, it begins once: its name is that of its stream. And it begins only if nothing has ended the user's sessions since it was
// named, nor withdrawn what the client was let do, and the one that it is under goes on; all that holds at the moment of the append.
//
// It is one append, with the user from memory. It fails with ErrGrantStarted; with ErrSessionEnded where there is nothing that
// the grant could be under any more; or as eventstore.Log.Append does.
func (s *Service) StartGrant(ctx context.Context, id, user uuid.UUID, g Grant, m eventstore.Metadata) (LoginResult, error) {
	u, err := s.User(ctx, user)
	if errors.Is(err, ErrNotFound) {
		return LoginResult{}, ErrSessionEnded
	}
	if err != nil {
		return LoginResult{}, err
	}
	row := sessionRow{id: id, user: user, grant: &g, started: sessionStart(id)}
	if m.Actor == "" {
		m.Actor = ActorUser(user)
	}
	for try := 1; ; try++ {
		if !u.hasRow(row) || g.Parent != uuid.Nil && !u.hasSession(g.Parent, sessionStart(g.Parent)) {
			return LoginResult{}, ErrSessionEnded
		}
		a, err := s.grantAppend(ctx, u, &row, m)
		if err != nil {
			return LoginResult{}, err
		}
		result, err := s.log.Append(ctx, a)
		var stale *eventstore.StaleError
		switch {
		case err == nil:
			return s.loginResult(u, row, result.Position), nil
		case errors.Is(err, eventstore.ErrWrongExpectedVersion):
			return LoginResult{}, ErrGrantStarted
		case erased(err):
			return LoginResult{}, ErrSessionEnded
		case !errors.As(err, &stale) || try == changeTries:
			return LoginResult{}, fmt.Errorf("start the grant: %w", err)
		case stale.Given.Stream == g.Parent:
			return LoginResult{}, ErrSessionEnded
		case stale.Given.Stream == keysStream().ID:
			err = s.leaveKeys(ctx, stale.Given.Version)
		default:
			u, err = s.ReadUser(ctx, user)
		}
		if errors.Is(err, ErrNotFound) {
			err = ErrSessionEnded
		}
		if err != nil {
			return LoginResult{}, err
		}
	}
}

// grantAppend is what a grant begins with.
func (s *Service) grantAppend(ctx context.Context, u *User, row *sessionRow, m eventstore.Metadata) (eventstore.Append, error) {
	row.rotated, row.expiresAt = s.now().UTC().Truncate(time.Millisecond), row.started.Add(s.sessionMax)
	client, err := s.sealClient(ctx, u.ID, row.id, m)
	if err != nil {
		return eventstore.Append{}, err
	}
	given := append(s.keysInUse(), eventstore.StreamVersion{Stream: u.ID, Version: u.Version})
	var parent any
	if row.grant.Parent != uuid.Nil {
		parent = row.grant.Parent
		given = append(given, eventstore.StreamVersion{Stream: row.grant.Parent, Version: int(sessionOpen)})
	}
	return eventstore.Append{
		Stream:   eventstore.SessionStream(row.id, u.ID),
		Expected: eventstore.NoStream,
		Events: newEvents([]Payload{SessionGranted{
			Client: row.grant.Client, Scopes: row.grant.Scopes, Parent: row.grant.Parent, ExpiresAt: row.expiresAt,
		}}),
		Metadata: m,
		State: []eventstore.StateChange{newRow("sessions", map[string]any{
			"session_id": row.id, "user_id": u.ID, "counter": 0, "late": 0, "client": client,
			"started_at": row.started, "rotated_at": row.rotated, "expires_at": row.expiresAt,
			"parent_id": parent, "granted_to": row.grant.Client, "granted": string(marshal(row.grant)),
		})},
		Given: given,
	}, nil
}

// Grantee is the client that a grant is refreshed by.
type Grantee struct {
	Client string
	Idle   time.Duration // how long its grants may rest, where that is shorter than the service's; 0 for no shorter
	// Confirmation is the thumbprint of the key that it has shown to have; "" for none.
	Confirmation string
}

// RefreshGrant is Refresh for the client of a grant. It fails as that does, with ErrInvalidRefreshToken also for the refresh
// token of a login or of another client's grant.
func (s *Service) RefreshGrant(ctx context.Context, t RefreshToken, by Grantee, m eventstore.Metadata) (LoginResult, error) {
	return s.refresh(ctx, t, by, m)
}

// idleSinceBy is idleSince for the grants of a client.
func (s *Service) idleSinceBy(c Grantee) time.Time {
	if c.Idle > 0 && c.Idle < s.sessionIdle {
		return s.now().UTC().Add(-c.Idle)
	}
	return s.idleSince()
}

// EndGrant ends a grant that may have begun, as for a code that is shown a second time.
func (s *Service) EndGrant(ctx context.Context, id, user uuid.UUID, reason string, m eventstore.Metadata) error {
	_, err := s.endSession(ctx, id, user, m, nil, SessionEnded{Reason: reason})
	return err
}

// GrantUnder says whether a session is a grant under another one, and goes on.
func (s *Service) GrantUnder(ctx context.Context, grant, session uuid.UUID) (bool, error) {
	row, err := s.session(ctx, grant)
	if errors.Is(err, ErrSessionEnded) {
		return false, nil
	}
	return err == nil && row.grant != nil && row.grant.Parent == session, err
}

// endWithGrants is endSession for one that others may be under.
func (s *Service) endWithGrants(ctx context.Context, row sessionRow, m eventstore.Metadata, shown *proven, payloads ...Payload) (eventstore.Result, error) {
	result, err := s.endSession(ctx, row.id, row.user, m, shown, payloads...)
	if err != nil || row.grant != nil {
		return result, err
	}
	reason := EndedRevoked
	if end, ok := payloads[len(payloads)-1].(SessionEnded); ok {
		reason = end.Reason
	}
	return result, s.endGrantsUnder(context.WithoutCancel(ctx), row.id, row.user, reason, m)
}

// endGrantsUnder ends the grants under a session that has ended. None begins under it any more: see StartGrant. Should it not
// come that far, they can't be refreshed all the same, and ExpireSessions finds them.
func (s *Service) endGrantsUnder(ctx context.Context, session, user uuid.UUID, reason string, m eventstore.Metadata) error {
	ids, err := s.sessionIDs(ctx, `parent_id = $1`, session)
	if err != nil || len(ids) == 0 {
		return err
	}
	_, err = s.endEach(ctx, user, ids, reason, m, nil)
	return err
}

// grantOf reads what a session's row says of the grant that it is; nil for a session that is none.
func grantOf(parent *uuid.UUID, granted *string) (*Grant, error) {
	if granted == nil {
		return nil, nil
	}
	g := new(Grant)
	if err := json.Unmarshal([]byte(*granted), g); err != nil {
		return nil, fmt.Errorf("read a grant: %w", err)
	}
	if parent != nil {
		g.Parent = *parent
	}
	g.Scopes, g.Audience = slices.Clip(g.Scopes), slices.Clip(g.Audience)
	return g, nil
}
