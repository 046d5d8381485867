package identity

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		correlation := uuid.Must(uuid.NewV7())
		r, err := s.Register(t.Context(), Registration{
			Email: " Ada@Example.org", Password: secret, Name: " Ada ",
			Metadata: eventstore.Metadata{Correlation: correlation, Actor: ActorAnonymous, Address: "192.0.2.1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		events := d.events(t, s)
		if diff := cmp.Diff([]string{TypeUserRegistered}, types(events)); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		e := events[0]
		want := User{
			ID: e.Stream.ID, Email: "Ada@Example.org", Name: "Ada", Status: StatusActive, Roles: []string{}, Attributes: noAttributes,
			CreatedAt: e.RecordedAt, UpdatedAt: e.RecordedAt, Version: 1, Position: 1,
		}
		if got := encoded(t, r.User); got != encoded(t, &want) || got != string(r.User.JSON()) {
			t.Errorf("user = %s, want %s", got, encoded(t, &want))
		}
		if r.Position != 1 || e.Metadata.Correlation != correlation || e.Metadata.Address != "192.0.2.1" {
			t.Errorf("position %d, metadata %+v", r.Position, e.Metadata)
		}

		// Other spellings of the address are the same address.
		for _, email := range []string{"Ada@Example.org", "ADA@EXAMPLE.ORG", "ａｄａ@example.org"} {
			if _, err := s.Register(t.Context(), Registration{Email: email, Password: secret}); !errors.Is(err, ErrEmailTaken) {
				t.Errorf("Register(%q) = %v, want ErrEmailTaken", email, err)
			}
		}
		for _, c := range []struct {
			r   Registration
			err error
		}{
			{Registration{Email: "nobody", Password: secret}, ErrInvalidEmail},
			{Registration{Email: "b@example.org", Password: "short"}, ErrPasswordRefused},
			{Registration{Email: "b@example.org", Password: password.Password(strings.Repeat("x", 1025))}, ErrPasswordRefused},
			{Registration{Email: "b@example.org", Password: secret, Name: "a\x00"}, ErrInvalidName},
		} {
			if _, err := s.Register(t.Context(), c.r); !errors.Is(err, c.err) {
				t.Errorf("Register(%q, %q) = %v, want %v", c.r.Email, c.r.Name, err, c.err)
			}
		}
		if n := len(d.events(t, s)); n != 1 {
			t.Errorf("%d events, want 1: refused registrations append nothing", n)
		}
	})
}

func TestRegisterRepeated(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		r := Registration{Email: "ada@example.org", Password: secret, Name: "Ada", CommandID: CommandID("register", "k1")}
		first, err := s.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if again.User.ID != first.User.ID || again.Position != first.Position {
			t.Errorf("repeated: %v at %d, want %v at %d", again.User.ID, again.Position, first.User.ID, first.Position)
		}
		for name, change := range map[string]func(*Registration){
			"address":  func(r *Registration) { r.Email = "eve@example.org" },
			"name":     func(r *Registration) { r.Name = "Eve" },
			"password": func(r *Registration) { r.Password = "another good password" },
		} {
			other := r
			change(&other)
			if _, err := s.Register(t.Context(), other); !errors.Is(err, ErrKeyReused) {
				t.Errorf("repeated with another %s = %v, want ErrKeyReused", name, err)
			}
		}
		r.CommandID = CommandID("register", "k2")
		if _, err := s.Register(t.Context(), r); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("with another key = %v, want ErrEmailTaken", err)
		}
		if n := len(d.events(t, s)); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}

func TestASVS_6_3_8_RegisterEnumerationSafe(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.EnumerationSafe = true })
		r := Registration{Email: "ada@example.org", Password: secret, Name: "Ada", CommandID: CommandID("register", "k")}
		first, err := s.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		other := r
		other.Password = "another good password"
		for _, r := range []Registration{r, other, {Email: "ada@example.org", Password: secret, Name: "Ada"}} {
			again, err := s.Register(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again, cmp.AllowUnexported(Email{})); diff != "" {
				t.Errorf("the answer tells that the address is taken (-free +taken):\n%s", diff)
			}
		}
		if n := len(d.events(t, s)); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}

// Whether the address is taken is decided after hashing: where nothing can be hashed, both fail alike.
func TestHashingComesFirst(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p, err := password.NewPool(password.PoolConfig{Cost: password.MinCost})
		if err != nil {
			t.Fatal(err)
		}
		stop := devstack.Background(t, p.Run)
		s := d.service(t, func(c *Config) { c.Passwords = p })
		mustRegister(t, s, "ada@example.org")
		stop()
		for _, email := range []string{"ada@example.org", "nobody@example.org"} {
			if _, err := s.Register(t.Context(), Registration{Email: email, Password: secret}); !errors.Is(err, password.ErrStopped) {
				t.Errorf("Register(%q) = %v, want ErrStopped", email, err)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: email, Password: secret}); !errors.Is(err, password.ErrStopped) {
				t.Errorf("Login(%q) = %v, want ErrStopped", email, err)
			}
		}
	})
}

func TestRegisterRace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		const racers = 20
		errs := make([]error, racers)
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				_, errs[i] = services[i%2].Register(context.WithoutCancel(t.Context()), Registration{Email: "ada@example.org", Password: secret})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, ErrEmailTaken):
				t.Errorf("racer = %v, want ErrEmailTaken", err)
			}
		}
		if won != 1 {
			t.Errorf("%d racers got the address, want 1", won)
		}
	})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := time.Date(2026, 5, 6, 7, 8, 9, 123_000_000, time.UTC)
		s := d.service(t, func(c *Config) {
			c.SessionMax = time.Hour
			c.Now = func() time.Time { return now.Add(456 * time.Microsecond) } // a session begins on a millisecond
		})
		u := mustRegister(t, s, "ada@example.org")
		r, err := s.Login(t.Context(), Credentials{
			Email: "ADA@example.org", Password: secret, Metadata: eventstore.Metadata{UserAgent: "test", Address: "192.0.2.7"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.User.ID != u.ID || !r.ExpiresAt.Equal(now.Add(time.Hour)) {
			t.Errorf("Login = user %v until %v", r.User.ID, r.ExpiresAt)
		}
		events := d.events(t, s)
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeSessionStarted}, types(events)); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		e := events[1]
		if e.Stream != eventstore.SessionStream(r.Session, u.ID) || r.Position != e.Position {
			t.Errorf("stream %+v at %d, want that of session %v", e.Stream, e.Position, r.Session)
		}
		if e.Metadata.Actor != ActorUser(u.ID) || e.Metadata.UserAgent != "test" || e.Metadata.Address != "192.0.2.7" {
			t.Errorf("metadata = %+v", e.Metadata)
		}
		var user uuid.UUID
		var counter int
		var started, rotated, expires time.Time
		row := d.db.QueryRow(t.Context(), `SELECT user_id, counter, started_at, rotated_at, expires_at FROM sessions WHERE session_id = $1`, r.Session)
		if err := row.Scan(&user, &counter, &started, &rotated, &expires); err != nil {
			t.Fatal(err)
		}
		if user != u.ID || counter != 0 || !started.Equal(now) || !rotated.Equal(now) || !expires.Equal(now.Add(time.Hour)) {
			t.Errorf("row = %v %d %v %v %v", user, counter, started, rotated, expires)
		}

		for name, c := range map[string]Credentials{
			"wrong password":      {Email: "ada@example.org", Password: "wrong horse battery staple"},
			"unknown address":     {Email: "eve@example.org", Password: secret},
			"impossible password": {Email: "ada@example.org", Password: password.Password(strings.Repeat("x", 2000))},
		} {
			_, err := s.Login(t.Context(), c)
			if !errors.Is(err, ErrInvalidCredentials) || err.Error() != "invalid_credentials: the email or the password is wrong" {
				t.Errorf("%s = %v, want ErrInvalidCredentials in the same words", name, err)
			}
		}

		// The status is told to those who know the password, and to nobody else.
		for _, c := range []struct {
			event Payload
			err   error
		}{{Locked{}, ErrUserLocked}, {Disabled{}, ErrUserDisabled}, {Enabled{}, ErrUserLocked}, {Unlocked{}, nil}} {
			d.forgive(t)
			d.appendTo(t, s, u.ID, c.event)
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); !errors.Is(err, c.err) {
				t.Errorf("after %s: %v, want %v", c.event.EventType(), err, c.err)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: "wrong"}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("after %s, wrong password: %v, want ErrInvalidCredentials", c.event.EventType(), err)
			}
		}
	})
}

func TestRehash(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		u := mustRegister(t, d.service(t, nil), "ada@example.org")
		stored := func() (hash string) {
			if err := d.db.QueryRow(t.Context(), `SELECT hash FROM credentials WHERE user_id = $1`, u.ID).Scan(&hash); err != nil {
				t.Fatal(err)
			}
			return hash
		}
		before := stored()
		login := func(s *Service) {
			t.Helper()
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); err != nil {
				t.Fatal(err)
			}
		}
		login(d.service(t, func(c *Config) { c.Passwords, c.Rehash = pool(t, 5), false }))
		if stored() != before {
			t.Fatal("the hash was replaced although PASSWORD_REHASH_CHECK is off")
		}
		s := d.service(t, func(c *Config) { c.Passwords = pool(t, 5) })
		if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: "wrong password"}); !errors.Is(err, ErrInvalidCredentials) {
			t.Fatal(err)
		}
		if stored() != before {
			t.Fatal("the hash was replaced by a wrong password")
		}
		login(s)
		after := stored()
		if after == before {
			t.Fatal("the hash was not replaced")
		}
		login(s)
		if stored() != after {
			t.Error("the hash was replaced twice")
		}
		events := d.events(t, s)
		want := []string{TypeUserRegistered, TypeSessionStarted, TypeSessionStarted, TypeUserPasswordChanged, TypeSessionStarted}
		if diff := cmp.Diff(want, types(events)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if p, err := Decode[PasswordChanged](events[3]); err != nil || p.Reason != ReasonRehash {
			t.Errorf("reason %q, %v", p.Reason, err)
		}

		// A login that verified a hash which has been replaced since does not put its own password back.
		if err := s.replaceHash(t.Context(), proven{user: u.ID, version: u.Version}, password.Hash(before), Credentials{Password: secret}); err != nil {
			t.Fatal(err)
		}
		if stored() != after {
			t.Error("a newer hash was overwritten")
		}
		// Nor does one whose password has been changed since.
		d.appendTo(t, s, u.ID, PasswordChanged{Reason: ReasonChange})
		if err := s.replaceHash(t.Context(), proven{user: u.ID, version: u.Version}, password.Hash(after), Credentials{Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("rehash of a password that was changed = %v, want ErrInvalidCredentials", err)
		}
	})
}

// Whoever is erased is nobody: to readers, to those who kept the state in memory, and at login.
func TestErased(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, elsewhere := d.service(t, nil), d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		following(t, s)
		if _, err := s.User(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		d.appendTo(t, elsewhere, u.ID, Erased{})
		devstack.Eventually(t, "the user is gone from memory", func() bool {
			_, err := s.User(t.Context(), u.ID)
			return errors.Is(err, ErrNotFound)
		})
		if _, err := s.ReadUser(t.Context(), u.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadUser() = %v, want ErrNotFound", err)
		}
		if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("Login() = %v, want ErrInvalidCredentials", err)
		}
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserErased}, types(d.events(t, s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestUserUnknown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		mustRegister(t, s, "ada@example.org")
		r, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []uuid.UUID{uuid.Must(uuid.NewV7()), r.Session, keysStream().ID, uuid.Nil} {
			if u, err := s.User(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("User(%v) = %v, %v, want ErrNotFound", id, u, err)
			}
		}
	})
}

func TestUserOfLongStream(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		events := make([]eventstore.NewEvent, 0, 2*streamPage)
		for range streamPage {
			events = append(events, NewEvent(RoleGranted{RoleAdmin}), NewEvent(RoleRevoked{RoleAdmin}))
		}
		events[len(events)-1] = NewEvent(Locked{})
		_, err := s.log.Append(t.Context(), eventstore.Append{Stream: eventstore.UserStream(u.ID), Expected: 1, Events: events})
		if err != nil {
			t.Fatal(err)
		}
		u, err = s.User(t.Context(), u.ID)
		if err != nil || u.Version != 1+2*streamPage || !u.HasRole(RoleAdmin) || u.Status != StatusLocked {
			t.Errorf("User = %+v, %v", u, err)
		}
	})
}

func TestSecretCommandID(t *testing.T) {
	t.Parallel()
	s := New(Config{CodeKey: []byte("a key")})
	id := s.SecretCommandID("reset", "k", "code", "password")
	if id != s.SecretCommandID("reset", "k", "code", "password") {
		t.Error("the same command has two ids")
	}
	for name, other := range map[string]uuid.UUID{
		"another secret":  s.SecretCommandID("reset", "k", "code", "passwore"),
		"secrets shifted": s.SecretCommandID("reset", "k", "codep", "assword"),
		"one secret less": s.SecretCommandID("reset", "k", "code"),
		"another key":     s.SecretCommandID("reset", "l", "code", "password"),
		"another scope":   s.SecretCommandID("verify", "k", "code", "password"),
		"no secret key":   New(Config{}).SecretCommandID("reset", "k", "code", "password"),
	} {
		if other == id {
			t.Errorf("%s: the same id", name)
		}
	}
}

// What a command was answered with is known for a week.
func TestForgetCommands(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now = at.Now })
		r := Registration{Email: "ada@example.org", Password: secret, CommandID: CommandID("register", "k")}
		if _, err := s.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			if err := s.forgetCommands(t.Context()); err != nil {
				t.Fatal(err)
			}
			first, err := s.answered(t.Context(), r.CommandID)
			if err != nil || first.Repeated != want {
				t.Errorf("the command is known: %v, %v, want %v", first.Repeated, err, want)
			}
			at.add(commandsKept + time.Hour)
		}
	})
}

// Commands are forgotten in batches, and found by an index: the sweep comes every few minutes, and mostly finds none.
func TestForgetManyCommands(t *testing.T) {
	t.Parallel()
	const old, recent = 2*forgetBatch + 1, 20_000
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		explain, fill := "EXPLAIN ", `INSERT INTO commands (command_id, position, version, recorded_at)
			SELECT gen_random_uuid(), i, 1, $2 FROM generate_series(1, $1::int) i`
		if d.db.Dialect() == eventstore.SQLite {
			explain, fill = "EXPLAIN QUERY PLAN ", `INSERT INTO commands (command_id, position, version, recorded_at)
				WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT hex(randomblob(16)), i, 1, $2 FROM n`
		}
		limit := time.Now().UTC().Add(-commandsKept)
		for n, at := range map[int]time.Time{old: limit.Add(-time.Hour), recent: limit.Add(time.Hour)} {
			if _, err := d.db.Exec(t.Context(), fill, n, at); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.db.Exec(t.Context(), "ANALYZE"); err != nil {
			t.Fatal(err)
		}
		if plan := plan(t, d.db, explain+forgetSome, limit, forgetBatch); !strings.Contains(plan, "commands_recorded") {
			t.Errorf("the table is read to find old commands:\n%s", plan)
		}
		if err := s.forgetCommands(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := d.db.QueryRow(t.Context(), "SELECT count(*) FROM commands").Scan(&left); err != nil || left != recent {
			t.Errorf("%d commands are left, %v, want %d", left, err, recent)
		}
	})
}

// plan is the plan of a statement, a line for each step of it.
func plan(t *testing.T, db eventstore.DB, explain string, args ...any) string {
	t.Helper()
	rows, err := db.Query(t.Context(), explain, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		into := []any{&line}
		if db.Dialect() == eventstore.SQLite {
			into = []any{new(int), new(int), new(int), &line}
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
