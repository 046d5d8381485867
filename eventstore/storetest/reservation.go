package storetest

import (
	"errors"
	"testing"

	"usher.example/eventstore"
)

func testReservations(t *testing.T, b Backend) {
	log := setup(t, b)
	email := func(value string) []eventstore.Reservation {
		return []eventstore.Reservation{{Scope: "email", Value: value}}
	}
	appending := func(stream eventstore.Stream, reserve, release []eventstore.Reservation) error {
		a := facts(stream)
		a.Reserve, a.Release = reserve, release
		_, err := log.Append(t.Context(), a)
		return err
	}
	ada, bob := eventstore.UserStream(newID()), eventstore.UserStream(newID())
	for _, step := range []struct {
		name             string
		stream           eventstore.Stream
		reserve, release []eventstore.Reservation
		taken            bool
	}{
		{"reserve", ada, email("ada@example.org"), nil, false},
		{"reserve again by the same stream", ada, email("ada@example.org"), nil, false},
		{"taken by another", bob, email("ada@example.org"), nil, true},
		{"taken, with a free one before it", bob, append(email("free@example.org"), email("ada@example.org")...), nil, true},
		{"the free one was not held", ada, email("free@example.org"), nil, false},
		{"same value in another scope", bob, []eventstore.Reservation{{Scope: "name", Value: "ada@example.org"}}, nil, false},
		{"release of a value that another holds does nothing", bob, nil, email("ada@example.org"), false},
		{"still taken", bob, email("ada@example.org"), nil, true},
		{"exchange", ada, email("ada@example.com"), email("ada@example.org"), false},
		{"free now", bob, email("ada@example.org"), nil, false},
		{"release and reserve the same", bob, email("ada@example.org"), email("ada@example.org"), false},
		{"and it is held", ada, email("ada@example.org"), nil, true},
		{"release of a value that nobody holds", ada, nil, email("nobody@example.org"), false},
	} {
		err := appending(step.stream, step.reserve, step.release)
		if !step.taken {
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			continue
		}
		wantError(t, step.name, err, eventstore.ErrReserved)
		var reserved *eventstore.ReservationError
		if errors.As(err, &reserved) && reserved.Scope != "email" {
			t.Errorf("%s: scope %q, want email", step.name, reserved.Scope)
		}
	}
	wantRows(t, log.db, 4, "SELECT count(*) FROM reservations")
	wantRows(t, log.db, 2, "SELECT count(*) FROM reservations WHERE stream = $1", ada.ID)

	// A wrong version is told before a taken value.
	a := facts(bob)
	a.Expected, a.Reserve = 1, email("ada@example.com")
	_, err := log.Append(t.Context(), a)
	wantError(t, "wrong version and taken value", err, eventstore.ErrWrongExpectedVersion)
}
