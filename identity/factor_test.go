package identity

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// The test vectors of RFC 6238, appendix B, for SHA-1. They have eight digits; six are the last of them.
func TestTOTPVectors(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		key := base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))
		sealed, err := p.s.log.Sealer().SealFor(t.Context(), p.user, totpPlace(p.user), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		for seconds, code := range map[int64]string{
			59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
		} {
			p.at.set(time.Unix(seconds, 0))
			step, ok, err := p.s.matchTOTP(t.Context(), p.user, factor{secret: sealed}, code[2:])
			if err != nil || !ok || step != seconds/stepSeconds {
				t.Errorf("at %d: step %d, %v, %v, want %d", seconds, step, ok, err, seconds/stepSeconds)
			}
		}
	})
}

// A clock may be a step off, in either direction, and no more. Codes may be typed as they are shown.
func TestTOTPSteps(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		p.at.add(time.Hour)
		here := p.at.Now()
		at := func(steps int) FactorCode {
			t.Helper()
			p.at.set(here.Add(time.Duration(steps) * stepSeconds * time.Second))
			defer p.at.set(here)
			return p.code(t)
		}
		p.refused(t, "a code of two steps before", at(-2))
		p.refused(t, "a code of two steps after", at(2))
		p.mustLogin(t, at(-1))
		p.mustLogin(t, " "+at(0)[:3]+" "+at(0)[3:])
		p.mustLogin(t, at(1))
		p.refused(t, "the code of now, after that of the next step", at(0))
	})
}

func TestConfirmTOTP(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		wantCode(t, "nothing to confirm", p.confirm(t, "123456"), CodeTOTPNotEnabled)
		p.start(t)
		first := p.code(t)
		if err := p.login(t, ""); err != nil {
			t.Errorf("a secret that is not confirmed changes logins: %v", err)
		}
		p.start(t)
		wantCode(t, "a code of the secret before", p.confirm(t, first), CodeInvalidCode)
		wantCode(t, "no code", p.confirm(t, "x"), CodeInvalidCode)

		p.at.add(confirmWithin / 2)
		if err := p.s.dropUnconfirmed(t.Context()); err != nil || p.rows(t) != 1 {
			t.Errorf("%d rows, %v, while there is time", p.rows(t), err)
		}
		p.at.add(confirmWithin/2 + time.Second)
		wantCode(t, "late", p.confirm(t, p.code(t)), CodeTOTPNotEnabled)
		if err := p.s.dropUnconfirmed(t.Context()); err != nil || p.rows(t) != 0 {
			t.Errorf("%d rows, %v, want what was not confirmed removed", p.rows(t), err)
		}

		p.start(t)
		if err := p.confirm(t, p.code(t)[:3]+" "+p.code(t)[3:]); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "again", p.confirm(t, p.next(t)), CodeTOTPEnabled)
		_, err := p.s.StartTOTP(t.Context(), p.user, Proof{Password: secret}, eventstore.Metadata{})
		wantCode(t, "another secret", err, CodeTOTPEnabled)
		p.at.add(confirmWithin)
		if err := p.s.dropUnconfirmed(t.Context()); err != nil || p.rows(t) != 1 {
			t.Errorf("%d rows, %v, want what was confirmed kept", p.rows(t), err)
		}
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserEmailVerified, TypeSessionStarted, TypeUserTOTPEnabled}, types(d.events(t, p.s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// Whoever holds a session can't find a code of the secret by trying.
func TestConfirmTOTPIsThrottled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		p.start(t)
		for range accountFree {
			wantCode(t, "a guess", p.confirm(t, "x"), CodeInvalidCode)
		}
		wantCode(t, "a right code after too many guesses", p.confirm(t, p.code(t)), CodeThrottled)
		if err := p.login(t, ""); err != nil {
			t.Errorf("a login after too many guesses in a session: %v, want that they are counted apart", err)
		}
	})
}

// Both one-time passwords and recovery codes are good once, in whichever process and however many use them at once; one
// that a proof has used is no good for a login, nor the other way round.
func TestASVS_6_5_1_2_3_4_FactorCodesAreGoodOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		other := p.process(t)
		p.start(t)
		p.mustConfirm(t)
		p.refused(t, "the code of the confirmation", p.code(t))
		prove := func(s *Service, code FactorCode) error {
			_, err := s.prove(context.WithoutCancel(t.Context()), p.user, Proof{Password: secret, TOTP: code}, eventstore.Metadata{})
			return err
		}
		ways := []func(code FactorCode) error{
			func(code FactorCode) error { return p.login(t, code) },
			func(code FactorCode) error { return p.loginAt(t, other, code) },
			func(code FactorCode) error { return prove(p.s, code) },
			func(code FactorCode) error { return prove(other, code) },
		}
		recovery := p.mustRecoveryCodes(t)
		for _, code := range []FactorCode{p.next(t), recovery[0], recovery[1]} {
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 4 * len(ways) {
				wg.Go(func() {
					switch err := ways[i%len(ways)](code); {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, ErrInvalidCredentials) && !errors.Is(err, ErrThrottled):
						t.Errorf("%v, want %v", err, ErrInvalidCredentials)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("a code of %d characters was good %d times at once", len(code), won.Load())
			}
			d.forgive(t)
			for i, way := range ways {
				if err := way(code); !errors.Is(err, ErrInvalidCredentials) {
					t.Errorf("way %d: a code that was used: %v, want %v", i, err, ErrInvalidCredentials)
				}
				d.forgive(t)
			}
		}
	})
}

// Recovery codes have 120 random bits each, more than the 112 from which on a hash needs no salt; what is stored is an
// HMAC of each. New ones take the place of those before.
func TestASVS_6_5_2_RecoveryCodesAreRandomAndHashed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		before, codes := p.mustRecoveryCodes(t), p.mustRecoveryCodes(t)
		seen := map[FactorCode]bool{}
		for _, code := range append(before, codes...) {
			if text := plainCode(code); len(text)*5 < 112 || strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" || seen[code] {
				t.Errorf("%q, which has fewer than 112 bits or is there twice", string(code))
			}
			seen[code] = true
		}
		var stored []byte
		if err := d.db.QueryRow(t.Context(), `SELECT secret FROM factors WHERE kind = $1`, kindRecovery).Scan(&stored); err != nil {
			t.Fatal(err)
		}
		if len(stored) != recoveryCodes*32 {
			t.Errorf("%d bytes are stored, want a hash for each of %d codes", len(stored), recoveryCodes)
		}
		for _, code := range codes {
			raw, err := base32.StdEncoding.DecodeString(plainCode(code))
			if err != nil || bytes.Contains(stored, []byte(code)) || bytes.Contains(stored, []byte(plainCode(code))) || bytes.Contains(stored, raw) {
				t.Errorf("a recovery code is stored as it is, %v", err)
			}
		}
		p.refused(t, "a recovery code of before", before[0])
		for i, code := range codes {
			if i%2 == 1 { // as somebody types it
				code = FactorCode(strings.ToLower(strings.ReplaceAll(string(code), "-", " ")))
			}
			p.mustLogin(t, code)
		}
		p.refused(t, "the last recovery code again", codes[recoveryCodes-1])
	})
}

func TestNewRecoveryCodes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		_, _, err := p.s.NewRecoveryCodes(t.Context(), p.user, Proof{Password: secret}, eventstore.Metadata{})
		wantCode(t, "without a second factor", err, CodeTOTPNotEnabled)
		p.start(t)
		p.mustConfirm(t)
		p.refused(t, "a recovery code where there are none", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA")
		codes := p.mustRecoveryCodes(t)
		if len(codes) != recoveryCodes {
			t.Errorf("%d codes, want %d", len(codes), recoveryCodes)
		}
		events := d.events(t, p.s)
		if made, err := Decode[RecoveryCodesGenerated](events[len(events)-1]); err != nil || made.Count != recoveryCodes {
			t.Errorf("%+v, %v", made, err)
		}
		_, _, err = p.s.NewRecoveryCodes(t.Context(), p.user, Proof{Password: secret, TOTP: codes[0]}, eventstore.Metadata{})
		if err != nil {
			t.Errorf("proven with a recovery code: %v", err)
		}
	})
}

// What a session was proved by is in its event.
func TestMethodsOfALogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		codes := p.mustRecoveryCodes(t)
		for _, c := range []struct {
			code FactorCode
			want string
		}{{p.next(t), MethodTOTP}, {codes[0], MethodRecoveryCode}} {
			p.mustLogin(t, c.code)
			events := d.events(t, p.s)
			started, err := Decode[SessionStarted](events[len(events)-1])
			if diff := cmp.Diff([]string{MethodPassword, c.want}, started.Methods); err != nil || diff != "" {
				t.Errorf("methods, %v (-want +got):\n%s", err, diff)
			}
		}
	})
}

// A wrong code counts as a wrong password does: it is recorded, and slows down whoever goes on.
func TestWrongFactorCodeIsAFailure(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		before := len(d.events(t, p.s))
		right := p.next(t)
		wantCode(t, "no code", p.login(t, ""), CodeTOTPRequired)
		for range accountFree {
			wantCode(t, "a wrong code", p.login(t, "000000"), CodeInvalidCredentials)
		}
		wantCode(t, "a right code after too many", p.login(t, right), CodeThrottled)
		stop := devstack.Background(t, p.s.RecordFailures)
		stop()
		failed := d.events(t, p.s)[before:]
		if len(failed) != accountFree {
			t.Errorf("events %q, want %d failed logins: that a code was needed is none", types(failed), accountFree)
		}
		for _, e := range failed {
			if f, err := Decode[LoginFailed](e); err != nil || f.Reason != MethodTOTP {
				t.Errorf("%+v, %v", f, err)
			}
		}
		p.at.add(firstWait)
		p.mustLogin(t, right)
	})
}

// way is a command that takes a proof.
type way struct {
	name string
	try  func(Proof) error
}

// asks wants a way to ask for the second factor, to take nothing less than all, and then to go on.
func (p *phone) asks(t *testing.T, w way) {
	t.Helper()
	right := p.next(t)
	wantCode(t, w.name+" without a code", w.try(Proof{Password: secret}), CodeTOTPRequired)
	wantCode(t, w.name+" with a wrong code", w.try(Proof{Password: secret, TOTP: "000000"}), CodeInvalidCredentials)
	wantCode(t, w.name+" with a wrong password", w.try(Proof{Password: wrong, TOTP: right}), CodeInvalidCredentials)
	wantCode(t, w.name+" without a password", w.try(Proof{TOTP: right}), CodeInvalidCredentials)
	p.d.forgive(t)
	if err := w.try(Proof{Password: secret, TOTP: right}); err != nil {
		t.Errorf("%s with all: %v", w.name, err)
	}
}

// However somebody logs in, the second factor is asked for. A password that was forgotten and set anew is no way around it.
func TestASVS_6_3_4_6_4_3_EveryLoginAsksForTheFactor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := withTOTP(t, d)
		login := func(f Proof) error {
			_, err := p.s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: f.Password, TOTP: f.TOTP})
			return err
		}
		p.asks(t, way{"login", login})
		p.mustLogin(t, p.mustRecoveryCodes(t)[0])
		if err := p.s.reset(t, mustCode(t, p.s, p.user, PurposeReset), secret); err != nil {
			t.Fatal(err)
		}
		p.asks(t, way{"login after a reset", login})
	})
}

// A session is not enough to change what the account is proved by, or to erase it: the whole proof is asked for again.
func TestASVS_7_5_1_ChangesTakeTheWholeProof(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		m := eventstore.Metadata{}
		start := func(f Proof) error {
			_, err := p.s.StartTOTP(t.Context(), p.user, f, m)
			return err
		}
		wantCode(t, "a second factor with a wrong password", start(Proof{Password: wrong}), CodeInvalidCredentials)
		wantCode(t, "a second factor without a password", start(Proof{}), CodeInvalidCredentials)
		p.start(t)
		p.mustConfirm(t)
		for _, w := range []way{
			{"password change", func(f Proof) error {
				_, err := p.s.ChangePassword(t.Context(), PasswordChange{User: p.user, Proof: f, New: secret})
				return err
			}},
			{"email change", func(f Proof) error {
				_, err := p.s.RequestEmailChange(t.Context(), p.user, f, "ada@example.net", uuid.Nil, m)
				return err
			}},
			{"recovery codes", func(f Proof) error {
				_, _, err := p.s.NewRecoveryCodes(t.Context(), p.user, f, m)
				return err
			}},
			{"disabling", func(f Proof) error {
				_, err := p.s.DisableTOTP(t.Context(), p.user, f, m)
				return err
			}},
		} {
			p.asks(t, w)
		}
		p.start(t)
		p.next(t)
		p.mustConfirm(t)
		p.asks(t, way{"erasure", func(f Proof) error {
			_, err := p.s.EraseOwn(t.Context(), p.user, f, m)
			return err
		}})
	})
}

// A factor that another process enabled or disabled a moment ago counts at once, also where the user is in memory and
// nothing has told of it yet.
func TestFactorOfAnotherProcess(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		p.start(t)
		elsewhere := p.stale(t)
		p.mustConfirm(t)
		wantCode(t, "login where it is not known to be enabled", p.loginAt(t, elsewhere, ""), CodeTOTPRequired)
		if err := p.loginAt(t, elsewhere, p.next(t)); err != nil {
			t.Error(err)
		}
		elsewhere = p.stale(t)
		if _, err := p.s.DisableTOTP(t.Context(), p.user, Proof{Password: secret, TOTP: p.next(t)}, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if err := p.loginAt(t, elsewhere, ""); err != nil {
			t.Errorf("login where it is not known to be disabled: %v", err)
		}
		if _, err := elsewhere.prove(t.Context(), p.user, Proof{Password: secret}, eventstore.Metadata{}); err != nil {
			t.Errorf("proof where it is not known to be disabled: %v", err)
		}
	})
}

// Whoever takes a factor away leaves nothing of it.
func TestDisableTOTP(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		for reason, disable := range map[string]func(*Service) (eventstore.Result, error){
			ReasonChange: func(s *Service) (eventstore.Result, error) {
				return s.DisableTOTP(t.Context(), p.user, Proof{Password: secret, TOTP: p.next(t)}, eventstore.Metadata{})
			},
			ReasonAdmin: func(s *Service) (eventstore.Result, error) {
				return s.ResetTOTP(t.Context(), p.user, eventstore.Metadata{})
			},
		} {
			p.start(t)
			p.next(t)
			p.mustConfirm(t)
			codes := p.mustRecoveryCodes(t)
			if _, err := disable(p.s); err != nil {
				t.Fatal(err)
			}
			if n := p.rows(t); n != 0 {
				t.Errorf("%s: %d rows are left", reason, n)
			}
			events := d.events(t, p.s)
			if got, err := Decode[TOTPDisabled](events[len(events)-1]); err != nil || got.Reason != reason {
				t.Errorf("%+v, %v, want %s", got, err, reason)
			}
			p.mustLogin(t, "")
			before := len(d.events(t, p.s))
			if _, err := p.s.ResetTOTP(t.Context(), p.user, eventstore.Metadata{}); err != nil || len(d.events(t, p.s)) != before {
				t.Errorf("again: %v, %q", err, types(d.events(t, p.s)[before:]))
			}
			p.start(t)
			p.next(t)
			p.mustConfirm(t)
			p.refused(t, "a recovery code of the factor before", codes[0])
			if _, err := p.s.ResetTOTP(t.Context(), p.user, eventstore.Metadata{}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := p.s.ResetTOTP(t.Context(), uuid.Must(uuid.NewV7()), eventstore.Metadata{})
		wantCode(t, "of nobody", err, CodeNotFound)
	})
}
