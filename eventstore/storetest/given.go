package storetest

import (
	"errors"
	"sync"
	"testing"

	"usher.example/eventstore"
)

// login is an append to a stream of a user's own sessions that was decided on the user as of a version.
func login(user eventstore.Stream, version int, more ...eventstore.StreamVersion) eventstore.Append {
	a := facts(eventstore.SessionStream(newID(), user.Subject))
	a.Expected = eventstore.NoStream
	a.Given = append([]eventstore.StreamVersion{{Stream: user.ID, Version: version}}, more...)
	return a
}

// An append is refused once a stream that it was decided on has moved on, and nothing of it is written.
func testGiven(t *testing.T, b Backend) {
	log := setup(t, b)
	user, other := eventstore.UserStream(newID()), eventstore.SystemStream("other")
	mustAppend(t, log, facts(user))
	mustAppend(t, log, login(user, 1))
	mustAppend(t, log, login(user, 1, eventstore.StreamVersion{Stream: other.ID}))
	mustAppend(t, log, facts(user))
	mustAppend(t, log, facts(other))

	known := eventstore.StreamVersion{Stream: other.ID, Version: 1}
	command := login(user, 2, known)
	command.CommandID = newID()
	first := mustAppend(t, log, command)
	for name, c := range map[string]struct {
		a     eventstore.Append
		stale int // which of those given
	}{
		"one event behind":        {login(user, 1), 0},
		"ahead":                   {login(user, 3), 0},
		"without events, it was":  {login(user, 0), 0},
		"one that does not exist": {login(eventstore.UserStream(newID()), 1), 0},
		"the first of two":        {login(user, 1, known), 0},
		"the second of two":       {login(user, 2, eventstore.StreamVersion{Stream: other.ID}), 1},
		"beside a value":          {reserving(login(user, 1), "free"), 0},
	} {
		c.a.State = []eventstore.StateChange{credential(c.a.Stream.ID, name)}
		_, err := log.Append(t.Context(), c.a)
		var stale *eventstore.StaleError
		if !errors.Is(err, eventstore.ErrStale) || !errors.As(err, &stale) || stale.Given != c.a.Given[c.stale] {
			t.Errorf("%s: %v, want a StaleError of %v", name, err, c.a.Given[c.stale])
		}
	}
	wantRows(t, log.db, 0, "SELECT count(*) FROM credentials")
	wantRows(t, log.db, 0, "SELECT count(*) FROM reservations")
	wantHead(t, log.db, 6)

	// A command that was done is answered as the first time, whatever has moved on since.
	mustAppend(t, log, facts(user))
	first.Repeated = true
	if got := mustAppend(t, log, command); got != first {
		t.Errorf("repeated append = %+v, want %+v", got, first)
	}
	// Of an erased user nothing can be decided on any more.
	change(t, log.db, "UPDATE streams SET state = 'erased' WHERE stream = $1", user.ID)
	_, err := log.Append(t.Context(), login(user, 3))
	wantError(t, "of an erased user", err, eventstore.ErrStreamClosed)
}

func reserving(a eventstore.Append, value string) eventstore.Append {
	a.Reserve = []eventstore.Reservation{{Scope: "email", Value: value}}
	return a
}

// Of the appends of one batch those count that stand before it, and only those that are written.
func testGivenInABatch(t *testing.T, b Backend) {
	d := deploy(t, b)
	db := d.open(t)
	log := d.processOn(t, db, eventstore.Options{})
	ada, bob := eventstore.UserStream(newID()), eventstore.UserStream(newID())
	mustAppend(t, log, facts(ada))
	mustAppend(t, log, facts(bob))
	prepared := func(a eventstore.Append) *eventstore.Prepared {
		p := &eventstore.Prepared{Append: a, Meta: []byte("{}"), Sealed: make([][]byte, len(a.Events))}
		for i := range p.Events {
			p.Events[i].ID, p.Events[i].SchemaVersion = newID(), 1
		}
		return p
	}
	at := func(stream eventstore.Stream, expected eventstore.Expected) eventstore.Append {
		a := facts(stream)
		a.Expected = expected
		return a
	}
	outcomes, err := db.Commit(t.Context(), []*eventstore.Prepared{
		prepared(login(ada, 1)), prepared(at(ada, 1)), prepared(login(ada, 1)), prepared(login(ada, 2)),
		prepared(at(bob, 7)), prepared(login(bob, 1)), prepared(login(bob, 2)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, eventstore.ErrStale, nil, eventstore.ErrWrongExpectedVersion, nil, eventstore.ErrStale} {
		if err := outcomes[i].Err; !errors.Is(err, want) {
			t.Errorf("append %d: %v, want %v", i+1, err, want)
		}
	}
	wantHead(t, db, 6)
}

// Whatever two processes append at once, nothing stands in the log behind an event that it was not decided on.
func testGivenAtOnce(t *testing.T, b Backend) {
	d := deploy(t, b)
	user := eventstore.UserStream(newID())
	mustAppend(t, d.process(t), facts(user))
	var group sync.WaitGroup
	for range 2 {
		log := d.process(t)
		for range 4 {
			group.Go(func() {
				for range dose(10) {
					version, err := log.db.StreamVersion(t.Context(), user.ID)
					if err != nil {
						t.Error(err)
						return
					}
					a := login(user, version)
					a.Metadata.Actor = string(rune('0' + version%10))
					if _, err := log.Append(t.Context(), a); err != nil && !errors.Is(err, eventstore.ErrStale) {
						t.Error(err)
						return
					}
					next := facts(user)
					next.Expected = eventstore.Expected(version)
					if _, err := log.Append(t.Context(), next); err != nil && !errors.Is(err, eventstore.ErrWrongExpectedVersion) {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	group.Wait()
	version, begun := 0, 0
	for _, e := range readAll(t, d.process(t).Log) {
		if e.Stream == user {
			version = e.Version
			continue
		}
		begun++
		if want := string(rune('0' + version%10)); e.Metadata.Actor != want {
			t.Fatalf("the event at %d was decided on version …%s of the user, who had …%s by then", e.Position, e.Metadata.Actor, want)
		}
	}
	if begun == 0 {
		t.Error("every append was refused")
	}
}
