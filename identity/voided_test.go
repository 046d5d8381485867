package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"

	"usher.example/eventstore"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

// gate is a process whose hashes wait until it is opened. So what it has begun to prove comes for certain after whatever other
// processes do meanwhile.
type gate struct {
	*Service
	pool *password.Pool
}

func newGate(t *testing.T, d *database, change func(*Config)) *gate {
	t.Helper()
	p, err := password.NewPool(password.PoolConfig{Cost: password.MinCost, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &gate{d.service(t, func(c *Config) {
		if change != nil {
			change(c)
		}
		c.Passwords = p
	}), p}
}

// hold begins what needs a hash, and answers once that waits.
func (g *gate) hold(t *testing.T, do func() error) (outcome <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	devstack.Eventually(t, "a hash waits at the gate", func() bool { return g.pool.Queued() == 1 })
	return done
}

// open lets the hash pass.
func (g *gate) open(t *testing.T) { devstack.Background(t, g.pool.Run) }

const another password.Password = "another good passphrase"

// follower is something that follows a proof, of a user of its own.
type follower struct {
	name string
	totp bool // of a user with a second factor
	// do does it in a process, by a session of the user; factor is a one-time password that is good.
	do func(ctx context.Context, s *Service, user uuid.UUID, session uuid.UUID, p Proof) error
}

var followers = []follower{
	{"login", false, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		u, err := s.ReadUser(ctx, user)
		if err == nil {
			_, err = s.Login(ctx, Credentials{Email: u.Email, Password: p.Password, TOTP: p.TOTP})
		}
		return err
	}},
	{"change of the address", false, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		_, err := s.RequestEmailChange(ctx, user, p, user.String()+"@example.com", uuid.Nil, eventstore.Metadata{})
		return err
	}},
	{"change of the password", false, func(ctx context.Context, s *Service, user, session uuid.UUID, p Proof) error {
		_, err := s.ChangePassword(ctx, PasswordChange{User: user, Session: session, Proof: p, New: "the passphrase of a thief"})
		return err
	}},
	{"erasure", false, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		_, err := s.EraseOwn(ctx, user, p, eventstore.Metadata{})
		return err
	}},
	{"start of TOTP", false, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		_, err := s.StartTOTP(ctx, user, p, eventstore.Metadata{})
		return err
	}},
	{"end of TOTP", true, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		_, err := s.DisableTOTP(ctx, user, p, eventstore.Metadata{})
		return err
	}},
	{"recovery codes", true, func(ctx context.Context, s *Service, user, _ uuid.UUID, p Proof) error {
		_, _, err := s.NewRecoveryCodes(ctx, user, p, eventstore.Metadata{})
		return err
	}},
	{"end of a session", false, func(ctx context.Context, s *Service, user, session uuid.UUID, p Proof) error {
		var other uuid.UUID // the one that outlives the password
		err := s.db.QueryRow(ctx, `SELECT session_id FROM sessions WHERE user_id = $1 AND session_id <> $2`, user, session).Scan(&other)
		if err == nil {
			_, err = s.EndOwnSession(ctx, user, session, other, p, eventstore.Metadata{})
		}
		return err
	}},
	{"end of all sessions", false, func(ctx context.Context, s *Service, user, session uuid.UUID, p Proof) error {
		_, err := s.EndOwnSessions(ctx, user, session, p, eventstore.Metadata{})
		return err
	}},
}

// What was proven with a password that is the password no longer counts for nothing, whatever it was proven for and in
// whichever process; and the same password under another hash is the password still.
func TestASVS_15_4_2_VoidedProofs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now().Truncate(time.Second)}
		onClock := func(c *Config) { c.Now, c.RateLimits = at.Now, false }
		owner := d.service(t, onClock)
		ctx := context.WithoutCancel(t.Context())

		// What the owner of the account does while somebody proves to know the password.
		type event struct {
			name  string
			voids bool
			do    func(user, session uuid.UUID) error
		}
		reset := event{"a reset by mail", true, func(user, _ uuid.UUID) error {
			code, _, err := owner.NewCode(ctx, user, PurposeReset)
			if err == nil {
				_, err = owner.ResetPassword(ctx, code, another, uuid.Nil, eventstore.Metadata{})
			}
			return err
		}}
		change := event{"a change", true, func(user, session uuid.UUID) error {
			_, err := owner.ChangePassword(ctx, PasswordChange{User: user, Session: session, Proof: Proof{Password: secret}, New: another})
			return err
		}}
		rehash := event{"a rehash", false, func(user, _ uuid.UUID) error {
			present, err := owner.readCredential(ctx, user)
			if err != nil {
				return err
			}
			return owner.replaceHash(ctx, proven{user: user, version: 1 << 20}, present.hash, Credentials{Password: secret})
		}}
		lock := event{"a lock that was lifted", true, func(user, _ uuid.UUID) error {
			_, err := owner.LockUser(ctx, user, eventstore.Metadata{})
			if err == nil {
				_, err = owner.UnlockUser(ctx, user, eventstore.Metadata{})
			}
			return err
		}}

		type run struct {
			name     string
			user     uuid.UUID
			sessions []uuid.UUID
			gate     *gate
			event    event
			outcome  <-chan error
			version  int // of the user, after the event
		}
		var runs []*run
		for _, f := range followers {
			for _, e := range []event{reset, change, rehash, lock} {
				if f.totp && e.name == change.name {
					continue // which would need a second code at the same moment
				}
				r := &run{name: f.name + " after " + e.name, gate: newGate(t, d, onClock), event: e}
				email := fmt.Sprintf("user%d@example.org", len(runs))
				u := mustRegister(t, owner, email)
				r.user = u.ID
				d.appendTo(t, owner, u.ID, verifyEmail(*u)[0])
				for range 2 {
					login, err := owner.Login(ctx, Credentials{Email: email, Password: secret})
					if err != nil {
						t.Fatal(err)
					}
					r.sessions = append(r.sessions, login.Session)
				}
				proof := Proof{Password: secret}
				if f.totp {
					proof.TOTP = enableTOTP(t, owner, at, u.ID)
				}
				r.outcome = r.gate.hold(t, func() error { return f.do(ctx, r.gate.Service, r.user, r.sessions[1], proof) })
				runs = append(runs, r)
			}
		}
		for _, r := range runs {
			if err := r.event.do(r.user, r.sessions[0]); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			u, err := owner.ReadUser(ctx, r.user)
			if err != nil {
				t.Fatal(err)
			}
			r.version = u.Version
		}
		count := func(query string, user uuid.UUID) (n int) {
			t.Helper()
			if err := d.db.QueryRow(ctx, query, user).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		for _, r := range runs {
			sessions := count(`SELECT count(*) FROM sessions WHERE user_id = $1`, r.user)
			factors := count(`SELECT count(*) FROM factors WHERE user_id = $1`, r.user)
			r.gate.open(t)
			err := <-r.outcome
			if !r.event.voids {
				if err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
				continue
			}
			if !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("%s: %v, want %v", r.name, err, ErrInvalidCredentials)
			}
			if u, err := owner.ReadUser(ctx, r.user); err != nil || u.Version != r.version {
				t.Errorf("%s: the user changed all the same, or is gone: %v", r.name, err)
			}
			if n := count(`SELECT count(*) FROM sessions WHERE user_id = $1`, r.user); n != sessions {
				t.Errorf("%s: %d sessions, want the %d of before", r.name, n, sessions)
			}
			if n := count(`SELECT count(*) FROM factors WHERE user_id = $1`, r.user); n != factors {
				t.Errorf("%s: %d factors, want the %d of before", r.name, n, factors)
			}
			if n := count(`SELECT count(*) FROM erasures WHERE subject = $1`, r.user); n != 0 {
				t.Errorf("%s: the erasure is still to be carried through", r.name)
			}
		}
	})
}

// enableTOTP turns a second factor on, and answers with a one-time password that is good.
func enableTOTP(t *testing.T, s *Service, at *clock, user uuid.UUID) FactorCode {
	t.Helper()
	key, err := s.StartTOTP(t.Context(), user, Proof{Password: secret}, eventstore.Metadata{})
	if err != nil {
		t.Fatal(err)
	}
	code := func(moment time.Time) FactorCode {
		code, err := totp.GenerateCode(string(key.Secret), moment)
		if err != nil {
			t.Fatal(err)
		}
		return FactorCode(code)
	}
	if _, err := s.ConfirmTOTP(t.Context(), user, code(at.Now().Add(-stepSeconds*time.Second)), eventstore.Metadata{}); err != nil {
		t.Fatal(err)
	}
	return code(at.Now())
}

// A secret that was asked for with a password of before can't be confirmed, whatever the moment at which it was stored.
func TestVoidedSecretIsNotConfirmed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		p := newPhone(t, d)
		p.start(t)
		d.appendTo(t, p.s, p.user, PasswordChanged{Reason: ReasonChange})
		wantCode(t, "a secret of before", p.confirm(t, p.code(t)), CodeTOTPNotEnabled)
		p.start(t)
		p.mustConfirm(t)
	})
}

// An erasure that was cut short is carried through only while what its user had shown is still good.
func TestVoidedErasureIsStruckOut(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		asked := func(version int) {
			t.Helper()
			w := erasureWish{user: u.ID, metadata: eventstore.Metadata{Actor: ActorUser(u.ID)}, proof: &proven{user: u.ID, version: version}}
			if err := s.noteErasure(t.Context(), w, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		asked(1)
		d.appendTo(t, s, u.ID, PasswordChanged{Reason: ReasonChange})
		if n, err := s.FinishErasures(t.Context()); n != 0 || err != nil || d.pending(t) != 0 {
			t.Errorf("FinishErasures() = %d, %v, %d pending, want it struck out", n, err, d.pending(t))
		}
		if _, err := s.ReadUser(t.Context(), u.ID); err != nil {
			t.Fatalf("the user is gone: %v", err)
		}
		asked(1)
		asked(2) // again, with the new one
		if n, err := s.FinishErasures(t.Context()); n != 1 || err != nil {
			t.Errorf("FinishErasures() = %d, %v, want 1", n, err)
		}
		if _, err := s.ReadUser(t.Context(), u.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadUser() = %v, want %v", err, ErrNotFound)
		}
	})
}

// A session that begins knows what the log says of its user at that moment, although its process was told of nothing.
func TestLoginReadsWhatTheLogSays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, g := d.service(t, nil), newGate(t, d, nil)
		u := mustRegister(t, s, "ada@example.org")
		d.appendTo(t, s, u.ID, RoleGranted{Role: "editor"})
		g.trust.caughtUp.Store(time.Now().Add(time.Hour).UnixNano()) // from memory, whatever happens
		if _, err := g.User(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		var r LoginResult
		done := g.hold(t, func() (err error) {
			r, err = g.Login(context.WithoutCancel(t.Context()), Credentials{Email: "ada@example.org", Password: secret})
			return err
		})
		d.appendTo(t, s, u.ID, RoleRevoked{Role: "editor"})
		g.open(t)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r.User.HasRole("editor") {
			t.Error("the login has a role that was taken away before the session began")
		}
		if _, err := g.User(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		for _, p := range []Payload{RoleGranted{Role: "editor"}, RoleRevoked{Role: "editor"}} {
			d.appendTo(t, s, u.ID, p)
			next, err := g.Refresh(t.Context(), r.Refresh, eventstore.Metadata{})
			if err != nil {
				t.Fatal(err)
			}
			if _, granted := p.(RoleGranted); next.User.HasRole("editor") != granted {
				t.Errorf("after %T the refresh has %v", p, next.User.Roles)
			}
			again, err := g.Refresh(t.Context(), r.Refresh, eventstore.Metadata{}) // the reply was lost
			if err != nil || again.User.Version != next.User.Version {
				t.Errorf("the second reply = %v, %v, want the same user", again.User, err)
			}
			r = next
		}
	})
}

// Whoever registers an address first keeps nobody out who reads mail there: a second factor is refused until the address is
// verified, and one that is there all the same is gone with the first reset, and so is all else that proved the user.
func TestSquattedAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		policy, err := password.NewPolicy(password.PolicyConfig{History: 4})
		if err != nil {
			t.Fatal(err)
		}
		s := d.service(t, func(c *Config) { c.Policy = policy })
		u := mustRegister(t, s, "ada@example.org")
		_, err = s.StartTOTP(t.Context(), u.ID, Proof{Password: secret}, eventstore.Metadata{})
		wantCode(t, "a second factor", err, CodeEmailNotVerified)
		wantCode(t, "the confirmation of one", func() error {
			_, err := s.ConfirmTOTP(t.Context(), u.ID, "123456", eventstore.Metadata{})
			return err
		}(), CodeEmailNotVerified)

		d.appendTo(t, s, u.ID, TOTPEnabled{}) // by a version of usher that asked for nothing
		now := time.Now()
		row := storeFactor(u.ID, kindTOTP, factor{secret: []byte("a stranger's"), created: now, confirmed: &now})
		if _, err := s.change(t.Context(), u.ID, eventstore.Metadata{}, func(User) (change, error) {
			return change{events: []Payload{RecoveryCodesGenerated{Count: 1}}, state: []eventstore.StateChange{row}}, nil
		}); err != nil {
			t.Fatal(err)
		}
		code := mustCode(t, s, u.ID, PurposeReset)
		// The owner may well take the password that the stranger had taken.
		if _, err := s.ResetPassword(t.Context(), code, secret, uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); err != nil {
			t.Errorf("the owner of the mailbox does not get in: %v", err)
		}
		events := d.events(t, s)
		if p, err := Decode[TOTPDisabled](events[4]); err != nil || p.Reason != ReasonReset {
			t.Errorf("%v, %+v, %v, want the factor taken away by the reset", types(events), p, err)
		}
		// From then on the address is the owner's, and a reset takes nothing away that does not prove the same.
		if present, err := s.readCredential(t.Context(), u.ID); err != nil || len(present.history) != 0 {
			t.Errorf("%d earlier passwords, %v, want none of the stranger's", len(present.history), err)
		}
		d.appendTo(t, s, u.ID, TOTPEnabled{})
		if _, err := s.ResetPassword(t.Context(), mustCode(t, s, u.ID, PurposeReset), another, uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if u, err := s.ReadUser(t.Context(), u.ID); err != nil || !u.TOTPEnabled {
			t.Errorf("%+v, %v: a later reset took the second factor away", u, err)
		}
	})
}

// A code that verifies an address lets nobody in, and takes nothing away.
func TestVerifyingTakesNothingAway(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, _, r := loggedIn(t, d, nil)
		if _, err := s.Verify(t.Context(), mustCode(t, s, r.User.ID, PurposeVerify), uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		mustRefresh(t, s, r.Refresh)
		mustLogin(t, s)
	})
}
