package identity

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/identity/password"
)

func importedUser(t *testing.T) ImportedUser {
	t.Helper()
	hash, err := password.New(secret, password.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return ImportedUser{Email: "Ada@example.org", Name: "Ada", Hash: hash, EmailVerified: true, Roles: []string{"writer", "editor", "writer"},
		Attributes: json.RawMessage(`{"b":1,"a":2}`), CreatedAt: time.Date(2019, 3, 1, 10, 0, 0, 123456789, time.UTC)}
}

func TestImportUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		in := importedUser(t)
		if would, err := s.CheckImport(t.Context(), in); err != nil || would != ImportMade || len(d.events(t, s)) != 0 {
			t.Errorf("CheckImport = %v, %v, want that it would", would, err)
		}
		if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done != ImportMade {
			t.Fatalf("ImportUser = %v, %v, want done", done, err)
		}
		id, err := s.UserWith(t.Context(), "ada@example.org")
		if err != nil {
			t.Fatal(err)
		}
		u, err := s.ReadUser(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if u.Email != in.Email || !u.EmailVerified || u.Name != "Ada" || !cmp.Equal(u.Roles, []string{"editor", "writer"}) || string(u.Attributes) != `{"a":2,"b":1}` ||
			!u.CreatedAt.Equal(in.CreatedAt.Truncate(time.Microsecond)) {
			t.Errorf("imported %+v", u)
		}
		if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); err != nil {
			t.Error(err)
		}

		// Again: nothing, whatever has become of the user, also after the address went to somebody else or nobody.
		for _, change := range []func(){
			func() {},
			func() {
				if _, err := s.LockUser(t.Context(), id, byAdmin); err != nil {
					t.Fatal(err)
				}
			},
			func() {
				other := "lovelace@example.org"
				if _, err := s.ChangeUser(t.Context(), id, UserChange{Email: &other}, byAdmin); err != nil {
					t.Fatal(err)
				}
			},
		} {
			change()
			before := len(d.events(t, s))
			if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done != ImportKnown || len(d.events(t, s)) != before {
				t.Errorf("again = %v, %v, want nothing done", done, err)
			}
			if would, err := s.CheckImport(t.Context(), in); err != nil || would != ImportKnown {
				t.Errorf("CheckImport again = %v, %v, want that it would not", would, err)
			}
		}
		// Another of the same address is another user.
		mustRegister(t, s, "ada@example.org")
		in.Name = "Ada II"
		if _, err := s.ImportUser(t.Context(), in, byAdmin); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("ImportUser with a taken address = %v, want ErrEmailTaken", err)
		}
		if _, err := s.CheckImport(t.Context(), in); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("CheckImport with a taken address = %v, want ErrEmailTaken", err)
		}
	})
}

// Where the commands are forgotten by now, whoever has the address and began in the same way is the same user.
func TestImportedBeforeTheCommandsWereForgotten(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		in := importedUser(t)
		in.Status = StatusDisabled
		if _, err := s.ImportUser(t.Context(), in, byAdmin); err != nil {
			t.Fatal(err)
		}
		if n, err := d.db.Exec(t.Context(), "DELETE FROM commands"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done != ImportKnown {
			t.Errorf("again = %v, %v, want nothing done", done, err)
		}
		if events := d.events(t, s); !cmp.Equal(types(events), []string{TypeUserImported, TypeUserDisabled}) {
			t.Errorf("events %v", types(events))
		}
	})
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		for name, c := range map[string]struct {
			change func(*ImportedUser)
			err    error
		}{
			"no address":       {func(u *ImportedUser) { u.Email = "ada" }, ErrInvalidEmail},
			"bad name":         {func(u *ImportedUser) { u.Name = "a\x00" }, ErrInvalidName},
			"bad role":         {func(u *ImportedUser) { u.Roles = []string{"Admin"} }, &Error{Code: CodeInvalidRequest}},
			"bad attributes":   {func(u *ImportedUser) { u.Attributes = json.RawMessage("[]") }, ErrInvalidAttributes},
			"bad status":       {func(u *ImportedUser) { u.Status = "gone" }, &Error{Code: CodeInvalidRequest}},
			"yet to begin":     {func(u *ImportedUser) { u.CreatedAt = time.Now().Add(time.Hour) }, &Error{Code: CodeInvalidRequest}},
			"began long ago":   {func(u *ImportedUser) { u.CreatedAt = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC) }, &Error{Code: CodeInvalidRequest}},
			"unknown hash":     {func(u *ImportedUser) { u.Hash = "md5$" + password.Hash(secret) }, ErrPasswordRefused},
			"hash of any cost": {func(u *ImportedUser) { u.Hash = "$2b$31$" + u.Hash[len(u.Hash)-53:] }, ErrPasswordRefused},
		} {
			in := importedUser(t)
			c.change(&in)
			for _, do := range []func() (ImportOutcome, error){
				func() (ImportOutcome, error) { return s.ImportUser(t.Context(), in, byAdmin) },
				func() (ImportOutcome, error) { return s.CheckImport(t.Context(), in) },
			} {
				if _, err := do(); !errors.Is(err, c.err) {
					t.Errorf("%s: %v, want %v", name, err, c.err)
				}
			}
		}
		if n := len(d.events(t, s)); n != 0 {
			t.Errorf("%d events, want none", n)
		}
		for _, none := range []password.Hash{"", "!unusable"} {
			in := importedUser(t)
			in.Hash, in.Email = none, "nobody"+string(none[:min(len(none), 1)])+"@example.org"
			if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done != ImportMade {
				t.Errorf("without a password: %v, %v", done, err)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: in.Email, Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("login without a password = %v, want ErrInvalidCredentials", err)
			}
		}
	})
}

// What differs from an earlier import takes effect as long as it was not changed here; else it is refused, and nothing of the
// line is done. A check says the same before.
func TestImportAgain(t *testing.T) {
	t.Parallel()
	const other = password.Password("another long passphrase")
	old, err := password.New(secret, password.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := password.New(other, password.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	conflict := &Error{Code: CodeConflict}
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		for name, c := range map[string]struct {
			first   ImportedUser
			here    func(id uuid.UUID) // what happens between the imports
			second  ImportedUser
			outcome ImportOutcome
			err     error
			status  Status
			logsIn  password.Password // "" for nobody
			events  []string          // after the first import and what happened
		}{
			"another hash":          {ImportedUser{Hash: old}, nil, ImportedUser{Hash: fresh}, ImportUpdated, nil, StatusActive, other, []string{TypeUserPasswordChanged}},
			"a hash where none was": {ImportedUser{}, nil, ImportedUser{Hash: fresh}, ImportUpdated, nil, StatusActive, other, []string{TypeUserPasswordChanged}},
			"none where one was":    {ImportedUser{Hash: old}, nil, ImportedUser{Hash: "!"}, ImportUpdated, nil, StatusActive, "", []string{TypeUserPasswordChanged}},
			"nothing said of it":    {ImportedUser{Hash: old, Status: StatusActive}, nil, ImportedUser{}, ImportKnown, nil, StatusActive, secret, nil},
			"the same after a rehash": {ImportedUser{Hash: old}, func(id uuid.UUID) {
				rehashing := d.service(t, func(c *Config) { c.Rehash, c.Passwords = true, pool(t, 5) })
				if err := rehashing.logsIn(t, addressOf(t, s, id), secret); err != nil {
					t.Fatal(err)
				}
			}, ImportedUser{Hash: old}, ImportKnown, nil, StatusActive, secret, nil},
			"another after a rehash": {ImportedUser{Hash: old}, func(id uuid.UUID) {
				rehashing := d.service(t, func(c *Config) { c.Rehash, c.Passwords = true, pool(t, 5) })
				if err := rehashing.logsIn(t, addressOf(t, s, id), secret); err != nil {
					t.Fatal(err)
				}
			}, ImportedUser{Hash: fresh}, ImportUpdated, nil, StatusActive, other, []string{TypeUserPasswordChanged}},
			"another after a change here": {ImportedUser{Hash: old}, func(id uuid.UUID) {
				mustChange(t, s, id, secret, "chosen here, and long")
			}, ImportedUser{Hash: fresh}, "", conflict, StatusActive, "chosen here, and long", nil},
			"the first again": {ImportedUser{Hash: old}, func(id uuid.UUID) {
				if o, err := s.ImportUser(t.Context(), ImportedUser{Email: addressOf(t, s, id), Hash: fresh}, byAdmin); err != nil || o != ImportUpdated {
					t.Fatal(o, err)
				}
			}, ImportedUser{Hash: old}, ImportUpdated, nil, StatusActive, secret, []string{TypeUserPasswordChanged}},
			"locked, then active":        {ImportedUser{Hash: old, Status: StatusLocked}, nil, ImportedUser{Hash: old, Status: StatusActive}, ImportUpdated, nil, StatusActive, secret, []string{TypeUserUnlocked}},
			"active, then disabled":      {ImportedUser{Hash: old}, nil, ImportedUser{Status: StatusDisabled}, ImportUpdated, nil, StatusDisabled, "", []string{TypeUserDisabled}},
			"locked, then disabled":      {ImportedUser{Status: StatusLocked}, nil, ImportedUser{Status: StatusDisabled}, ImportUpdated, nil, StatusDisabled, "", []string{TypeUserUnlocked, TypeUserDisabled}},
			"both":                       {ImportedUser{Hash: old}, nil, ImportedUser{Hash: fresh, Status: StatusLocked}, ImportUpdated, nil, StatusLocked, "", []string{TypeUserLocked, TypeUserPasswordChanged}},
			"locked here, then active":   {ImportedUser{Hash: old}, func(id uuid.UUID) { mustLock(t, s, id) }, ImportedUser{Hash: old, Status: StatusActive}, ImportKnown, nil, StatusLocked, "", nil},
			"locked here, then disabled": {ImportedUser{Hash: old}, func(id uuid.UUID) { mustLock(t, s, id) }, ImportedUser{Hash: fresh, Status: StatusDisabled}, "", conflict, StatusLocked, "", nil},
			"locked here, as there":      {ImportedUser{Hash: old}, func(id uuid.UUID) { mustLock(t, s, id) }, ImportedUser{Status: StatusLocked}, ImportKnown, nil, StatusLocked, "", nil},
			"another name":               {ImportedUser{Name: "Ada"}, nil, ImportedUser{Name: "Eve", Hash: fresh}, "", ErrEmailTaken, StatusActive, "", nil},
		} {
			t.Run(name, func(t *testing.T) {
				c.first.Email = strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", "") + "@example.org"
				c.second.Email = strings.ToUpper(c.first.Email)
				if o, err := s.ImportUser(t.Context(), c.first, byAdmin); err != nil || o != ImportMade {
					t.Fatal(o, err)
				}
				id, err := s.UserWith(t.Context(), c.first.Email)
				if err != nil {
					t.Fatal(err)
				}
				if c.here != nil {
					c.here(id)
				}
				u, err := s.ReadUser(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				before := u.Version
				for _, do := range []func() (ImportOutcome, error){
					func() (ImportOutcome, error) { return s.CheckImport(t.Context(), c.second) },
					func() (ImportOutcome, error) { return s.ImportUser(t.Context(), c.second, byAdmin) },
				} {
					if o, err := do(); o != c.outcome && err == nil || !errors.Is(err, c.err) {
						t.Errorf("%v, %v, want %v, %v", o, err, c.outcome, c.err)
					}
				}
				if o, err := s.ImportUser(t.Context(), c.second, byAdmin); c.err == nil && (err != nil || o != ImportKnown) {
					t.Errorf("once more: %v, %v, want nothing done", o, err)
				}
				if u, err = s.ReadUser(t.Context(), id); err != nil || u.Status != c.status {
					t.Errorf("status %v, %v, want %v", u.Status, err, c.status)
				}
				added, err := s.log.ReadStream(t.Context(), id, before, 10)
				if err != nil || !slices.Equal(types(added), c.events) {
					t.Errorf("events %v, %v, want %v", types(added), err, c.events)
				}
				for _, p := range []password.Password{secret, other, "chosen here, and long"} {
					if err := s.logsIn(t, c.first.Email, p); (err == nil) != (p == c.logsIn) {
						t.Errorf("login with %q: %v", string(p), err)
					}
				}
			})
		}

		// Whoever was imported and is an administrator stays one while there is no other.
		admin := ImportedUser{Email: "admin@example.org", Roles: []string{RoleAdmin}}
		if _, err := s.ImportUser(t.Context(), admin, byAdmin); err != nil {
			t.Fatal(err)
		}
		admin.Status = StatusDisabled
		if _, err := s.CheckImport(t.Context(), admin); !errors.Is(err, ErrLastAdmin) {
			t.Errorf("CheckImport that disables the last administrator = %v, want ErrLastAdmin", err)
		}
		if _, err := s.ImportUser(t.Context(), admin, byAdmin); !errors.Is(err, ErrLastAdmin) {
			t.Errorf("ImportUser that disables the last administrator = %v, want ErrLastAdmin", err)
		}
		// Who was erased stays erased.
		gone := ImportedUser{Email: "gone@example.org", Hash: old}
		if _, err := s.ImportUser(t.Context(), gone, byAdmin); err != nil {
			t.Fatal(err)
		}
		id, err := s.UserWith(t.Context(), gone.Email)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Erase(t.Context(), id, byAdmin); err != nil {
			t.Fatal(err)
		}
		for _, do := range []func() (ImportOutcome, error){
			func() (ImportOutcome, error) { return s.CheckImport(t.Context(), gone) },
			func() (ImportOutcome, error) { return s.ImportUser(t.Context(), gone, byAdmin) },
		} {
			if o, err := do(); err != nil || o != ImportKnown {
				t.Errorf("who was erased: %v, %v, want nothing done", o, err)
			}
		}
	})
}

func addressOf(t *testing.T, s *Service, id uuid.UUID) string {
	t.Helper()
	u, err := s.ReadUser(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u.Email
}

func mustLock(t *testing.T, s *Service, id uuid.UUID) {
	t.Helper()
	if _, err := s.LockUser(t.Context(), id, byAdmin); err != nil {
		t.Fatal(err)
	}
}

func mustChange(t *testing.T, s *Service, id uuid.UUID, present, next password.Password) {
	t.Helper()
	if _, err := s.ChangePassword(t.Context(), PasswordChange{User: id, Proof: Proof{Password: present}, New: next}); err != nil {
		t.Fatal(err)
	}
}

// The same users are brought in by two processes at once: each of them once.
func TestImportAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		in := importedUser(t)
		var done atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				imported, err := services[i%2].ImportUser(context.WithoutCancel(t.Context()), in, byAdmin)
				if err != nil {
					t.Error(err)
				}
				if imported == ImportMade {
					done.Add(1)
				}
			})
		}
		wg.Wait()
		if done.Load() != 1 || len(d.events(t, services[0])) != 1 {
			t.Errorf("imported %d times, want once", done.Load())
		}
	})
}
