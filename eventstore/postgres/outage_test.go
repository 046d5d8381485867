package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
)

func fact(stream uuid.UUID) eventstore.Append {
	return eventstore.Append{
		Stream: eventstore.UserStream(stream), Expected: eventstore.AnyVersion, CommandID: uuid.New(),
		Events: []eventstore.NewEvent{{Type: "thing.happened"}},
	}
}

// waitFor tries until there is no error.
func waitFor(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %v", err)
		}
	}
}

// While the server is down everything says so, and when it is back everything works, with nothing to be done for it.
// A writer who goes on all the while loses nothing that was answered and finds nothing twice.
func TestOutage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := devstack.OwnPostgres(t, devstack.PostgresOptions{})
	dsn := server.DSN("postgres")
	if err := migrate(ctx, dsn); err != nil {
		t.Fatal(err)
	}
	s := open(t, dsn, postgres.Options{})
	log := newLog(s)
	stream := uuid.New()

	for _, outage := range []struct {
		name string
		stop func() error
	}{{"halted", server.Halt}, {"killed", server.Kill}} {
		before, err := s.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// A writer through all of it, who repeats an append until it is answered.
		const appends = 50
		halfway, answered := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := range appends {
				if i == appends/2 {
					close(halfway)
				}
				a := fact(stream)
				for {
					_, err := log.Append(ctx, a)
					if err == nil {
						break
					}
					if !errors.Is(err, eventstore.ErrUnavailable) && !errors.Is(err, eventstore.ErrOutcomeUnknown) {
						answered <- err
						return
					}
				}
			}
			answered <- nil
		}()
		<-halfway
		if err := outage.stop(); err != nil {
			t.Fatal(err)
		}
		for what, try := range map[string]func() error{
			"Append":   func() error { _, err := log.Append(ctx, fact(stream)); return err },
			"Head":     func() error { _, err := s.Head(ctx); return err },
			"ReadAll":  func() error { _, err := s.ReadAll(ctx, 0, 1); return err },
			"Exec":     func() error { _, err := s.Exec(ctx, "DELETE FROM leases"); return err },
			"QueryRow": func() error { return s.QueryRow(ctx, "SELECT 1").Scan(new(int)) },
			"Transact": func() error { return s.Transact(ctx, func(eventstore.DB) error { return nil }) },
			"Open": func() error {
				other, err := postgres.Open(ctx, dsn, postgres.Options{})
				if err == nil {
					other.Close()
				}
				return err
			},
		} {
			// The first may still have been under way.
			waitFor(t, func() error {
				if err := try(); !errors.Is(err, eventstore.ErrUnavailable) {
					return errors.Join(errors.New(outage.name+": "+what+" does not say that it is unavailable"), err)
				}
				return nil
			})
		}
		if err := server.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() error { _, err := s.Head(ctx); return err })
		after, err := s.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		extra := after - before - appends // the test's own last Append, if it got in before the stop
		if extra != 0 && extra != 1 {
			t.Errorf("%s: %d events for %d answered appends", outage.name, after-before, appends)
		}
		version, err := s.StreamVersion(ctx, stream)
		if int64(version) != after || err != nil {
			t.Errorf("%s: version %d, %v, want %d", outage.name, version, err, after)
		}
	}
}

// An append waits for others, but not for ever, and then it is known that nothing was written.
func TestLockHeld(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := migrated(t)
	s := open(t, dsn, postgres.Options{})
	log := newLog(s)
	if _, err := s.Exec(ctx, "ALTER FUNCTION append_events SET lock_timeout = '100ms'"); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(ctx, fact(uuid.New())); err != nil {
		t.Fatal(err)
	}
	err := open(t, dsn, postgres.Options{}).Transact(ctx, func(tx eventstore.DB) error {
		if _, err := tx.Exec(ctx, "LOCK TABLE streams"); err != nil {
			return err
		}
		_, err := log.Append(ctx, fact(uuid.New()))
		if !errors.Is(err, eventstore.ErrUnavailable) {
			t.Errorf("append: %v, want ErrUnavailable", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(ctx, fact(uuid.New())); err != nil {
		t.Error(err)
	}
	if head, err := s.Head(ctx); head != 2 || err != nil {
		t.Errorf("Head = %d, %v, want 2", head, err)
	}
}

// A transaction left open anywhere, writing or not, keeps neither appends nor their readers waiting.
func TestOpenTransactionsDoNotHinder(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := migrated(t)
	s := open(t, dsn, postgres.Options{})
	log := newLog(s)
	err := s.Transact(ctx, func(tx eventstore.DB) error {
		if _, err := tx.Exec(ctx, "INSERT INTO leases VALUES ('x', 'y', 1, now())"); err != nil {
			return err
		}
		for n := range 20 {
			r, err := log.Append(ctx, fact(uuid.New()))
			if err != nil {
				return err
			}
			events, err := s.ReadAll(ctx, int64(n), 10)
			if err != nil || len(events) != 1 || events[0].Position != r.Position {
				t.Errorf("read %v, %v after an append at %d", events, err, r.Position)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
