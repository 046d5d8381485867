package identity

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// on logs in from a device, and says what became of it.
func (s *Service) on(t *testing.T, device DeviceToken, email string, secret password.Password) (DeviceToken, string) {
	t.Helper()
	r, err := s.Login(t.Context(), Credentials{Email: email, Password: secret, Device: device, Metadata: eventstore.Metadata{Address: "192.0.2.1"}})
	return r.Device, outcome(err)
}

// strangersGuess fails at an account until nobody is looked at any more.
func (s *Service) strangersGuess(t *testing.T, email string) {
	t.Helper()
	for range accountFree {
		s.try(t, email, wrong)
	}
	if got := s.try(t, email, secret); !strings.HasPrefix(got, "throttled ") {
		t.Fatalf("after %d wrong passwords: %s", accountFree, got)
	}
}

// Whoever comes from a device on which the user was logged in before is not kept out by strangers, and has guesses of its own.
func TestKnownDevice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		process := func() *Service { return d.service(t, func(c *Config) { c.Now, c.RateLimits = now.Now, true }) }
		s, elsewhere := process(), process()
		const ada = "ada@example.org"
		mustRegister(t, s, ada)
		mustRegister(t, s, "eve@example.org")
		phone, got := s.on(t, "", ada, secret)
		if got != "ok" || phone == "" {
			t.Fatalf("first login: %s, device %q", got, string(phone))
		}
		eves, _ := s.on(t, "", "eve@example.org", secret)
		s.strangersGuess(t, ada)
		for name, device := range map[string]DeviceToken{"none": "", "another user's": eves, "made up": DeviceToken(string(phone[:len(phone)-2]) + "AA"), "nonsense": "x"} {
			if _, got := elsewhere.on(t, device, ada, secret); !strings.HasPrefix(got, "throttled ") {
				t.Errorf("device of %s: %s, want throttled", name, got)
			}
		}
		if again, got := elsewhere.on(t, phone, ada, secret); got != "ok" || again != phone {
			t.Errorf("known device: %s, the same token: %v", got, again == phone)
		}
		// It is the other's guesses that are forgiven no more than before.
		if got := s.try(t, ada, secret); !strings.HasPrefix(got, "throttled ") {
			t.Errorf("strangers after that: %s", got)
		}
		for range accountFree {
			if _, got := s.on(t, phone, ada, wrong); got != string(CodeInvalidCredentials) {
				t.Errorf("wrong password on a known device: %s", got)
			}
		}
		if _, got := elsewhere.on(t, phone, ada, secret); !strings.HasPrefix(got, "throttled ") {
			t.Errorf("known device after wrong passwords: %s", got)
		}
		now.add(10 * time.Second)
		if _, got := s.on(t, phone, ada, secret); got != "ok" {
			t.Errorf("known device after the wait: %s", got)
		}
		for _, text := range []string{phone.String(), fmt.Sprintf("%v %+v %#v", phone, Credentials{Device: phone}, phone), phone.LogValue().String()} {
			if len(text) > 400 {
				t.Errorf("a token prints itself: %s", text)
			}
		}
	})
}

// A device is not known any more once its user has ended every session, or has another password; the device that the password
// was set on is.
func TestDevicesAreRevoked(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		for i, c := range []struct {
			name   string
			revoke func(u *User, session LoginResult) (DeviceToken, error)
		}{
			{"password changed", func(u *User, session LoginResult) (DeviceToken, error) {
				set, err := s.ChangePassword(t.Context(), PasswordChange{User: u.ID, Session: session.Session,
					Proof: Proof{Session: session.Session, Password: secret}, New: other})
				return set.Device, err
			}},
			{"password reset", func(u *User, _ LoginResult) (DeviceToken, error) {
				set, err := s.ResetPassword(t.Context(), mustCode(t, s, u.ID, PurposeReset), other, uuid.Nil, eventstore.Metadata{})
				return set.Device, err
			}},
			{"logged out everywhere", func(u *User, session LoginResult) (DeviceToken, error) {
				_, err := s.EndOwnSessions(t.Context(), u.ID, session.Session, Proof{}, eventstore.Metadata{})
				return "", err
			}},
			{"logged out by an administrator", func(u *User, _ LoginResult) (DeviceToken, error) {
				_, err := s.RevokeSessions(t.Context(), u.ID, eventstore.Metadata{})
				return "", err
			}},
			{"locked and unlocked", func(u *User, _ LoginResult) (DeviceToken, error) {
				if _, err := s.LockUser(t.Context(), u.ID, eventstore.Metadata{}); err != nil {
					return "", err
				}
				_, err := s.UnlockUser(t.Context(), u.ID, eventstore.Metadata{})
				return "", err
			}},
		} {
			email := fmt.Sprintf("ada%d@example.org", i)
			u := mustRegister(t, s, email)
			session, err := s.Login(t.Context(), Credentials{Email: email, Password: secret})
			if err != nil {
				t.Fatal(err)
			}
			next, err := c.revoke(u, session)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			s.strangersGuess(t, email)
			if _, got := s.on(t, session.Device, email, other); !strings.HasPrefix(got, "throttled ") {
				t.Errorf("%s: a device from before: %s, want throttled as anybody", c.name, got)
			}
			if next != "" {
				if _, got := s.on(t, next, email, other); got != "ok" {
					t.Errorf("%s: the device that it was done on: %s", c.name, got)
				}
			}
		}
	})
}

// The devices of a user are few: who never came back makes room first.
func TestDevicesAreBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now = now.Now })
		const ada = "ada@example.org"
		u := mustRegister(t, s, ada)
		phone, _ := s.on(t, "", ada, secret)
		now.add(2 * deviceSeen)
		if again, got := s.on(t, phone, ada, secret); got != "ok" || again != phone {
			t.Fatalf("back on the phone: %s", got)
		}
		var first, last DeviceToken
		for i := range maxDevices + 5 {
			now.add(time.Second)
			if last, _ = s.on(t, "", ada, secret); i == 0 {
				first = last
			}
		}
		var rows int
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM known_devices WHERE user_id = $1`, u.ID).Scan(&rows); err != nil || rows != maxDevices {
			t.Errorf("%d devices, %v, want %d", rows, err, maxDevices)
		}
		for name, c := range map[string]struct {
			device DeviceToken
			known  bool
		}{"the one in use": {phone, true}, "the latest": {last, true}, "the first that never came back": {first, false}} {
			again, got := s.on(t, c.device, ada, secret)
			if got != "ok" || (again == c.device) != c.known {
				t.Errorf("%s: %s, known %v, want %v", name, got, again == c.device, c.known)
			}
		}
		now.add(deviceMemory + deviceSeen)
		if err := s.dropUnusedDevices(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM known_devices`).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d devices after a long time, %v", rows, err)
		}
	})
}

// Whoever shows in another way to be the right one, or is let in by an administrator, is not kept out by what strangers failed
// at; in the process where that happens and in others.
func TestProofEndsTheThrottle(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, elsewhere := d.service(t, nil), d.service(t, nil)
		m := eventstore.Metadata{Actor: ActorUser(uuid.Must(uuid.NewV7()))}
		for i, c := range []struct {
			name   string
			prove  func(u *User, session uuid.UUID) error
			secret password.Password
		}{
			{"reset by mail", func(u *User, _ uuid.UUID) error { return s.reset(t, mustCode(t, s, u.ID, PurposeReset), other) }, other},
			{"verified", func(u *User, _ uuid.UUID) error { return s.verified(t, mustCode(t, s, u.ID, PurposeVerify)) }, secret},
			{"password changed in a session", func(u *User, session uuid.UUID) error {
				_, err := s.ChangePassword(t.Context(), PasswordChange{User: u.ID, Session: session, Proof: Proof{Session: session, Password: secret}, New: other})
				return err
			}, other},
			{"unlocked", func(u *User, _ uuid.UUID) error { _, err := s.UnlockUser(t.Context(), u.ID, m); return err }, secret},
			{"disabled and enabled", func(u *User, _ uuid.UUID) error {
				if _, err := s.DisableUser(t.Context(), u.ID, m); err != nil {
					return err
				}
				_, err := s.EnableUser(t.Context(), u.ID, m)
				return err
			}, secret},
			{"erased and registered again", func(u *User, _ uuid.UUID) error {
				mustErase(t, s, u.ID)
				mustRegister(t, s, u.Email)
				return nil
			}, secret},
		} {
			email := fmt.Sprintf("ada%d@example.org", i)
			u := mustRegister(t, s, email)
			session, err := s.Login(t.Context(), Credentials{Email: email, Password: secret})
			if err != nil {
				t.Fatal(err)
			}
			// A stranger who goes on guessing keeps what it failed at in the memory of a process.
			typed, err := ParseEmail(email)
			if err != nil {
				t.Fatal(err)
			}
			guess := elsewhere.throttle.begin(typed, "")
			elsewhere.strangersGuess(t, email)
			if err := c.prove(u, session.Session); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			for _, s := range []*Service{s, elsewhere} {
				if got := s.try(t, email, c.secret); got != "ok" {
					t.Errorf("%s: %s, want ok", c.name, got)
				}
			}
			guess.leave()
		}
	})
}

// An address that was guessed at while nobody had it begins afresh with who registers it; unless that would tell that it was free.
func TestRegistrationBeginsAfresh(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		s.strangersGuess(t, "ada@example.org")
		mustRegister(t, s, "ada@example.org")
		if got := s.try(t, "ada@example.org", secret); got != "ok" {
			t.Errorf("after the registration: %s", got)
		}
	})
}

// What fails in a session is counted for that session: strangers have no part in it, nor have other sessions.
func TestSessionsAreThrottledApart(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.RateLimits = true })
		u := mustRegister(t, s, "ada@example.org")
		stolen, own := mustLogin(t, s).Session, mustLogin(t, s).Session
		s.strangersGuess(t, "ada@example.org")
		prove := func(session uuid.UUID, secret password.Password) string {
			_, err := s.prove(t.Context(), u.ID, Proof{Session: session, Password: secret}, eventstore.Metadata{Address: "192.0.2.1"})
			return outcome(err)
		}
		for range accountFree {
			if got := prove(stolen, wrong); got != string(CodeInvalidCredentials) {
				t.Errorf("wrong password in a session: %s", got)
			}
		}
		if got := prove(stolen, secret); !strings.HasPrefix(got, "throttled ") {
			t.Errorf("after wrong passwords in the session: %s", got)
		}
		if got := prove(own, secret); got != "ok" {
			t.Errorf("in another session: %s", got)
		}
	})
}
