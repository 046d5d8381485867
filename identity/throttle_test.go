package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
)

const wrong password.Password = "another good password"

// outcome is what became of a login, in a word.
func outcome(err error) string {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return fmt.Sprintf("%s %s", e.Code, e.RetryAfter)
	}
	if err != nil {
		return string(CodeOf(err))
	}
	return "ok"
}

func (s *Service) try(t *testing.T, email string, secret password.Password) string {
	t.Helper()
	_, err := s.Login(t.Context(), Credentials{Email: email, Password: secret, Metadata: eventstore.Metadata{Address: "192.0.2.1"}})
	return outcome(err)
}

// Guessing is slowed down, for an address that nobody has exactly like for one that somebody has, in all
// processes and over restarts.
func TestASVS_6_3_1_ThrottleOfAnAccount(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		const refused = string(CodeInvalidCredentials)
		for _, email := range []string{"ada@example.org", "nobody@example.org"} {
			now := &clock{now: time.Now().Truncate(time.Second)}
			process := func() *Service { return d.service(t, func(c *Config) { c.Now = now.Now }) }
			s := process()
			if email == "ada@example.org" {
				mustRegister(t, s, email)
			}
			var got []string
			guess := func(s *Service, secret password.Password) { got = append(got, s.try(t, email, secret)) }
			for range accountFree {
				guess(s, wrong)
			}
			want := []string{refused, refused, refused, refused}
			// Then there is a wait, for right and wrong passwords, under any spelling, and in a process that starts now.
			guess(s, wrong)
			guess(s, secret)
			guess(process(), secret)
			got = append(got, s.try(t, strings.ToUpper(email), secret))
			want = append(want, "throttled 10s", "throttled 10s", "throttled 10s", "throttled 10s")
			now.add(7 * time.Second)
			guess(s, wrong)
			want = append(want, "throttled 3s")
			// It doubles with each failure, and attempts that came too soon are none.
			for _, wait := range []time.Duration{20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
				now.add(5 * time.Minute)
				guess(s, wrong)
				guess(s, wrong)
				want = append(want, refused, "throttled "+wait.String())
			}
			// An hour after the last failure all is forgotten.
			now.add(time.Hour)
			for range accountFree {
				guess(process(), wrong)
			}
			guess(s, wrong)
			want = append(want, refused, refused, refused, refused, "throttled 10s")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", email, diff)
			}
		}
	})
}

func TestSuccessForgetsFailures(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		mustRegister(t, s, "ada@example.org")
		for range 3 {
			for range accountFree - 1 {
				if got := s.try(t, "ada@example.org", wrong); got != string(CodeInvalidCredentials) {
					t.Fatalf("wrong password: %s", got)
				}
			}
			if got := s.try(t, "ada@example.org", secret); got != "ok" {
				t.Fatalf("right password after %d failures: %s", accountFree-1, got)
			}
		}
		var rows int
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM throttle`).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d rows of the throttle are left, %v", rows, err)
		}
		// Failures that are counted while a right password is on its way are forgotten too.
		email, err := ParseEmail("ada@example.org")
		if err != nil {
			t.Fatal(err)
		}
		right, guess := s.throttle.begin(email, ""), s.throttle.begin(email, "")
		defer right.leave()
		for _, a := range []*attempt{right, guess} {
			if err := a.wait(t.Context(), failures{}, failures{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(right.clear()) != 0 {
			t.Error("a success without failures before it removes a row")
		}
		if _, err := guess.failed(t.Context(), uuid.Nil); err != nil {
			t.Fatal(err)
		}
		guess.leave()
		if len(right.clear()) != 1 {
			t.Error("a success leaves the failure that was counted meanwhile")
		}
	})
}

// Guesses at the same moment don't get round the count. A process lets the free ones through, each
// of two processes at most that many.
func TestASVS_6_3_1_2_3_4_ThrottleOfGuessesAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		for _, c := range []struct {
			email       string
			processes   int
			least, most int // guesses that are looked at
		}{
			{"ada@example.org", 1, accountFree, accountFree},
			{"nobody@example.org", 1, accountFree, accountFree},
			{"eve@example.org", 2, accountFree, 2 * accountFree},
		} {
			services := make([]*Service, c.processes)
			for i := range services {
				services[i] = d.service(t, nil)
			}
			if c.email != "nobody@example.org" {
				mustRegister(t, services[0], c.email)
			}
			const guesses = 100
			got := map[string]int{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range guesses {
				wg.Go(func() {
					_, err := services[i%c.processes].Login(context.WithoutCancel(t.Context()), Credentials{Email: c.email, Password: wrong})
					mu.Lock()
					defer mu.Unlock()
					got[string(CodeOf(err))]++
				})
			}
			wg.Wait()
			looked := got[string(CodeInvalidCredentials)]
			if looked < c.least || looked > c.most || looked+got[string(CodeThrottled)] != guesses {
				t.Errorf("%s, %d processes: %v, want %d to %d refused and the others throttled", c.email, c.processes, got, c.least, c.most)
			}
		}
	})
}

// Those who know the password don't get into each other's way.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		mustRegister(t, s, "ada@example.org")
		s.try(t, "ada@example.org", wrong)
		const logins = 100
		var wg sync.WaitGroup
		for range logins {
			wg.Go(func() {
				if got := s.try(t, "ada@example.org", secret); got != "ok" {
					t.Errorf("login: %s", got)
				}
			})
		}
		wg.Wait()
		if n := len(s.throttle.lines); n != 0 {
			t.Errorf("%d lines are left", n)
		}
	})
}

// An attempt that waits gives up with its caller, and past the bound none waits.
func TestLineIsBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		email, err := ParseEmail("ada@example.org")
		if err != nil {
			t.Fatal(err)
		}
		begin := func() *attempt {
			a := s.throttle.begin(email, "")
			t.Cleanup(a.leave)
			return a
		}
		for range accountFree {
			if err := begin().wait(t.Context(), failures{}, failures{}); err != nil {
				t.Fatal(err)
			}
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range maxWaiting {
			a := begin()
			wg.Go(func() {
				if err := a.wait(ctx, failures{}, failures{}); !errors.Is(err, gone) {
					t.Errorf("waited: %v, want that the caller is gone", err)
				}
			})
		}
		last := begin()
		devstack.Eventually(t, "all wait", func() bool {
			s.throttle.mu.Lock()
			defer s.throttle.mu.Unlock()
			return last.line.waiting == maxWaiting
		})
		if err := last.wait(t.Context(), failures{}, failures{}); outcome(err) != "throttled 1s" {
			t.Errorf("past the bound: %v, want throttled", err)
		}
		cancel(gone)
		wg.Wait()
	})
}

// The tables give no address away.
func TestThrottleKeepsNoAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.RateLimits = true })
		s.try(t, "ada@example.org", wrong)
		rows, err := d.db.Query(t.Context(), `SELECT key FROM throttle`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		n := 0
		for ; rows.Next(); n++ {
			var key []byte
			if err := rows.Scan(&key); err != nil {
				t.Fatal(err)
			}
			if len(key) != 32 || bytes.Contains(key, []byte("ada")) || bytes.Contains(key, []byte("192")) {
				t.Errorf("key %q is no HMAC", key)
			}
		}
		if err := rows.Err(); err != nil || n != 2 {
			t.Errorf("%d rows, %v, want that of the account and that of the network", n, err)
		}
	})
}

func TestForgottenFailuresAreRemoved(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now, c.RateLimits = now.Now, true })
		count := func() (rows int) {
			t.Helper()
			if err := s.throttle.dropForgotten(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM throttle`).Scan(&rows); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		s.try(t, "ada@example.org", wrong)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 2}, {networkWindow, 1}, {accountMemory, 0}} {
			now.add(step.after)
			if got := count(); got != step.want {
				t.Errorf("%d rows after another %s, want %d", got, step.after, step.want)
			}
		}
	})
}

// What can't be counted is not looked at, and a failure that can't be counted is no answer.
func TestASVS_16_5_3_ThrottleFailsSecurely(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		rename := func(from, to string) {
			t.Helper()
			if _, err := d.db.Exec(t.Context(), `ALTER TABLE `+from+` RENAME TO `+to); err != nil {
				t.Fatal(err)
			}
		}
		rename("throttle", "gone")
		if got := s.try(t, "ada@example.org", secret); got != string(CodeInternal) {
			t.Errorf("Login without the throttle: %s", got)
		}
		if _, err := s.prove(t.Context(), u.ID, Proof{Password: secret}, eventstore.Metadata{}); CodeOf(err) != CodeInternal {
			t.Errorf("prove without the throttle: %v", err)
		}
		rename("gone", "throttle")
		email, err := ParseEmail("ada@example.org")
		if err != nil {
			t.Fatal(err)
		}
		a := s.throttle.begin(email, "")
		defer a.leave()
		if err := a.wait(t.Context(), failures{}, failures{}); err != nil {
			t.Fatal(err)
		}
		rename("throttle", "gone")
		if err := s.failed(t.Context(), a, u.ID, MethodPassword, eventstore.Metadata{}, wrongCredentials()); CodeOf(err) != CodeInternal {
			t.Errorf("a failure that is not counted: %v", err)
		}
		if n := len(s.failures); n != 0 {
			t.Errorf("%d failures are recorded", n)
		}
	})
}

// There is no way to try passwords past the throttle.
func TestASVS_6_3_4_EveryWayToTryPasswordsIsThrottled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		registration := Registration{Email: "ada@example.org", Password: secret, Name: "Ada", CommandID: CommandID("register", "k")}
		r, err := s.Register(t.Context(), registration)
		if err != nil {
			t.Fatal(err)
		}
		ways := map[string]func(password.Password) error{
			"login": func(p password.Password) error {
				_, err := s.Login(t.Context(), Credentials{Email: "ada@example.org", Password: p})
				return err
			},
			"proof": func(p password.Password) error {
				_, err := s.prove(t.Context(), r.User.ID, Proof{Password: p}, eventstore.Metadata{})
				return err
			},
			"registration again": func(p password.Password) error {
				again := registration
				again.Password = p
				_, err := s.Register(t.Context(), again)
				return err
			},
		}
		// What is shown in a session is counted apart from what strangers show.
		together := map[string][]string{"login": {"login", "registration again"}, "registration again": {"login", "registration again"}, "proof": {"proof"}}
		for name, way := range ways {
			d.forgive(t)
			for range accountFree {
				if err := way(wrong); CodeOf(err) != CodeInvalidCredentials && CodeOf(err) != CodeKeyReused {
					t.Errorf("%s, wrong password: %v", name, err)
				}
			}
			for other, way := range ways {
				if err := way(secret); errors.Is(err, ErrThrottled) != slices.Contains(together[name], other) {
					t.Errorf("%s after too many tries by %s: %v", other, name, err)
				}
			}
		}
		// Who proves who they are has a fresh start.
		d.forgive(t)
		if err := ways["proof"](wrong); !errors.Is(err, ErrInvalidCredentials) {
			t.Error(err)
		}
		if err := ways["proof"](secret); err != nil {
			t.Error(err)
		}
		var rows int
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM throttle`).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d rows of the throttle are left after a proof, %v", rows, err)
		}
	})
}
