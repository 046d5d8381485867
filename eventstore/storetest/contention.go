package storetest

import (
	"errors"
	"sync"
	"testing"

	"usher.example/eventstore"
)

// racing runs every racer at once and counts those that won. The others have to fail with one error.
func racing(t *testing.T, racers int, lost error, run func(racer int) error) (won int) {
	t.Helper()
	errs := make([]error, racers)
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range racers {
		group.Go(func() {
			<-start
			errs[i] = run(i)
		})
	}
	close(start)
	group.Wait()
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, lost):
			t.Errorf("a racer failed with %v, want %v", err, lost)
		}
	}
	return won
}

// Of those who append to a stream at the same expected version, exactly one wins.
func testOneWinner(t *testing.T, b Backend) {
	d := deploy(t, b)
	logs := []process{d.process(t), d.process(t), d.process(t), d.process(t)}
	stream := eventstore.UserStream(newID())
	rounds := dose(8)
	for version := range rounds {
		won := racing(t, 32, eventstore.ErrWrongExpectedVersion, func(racer int) error {
			a := facts(stream)
			a.Expected = eventstore.Expected(version)
			_, err := logs[racer%len(logs)].Append(t.Context(), a)
			return err
		})
		if won != 1 {
			t.Fatalf("%d won at version %d, want 1", won, version)
		}
	}
	wantHead(t, logs[0].db, int64(rounds))
}

// Of those who register with the same address, exactly one gets it.
func testOneEmail(t *testing.T, b Backend) {
	d := deploy(t, b)
	logs := []process{d.process(t), d.process(t), d.process(t), d.process(t)}
	won := racing(t, 50, eventstore.ErrReserved, func(racer int) error {
		_, err := logs[racer%len(logs)].Append(t.Context(), registration(newID(), "one@example.org"))
		return err
	})
	if won != 1 {
		t.Errorf("%d won, want 1", won)
	}
	wantHead(t, logs[0].db, 1)
	for _, table := range []string{"events", "streams", "reservations", "user_keys", "credentials"} {
		wantRows(t, logs[0].db, 1, "SELECT count(*) FROM "+table)
	}
}
