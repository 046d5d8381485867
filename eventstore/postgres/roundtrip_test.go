package postgres_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/internal/devstack"
)

// registration is an append with everything that one can have.
func registration() eventstore.Append {
	user := uuid.Must(uuid.NewV7())
	return eventstore.Append{
		Stream:    eventstore.UserStream(user),
		Events:    []eventstore.NewEvent{{Type: "user.registered", Personal: []byte(`{"email":"a@example.org"}`)}},
		Metadata:  eventstore.Metadata{Correlation: user, Address: "192.0.2.1"},
		Reserve:   []eventstore.Reservation{{Scope: "email", Value: user.String()}},
		CommandID: uuid.New(),
		CreateKey: true,
		State: []eventstore.StateChange{{Table: "credentials", New: true,
			Row: fmt.Appendf(nil, `{"user_id":"%s","hash":"h","changed_at":"2026-01-01T00:00:00Z"}`, user)}},
	}
}

func TestOneRoundTripAnAppend(t *testing.T) {
	t.Parallel()
	var count devstack.RoundTrips
	s := open(t, migrated(t), postgres.Options{Configure: count.Configure})
	log := newLog(s)
	if _, err := log.Append(t.Context(), registration()); err != nil { // connects, and prepares the statement
		t.Fatal(err)
	}
	const appends = 20
	before := count.Count()
	for range appends {
		if _, err := log.Append(t.Context(), registration()); err != nil {
			t.Fatal(err)
		}
	}
	if got := count.Count() - before; got != appends {
		t.Errorf("%d appends took %d round trips, want %d", appends, got, appends)
	}
}

// Appends that wait while a commit is on its way share the next one, in one transaction.
func TestAppendsShareACommit(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	var count devstack.RoundTrips
	s := open(t, dsn, postgres.Options{Configure: count.Configure})
	log := newLog(s)
	if _, err := log.Append(t.Context(), registration()); err != nil {
		t.Fatal(err)
	}
	// Another session holds the lock of the log: the first append waits for it in the server, the others here.
	other := open(t, dsn, postgres.Options{})
	const appends = 100
	var group sync.WaitGroup
	errs := make(chan error, appends)
	var before int64
	err := other.Transact(t.Context(), func(tx eventstore.DB) error {
		if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(7236001)"); err != nil {
			return err
		}
		before = count.Count()
		for range appends {
			group.Go(func() {
				_, err := log.Append(t.Context(), registration())
				errs <- err
			})
		}
		for log.Waiting() < appends-1 {
			if t.Context().Err() != nil {
				return t.Context().Err()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := count.Count() - before; got != 2 {
		t.Errorf("%d appends at once took %d round trips, want 2: the first alone, the others together", appends, got)
	}
}
