package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// following is a service whose memory is trusted.
func following(t *testing.T, s *Service) (wake func(), stop func()) {
	t.Helper()
	ch := make(chan struct{}, 1)
	stop = devstack.Background(t, func(ctx context.Context) error { return s.Follow(ctx, ch) })
	devstack.Eventually(t, "Follow is up to date", func() bool { return s.trust.holds(time.Now()) })
	return func() {
		select {
		case ch <- struct{}{}:
		default:
		}
	}, stop
}

func TestFollow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		here, elsewhere := d.service(t, nil), d.service(t, nil)
		u := mustRegister(t, elsewhere, "ada@example.org")
		status := func() Status {
			t.Helper()
			got, err := here.User(t.Context(), u.ID)
			if err != nil {
				t.Fatal(err)
			}
			return got.Status
		}
		reads := func(do func()) int64 {
			before := d.streams.Load()
			do()
			return d.streams.Load() - before
		}
		thrice := func() { status(); status(); status() }

		if n := reads(thrice); n != 3 {
			t.Errorf("nobody follows the log: %d reads, want 3", n)
		}
		wake, stop := following(t, here)
		if n := reads(thrice); n > 1 {
			t.Errorf("in memory: %d reads, want 1", n)
		}
		d.appendTo(t, elsewhere, u.ID, Locked{})
		wake()
		devstack.Eventually(t, "the lock is seen", func() bool { return status() == StatusLocked })
		d.appendTo(t, elsewhere, u.ID, Unlocked{})
		devstack.Eventually(t, "a lost wake-up is made up for", func() bool { return status() == StatusActive })

		here.WakeCut(true)
		if n := reads(thrice); n != 3 {
			t.Errorf("cut off: %d reads, want 3", n)
		}
		d.appendTo(t, elsewhere, u.ID, Locked{})
		if status() != StatusLocked {
			t.Error("cut off: an old state was answered")
		}
		here.WakeCut(false)
		devstack.Eventually(t, "trusted again", func() bool { return here.trust.holds(time.Now()) })
		if status() != StatusLocked {
			t.Error("mended: an old state was answered")
		}
		stop()
		d.appendTo(t, elsewhere, u.ID, Unlocked{})
		if status() != StatusActive {
			t.Error("nobody follows any more: an old state was answered")
		}
	})
}

// What this process appends is seen by it at once.
func TestOwnAppendsAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.Passwords = pool(t, 4) })
		u := mustRegister(t, s, "ada@example.org")
		following(t, s)
		for version := 1; version < 30; version++ {
			if got, err := s.User(t.Context(), u.ID); err != nil || got.Version != version {
				t.Fatalf("version %d, %v, want %d", got.Version, err, version)
			}
			_, err := s.append(t.Context(), eventstore.Append{
				Stream: eventstore.UserStream(u.ID), Expected: eventstore.Expected(version),
				Events: []eventstore.NewEvent{NewEvent(PasswordChanged{Reason: ReasonChange})},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Readers, writers elsewhere and Follow at once: no reader ever sees a user go back, and in the end all see the newest.
func TestFollowRace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		here, elsewhere := d.service(t, func(c *Config) { c.CachedUsers = 2 }), d.service(t, nil)
		var users []uuid.UUID
		for i := range 4 {
			users = append(users, mustRegister(t, elsewhere, fmt.Sprintf("user%d@example.org", i)).ID)
		}
		wake, _ := following(t, here)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				seen := map[uuid.UUID]int{}
				for i := 0; ctx.Err() == nil; i++ {
					id := users[i%len(users)]
					u, err := here.User(context.WithoutCancel(ctx), id)
					if err != nil {
						t.Error(err)
						return
					}
					if u.Version < seen[id] {
						t.Errorf("version %d after %d", u.Version, seen[id])
					}
					seen[id] = u.Version
				}
			})
		}
		const changes = 50
		for range changes {
			for _, id := range users {
				d.appendTo(t, elsewhere, id, PasswordChanged{Reason: ReasonChange})
				wake()
			}
		}
		for _, id := range users {
			devstack.Eventually(t, "the newest state is seen", func() bool {
				u, err := here.User(t.Context(), id)
				return err == nil && u.Version == 1+changes
			})
		}
		cancel()
		wg.Wait()
	})
}

// A state that is being read while the user changes is not kept.
func TestCacheKeepsNothingStale(t *testing.T) {
	t.Parallel()
	id := uuid.Must(uuid.NewV7())
	begun, proceed := make(chan struct{}), make(chan struct{})
	version := 1
	c := newCache(10, func(context.Context, uuid.UUID) (*User, error) {
		u := &User{ID: id, Version: version}
		if version == 1 {
			close(begun)
			<-proceed
		}
		return u, nil
	})
	done := make(chan int)
	go func() {
		u, err := c.get(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		done <- u.Version
	}()
	<-begun
	version = 2
	c.outdate(id, 2)
	if u, err := c.get(t.Context(), id); err != nil || u.Version != 2 {
		t.Errorf("get after outdate = version %d, %v, want 2", u.Version, err)
	}
	close(proceed)
	if v := <-done; v != 1 {
		t.Errorf("the read that began before = version %d, want 1", v)
	}
	if u, err := c.get(t.Context(), id); err != nil || u.Version != 2 {
		t.Errorf("get = version %d, %v, want 2", u.Version, err)
	}
}

// Large states are fewer, whatever the cache is told of them.
func TestCacheIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	attributes := json.RawMessage(strings.Repeat("x", 1<<20))
	c := newCache(1000, func(_ context.Context, id uuid.UUID) (*User, error) {
		return &User{ID: id, Version: 1, Attributes: attributes}, nil
	})
	const users = 2 * cachedBytes >> 20
	for round := range 2 {
		for range users {
			id := uuid.Must(uuid.NewV7())
			u, err := c.get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			c.outdate(id, 2)
			c.keep(u, &User{ID: id, Version: 2, Attributes: attributes[:len(attributes)/2]})
			if round > 0 {
				c.forget(id)
			}
		}
		bytes := 0
		for _, k := range c.users.Values() {
			bytes += sizeOf(k.user)
		}
		if bytes != c.bytes || bytes > cachedBytes || c.users.Len() < users/4 {
			t.Errorf("%d states take %d bytes, and are said to take %d, of at most %d", c.users.Len(), bytes, c.bytes, cachedBytes)
		}
	}
	if c.forgetAll(); c.bytes != 0 {
		t.Errorf("no state is said to take %d bytes", c.bytes)
	}
}

// A reader whose caller goes away does not take down those who wait for the same read.
func TestCacheReaderGoesAway(t *testing.T) {
	t.Parallel()
	id := uuid.Must(uuid.NewV7())
	begun := make(chan struct{}, 2)
	c := newCache(10, func(ctx context.Context, _ uuid.UUID) (*User, error) {
		begun <- struct{}{}
		if ctx.Value(first{}) != nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &User{ID: id, Version: 1}, nil
	})
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), first{}, true))
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.get(ctx, id); !errors.Is(err, context.Canceled) {
			t.Errorf("get = %v, want Canceled", err)
		}
	})
	<-begun
	wg.Go(func() {
		if u, err := c.get(t.Context(), id); err != nil || u.Version != 1 {
			t.Errorf("get = %v, %v", u, err)
		}
	})
	cancel()
	wg.Wait()
}

type first struct{}

// What a command reads does not grow with the events before it, in whichever process they came about; and every process
// goes on from where the user stands.
func TestCommandsReadNoHistory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		here, elsewhere := d.service(t, nil), d.service(t, nil)
		u := mustRegister(t, here, "ada@example.org")
		const most = 4 // the event that each state ends with, that of the other process, and the one just written
		for n := range 60 {
			s := []*Service{here, elsewhere}[n%2]
			before := d.read.Load()
			name := fmt.Sprintf("Ada %d", n)
			if _, err := s.UpdateOwnProfile(t.Context(), u.ID, ProfileChange{Name: &name}, eventstore.Metadata{}); err != nil {
				t.Fatal(err)
			}
			got, err := s.User(t.Context(), u.ID)
			if err != nil || got.Name != name || got.Version != n+2 {
				t.Fatalf("after change %d: %+v, %v", n, got, err)
			}
			if read := d.read.Load() - before; read > most {
				t.Fatalf("change %d read %d events, want %d at most", n, read, most)
			}
		}
		mustErase(t, here, u.ID)
		for _, s := range []*Service{here, elsewhere} {
			if got, err := s.ReadUser(t.Context(), u.ID); !errors.Is(err, ErrNotFound) {
				t.Errorf("after the erasure: %+v, %v", got, err)
			}
		}
		if here.cache.latest(u.ID) != nil {
			t.Error("an erased user is still in memory")
		}
	})
}

// A state whose last event the log has not, as after a restore, counts for nothing.
func TestStateOfAnotherHistory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		for name, change := range map[string]func(*User){
			"another event":  func(u *User) { u.newest = uuid.New() },
			"one event more": func(u *User) { u.Version++; u.newest = uuid.New() },
		} {
			other := *u
			other.Name = "Eve"
			change(&other)
			s.cache.users.Add(u.ID, known{user: &other})
			for range 2 {
				got, err := s.ReadUser(t.Context(), u.ID)
				if err != nil || got.Name != u.Name || got.Version != u.Version {
					t.Errorf("%s: %+v, %v, want what the log says", name, got, err)
				}
			}
			if latest := s.cache.latest(u.ID); latest.Name != u.Name {
				t.Errorf("%s: it is kept", name)
			}
		}
	})
}

// The log gets another history under a process that follows it, and gets past where the process was. Nothing of the other one is
// left in memory, and who keeps more of it is told.
func TestFollowAnotherHistory(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		var mu sync.Mutex
		ended, renewed, done := map[uuid.UUID]bool{}, 0, 0
		s := d.service(t, func(c *Config) {
			c.AccessLifetime = time.Hour
			c.SessionEnded = func(session uuid.UUID) {
				mu.Lock()
				defer mu.Unlock()
				ended[session] = true
			}
			c.Forked = func() func() {
				mu.Lock()
				defer mu.Unlock()
				renewed++
				clear(ended)
				return func() {
					mu.Lock()
					defer mu.Unlock()
					done++
				}
			}
		})
		end := func() uuid.UUID {
			session := uuid.Must(uuid.NewV7())
			_, err := s.log.Append(t.Context(), eventstore.Append{
				Stream: eventstore.SessionStream(session, uuid.New()), Expected: eventstore.NoStream, Events: []eventstore.NewEvent{NewEvent(SessionEnded{Reason: EndedLogout})},
			})
			if err != nil {
				t.Fatal(err)
			}
			return session
		}
		has := func(session uuid.UUID) bool {
			mu.Lock()
			defer mu.Unlock()
			return ended[session]
		}
		u := mustRegister(t, s, "ada@example.org")
		before := end()
		following(t, s)
		d.appendTo(t, s, u.ID, Locked{})
		void := end()
		devstack.Eventually(t, "the lock and the end of the session are known", func() bool {
			got, err := s.User(t.Context(), u.ID)
			return err == nil && got.Status == StatusLocked && has(void) && has(before)
		})
		for _, statement := range []string{
			"DELETE FROM events WHERE position > 2",
			"UPDATE streams SET version = 1 WHERE stream = '" + u.ID.String() + "'",
		} {
			if _, err := d.db.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		d.appendTo(t, s, u.ID, RoleGranted{Role: RoleAdmin})
		after := end()
		end()
		devstack.Eventually(t, "what the log says now is known", func() bool {
			got, err := s.User(t.Context(), u.ID)
			return err == nil && got.Status == StatusActive && got.Version == 2 && has(after)
		})
		mu.Lock()
		defer mu.Unlock()
		if renewed != 1 || done != 1 || !ended[before] || ended[void] {
			t.Errorf("told %d times, %d done; ended sessions are %v, want %v and %v but not %v", renewed, done, ended, before, after, void)
		}
	})
}

// The tokens of a session that began in vain are refused once the log tells of it.
func TestVoidSessionsEnd(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		ended := make(chan uuid.UUID, 1)
		s := d.service(t, func(c *Config) { c.SessionEnded = func(session uuid.UUID) { ended <- session } })
		following(t, s)
		void := eventstore.VoidEvent{Position: 9, ID: uuid.New(), Type: TypeSessionStarted, Stream: uuid.New(), Subject: uuid.NewString()}
		_, err := s.log.Append(t.Context(), eventstore.Append{
			Stream: eventstore.LogStream(), Expected: eventstore.AnyVersion,
			Events: []eventstore.NewEvent{NewEvent(eventstore.Restored{Fork: 8, Last: 9, Voided: 1, Part: 1, Parts: 1, Void: []eventstore.VoidEvent{void}})},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-ended; got != void.Stream {
			t.Errorf("session %v ended, want %v", got, void.Stream)
		}
	})
}
