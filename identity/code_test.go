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
	"usher.example/identity/password"
)

func mustCode(t *testing.T, s *Service, user uuid.UUID, p Purpose) MailCode {
	t.Helper()
	code, _, err := s.NewCode(t.Context(), user, p)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func (s *Service) verified(t *testing.T, c MailCode) error {
	t.Helper()
	_, err := s.Verify(t.Context(), c, uuid.Nil, eventstore.Metadata{})
	return err
}

func (s *Service) reset(t *testing.T, c MailCode, secret password.Password) error {
	t.Helper()
	_, err := s.ResetPassword(t.Context(), c, secret, uuid.Nil, eventstore.Metadata{})
	return err
}

func (s *Service) logsIn(t *testing.T, email string, secret password.Password) error {
	t.Helper()
	_, err := s.Login(t.Context(), Credentials{Email: email, Password: secret})
	return err
}

const other password.Password = "a wholly different secret"

func emailWanted(email string) EmailChangeRequested {
	var p EmailChangeRequested
	p.Personal.Email = email
	return p
}

func TestVerify(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "Ada@example.org")
		code, address, err := s.NewCode(t.Context(), u.ID, PurposeVerify)
		if err != nil || address != "Ada@example.org" || len(code) < 26 {
			t.Fatalf("NewCode() = %d characters for %q, %v", len(code), address, err)
		}
		result, err := s.Verify(t.Context(), code, uuid.Nil, eventstore.Metadata{Actor: ActorAnonymous})
		if err != nil {
			t.Fatal(err)
		}
		events := d.events(t, s)
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserEmailVerified}, types(events)); diff != "" {
			t.Fatalf("events (-want +got):\n%s", diff)
		}
		if e := events[1]; result.Position != e.Position || e.Metadata.Actor != ActorUser(u.ID) {
			t.Errorf("at %d by %s, want %d by the user", result.Position, e.Metadata.Actor, e.Position)
		}
		if u, err := s.User(t.Context(), u.ID); err != nil || !u.EmailVerified {
			t.Errorf("User() = %+v, %v, want a verified address", u, err)
		}
		if _, _, err := s.NewCode(t.Context(), u.ID, PurposeVerify); !errors.Is(err, ErrCodeNotNeeded) {
			t.Errorf("NewCode() for a verified address = %v, want %v", err, ErrCodeNotNeeded)
		}
		if _, _, err := s.NewCode(t.Context(), uuid.Must(uuid.NewV7()), PurposeVerify); !errors.Is(err, ErrNotFound) {
			t.Errorf("NewCode() of nobody = %v, want %v", err, ErrNotFound)
		}
	})
}

// A code is random, of one use and short-lived, and bound to what it was made for.
func TestASVS_6_4_1_CodesThatAreNotGood(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now = at.Now })
		u := mustRegister(t, s, "ada@example.org")
		refused := func(when string, c MailCode) {
			t.Helper()
			if err := s.verified(t, c); !errors.Is(err, ErrInvalidCode) {
				t.Errorf("%s: Verify() = %v, want %v", when, err, ErrInvalidCode)
			}
			if err := s.reset(t, c, other); !errors.Is(err, ErrInvalidCode) {
				t.Errorf("%s: ResetPassword() = %v, want %v", when, err, ErrInvalidCode)
			}
		}
		refused("nothing", "")
		refused("one that nobody was sent", "AAAAAAAAAAAAAAAAAAAAAAAAAA")
		replaced := mustCode(t, s, u.ID, PurposeReset)
		if bits := 5 * len(replaced); bits < 112 { // of base32
			t.Errorf("a code has %d bits", bits)
		}
		mustCode(t, s, u.ID, PurposeReset)
		refused("one with another after it", replaced)

		if err := s.verified(t, mustCode(t, s, u.ID, PurposeReset)); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("Verify() with a code to reset = %v, want %v", err, ErrInvalidCode)
		}
		if err := s.reset(t, mustCode(t, s, u.ID, PurposeVerify), other); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("ResetPassword() with a code to verify = %v, want %v", err, ErrInvalidCode)
		}

		verify, reset := mustCode(t, s, u.ID, PurposeVerify), mustCode(t, s, u.ID, PurposeReset)
		at.add(time.Hour)
		refused("a code to reset after an hour", reset)
		at.add(23 * time.Hour)
		refused("a code to verify after a day", verify)
		if err := s.dropExpiredCodes(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM codes`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d codes are left, %v, want none", left, err)
		}

		verify, reset = mustCode(t, s, u.ID, PurposeVerify), mustCode(t, s, u.ID, PurposeReset)
		d.appendTo(t, s, u.ID, emailChanged("ada@example.net"))
		refused("one that was sent to an address before", verify)
		refused("one that was sent to an address before", reset)

		reset = mustCode(t, s, u.ID, PurposeReset)
		d.appendTo(t, s, u.ID, Locked{})
		if err := s.reset(t, reset, other); !errors.Is(err, ErrUserLocked) {
			t.Errorf("ResetPassword() of a locked user = %v, want %v", err, ErrUserLocked)
		}
		if _, _, err := s.NewCode(t.Context(), u.ID, PurposeReset); !errors.Is(err, ErrCodeNotNeeded) {
			t.Errorf("NewCode() of a locked user = %v, want %v", err, ErrCodeNotNeeded)
		}
		d.appendTo(t, s, u.ID, Erased{})
		refused("one of a user who was erased", reset)
	})
}

// A hundred that use one code at once, in two processes: it is used once.
func TestASVS_2_3_4_6_5_1_CodeIsGoodOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		s := services[0]
		for name, c := range map[string]struct {
			purpose Purpose
			use     func(ctx context.Context, s *Service, c MailCode, i int) error
		}{
			"verify": {PurposeVerify, func(ctx context.Context, s *Service, c MailCode, _ int) error {
				_, err := s.Verify(ctx, c, uuid.Nil, eventstore.Metadata{})
				return err
			}},
			"reset": {PurposeReset, func(ctx context.Context, s *Service, c MailCode, i int) error {
				_, err := s.ResetPassword(ctx, c, password.Password(fmt.Sprintf("%s %d", string(other), i)), uuid.Nil, eventstore.Metadata{})
				return err
			}},
		} {
			u := mustRegister(t, s, name+"@example.org")
			code := mustCode(t, s, u.ID, c.purpose)
			errs := make([]error, 100)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() { errs[i] = c.use(context.WithoutCancel(t.Context()), services[i%2], code, i) })
			}
			wg.Wait()
			won := 0
			for _, err := range errs {
				switch {
				case err == nil:
					won++
				case !errors.Is(err, ErrAlreadyDone):
					t.Errorf("%s: %v, want %v", name, err, ErrAlreadyDone)
				}
			}
			if won != 1 {
				t.Errorf("%s: the code was good %d times, want once", name, won)
			}
		}
	})
}

// A stolen database gives no code away, and none can be made for it.
func TestCodesAreNotStored(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		code := mustCode(t, s, u.ID, PurposeVerify)
		var hash, address []byte
		if err := d.db.QueryRow(t.Context(), `SELECT hash, address FROM codes`).Scan(&hash, &address); err != nil {
			t.Fatal(err)
		}
		if row := string(hash) + string(address); len(row) != 64 || strings.Contains(row, string(code)) || strings.Contains(row, "ada") {
			t.Errorf("stored: %q", row)
		}
		stranger := d.service(t, func(c *Config) { c.CodeKey = []byte("another key") })
		if err := stranger.verified(t, code); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("Verify() under another key = %v, want %v", err, ErrInvalidCode)
		}
		if text := fmt.Sprintf("%v %+v %#v %s %q", code, code, code, code, code); strings.Contains(text, string(code)) {
			t.Errorf("a code prints itself: %s", text)
		}
	})
}

// A reset sets the password, ends every session, and leaves no other way in behind.
func TestASVS_6_4_3_7_4_3_ResetPassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, session := loggedIn(t, d, nil)
		u := session.User
		verify := mustCode(t, s, u.ID, PurposeVerify)
		code := mustCode(t, s, u.ID, PurposeReset)
		if err := s.reset(t, code, "short"); !errors.Is(err, ErrPasswordRefused) {
			t.Errorf("ResetPassword() to a short one = %v, want %v", err, ErrPasswordRefused)
		}
		if err := s.reset(t, code, "ada@example.org"); !errors.Is(err, ErrPasswordRefused) {
			t.Errorf("ResetPassword() to the address = %v, want %v", err, ErrPasswordRefused)
		}
		position, err := s.ResetPassword(t.Context(), code, other, uuid.Nil, eventstore.Metadata{})
		if err != nil {
			t.Fatal("the code is not good any more after passwords that were refused:", err)
		}
		events := d.events(t, s)
		want := []string{TypeUserRegistered, TypeSessionStarted, TypeUserEmailVerified, TypeUserPasswordChanged, TypeSessionEnded}
		if diff := cmp.Diff(want, types(events)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if last := events[len(events)-1].Position; position.Position != last {
			t.Errorf("position %d, want %d", position.Position, last)
		}
		if p, err := Decode[PasswordChanged](events[3]); err != nil || p.Reason != ReasonReset || p.Session != uuid.Nil {
			t.Errorf("password changed: %+v, %v", p, err)
		}
		wantRefused(t, s, "a session from before the reset", session.Refresh)
		if err := s.logsIn(t, "ada@example.org", secret); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("Login() with the password before = %v, want %v", err, ErrInvalidCredentials)
		}
		if err := s.logsIn(t, "ada@example.org", other); err != nil {
			t.Errorf("Login() with the new password = %v", err)
		}
		if err := s.verified(t, verify); !errors.Is(err, ErrAlreadyDone) {
			t.Errorf("Verify() after the reset = %v, want %v: the address is verified", err, ErrAlreadyDone)
		}
		if err := s.reset(t, code, other); !errors.Is(err, ErrAlreadyDone) {
			t.Errorf("ResetPassword() again = %v, want %v", err, ErrAlreadyDone)
		}
	})
}

// Whoever sends a code again that has just worked is told so, for as long as it would have been good, and by nothing else than
// that code; and it does nothing again.
func TestCodeThatHasWorked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now = at.Now })
		u := mustRegister(t, s, "ada@example.org")
		use := map[Purpose]func(MailCode) error{
			PurposeVerify: func(c MailCode) error { return s.verified(t, c) },
			PurposeEmail:  func(c MailCode) error { return s.verified(t, c) },
			PurposeReset:  func(c MailCode) error { return s.reset(t, c, other) },
		}
		want := func(when string, p Purpose, c MailCode, want error) {
			t.Helper()
			before := len(d.events(t, s))
			if err := use[p](c); !errors.Is(err, want) {
				t.Errorf("%s: a code for %s: %v, want %v", when, p, err, want)
			}
			if n := len(d.events(t, s)); n != before {
				t.Errorf("%s: a code for %s did something", when, p)
			}
		}
		for _, p := range []Purpose{PurposeVerify, PurposeEmail, PurposeReset} {
			if p == PurposeEmail {
				d.appendTo(t, s, u.ID, emailWanted("ada@example.net"))
			}
			code := mustCode(t, s, u.ID, p)
			if err := use[p](code); err != nil {
				t.Fatalf("a code for %s: %v", p, err)
			}
			want("again", p, code, ErrAlreadyDone)
			want("another code", p, code[:len(code)-1]+"0", ErrInvalidCode)
			if p == PurposeReset {
				want("for something else", PurposeVerify, code, ErrInvalidCode)
				mustCode(t, s, u.ID, p)
				want("with another after it", p, code, ErrInvalidCode)
				continue
			}
			want("for something else", PurposeReset, code, ErrInvalidCode)
			at.add(p.Lifetime())
			want("after its time", p, code, ErrInvalidCode)
		}
	})
}

// A user who has no password, because there was none to import, gets one by a reset.
func TestResetOfNoPassword(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		if _, err := d.db.Exec(t.Context(), `DELETE FROM credentials`); err != nil {
			t.Fatal(err)
		}
		if err := s.RequestPasswordReset(t.Context(), "ada@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserPasswordResetRequested}, types(d.events(t, s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if err := s.reset(t, mustCode(t, s, u.ID, PurposeReset), other); err != nil {
			t.Fatal(err)
		}
		if err := s.logsIn(t, "ada@example.org", other); err != nil {
			t.Error(err)
		}
	})
}
