package identity

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"usher/eventstore"
)

// ASVS 6.5.1, 6.5.2, 6.3.4 and 2.3.4.
func TestSecondFactor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now = now.Now })
		u := mustRegister(t, s, "ada@example.org")
		m := eventstore.Metadata{}
		key, err := s.StartTOTP(t.Context(), u.ID, Proof{Password: secret}, m)
		if err != nil {
			t.Fatal(err)
		}
		code := func() FactorCode {
			t.Helper()
			c, err := totp.GenerateCode(string(key.Secret), now.Now())
			if err != nil {
				t.Fatal(err)
			}
			return FactorCode(c)
		}
		login := func(code FactorCode) error {
			_, err := s.Login(context.WithoutCancel(t.Context()), Credentials{Email: "ada@example.org", Password: secret, TOTP: code})
			return err
		}
		if err := login(""); err != nil {
			t.Errorf("an unconfirmed secret changes logins: %v", err)
		}
		if _, err := s.ConfirmTOTP(t.Context(), u.ID, "x", m); !errors.Is(err, &Error{Code: CodeInvalidCode}) {
			t.Errorf("wrong confirmation: %v", err)
		}
		if _, err := s.ConfirmTOTP(t.Context(), u.ID, code(), m); err != nil {
			t.Fatal(err)
		}
		if err := login(""); !errors.Is(err, ErrTOTPRequired) {
			t.Errorf("without a code: %v", err)
		}
		if err := login(code()); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("the code of the confirmation again: %v", err)
		}
		atOnce := func(code FactorCode) (won int) {
			d.forgive(t)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if login(code) == nil {
						mu.Lock()
						defer mu.Unlock()
						won++
					}
				})
			}
			wg.Wait()
			d.forgive(t)
			return won
		}
		now.add(30 * time.Second)
		if won := atOnce(code()); won != 1 {
			t.Errorf("a one-time password was good %d times at once", won)
		}
		now.add(30 * time.Second)
		codes, _, err := s.NewRecoveryCodes(t.Context(), u.ID, Proof{Password: secret, TOTP: code()}, m)
		if err != nil || len(codes) != recoveryCodes {
			t.Fatalf("recovery codes: %d, %v", len(codes), err)
		}
		for _, c := range codes[:2] {
			if won := atOnce(c); won != 1 {
				t.Errorf("a recovery code was good %d times at once", won)
			}
		}
		again, _, err := s.NewRecoveryCodes(t.Context(), u.ID, Proof{Password: secret, TOTP: codes[2]}, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := login(codes[3]); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("an old recovery code: %v", err)
		}
		if _, err := s.DisableTOTP(t.Context(), u.ID, Proof{Password: secret}, m); !errors.Is(err, ErrTOTPRequired) {
			t.Errorf("disabled without a code: %v", err)
		}
		if _, err := s.DisableTOTP(t.Context(), u.ID, Proof{Password: secret, TOTP: again[0]}, m); err != nil {
			t.Fatal(err)
		}
		if err := login(""); err != nil {
			t.Errorf("after it was disabled: %v", err)
		}
	})
}
