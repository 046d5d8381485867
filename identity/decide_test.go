package identity

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

var (
	ada   = uuid.MustParse("01980000-0000-7000-8000-000000000001")
	birth = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// given makes the events of a user's stream, a minute apart.
func given(payloads ...Payload) []eventstore.Event {
	events := make([]eventstore.Event, len(payloads))
	for i, e := range newEvents(payloads) {
		events[i] = eventstore.Event{
			Position: int64(10 + i), Stream: eventstore.UserStream(ada), Version: i + 1,
			Type: e.Type, SchemaVersion: e.SchemaVersion, Data: e.Data, Personal: e.Personal,
			RecordedAt: birth.Add(time.Duration(i) * time.Minute),
		}
	}
	return events
}

func state(t *testing.T, events []eventstore.Event) User {
	t.Helper()
	var u User
	for _, e := range events {
		var err error
		if u, err = evolve(u, e); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func registered(email, name string) Registered {
	var p Registered
	p.Personal.Email, p.Personal.Name = email, name
	return p
}

func verified(email string) EmailVerified {
	var p EmailVerified
	p.Personal.Email = email
	return p
}

func emailChanged(email string) EmailChanged {
	var p EmailChanged
	p.Personal.Email = email
	return p
}

func renamed(name string) ProfileUpdated {
	var p ProfileUpdated
	p.Personal.Name = &name
	return p
}

func TestEvolve(t *testing.T) {
	t.Parallel()
	at := func(version int) time.Time { return birth.Add(time.Duration(version-1) * time.Minute) }
	user := func(version int, change func(*User)) User {
		u := User{
			ID: ada, Email: "Ada@example.org", Name: "Ada", Status: StatusActive, Roles: []string{}, Attributes: json.RawMessage("{}"),
			CreatedAt: birth, UpdatedAt: at(version), Version: version, Position: int64(9 + version),
		}
		if change != nil {
			change(&u)
		}
		return u
	}
	born := registered("Ada@example.org", "Ada")
	before := time.Date(2019, 3, 1, 11, 0, 0, 123456789, time.FixedZone("CET", 3600))
	imported := Imported{EmailVerified: true, Roles: []string{"writer", "admin", "writer"}, CreatedAt: before}
	imported.Personal.Email, imported.Personal.Name = "Ada@example.org", "Ada"
	unknown := Imported{}
	unknown.Personal = imported.Personal
	for name, c := range map[string]struct {
		given []Payload
		want  User
	}{
		"nothing":                 {nil, User{}},
		"registered":              {[]Payload{born}, user(1, nil)},
		"verified":                {[]Payload{born, verified("Ada@example.org")}, user(2, func(u *User) { u.EmailVerified = true })},
		"verified, other address": {[]Payload{born, verified("old@example.org")}, user(2, nil)},
		"imported": {[]Payload{imported}, user(1, func(u *User) {
			u.EmailVerified, u.Roles, u.CreatedAt = true, []string{"admin", "writer"}, time.Date(2019, 3, 1, 10, 0, 0, 123456000, time.UTC)
		})},
		"imported, with no more": {[]Payload{unknown}, user(1, nil)},
		"email changed":          {[]Payload{born, emailChanged("b@example.org")}, user(2, func(u *User) { u.Email, u.EmailVerified = "b@example.org", true })},
		"renamed":                {[]Payload{born, renamed("Countess")}, user(2, func(u *User) { u.Name = "Countess" })},
		"name taken away":        {[]Payload{born, renamed("")}, user(2, func(u *User) { u.Name = "" })},
		"profile without a name": {[]Payload{born, ProfileUpdated{}}, user(2, nil)},
		"password changed":       {[]Payload{born, PasswordChanged{Reason: ReasonRehash}}, user(2, nil)},
		"roles are a sorted set": {
			[]Payload{born, RoleGranted{"writer"}, RoleGranted{"admin"}, RoleGranted{"admin"}, RoleGranted{"editor"}, RoleRevoked{"writer"}, RoleRevoked{"none"}},
			user(7, func(u *User) { u.Roles = []string{"admin", "editor"} }),
		},
		"locked":              {[]Payload{born, Locked{}}, user(2, func(u *User) { u.Status = StatusLocked })},
		"unlocked":            {[]Payload{born, Locked{}, Unlocked{}}, user(3, nil)},
		"disabled and locked": {[]Payload{born, Locked{}, Disabled{}}, user(3, func(u *User) { u.Status = StatusDisabled })},
		"erased": {
			[]Payload{imported, Locked{}, Disabled{}, Erased{}},
			User{ID: ada, UpdatedAt: at(4), Version: 4, Position: 13},
		},
		"enabled, locked": {[]Payload{born, Locked{}, Disabled{}, Enabled{}}, user(4, func(u *User) { u.Status = StatusLocked })},
	} {
		got := state(t, given(c.given...))
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(User{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestEvolveChangesNothingOfTheStateBefore(t *testing.T) {
	t.Parallel()
	events := given(registered("a@example.org", ""), RoleGranted{"b"}, RoleGranted{"a"}, RoleRevoked{"b"})
	before := state(t, events[:3])
	if _, err := evolve(before, events[3]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, before.Roles); diff != "" {
		t.Errorf("roles of the state before (-want +got):\n%s", diff)
	}
}

func TestEvolveRefuses(t *testing.T) {
	t.Parallel()
	events := given(registered("a@example.org", ""), Locked{}, Unlocked{})
	if _, err := evolve(state(t, events[:1]), events[2]); !errors.Is(err, eventstore.ErrGap) {
		t.Errorf("evolve over a gap = %v, want ErrGap", err)
	}
	events[1].Type = "user.vanished"
	if _, err := evolve(state(t, events[:1]), events[1]); !errors.Is(err, ErrUnknownEvent) {
		t.Errorf("evolve an unknown event = %v, want ErrUnknownEvent", err)
	}
}

// A user whose key is destroyed evolves to one without an address, and is no error.
func TestEvolveForgotten(t *testing.T) {
	t.Parallel()
	imported := Imported{EmailVerified: true, Roles: []string{RoleAdmin}}
	imported.Personal.Email, imported.Personal.Name = "a@example.org", "A"
	for _, first := range []Payload{registered("a@example.org", "A"), imported} {
		for _, second := range []Payload{verified("a@example.org"), emailChanged("b@example.org"), renamed("B"), Locked{}} {
			events := given(first, second)
			for i := range events {
				events[i].Personal, events[i].Forgotten = nil, true
			}
			if u := state(t, events); u.Email != "" || u.Name != "" || u.EmailVerified || u.Version != 2 || !u.exists() {
				t.Errorf("%T, %T: state %+v, want a user without personal fields", first, second, u)
			}
		}
	}
}

// TestDecide: given events, when a command, then events or an error.
func TestDecide(t *testing.T) {
	t.Parallel()
	email, err := ParseEmail("Ada@example.org")
	if err != nil {
		t.Fatal(err)
	}
	born := registered("Ada@example.org", "Ada")
	expires := birth.Add(time.Hour)
	session := SessionStarted{Methods: []string{MethodPassword}, ExpiresAt: expires}
	type command func(User) ([]Payload, error)
	registration := func(roles ...string) command {
		return func(u User) ([]Payload, error) { return register(u, email, "Ada", roles...) }
	}
	login := func(u User) ([]Payload, error) { return startSession(u, []string{MethodPassword}, expires) }
	for name, c := range map[string]struct {
		given []Payload
		when  command
		then  []Payload
		err   error
	}{
		"register":                         {nil, registration(), []Payload{born}, nil},
		"register an administrator":        {nil, registration(RoleAdmin), []Payload{born, RoleGranted{RoleAdmin}}, nil},
		"register with a role of no form":  {nil, registration("Admin!"), nil, &Error{Code: CodeInvalidRequest}},
		"register twice":                   {[]Payload{born}, registration(), nil, ErrEmailTaken},
		"start a session":                  {[]Payload{born}, login, []Payload{session}, nil},
		"start a session of nobody":        {nil, login, nil, ErrInvalidCredentials},
		"start a session, locked":          {[]Payload{born, Locked{}}, login, nil, ErrUserLocked},
		"start a session, unlocked again":  {[]Payload{born, Locked{}, Unlocked{}}, login, []Payload{session}, nil},
		"start a session, disabled":        {[]Payload{born, Disabled{}}, login, nil, ErrUserDisabled},
		"start a session, erased":          {[]Payload{born, Erased{}}, login, nil, ErrInvalidCredentials},
		"rehash, erased":                   {[]Payload{born, Erased{}}, rehash, nil, ErrInvalidCredentials},
		"register, erased":                 {[]Payload{born, Erased{}}, registration(), nil, ErrEmailTaken},
		"start a session, locked disabled": {[]Payload{born, Locked{}, Disabled{}}, login, nil, ErrUserDisabled},
		"rehash":                           {[]Payload{born}, rehash, []Payload{PasswordChanged{Reason: ReasonRehash}}, nil},
		"rehash, locked":                   {[]Payload{born, Locked{}}, rehash, nil, ErrUserLocked},
		"rehash of nobody":                 {nil, rehash, nil, ErrInvalidCredentials},
	} {
		got, err := c.when(state(t, given(c.given...)))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", name, err, c.err)
		}
		if diff := cmp.Diff(c.then, got); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
}
