package identity

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// withLedger gives a service a ledger of its own.
func withLedger(t *testing.T) func(*Config) {
	l := &Ledger{filepath.Join(t.TempDir(), "erasures.log")}
	return func(c *Config) { c.Ledger = l }
}

func (s *Service) inLedger(t *testing.T) []uuid.UUID {
	t.Helper()
	list, err := s.ledger.Read()
	if err != nil {
		t.Fatal(err)
	}
	return users(list)
}

func mustErase(t *testing.T, s *Service, id uuid.UUID) eventstore.Result {
	t.Helper()
	r, err := s.Erase(t.Context(), id, eventstore.Metadata{Actor: ActorUser(id), Address: "192.0.2.1", UserAgent: "a browser"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rowsOf counts the rows that a user has in the tables of identity.
func (d *database) rowsOf(t *testing.T, user uuid.UUID) (n int) {
	t.Helper()
	for _, table := range []string{"user_keys", "credentials", "sessions", "codes"} {
		var rows int
		if err := d.db.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" WHERE user_id = $1", user).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		n += rows
	}
	return n
}

func (d *database) pending(t *testing.T) (n int) {
	t.Helper()
	if err := d.db.QueryRow(t.Context(), "SELECT count(*) FROM erasures WHERE done_at IS NULL").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestErase(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, withLedger(t))
		elsewhere := d.service(t, nil)
		wake, _ := following(t, elsewhere)
		u := mustRegister(t, s, "Ada@example.org")
		other := mustRegister(t, s, "bob@example.org")
		first, second := mustLogin(t, s), mustLogin(t, s)
		if _, err := elsewhere.User(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.NewCode(t.Context(), u.ID, PurposeVerify); err != nil {
			t.Fatal(err)
		}
		if n := d.rowsOf(t, u.ID); n != 5 {
			t.Fatalf("%d rows before, want 5", n)
		}
		before := len(d.events(t, s))

		result := mustErase(t, s, u.ID)
		events := d.events(t, s)[before:]
		if diff := cmp.Diff([]string{TypeSessionEnded, TypeSessionEnded, TypeUserErased}, types(events)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		for _, e := range events[:2] {
			if p, err := Decode[SessionEnded](e); err != nil || p.Reason != EndedErased {
				t.Errorf("%s: %+v, %v, want the reason %s", e.Type, p, err, EndedErased)
			}
		}
		if last := events[2]; last.Position != result.Position || last.Version != result.Version || last.Metadata.Actor != ActorUser(u.ID) || last.Metadata.Address != "" {
			t.Errorf("Erase() = %+v, the event is %+v", result, last)
		}
		for _, e := range d.events(t, s) {
			if e.Stream.Subject == u.ID && (e.Personal != nil || e.Metadata.Address != "" || e.Metadata.UserAgent != "") {
				t.Errorf("%s at %d has personal fields still", e.Type, e.Position)
			}
			if e.Stream.Subject == other.ID && e.Forgotten {
				t.Errorf("%s at %d of another user is forgotten", e.Type, e.Position)
			}
		}
		if n := d.rowsOf(t, u.ID); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if n := d.rowsOf(t, other.ID); n != 2 {
			t.Errorf("%d rows of another user, want 2", n)
		}
		if got := s.inLedger(t); !slices.Equal(got, []uuid.UUID{u.ID}) || d.pending(t) != 0 {
			t.Errorf("the ledger has %v, and %d erasures are not done", got, d.pending(t))
		}

		// Nobody finds the user any more, in any process, by whatever is left of the user elsewhere.
		wake()
		for name, s := range map[string]*Service{"here": s, "elsewhere": elsewhere} {
			devstack.Eventually(t, name+": the user is gone", func() bool {
				_, err := s.User(t.Context(), u.ID)
				return errors.Is(err, ErrNotFound)
			})
			if _, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret}); !errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("%s: Login() = %v, want %v", name, err, ErrInvalidCredentials)
			}
			for _, session := range []LoginResult{first, second} {
				wantRefused(t, s, name, session.Refresh)
				if _, err := s.SessionUser(t.Context(), u.ID, session.Session); !errors.Is(err, ErrSessionEnded) {
					t.Errorf("%s: SessionUser() = %v, want %v", name, err, ErrSessionEnded)
				}
			}
			if _, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Name: new(string)}, eventstore.Metadata{Address: "192.0.2.1"}); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: UpdateOwnProfile() = %v, want %v", name, err, ErrNotFound)
			}
		}

		// A second erasure answers the same and does nothing; the address is free.
		if again := mustErase(t, elsewhere, u.ID); again != result {
			t.Errorf("again: %+v, want %+v", again, result)
		}
		if _, err := s.Erase(t.Context(), uuid.Must(uuid.NewV7()), eventstore.Metadata{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("of nobody: %v, want %v", err, ErrNotFound)
		}
		if _, err := s.Erase(t.Context(), first.Session, eventstore.Metadata{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("of a session: %v, want %v", err, ErrNotFound)
		}
		if n := len(d.events(t, s)); n != before+3 {
			t.Errorf("%d events, want %d", n, before+3)
		}
		if anew := mustRegister(t, s, "ada@example.org"); anew.ID == u.ID {
			t.Error("whoever registered is the one who was erased")
		}
	})
}

func TestEraseOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		if _, err := s.EraseOwn(t.Context(), u.ID, Proof{Password: "another password"}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("with a wrong password: %v, want %v", err, ErrInvalidCredentials)
		}
		if _, err := s.EraseOwn(t.Context(), u.ID, Proof{Password: secret}, eventstore.Metadata{}); err != nil {
			t.Errorf("with the password: %v", err)
		}
		if _, err := s.EraseOwn(t.Context(), u.ID, Proof{Password: secret}, eventstore.Metadata{}); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("again: %v, want %v", err, ErrInvalidCredentials)
		}
	})
}

// Whatever else happens to a user who is being erased, from several processes: each command is done or finds no user, and
// none fails for a reason of ours.
func TestEraseAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		ledger := withLedger(t)
		services := []*Service{d.service(t, ledger), d.service(t, ledger)}
		for _, s := range services {
			following(t, s)
		}
		for round := range 5 {
			d.forgive(t) // the logins that found no user
			u := mustRegister(t, services[0], "ada@example.org")
			session := mustLogin(t, services[0])
			var wg sync.WaitGroup
			until := time.Now().Add(10 * time.Millisecond * time.Duration(1+round))
			repeat := func(what string, do func(s *Service, n int) error) {
				for i, s := range services {
					wg.Go(func() {
						for n := 0; time.Now().Before(until) || n < 3; n++ {
							err := do(s, i)
							if code := CodeOf(err); err != nil && code != CodeNotFound && code != CodeInvalidCredentials && code != CodeThrottled && code != CodeInvalidRefresh {
								t.Errorf("%s: %v", what, err)
								return
							}
						}
					})
				}
			}
			m := eventstore.Metadata{Address: "192.0.2.1", UserAgent: "a browser"}
			repeat("login", func(s *Service, _ int) error {
				_, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: secret, Metadata: m})
				return err
			})
			repeat("refresh", func(s *Service, _ int) error {
				_, err := s.Refresh(t.Context(), session.Refresh, m)
				return err
			})
			repeat("profile", func(s *Service, n int) error {
				name := "Ada " + string(rune('a'+n))
				_, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Name: &name}, m)
				return err
			})
			repeat("sessions", func(s *Service, _ int) error {
				_, err := s.Sessions(t.Context(), u.ID, uuid.Nil)
				return err
			})
			repeat("own user", func(s *Service, _ int) error {
				_, err := s.User(t.Context(), u.ID)
				return err
			})
			for _, s := range services {
				wg.Go(func() {
					if _, err := s.Erase(t.Context(), u.ID, m); err != nil {
						t.Errorf("erase: %v", err)
					}
				})
			}
			wg.Wait()
			if n := d.rowsOf(t, u.ID); n != 0 {
				t.Errorf("%d rows are left", n)
			}
			events := d.events(t, services[0])
			if last := events[len(events)-1]; last.Type != TypeUserErased || last.Stream.ID != u.ID {
				t.Errorf("the last event is %s of %s, want %s", last.Type, last.Stream, TypeUserErased)
			}
		}
		if n := d.pending(t); n != 0 {
			t.Errorf("%d erasures are not done", n)
		}
	})
}

// brokenAt fails every append of an erasure, as a process does that dies before it.
type brokenAt struct{ eventstore.Store }

var errCrash = errors.New("crash")

func (b brokenAt) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	for _, p := range batch {
		if p.Erase {
			return nil, errCrash
		}
	}
	return b.Store.Commit(ctx, batch)
}

// An erasure that is cut short, wherever, is finished by the next process; one that the ledger refuses does not begin.
func TestEraseCutShort(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		ledger := withLedger(t)
		s := d.service(t, ledger)
		ada, bob := mustRegister(t, s, "ada@example.org"), mustRegister(t, s, "bob@example.org")
		mustLogin(t, s)

		// Before the event.
		dying := *d
		dying.Store = brokenAt{d.Store}
		if _, err := dying.service(t, ledger).Erase(t.Context(), ada.ID, eventstore.Metadata{Actor: ActorOperator}); !errors.Is(err, errCrash) {
			t.Fatalf("Erase() = %v, want %v", err, errCrash)
		}
		if _, err := s.ReadUser(t.Context(), ada.ID); err != nil || d.pending(t) != 1 {
			t.Fatalf("after a crash before the event: %v, %d pending", err, d.pending(t))
		}
		if n, err := s.FinishErasures(t.Context()); n != 1 || err != nil {
			t.Errorf("FinishErasures() = %d, %v, want 1", n, err)
		}
		events := d.events(t, s)
		if last := events[len(events)-1]; last.Type != TypeUserErased || last.Metadata.Actor != ActorOperator {
			t.Errorf("the last event is %+v, want %s by who asked for it", last, TypeUserErased)
		}

		// Between the event and the ledger.
		path := s.ledger.Path
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Erase(t.Context(), bob.ID, eventstore.Metadata{}); CodeOf(err) != CodeUnavailable {
			t.Errorf("Erase() = %v where the ledger can't be written, want %s", err, CodeUnavailable)
		}
		if _, err := s.ReadUser(t.Context(), bob.ID); err != nil || d.pending(t) != 0 {
			t.Errorf("an erasure that was refused: %v, %d pending", err, d.pending(t))
		}
		if err := s.noteErasure(t.Context(), erasureWish{user: bob.ID, metadata: eventstore.Metadata{Actor: ActorOperator}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := s.FinishErasures(t.Context()); n != 0 || CodeOf(err) != CodeUnavailable || d.pending(t) != 1 {
			t.Errorf("FinishErasures() = %d, %v, %d pending", n, err, d.pending(t))
		}
		if _, err := s.ReadUser(t.Context(), bob.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("ReadUser() = %v, want %v", err, ErrNotFound)
		}
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
			t.Fatal(err)
		}
		mustErase(t, s, bob.ID)
		if got := s.inLedger(t); len(got) != 2 || !slices.Contains(got, bob.ID) || d.pending(t) != 0 {
			t.Errorf("the ledger has %v, %d pending, want both", got, d.pending(t))
		}
	})
}

// After a restore the ledger knows who is not to come back.
func TestApplyLedger(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, withLedger(t))
		ada, bob, eve := mustRegister(t, s, "ada@example.org"), mustRegister(t, s, "bob@example.org"), mustRegister(t, s, "eve@example.org")
		mustErase(t, s, eve.ID)
		unknown := uuid.Must(uuid.NewV7())
		if err := s.ledger.Record(t.Context(), Erasure{unknown, time.Now()}, Erasure{ada.ID, time.Now()}); err != nil {
			t.Fatal(err)
		}
		again, last, err := s.ApplyLedger(t.Context())
		if err != nil || !slices.Equal(again, []uuid.UUID{ada.ID}) || last != int64(len(d.events(t, s))) {
			t.Errorf("ApplyLedger() = %v, %d, %v, want %v", again, last, err, ada.ID)
		}
		if again, last, err := s.ApplyLedger(t.Context()); len(again) != 0 || last != 0 || err != nil {
			t.Errorf("ApplyLedger() = %v, %d, %v the second time, want nobody", again, last, err)
		}
		for u, want := range map[*User]error{ada: ErrNotFound, bob: nil, eve: ErrNotFound} {
			if _, err := s.ReadUser(t.Context(), u.ID); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", u.Email, err, want)
			}
		}
		if d.pending(t) != 0 {
			t.Errorf("%d erasures are not done", d.pending(t))
		}

		// A ledger that was added later, or lost, is completed.
		other := d.service(t, withLedger(t))
		for range 2 {
			if err := other.CompleteLedger(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := other.inLedger(t)
			if diff := cmp.Diff(users([]Erasure{{User: ada.ID}, {User: eve.ID}}), got); diff != "" {
				t.Errorf("the ledger (-want +got):\n%s", diff)
			}
		}
		if none := d.service(t, nil); none.CompleteLedger(t.Context()) != nil {
			t.Error("no ledger is an error")
		} else if again, last, err := none.ApplyLedger(t.Context()); len(again) != 0 || last != 0 || err != nil {
			t.Errorf("ApplyLedger() = %v, %d, %v without a ledger", again, last, err)
		}
	})
}

// That there was a first administrator outlasts the administrator: the settings make no second one.
func TestEraseFirstAdmin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		id, made, err := s.EnsureAdmin(t.Context(), "ada@example.org", secret)
		if err != nil || !made {
			t.Fatal(made, err)
		}
		if _, err := s.Erase(t.Context(), id, eventstore.Metadata{}); !errors.Is(err, ErrLastAdmin) || d.pending(t) != 0 {
			t.Errorf("the last administrator: %v, %d pending, want %v", err, d.pending(t), ErrLastAdmin)
		}
		if _, _, err := s.CreateUser(t.Context(), NewUser{Email: "bob@example.org", Roles: []string{RoleAdmin}}); err != nil {
			t.Fatal(err)
		}
		mustErase(t, s, id)
		if again, made, err := s.EnsureAdmin(t.Context(), "ada@example.org", secret); made || again != id || err != nil {
			t.Errorf("EnsureAdmin() = %v, %v, %v after the first was erased, want none made", again, made, err)
		}
		mustRegister(t, s, "ada@example.org")
	})
}

// A row that is written for a user beside the log, as the user is erased, has nothing that can be read.
func TestSealedAfterErasure(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		sealed, err := s.sealClient(t.Context(), u.ID, uuid.New(), eventstore.Metadata{Address: "192.0.2.1"})
		if err != nil {
			t.Fatal(err)
		}
		mustErase(t, s, u.ID)
		if _, err := s.sealClient(t.Context(), u.ID, uuid.New(), eventstore.Metadata{Address: "192.0.2.1"}); !errors.Is(err, eventstore.ErrNoKey) {
			t.Errorf("sealClient() = %v, want %v", err, eventstore.ErrNoKey)
		}
		raw, err := json.Marshal(sealed)
		if err != nil || len(raw) < 20 {
			t.Fatal(string(raw), err)
		}
		if _, err := s.log.Sealer().OpenFor(t.Context(), u.ID, "sessions/x", raw); !errors.Is(err, eventstore.ErrNoKey) {
			t.Errorf("OpenFor() = %v, want %v", err, eventstore.ErrNoKey)
		}
	})
}
