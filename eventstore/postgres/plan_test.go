package postgres_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
)

// The plans of append_events are made once, while the tables are empty. None of them may scan a table: it would do so
// for as long as the process lives, however large the table has grown.
func TestAppendsScanNothing(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	s := open(t, dsn, postgres.Options{})
	log := newLog(s)
	scans := func() (n int64) {
		t.Helper()
		err := s.QueryRow(t.Context(), `
			SELECT sum(seq_scan) FROM pg_stat_user_tables
			 WHERE relname IN ('streams', 'reservations', 'commands', 'credentials', 'user_keys', 'sessions')`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := scans()
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for range 10 {
				a := registration()
				if _, err := log.Append(t.Context(), a); err != nil {
					t.Error(err)
					return
				}
				// The same user again: another address in the place of the first, and another hash.
				next := eventstore.Append{
					Stream: a.Stream, Expected: 1, CommandID: uuid.New(), Events: []eventstore.NewEvent{{Type: "user.email_changed"}},
					Reserve: []eventstore.Reservation{{Scope: "email", Value: a.Reserve[0].Value + strconv.Itoa(2)}},
					Release: a.Reserve,
					State:   []eventstore.StateChange{{Table: "credentials", Row: a.State[0].Row}},
				}
				if _, err := log.Append(t.Context(), next); err != nil {
					t.Error(err)
					return
				}
				begun := eventstore.Append{
					Stream: eventstore.SessionStream(uuid.New(), a.Stream.ID), Events: []eventstore.NewEvent{{Type: "session.started"}},
					Given: []eventstore.StreamVersion{{Stream: a.Stream.ID, Version: 2}, {Stream: eventstore.SystemStream("keys").ID}},
				}
				if _, err := log.Append(t.Context(), begun); err != nil {
					t.Error(err)
					return
				}
				gone := eventstore.Append{
					Stream: a.Stream, Expected: 2, Events: []eventstore.NewEvent{{Type: "user.locked"}},
					State: []eventstore.StateChange{{Table: "credentials", Delete: true, Row: a.State[0].Row}},
				}
				if _, err := log.Append(t.Context(), gone); err != nil {
					t.Error(err)
					return
				}
				erased := eventstore.Append{Stream: a.Stream, Expected: 3, Events: []eventstore.NewEvent{{Type: eventstore.TypeErased}}}
				if _, err := log.Append(t.Context(), erased); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	// A backend reports what it did when it is idle for a while, and at the latest when it ends.
	s.Close()
	s = open(t, dsn, postgres.Options{})
	if got := scans(); got != before {
		t.Errorf("appends scanned tables %d times, want none", got-before)
	}
}
