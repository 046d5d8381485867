package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestEnsureAdmin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		var created atomic.Int32
		ids := make([]uuid.UUID, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				id, made, err := services[i%2].EnsureAdmin(context.WithoutCancel(t.Context()), fmt.Sprintf("admin%d@example.org", i%2), secret)
				if err != nil {
					t.Error(err)
				}
				if made {
					created.Add(1)
				}
				ids[i] = id
			})
		}
		wg.Wait()
		if created.Load() != 1 {
			t.Errorf("%d administrators were made, want 1", created.Load())
		}
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("administrators %v and %v, want one", ids[0], id)
			}
		}
		s := services[0]
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserRoleGranted, TypeUserEmailVerified}, types(d.events(t, s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		u, err := s.User(t.Context(), ids[0])
		if err != nil || !u.HasRole(RoleAdmin) || !u.EmailVerified {
			t.Errorf("User = %+v, %v", u, err)
		}
		if _, err := s.Login(t.Context(), Credentials{Email: u.Email, Password: secret}); err != nil {
			t.Error(err)
		}
	})
}

// Whoever registers the operator's address first does not become an administrator by that.
func TestEnsureAdminTaken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "admin@example.org")
		if _, _, err := s.EnsureAdmin(t.Context(), "Admin@example.org", secret); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("EnsureAdmin = %v, want ErrEmailTaken", err)
		}
		if u, err := s.User(t.Context(), u.ID); err != nil || u.HasRole(RoleAdmin) {
			t.Errorf("User = %+v, %v", u, err)
		}
	})
}
