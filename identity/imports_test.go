package identity

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		if would, err := s.CheckImport(t.Context(), in); err != nil || !would || len(d.events(t, s)) != 0 {
			t.Errorf("CheckImport = %v, %v, want that it would", would, err)
		}
		if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || !done {
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
			if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done || len(d.events(t, s)) != before {
				t.Errorf("again = %v, %v, want nothing done", done, err)
			}
			if would, err := s.CheckImport(t.Context(), in); err != nil || would {
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
		if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || done {
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
			for _, do := range []func() (bool, error){
				func() (bool, error) { return s.ImportUser(t.Context(), in, byAdmin) },
				func() (bool, error) { return s.CheckImport(t.Context(), in) },
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
			if done, err := s.ImportUser(t.Context(), in, byAdmin); err != nil || !done {
				t.Errorf("without a password: %v, %v", done, err)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: in.Email, Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("login without a password = %v, want ErrInvalidCredentials", err)
			}
		}
	})
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
				if imported {
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
