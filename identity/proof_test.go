package identity

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

func TestProve(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		got, err := s.prove(t.Context(), u.ID, Proof{Password: secret, TOTP: "000000"}, eventstore.Metadata{})
		if err != nil || got.user != u.ID {
			t.Fatalf("prove = %v, %v, want the user", got, err)
		}
		for name, c := range map[string]struct {
			id    uuid.UUID
			proof Proof
		}{
			"wrong password":      {u.ID, Proof{Password: "another good password"}},
			"no password":         {u.ID, Proof{}},
			"impossible password": {u.ID, Proof{Password: "\xff"}},
			"no such user":        {uuid.Must(uuid.NewV7()), Proof{Password: secret}},
		} {
			if _, err := s.prove(t.Context(), c.id, c.proof, eventstore.Metadata{}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("%s: prove = %v, want ErrInvalidCredentials", name, err)
			}
		}
		d.appendTo(t, s, u.ID, Locked{})
		if _, err := s.prove(t.Context(), u.ID, Proof{Password: secret}, eventstore.Metadata{}); !errors.Is(err, ErrUserLocked) {
			t.Errorf("locked: prove = %v, want ErrUserLocked", err)
		}
		if _, err := s.prove(t.Context(), u.ID, Proof{Password: "another good password"}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("locked, wrong password: prove = %v, want ErrInvalidCredentials", err)
		}
	})
}

// Where a second factor is asked for and can't be checked, because its row was lost, nobody passes.
func TestASVS_16_5_3_LostFactorLetsNobodyPass(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		d.appendTo(t, s, u.ID, TOTPEnabled{})
		for _, c := range []struct {
			proof Proof
			want  error
		}{
			{Proof{Password: secret}, ErrTOTPRequired},
			{Proof{Password: secret, TOTP: "123456"}, ErrInvalidCredentials},
			{Proof{Password: "another good password"}, ErrInvalidCredentials},
		} {
			if _, err := s.prove(t.Context(), u.ID, c.proof, eventstore.Metadata{}); !errors.Is(err, c.want) {
				t.Errorf("prove = %v, want %v", err, c.want)
			}
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: c.proof.Password, TOTP: c.proof.TOTP}); !errors.Is(err, c.want) {
				t.Errorf("Login = %v, want %v", err, c.want)
			}
			d.forgive(t)
		}
	})
}
