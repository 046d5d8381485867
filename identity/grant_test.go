package identity

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func shopGrant(login LoginResult) Grant {
	return Grant{Client: "shop", Scopes: []string{"openid", "email"}, Audience: []string{"https://shop.example"},
		Parent: login.Session, AuthTime: login.StartedAt, Methods: []string{MethodPassword}}
}

// mustGrant starts a grant under a session.
func mustGrant(t *testing.T, s *Service, login LoginResult, g Grant) (uuid.UUID, LoginResult) {
	t.Helper()
	id, err := s.NewGrant()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.StartGrant(t.Context(), id, login.User.ID, g, eventstore.Metadata{})
	if err != nil {
		t.Fatal(err)
	}
	return id, r
}

func TestGrantIsASessionOfTheClient(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		want := shopGrant(login)
		id, first := mustGrant(t, s, login, want)
		if first.Session != id || first.User.ID != login.User.ID {
			t.Errorf("the grant is session %s of %s", first.Session, first.User.ID)
		}
		second, err := s.RefreshGrant(t.Context(), first.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, second.Grant); diff != "" {
			t.Errorf("what was granted, after a refresh (-want +got):\n%s", diff)
		}
		list, err := s.Sessions(t.Context(), login.User.ID, login.Session)
		if err != nil {
			t.Fatal(err)
		}
		clients := map[uuid.UUID]string{}
		for _, v := range list {
			clients[v.ID] = v.Client
		}
		if diff := cmp.Diff(map[uuid.UUID]string{login.Session: "", id: "shop"}, clients); diff != "" {
			t.Errorf("the user's sessions, with their clients (-want +got):\n%s", diff)
		}

		// A refresh token is good for whom it was given to, and who else shows it ends nothing.
		wantRefused(t, s, "the client's token at the login API", second.Refresh)
		for token, client := range map[RefreshToken]string{second.Refresh: "other", login.Refresh: "shop"} {
			if _, err := s.RefreshGrant(t.Context(), token, Grantee{Client: client}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidRefreshToken) {
				t.Errorf("another's token as %q: %v, want %v", client, err, ErrInvalidRefreshToken)
			}
		}
		if _, err := s.RefreshGrant(t.Context(), second.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{}); err != nil {
			t.Errorf("the token of the client afterwards: %v", err)
		}
		mustRefresh(t, s, login.Refresh)
	})
}

func TestGrantEndsWithItsSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		_, under := mustGrant(t, s, login, shopGrant(login))
		alone := shopGrant(login)
		alone.Parent = uuid.Nil
		_, apart := mustGrant(t, s, login, alone)
		if _, err := s.EndSession(t.Context(), login.User.ID, login.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RefreshGrant(t.Context(), under.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("refresh under a session that ended: %v, want %v", err, ErrInvalidRefreshToken)
		}
		if _, err := s.RefreshGrant(t.Context(), apart.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{}); err != nil {
			t.Errorf("refresh of a grant that stands by itself: %v", err)
		}
		wantSessions(t, d, s, TypeSessionStarted, TypeSessionGranted, TypeSessionGranted, TypeSessionEnded+" logout", TypeSessionEnded+" logout")
		id, err := s.NewGrant()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.StartGrant(t.Context(), id, login.User.ID, shopGrant(login), eventstore.Metadata{}); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("a grant under a session that ended: %v, want %v", err, ErrSessionEnded)
		}
	})
}

// A process that dies between the end of a session and that of the grants under it leaves them without one.
func TestGrantWithoutItsSessionIsOver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		_, under := mustGrant(t, s, login, shopGrant(login))
		if _, err := s.endSession(t.Context(), login.Session, login.User.ID, eventstore.Metadata{}, nil, SessionEnded{Reason: EndedLogout}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RefreshGrant(t.Context(), under.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("refresh under a session that ended: %v, want %v", err, ErrInvalidRefreshToken)
		}
		if n, err := s.ExpireSessions(t.Context()); n != 0 || err != nil {
			t.Errorf("ExpireSessions after the refused refresh = %d, %v; want nothing left to end", n, err)
		}

		_, apart := mustGrant(t, s, mustLogin(t, s), Grant{Client: "shop", Scopes: []string{}})
		if _, err := d.db.Exec(t.Context(), `UPDATE sessions SET parent_id = $1 WHERE session_id = $2`, login.Session, apart.Session); err != nil {
			t.Fatal(err)
		}
		if n, err := s.ExpireSessions(t.Context()); n != 1 || err != nil {
			t.Errorf("ExpireSessions = %d, %v; want 1 that ended", n, err)
		}
	})
}

func TestGrantBeginsOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, login := loggedIn(t, d, nil)
		processes := []*Service{s, d.service(t, nil)}
		for range 20 {
			id, err := s.NewGrant()
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				all.Go(func() {
					_, errs[i] = processes[i%2].StartGrant(t.Context(), id, login.User.ID, shopGrant(login), eventstore.Metadata{})
				})
			}
			all.Wait()
			begun := 0
			for _, err := range errs {
				switch {
				case err == nil:
					begun++
				case !errors.Is(err, ErrGrantStarted):
					t.Errorf("a grant that may have begun: %v, want %v", err, ErrGrantStarted)
				}
			}
			if begun != 1 {
				t.Errorf("the grant began %d times", begun)
			}
		}
	})
}

// What ends the user's sessions ends what was agreed to before and has not begun yet.
func TestGrantIsVoidAfterAnotherPassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, nil)
		id, err := s.NewGrant()
		if err != nil {
			t.Fatal(err)
		}
		at.add(time.Second)
		other := d.service(t, nil)
		if _, err := other.ChangePassword(t.Context(), PasswordChange{User: login.User.ID, Session: login.Session, Proof: Proof{Session: login.Session, Password: secret}, New: "another horse battery staple"}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.StartGrant(t.Context(), id, login.User.ID, shopGrant(login), eventstore.Metadata{}); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("a grant from before another password: %v, want %v", err, ErrSessionEnded)
		}
	})
}

func TestGrantKeepsItsSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, func(c *Config) { c.SessionIdle = time.Hour })
		_, under := mustGrant(t, s, login, shopGrant(login))
		for range 3 {
			at.add(50 * time.Minute)
			var err error
			if under, err = s.RefreshGrant(t.Context(), under.Refresh, Grantee{Client: "shop"}, eventstore.Metadata{}); err != nil {
				t.Fatal(err)
			}
			if n, err := s.ExpireSessions(t.Context()); n != 0 || err != nil {
				t.Fatalf("ExpireSessions = %d, %v while a grant under the session is used", n, err)
			}
		}
		at.add(2 * time.Hour)
		if n, err := s.ExpireSessions(t.Context()); n == 0 || err != nil {
			t.Errorf("ExpireSessions = %d, %v after nothing was used", n, err)
		}
		wantSessions(t, d, s, TypeSessionStarted, TypeSessionGranted, TypeSessionEnded+" expired", TypeSessionEnded+" expired")
	})
}

func TestGrantRestsAsLongAsItsClientSays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, func(c *Config) { c.SessionIdle = 24 * time.Hour })
		_, under := mustGrant(t, s, login, shopGrant(login))
		by := Grantee{Client: "shop", Idle: time.Hour}
		at.add(50 * time.Minute)
		under, err := s.RefreshGrant(t.Context(), under.Refresh, by, eventstore.Metadata{})
		if err != nil {
			t.Fatal(err)
		}
		at.add(61 * time.Minute)
		if _, err := s.RefreshGrant(t.Context(), under.Refresh, by, eventstore.Metadata{}); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("a refresh after too long: %v, want %v", err, ErrInvalidRefreshToken)
		}
		mustRefresh(t, s, login.Refresh)
	})
}
