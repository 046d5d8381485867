package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
	"usher.example/schema"
)

func TestBrowserToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, r := loggedIn(t, d, func(c *Config) { c.AccessLifetime, c.SessionIdle, c.SessionMax = time.Hour, 24*time.Hour, 48*time.Hour })
		token := s.BrowserToken(r.BrowserSession())
		b, err := s.ReadBrowser(token)
		want := BrowserSession{ID: r.Session, User: r.User.ID, Methods: []string{MethodPassword}, ExpiresAt: r.ExpiresAt.Truncate(time.Second), SeenAt: r.StartedAt.Truncate(time.Second)}
		if diff := cmp.Diff(want, b); err != nil || diff != "" {
			t.Errorf("ReadBrowser() = %v (-want +got):\n%s", err, diff)
		}
		if !b.BeganAt().Equal(r.StartedAt) {
			t.Errorf("BeganAt() = %v, want %v", b.BeganAt(), r.StartedAt)
		}
		for name, text := range map[string]string{
			"nothing": "", "nonsense": "x", "cut": string(token[:len(token)-1]), "longer": string(token) + "A", "a line break": string(token[:8]) + "\n" + string(token[9:]),
			"a refresh token": string(r.Refresh), "a device": string(r.Device), "altered": "AQ" + strings.Repeat("A", len(token)-2),
			"of another key": string(d.service(t, func(c *Config) { c.CodeKey = []byte("another") }).BrowserToken(b)),
		} {
			if _, err := s.ReadBrowser(BrowserToken(text)); !errors.Is(err, ErrSessionEnded) {
				t.Errorf("%s: %v, want %v", name, err, ErrSessionEnded)
			}
		}
		if text := fmt.Sprintf("%v %+v %#v %s", token, token, token, token.LogValue()); strings.Contains(text, string(token)) {
			t.Errorf("a token prints itself: %s", text)
		}
		at.add(24 * time.Hour)
		if _, err := s.ReadBrowser(token); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("after the idle limit: %v, want %v", err, ErrSessionEnded)
		}
	})
}

// A browser's session goes on for as long as it is used, to its greatest age, and is listed as used.
func TestKeepBrowser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, r := loggedIn(t, d, func(c *Config) { c.AccessLifetime, c.SessionIdle, c.SessionMax = time.Hour, 24*time.Hour, 48*time.Hour })
		b := r.BrowserSession()
		if !s.IsFresh(b) {
			t.Error("it is not fresh at once")
		}
		for range 3 {
			at.add(12 * time.Hour)
			if s.IsFresh(b) {
				t.Error("it is fresh after 12 hours")
			}
			kept, err := s.KeepBrowser(t.Context(), b, eventstore.Metadata{})
			if err != nil || !s.IsFresh(kept) || kept.ID != b.ID || kept.ExpiresAt != b.ExpiresAt {
				t.Fatalf("KeepBrowser() = %+v, %v", kept, err)
			}
			b = kept
			if list, err := s.Sessions(t.Context(), r.User.ID, b.ID); err != nil || len(list) != 1 || !list[0].LastUsedAt.Equal(b.SeenAt.Truncate(time.Microsecond)) {
				t.Errorf("Sessions() = %+v, %v, want one used at %v", list, err, b.SeenAt)
			}
		}
		if got := s.IdleUntil(b); !got.Equal(b.ExpiresAt) {
			t.Errorf("IdleUntil() = %v, want the end %v", got, b.ExpiresAt)
		}
		if _, err := s.KeepBrowser(t.Context(), BrowserSession{ID: b.ID, User: uuid.New(), ExpiresAt: b.ExpiresAt, SeenAt: b.SeenAt}, eventstore.Metadata{}); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("another user's: %v, want %v", err, ErrSessionEnded)
		}
		at.add(13 * time.Hour)
		if _, err := s.KeepBrowser(t.Context(), b, eventstore.Metadata{}); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("after its greatest age: %v, want %v", err, ErrSessionEnded)
		}
		wantSessions(t, d, s, "session.started", "session.ended expired")
		if _, err := s.KeepBrowser(t.Context(), b, eventstore.Metadata{}); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("after its end: %v, want %v", err, ErrSessionEnded)
		}
	})
}

// Many pages that are loaded at once, by whichever process, are all of the session.
func TestKeepBrowserAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, r := loggedIn(t, d, nil)
		other := d.service(t, func(c *Config) { c.Now = at.Now })
		at.add(time.Hour)
		var wait sync.WaitGroup
		for i := range 20 {
			wait.Go(func() {
				if _, err := []*Service{s, other}[i%2].KeepBrowser(t.Context(), r.BrowserSession(), eventstore.Metadata{}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	})
}

// A login that needs a second factor goes on without the password, for a while.
func TestContinueLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		begin := func() BegunLogin {
			t.Helper()
			var needed *FactorRequiredError
			if err := p.login(t, ""); !errors.As(err, &needed) || !errors.Is(err, ErrTOTPRequired) {
				t.Fatalf("login without a code: %v, want a FactorRequiredError", err)
			}
			return needed.Begun
		}
		goOn := func(b BegunLogin, code FactorCode) (LoginResult, error) {
			t.Helper()
			return p.s.ContinueLogin(t.Context(), FactorShown{Begun: b, TOTP: code, Metadata: eventstore.Metadata{Address: "192.0.2.1"}})
		}
		begun := begin()
		for _, code := range []FactorCode{"000000", "nonsense"} {
			if _, err := goOn(begun, code); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("the code %q: %v, want %v", string(code), err, ErrInvalidCredentials)
			}
		}
		if _, err := goOn(begun, ""); !errors.Is(err, ErrTOTPRequired) {
			t.Errorf("no code: %v, want %v", err, ErrTOTPRequired)
		}
		code := p.next(t)
		r, err := goOn(begun, code)
		if err != nil || r.User.ID != p.user || r.Device == "" {
			t.Fatalf("ContinueLogin() = %+v, %v", r, err)
		}
		if diff := cmp.Diff([]string{MethodPassword, MethodTOTP}, r.BrowserSession().Methods); diff != "" {
			t.Errorf("methods (-want +got):\n%s", diff)
		}
		if _, err := goOn(begun, code); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("the same code again: %v, want %v", err, ErrInvalidCredentials)
		}
		for name, text := range map[string]BegunLogin{
			"nothing": "", "nonsense": "x", "altered": begun[:40] + "AAAA" + begun[44:], "a refresh token": BegunLogin(r.Refresh),
			"of another key": d.service(t, func(c *Config) { c.CodeKey = []byte("another") }).beginFactor(proven{user: p.user, version: 5}),
		} {
			if _, err := goOn(text, p.next(t)); !errors.Is(err, ErrLoginOver) {
				t.Errorf("%s: %v, want %v", name, err, ErrLoginOver)
			}
		}
		p.d.forgive(t)
		for range accountFree {
			if _, err := goOn(begun, "000000"); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("a wrong code: %v, want %v", err, ErrInvalidCredentials)
			}
		}
		if _, err := goOn(begun, p.code(t)); !errors.Is(err, ErrThrottled) {
			t.Errorf("after %d wrong codes: %v, want %v", accountFree, err, ErrThrottled)
		}
		p.d.forgive(t)

		old := begin()
		p.at.add(continueWithin + time.Second)
		if _, err := goOn(old, p.code(t)); !errors.Is(err, ErrLoginOver) {
			t.Errorf("after %v: %v, want %v", continueWithin, err, ErrLoginOver)
		}
		replaced := begin()
		if _, err := p.s.ChangePassword(t.Context(), PasswordChange{User: p.user, Session: r.Session, Proof: Proof{Password: secret, TOTP: p.next(t)}, New: "another horse battery staple"}); err != nil {
			t.Fatal(err)
		}
		if _, err := goOn(replaced, p.next(t)); !errors.Is(err, ErrLoginOver) {
			t.Errorf("after another password: %v, want %v", err, ErrLoginOver)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", begun, begun, FactorShown{Begun: begun}, begun.LogValue()); strings.Contains(text, string(begun)) {
			t.Errorf("a begun login prints itself: %s", text)
		}
	})
}

// What a browser's page costs is what a call of the API does: nothing while the session is in memory, and one statement in an access
// token's lifetime.
func TestRoundTripsOfABrowser(t *testing.T) {
	t.Parallel()
	dsn := devstack.Database(t, "identity", func(ctx context.Context, dsn string) error {
		migrate(ctx, t, func() (*schema.Migrator, error) { return schema.Postgres(dsn) })
		return nil
	})
	var trips devstack.RoundTrips
	store, err := postgres.Open(t.Context(), dsn, postgres.Options{Configure: trips.Configure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	d := newDatabase(t, store, store)
	s := d.service(t, func(c *Config) { c.AccessLifetime = time.Hour })
	mustRegister(t, s, "ada@example.org")
	r := mustLogin(t, s)
	_, stop := following(t, s)
	stop() // its own queries would be counted
	s.trust.caughtUp.Store(time.Now().Add(time.Hour).UnixNano())
	b := r.BrowserSession()
	use := func() {
		t.Helper()
		if _, err := s.SessionUser(t.Context(), b.User, b.ID); err != nil {
			t.Fatal(err)
		}
	}
	keep := func() {
		t.Helper()
		if _, err := s.KeepBrowser(t.Context(), b, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		do   func()
		want int64
	}{"a page": {use, 0}, "to ask the log": {keep, 1}} {
		least := int64(100) // whoever gets a new connection prepares the statements on it, and the log is asked once where there was a start
		for range 4 {
			before := trips.Count()
			c.do()
			least = min(least, trips.Count()-before)
		}
		if least != c.want {
			t.Errorf("%s takes %d round trips, want %d", what, least, c.want)
		}
	}
}
