package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// byAdmin is the metadata of what an administrator does in these tests.
var byAdmin = eventstore.Metadata{Correlation: uuid.MustParse("01980000-0000-7000-8000-0000000000aa"), Actor: ActorOperator}

func attributesUpdated(raw string) ProfileUpdated {
	var p ProfileUpdated
	p.Personal.Attributes = json.RawMessage(raw)
	return p
}

// TestDecideForAdmins: given events, when an administrator's command, then events and reservations, or an error.
func TestDecideForAdmins(t *testing.T) {
	t.Parallel()
	born := registered("Ada@example.org", "Ada")
	yes, no := true, false
	text := func(s string) *string { return &s }
	email := func(s string) []eventstore.Reservation {
		return []eventstore.Reservation{{Scope: "email", Value: s}}
	}
	creation := func(n NewUser) func(User) (change, error) {
		return func(u User) (change, error) {
			address, err := ParseEmail(n.Email)
			if err != nil {
				return change{}, err
			}
			events, err := create(u, address, n)
			return change{events: events}, err
		}
	}
	update := func(c UserChange) func(User) (change, error) {
		return func(u User) (change, error) { return changeUser(u, c) }
	}
	many := make([]string, maxRoles+1)
	for i := range many {
		many[i] = fmt.Sprintf("role-%d", i)
	}
	for name, c := range map[string]struct {
		given []Payload
		when  func(User) (change, error)
		then  change
		err   error
	}{
		"create": {nil, creation(NewUser{Email: "Ada@example.org", Name: " Ada"}), change{events: []Payload{born}}, nil},
		"create with everything": {nil, creation(NewUser{Email: "Ada@example.org", Name: "Ada", Roles: []string{"writer", "admin", "writer"}, EmailVerified: true, Attributes: []byte(`{"b":1,"a":null}`)}),
			change{events: []Payload{born, RoleGranted{"admin"}, RoleGranted{"writer"}, verified("Ada@example.org"), attributesUpdated(`{"b":1}`)}}, nil},
		"create, no attributes":     {nil, creation(NewUser{Email: "Ada@example.org", Name: "Ada", Attributes: []byte(`{}`)}), change{events: []Payload{born}}, nil},
		"create, bad role":          {nil, creation(NewUser{Email: "Ada@example.org", Roles: []string{"Writer"}}), change{}, &Error{Code: CodeInvalidRequest}},
		"create, too many roles":    {nil, creation(NewUser{Email: "Ada@example.org", Roles: many}), change{}, &Error{Code: CodeInvalidRequest}},
		"create, bad attributes":    {nil, creation(NewUser{Email: "Ada@example.org", Attributes: []byte(`[]`)}), change{}, ErrInvalidAttributes},
		"create, bad name":          {nil, creation(NewUser{Email: "Ada@example.org", Name: "a\nb"}), change{}, ErrInvalidName},
		"change nothing":            {[]Payload{born}, update(UserChange{}), change{}, nil},
		"change to what is there":   {[]Payload{born}, update(UserChange{ProfileChange: ProfileChange{Name: text("Ada"), Attributes: []byte("{}")}, Email: text("Ada@example.org"), EmailVerified: &no}), change{}, nil},
		"change the name":           {[]Payload{born}, update(UserChange{ProfileChange: ProfileChange{Name: text("Countess")}}), change{events: []Payload{renamed("Countess")}}, nil},
		"change the attributes":     {[]Payload{born}, update(UserChange{ProfileChange: ProfileChange{Attributes: []byte(`{"a":1}`)}}), change{events: []Payload{attributesUpdated(`{"a":1}`)}}, nil},
		"change the address":        {[]Payload{born}, update(UserChange{Email: text("b@Example.org")}), change{events: []Payload{emailChanged("b@Example.org")}, reserve: email("b@example.org"), release: email("ada@example.org")}, nil},
		"change its spelling":       {[]Payload{born}, update(UserChange{Email: text("ADA@example.org")}), change{events: []Payload{emailChanged("ADA@example.org")}, reserve: email("ada@example.org"), release: email("ada@example.org")}, nil},
		"change it to none":         {[]Payload{born}, update(UserChange{Email: text("")}), change{}, ErrInvalidEmail},
		"verify the address":        {[]Payload{born}, update(UserChange{EmailVerified: &yes}), change{events: []Payload{verified("Ada@example.org")}}, nil},
		"verify it twice":           {[]Payload{born, verified("Ada@example.org")}, update(UserChange{EmailVerified: &yes}), change{}, nil},
		"verify one that is set":    {[]Payload{born}, update(UserChange{Email: text("b@example.org"), EmailVerified: &yes}), change{events: []Payload{emailChanged("b@example.org")}, reserve: email("b@example.org"), release: email("ada@example.org")}, nil},
		"take verification back":    {[]Payload{born, verified("Ada@example.org")}, update(UserChange{EmailVerified: &no}), change{}, &Error{Code: CodeInvalidRequest}},
		"set an unverified address": {[]Payload{born}, update(UserChange{Email: text("b@example.org"), EmailVerified: &no}), change{}, &Error{Code: CodeInvalidRequest}},
	} {
		got, err := c.when(state(t, given(c.given...)))
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if diff := cmp.Diff(c.then, got, cmp.AllowUnexported(change{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCreateUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.EnumerationSafe = true })
		n := NewUser{Email: "Ada@example.org", Password: secret, Name: "Ada", Roles: []string{"writer"}, EmailVerified: true,
			Attributes: json.RawMessage(`{"plan": "paid"}`), CommandID: CommandID("create", "k"), Metadata: byAdmin}
		u, first, err := s.CreateUser(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if first.Position != 4 || u.Version != 4 || u.Email != n.Email || !u.EmailVerified || !u.HasRole("writer") || string(u.Attributes) != `{"plan":"paid"}` {
			t.Errorf("CreateUser = %+v at %d", u, first.Position)
		}
		if _, err := s.Login(t.Context(), Credentials{Email: n.Email, Password: secret}); err != nil {
			t.Error(err)
		}

		// The first answer again, whatever has become of the user.
		if _, err := s.LockUser(t.Context(), u.ID, byAdmin); err != nil {
			t.Fatal(err)
		}
		again, second, err := s.CreateUser(t.Context(), n)
		if err != nil || string(again.JSON()) != string(u.JSON()) || second.Position != first.Position {
			t.Errorf("repeated: %+v, %+v, %v, want the first answer %+v", again, second, err, u)
		}
		for name, change := range map[string]func(*NewUser){
			"address":      func(n *NewUser) { n.Email = "eve@example.org" },
			"name":         func(n *NewUser) { n.Name = "Eve" },
			"roles":        func(n *NewUser) { n.Roles = []string{"writer", "reader"} },
			"verification": func(n *NewUser) { n.EmailVerified = false },
			"attributes":   func(n *NewUser) { n.Attributes = nil },
			"password":     func(n *NewUser) { n.Password = "another good password" },
			"no password":  func(n *NewUser) { n.Password = "" },
		} {
			other := n
			change(&other)
			if _, _, err := s.CreateUser(t.Context(), other); !errors.Is(err, ErrKeyReused) {
				t.Errorf("repeated with another %s = %v, want ErrKeyReused", name, err)
			}
		}
		n.CommandID = uuid.Nil
		if _, _, err := s.CreateUser(t.Context(), n); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("the address again = %v, want ErrEmailTaken", err)
		}
	})
}

// Who was made without a password is somebody, and can't log in: not with the empty password either.
func TestCreateUserWithoutPassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		n := NewUser{Email: "ada@example.org", CommandID: CommandID("create", "k"), Metadata: byAdmin}
		u, _, err := s.CreateUser(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if again, _, err := s.CreateUser(t.Context(), n); err != nil || again.ID != u.ID {
			t.Errorf("repeated: %v, %v", again, err)
		}
		for _, p := range []password.Password{"", secret} {
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: p}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("Login = %v, want ErrInvalidCredentials", err)
			}
		}
		if _, err := s.Register(t.Context(), Registration{Email: "ada@example.org", Password: secret}); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("Register = %v, want ErrEmailTaken", err)
		}
	})
}

func TestChangeUserMovesTheAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		ada, eve := mustRegister(t, s, "ada@example.org"), mustRegister(t, s, "eve@example.org")
		to := func(id uuid.UUID, address string) error {
			_, err := s.ChangeUser(t.Context(), id, UserChange{Email: &address}, byAdmin)
			return err
		}
		if err := to(ada.ID, "EVE@example.org"); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("to a taken address = %v, want ErrEmailTaken", err)
		}
		for _, address := range []string{"lovelace@example.org", "Lovelace@Example.org"} {
			if err := to(ada.ID, address); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: address, Password: secret}); err != nil {
				t.Errorf("login with %s: %v", address, err)
			}
		}
		if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("login with the address before = %v, want ErrInvalidCredentials", err)
		}
		if err := to(eve.ID, "ada@example.org"); err != nil {
			t.Errorf("to the address that is free again: %v", err)
		}
	})
}

// Every command is done once: a second time it appends nothing and answers all the same.
func TestAdminCommandsAreIdempotent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		type command func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)
		grant := func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
			return s.GrantRole(ctx, id, "writer", m)
		}
		revoke := func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
			return s.RevokeRole(ctx, id, "writer", m)
		}
		reset := func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
			return s.SendPasswordReset(ctx, id, CommandID("reset", id.String()), m)
		}
		u := mustRegister(t, s, "ada@example.org")
		for _, c := range []struct {
			name  string
			do    command
			types []string
		}{
			{"unlock who is not locked", s.UnlockUser, nil},
			{"enable who is not disabled", s.EnableUser, nil},
			{"lock", s.LockUser, []string{TypeUserLocked}},
			{"disable", s.DisableUser, []string{TypeUserDisabled}},
			{"unlock", s.UnlockUser, []string{TypeUserUnlocked}},
			{"enable", s.EnableUser, []string{TypeUserEnabled}},
			{"grant", grant, []string{TypeUserRoleGranted}},
			{"revoke", revoke, []string{TypeUserRoleRevoked}},
			{"ask for a reset", reset, []string{TypeUserPasswordResetRequested}},
			{"end the sessions", s.RevokeSessions, nil},
		} {
			before := len(d.events(t, s))
			first, err := c.do(t.Context(), u.ID, byAdmin)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			again, err := c.do(t.Context(), u.ID, byAdmin)
			if err != nil || again.Position != first.Position {
				t.Errorf("%s again = %+v, %v, want position %d", c.name, again, err, first.Position)
			}
			if got := types(d.events(t, s)[before:]); !slices.Equal(got, c.types) {
				t.Errorf("%s: events %v, want %v", c.name, got, c.types)
			}
			if _, err := c.do(t.Context(), uuid.Must(uuid.NewV7()), byAdmin); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s, nobody = %v, want ErrNotFound", c.name, err)
			}
		}
		if _, err := s.SendPasswordReset(t.Context(), u.ID, uuid.Nil, byAdmin); CodeOf(err) != CodeThrottled {
			t.Errorf("ask for another reset at once = %v, want CodeThrottled", err)
		}
		if _, err := s.GrantRole(t.Context(), u.ID, "Writer!", byAdmin); CodeOf(err) != CodeInvalidRequest {
			t.Errorf("grant a role of no form = %v", err)
		}
	})
}

// What closes an account, or is asked for, ends each session with an event that says why.
func TestAdminsEndSessions(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		for i, c := range []struct {
			reason string
			do     func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)
		}{{EndedLocked, s.LockUser}, {EndedDisabled, s.DisableUser}, {EndedRevoked, s.RevokeSessions}} {
			email := fmt.Sprintf("user%d@example.org", i)
			u := mustRegister(t, s, email)
			for range 2 {
				if _, err := s.Login(t.Context(), Credentials{Email: email, Password: secret}); err != nil {
					t.Fatal(err)
				}
			}
			result, err := c.do(t.Context(), u.ID, byAdmin)
			if err != nil {
				t.Fatal(err)
			}
			ended := 0
			var last int64
			for _, e := range d.events(t, s) {
				if e.Stream.Subject == u.ID && e.Type == TypeSessionEnded {
					if p, err := Decode[SessionEnded](e); err != nil || p.Reason != c.reason || e.Metadata.Actor != ActorOperator {
						t.Errorf("%+v of %s, %v, want %s", p, e.Metadata.Actor, err, c.reason)
					}
					ended++
					last = e.Position
				}
			}
			if ended != 2 || result.Position != last {
				t.Errorf("%s: %d sessions ended, position %d, want 2 and %d", c.reason, ended, result.Position, last)
			}
			if n, err := d.db.Exec(t.Context(), "DELETE FROM sessions WHERE user_id = $1", u.ID); n != 0 || err != nil {
				t.Errorf("%s: %d sessions have a row, %v", c.reason, n, err)
			}
		}
	})
}

func TestTheLastAdminStays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		first, _, err := s.EnsureAdmin(t.Context(), "root@example.org", secret)
		if err != nil {
			t.Fatal(err)
		}
		revoke := func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
			return s.RevokeRole(ctx, id, RoleAdmin, m)
		}
		commands := map[string]func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error){
			"revoke": revoke, "lock": s.LockUser, "disable": s.DisableUser, "erase": s.Erase,
		}
		for name, do := range commands {
			if _, err := do(t.Context(), first, byAdmin); !errors.Is(err, ErrLastAdmin) {
				t.Errorf("%s the last admin = %v, want ErrLastAdmin", name, err)
			}
		}
		if u, err := s.ReadUser(t.Context(), first); err != nil || !u.administers() {
			t.Fatalf("ReadUser = %+v, %v, want an admin", u, err)
		}
		// Who has the role and can't act does not count, and may be taken the role from.
		locked, _, err := s.CreateUser(t.Context(), NewUser{Email: "locked@example.org", Roles: []string{RoleAdmin}, Metadata: byAdmin})
		if err != nil {
			t.Fatal(err)
		}
		steps := []struct {
			name string
			do   func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error)
			id   uuid.UUID
			err  error
		}{
			{"lock the second", s.LockUser, locked.ID, nil},
			{"revoke the first beside a locked one", revoke, first, ErrLastAdmin},
			{"disable the locked one", s.DisableUser, locked.ID, nil},
			{"enable the locked one", s.EnableUser, locked.ID, nil},
			{"lock the first beside a locked one", s.LockUser, first, ErrLastAdmin},
			{"unlock the second", s.UnlockUser, locked.ID, nil},
			{"revoke the first beside one who can act", revoke, first, nil},
			{"erase the second, now the last", s.Erase, locked.ID, ErrLastAdmin},
		}
		for _, step := range steps {
			if _, err := step.do(t.Context(), step.id, byAdmin); !errors.Is(err, step.err) || (err == nil) != (step.err == nil) {
				t.Errorf("%s: %v, want %v", step.name, err, step.err)
			}
		}
	})
}

// Administrators who take each other's role away, or lock, disable or erase each other, all at once and in several processes: one
// of them stays, and every other command but that one is done.
func TestTheLastAdminStaysAmongRacers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		const racers = 50
		services := []*Service{d.service(t, nil), d.service(t, nil), d.service(t, nil)}
		var admins []uuid.UUID
		for i := range racers {
			u, _, err := services[i%3].CreateUser(t.Context(), NewUser{Email: fmt.Sprintf("admin%d@example.org", i), Roles: []string{RoleAdmin}, Metadata: byAdmin})
			if err != nil {
				t.Fatal(err)
			}
			admins = append(admins, u.ID)
		}
		var wg sync.WaitGroup
		var done, refused atomic.Int32
		start := make(chan struct{})
		for i, id := range admins {
			wg.Go(func() {
				s := services[i%3]
				do := []func(context.Context, uuid.UUID, eventstore.Metadata) (eventstore.Result, error){s.LockUser, s.DisableUser, s.Erase,
					func(ctx context.Context, id uuid.UUID, m eventstore.Metadata) (eventstore.Result, error) {
						return s.RevokeRole(ctx, id, RoleAdmin, m)
					}}[i%7%4]
				<-start
				switch _, err := do(context.WithoutCancel(t.Context()), id, byAdmin); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, ErrLastAdmin):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if done.Load() != racers-1 || refused.Load() != 1 {
			t.Errorf("%d commands were done and %d refused, want %d and 1", done.Load(), refused.Load(), racers-1)
		}
		left := 0
		for _, id := range admins {
			u, err := services[0].ReadUser(t.Context(), id)
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
			if err == nil && u.administers() {
				left++
			}
		}
		if left != 1 {
			t.Errorf("%d admins are left, want 1", left)
		}
	})
}

func TestUserAt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		mustRegister(t, s, "before@example.org")
		u := mustRegister(t, s, "ada@example.org")
		for i := range 3 {
			name := strings.Repeat("x", i+1)
			if _, err := s.ChangeUser(t.Context(), u.ID, UserChange{ProfileChange: ProfileChange{Name: &name}}, byAdmin); err != nil {
				t.Fatal(err)
			}
			mustRegister(t, s, fmt.Sprintf("between%d@example.org", i))
		}
		for _, c := range []struct {
			position int64
			name     string
		}{{2, "Ada"}, {3, "x"}, {4, "x"}, {5, "xx"}, {7, "xxx"}, {1000, "xxx"}} {
			got, err := s.UserAt(t.Context(), u.ID, c.position)
			if err != nil || got.Name != c.name || got.Position > c.position {
				t.Errorf("UserAt %d = %+v, %v, want the name %q", c.position, got, err, c.name)
			}
		}
		for _, position := range []int64{0, 1} {
			if _, err := s.UserAt(t.Context(), u.ID, position); !errors.Is(err, ErrNotFound) {
				t.Errorf("UserAt %d = %v, want ErrNotFound: there was no such user yet", position, err)
			}
		}
	})
}
