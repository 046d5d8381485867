package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"

	"usher.example/eventstore"
)

// phone is what makes the one-time passwords of a user, whose service has the same clock.
type phone struct {
	d    *database
	at   *clock
	s    *Service
	user uuid.UUID
	key  FactorCode
}

// newPhone is that of a user who has no second factor yet.
func newPhone(t *testing.T, d *database) *phone {
	t.Helper()
	at := &clock{now: time.Now().Truncate(time.Second)}
	s := d.service(t, func(c *Config) { c.Now = at.Now })
	u := mustRegister(t, s, "ada@example.org")
	d.appendTo(t, s, u.ID, verifyEmail(*u)[0])
	return &phone{d: d, at: at, s: s, user: u.ID}
}

// withTOTP is the phone of a user who has a second factor.
func withTOTP(t *testing.T, d *database) *phone {
	t.Helper()
	p := newPhone(t, d)
	p.start(t)
	p.mustConfirm(t)
	return p
}

func (p *phone) start(t *testing.T) {
	t.Helper()
	key, err := p.s.StartTOTP(t.Context(), p.user, Proof{Password: secret}, eventstore.Metadata{})
	if err != nil {
		t.Fatal(err)
	}
	p.key = key.Secret
}

func (p *phone) confirm(t *testing.T, code FactorCode) error {
	t.Helper()
	_, err := p.s.ConfirmTOTP(t.Context(), p.user, code, eventstore.Metadata{})
	return err
}

func (p *phone) mustConfirm(t *testing.T) {
	t.Helper()
	if err := p.confirm(t, p.code(t)); err != nil {
		t.Fatal(err)
	}
}

// code is the one-time password that the phone shows.
func (p *phone) code(t *testing.T) FactorCode {
	t.Helper()
	code, err := totp.GenerateCode(string(p.key), p.at.Now())
	if err != nil {
		t.Fatal(err)
	}
	return FactorCode(code)
}

// next waits until the phone shows another.
func (p *phone) next(t *testing.T) FactorCode {
	t.Helper()
	p.at.add(stepSeconds * time.Second)
	return p.code(t)
}

// loginAt logs in at a service of another process.
func (p *phone) loginAt(t *testing.T, s *Service, code FactorCode) error {
	_, err := s.Login(context.WithoutCancel(t.Context()), Credentials{Email: "ada@example.org", Password: secret, TOTP: code})
	return err
}

func (p *phone) login(t *testing.T, code FactorCode) error { return p.loginAt(t, p.s, code) }

func (p *phone) mustLogin(t *testing.T, code FactorCode) {
	t.Helper()
	if err := p.login(t, code); err != nil {
		t.Errorf("login: %v", err)
	}
}

// refused wants a login to fail as one with a wrong code does, and forgets the failure.
func (p *phone) refused(t *testing.T, what string, code FactorCode) {
	t.Helper()
	if err := p.login(t, code); !errors.Is(err, ErrInvalidCredentials) {
		t.Errorf("login with %s: %v, want %v", what, err, ErrInvalidCredentials)
	}
	p.d.forgive(t)
}

func (p *phone) mustRecoveryCodes(t *testing.T) []FactorCode {
	t.Helper()
	codes, _, err := p.s.NewRecoveryCodes(t.Context(), p.user, Proof{Password: secret, TOTP: p.next(t)}, eventstore.Metadata{})
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

// process is another process on the same database.
func (p *phone) process(t *testing.T) *Service {
	t.Helper()
	return p.d.service(t, func(c *Config) { c.Now = p.at.Now })
}

// stale is another process that has the user in memory, and is told of nothing that happens from now on.
func (p *phone) stale(t *testing.T) *Service {
	t.Helper()
	s := p.process(t)
	s.trust.caughtUp.Store(p.at.Now().Add(24 * time.Hour).UnixNano())
	if _, err := s.User(t.Context(), p.user); err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *phone) rows(t *testing.T) (n int) {
	t.Helper()
	if err := p.d.db.QueryRow(t.Context(), `SELECT count(*) FROM factors`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// wantCode wants an error's code.
func wantCode(t *testing.T, what string, err error, want Code) {
	t.Helper()
	if !errors.Is(err, &Error{Code: want}) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
