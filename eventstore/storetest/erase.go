package storetest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// erasure is the append that forgets a user.
func erasure(user uuid.UUID) eventstore.Append {
	return eventstore.Append{
		Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion,
		Events:   []eventstore.NewEvent{{Type: eventstore.TypeErased}},
		Metadata: eventstore.Metadata{Correlation: user, Actor: "user:" + user.String()},
	}
}

// session is the append that begins a session of a user, with the session's row.
func session(id, user uuid.UUID) eventstore.Append {
	const at = "2026-03-01T12:00:00.123456Z"
	row := stateRow("sessions", map[string]any{
		"session_id": id, "user_id": user, "counter": 0, "late": 0, "started_at": at, "rotated_at": at, "expires_at": at,
	})
	row.New = true
	return eventstore.Append{
		Stream: eventstore.SessionStream(id, user), Expected: eventstore.NoStream, Events: []eventstore.NewEvent{fact(1)},
		Metadata: eventstore.Metadata{Correlation: user, Address: "192.0.2.7", UserAgent: "Browser/1.0"},
		State:    []eventstore.StateChange{row},
	}
}

// An erasure takes all that is kept of one user, in one append, and leaves the positions and everybody else.
func testErase(t *testing.T, b Backend) {
	d := deploy(t, b)
	log, other := d.process(t), d.process(t)
	ada, bob := newID(), newID()
	for user, email := range map[uuid.UUID]string{ada: "ada@example.org", bob: "bob@example.org"} {
		a := registration(user, email)
		a.Reserve = append(a.Reserve, eventstore.Reservation{Scope: "wanted", Value: email}, eventstore.Reservation{Scope: "kept", Value: email})
		mustAppend(t, log, a)
	}
	sessions := map[uuid.UUID]eventstore.Append{ada: session(newID(), ada), bob: session(newID(), bob)}
	for _, user := range []uuid.UUID{ada, bob} {
		mustAppend(t, log, sessions[user])
	}
	readAll(t, other.Log) // it has the keys in memory

	erase := erasure(ada)
	erase.Reserve = []eventstore.Reservation{{Scope: "kept", Value: "ada@example.org"}} // which outlasts the user
	want := eventstore.Result{Position: 5, Version: 2}
	if got := mustAppend(t, log, erase); got != want {
		t.Errorf("erasure = %+v, want %+v", got, want)
	}
	for _, reader := range []process{log, other, d.process(t)} {
		type view struct {
			Type, Address       string
			Personal, Forgotten bool
		}
		var got []view
		for _, e := range readAll(t, reader.Log) {
			if e.Stream.Subject == ada {
				got = append(got, view{e.Type, e.Metadata.Address, e.Personal != nil, e.Forgotten})
			} else if e.Forgotten || e.Metadata.Address == "" {
				t.Errorf("the event at %d of another user has lost something: %+v", e.Position, e)
			}
		}
		want := []view{{Type: "user.registered", Forgotten: true}, {Type: "thing.happened", Forgotten: true}, {Type: eventstore.TypeErased}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events of the erased user: -want +got\n%s", diff)
		}
	}
	for table, column := range map[string]string{"credentials": "user_id", "sessions": "user_id", "user_keys": "user_id"} {
		wantRows(t, log.db, 0, "SELECT count(*) FROM "+table+" WHERE "+column+" = $1", ada)
		wantRows(t, log.db, 1, "SELECT count(*) FROM "+table+" WHERE "+column+" = $1", bob)
	}
	wantRows(t, log.db, 1, "SELECT count(*) FROM reservations WHERE stream = $1 AND scope = 'kept'", ada)
	wantRows(t, log.db, 1, "SELECT count(*) FROM reservations WHERE stream = $1", ada)
	wantRows(t, log.db, 3, "SELECT count(*) FROM reservations WHERE stream = $1", bob)
	wantRows(t, log.db, 1, "SELECT count(*) FROM streams WHERE stream = $1 AND state = 'erased'", ada)
	wantRows(t, log.db, 3, "SELECT count(*) FROM streams WHERE state = 'open'")

	// Nothing follows, in any stream of the user: with or without personal fields, known or new.
	end := facts(sessions[ada].Stream)
	again := erasure(ada)
	for name, a := range map[string]eventstore.Append{
		"user's stream": facts(eventstore.UserStream(ada)), "session": end, "new session": facts(eventstore.SessionStream(newID(), ada)), "erasure": again,
	} {
		for _, process := range []process{log, other} {
			_, err := process.Append(t.Context(), a)
			wantError(t, name, err, eventstore.ErrStreamClosed)
		}
	}
	for _, process := range []process{log, other} {
		if _, err := process.Append(t.Context(), session(newID(), ada)); !errors.Is(err, eventstore.ErrNoKey) && !errors.Is(err, eventstore.ErrStreamClosed) {
			t.Errorf("login: %v, want ErrNoKey or ErrStreamClosed", err)
		}
	}
	wantHead(t, log.db, 5)

	// Others go on, and the address is free.
	mustAppend(t, other, facts(sessions[bob].Stream))
	mustAppend(t, other, session(newID(), bob))
	mustAppend(t, other, registration(newID(), "ada@example.org"))
	taken := facts(eventstore.UserStream(bob))
	taken.Reserve = erase.Reserve
	_, err := log.Append(t.Context(), taken)
	wantError(t, "what was kept", err, eventstore.ErrReserved)
}

// In one batch too nothing follows an erasure, and what came before it goes with it.
func testEraseInABatch(t *testing.T, b Backend) {
	d := deploy(t, b)
	log := d.process(t)
	ada, bob := newID(), newID()
	mustAppend(t, log, registration(ada, "ada@example.org"))
	mustAppend(t, log, registration(bob, "bob@example.org"))
	prepared := func(a eventstore.Append) *eventstore.Prepared {
		p := &eventstore.Prepared{Append: a, Meta: []byte("{}"), Sealed: make([][]byte, len(a.Events)), Erase: a.Events[0].Type == eventstore.TypeErased}
		for i := range p.Events {
			p.Events[i].ID, p.Events[i].SchemaVersion, p.Events[i].Data = newID(), 1, json.RawMessage("{}")
		}
		return p
	}
	before, after, other := session(newID(), ada), session(newID(), ada), session(newID(), bob)
	outcomes, err := log.db.Commit(t.Context(), []*eventstore.Prepared{
		prepared(before), prepared(erasure(ada)), prepared(after), prepared(other), prepared(facts(eventstore.SessionStream(newID(), ada))),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []eventstore.Outcome{
		{Result: eventstore.Result{Position: 3, Version: 1}}, {Result: eventstore.Result{Position: 4, Version: 2}}, {Err: eventstore.ErrStreamClosed},
		{Result: eventstore.Result{Position: 5, Version: 1}}, {Err: eventstore.ErrStreamClosed},
	}
	for i, o := range outcomes {
		if o.Result != want[i].Result || !errors.Is(o.Err, want[i].Err) {
			t.Errorf("append %d: %+v, want %+v", i+1, o, want[i])
		}
	}
	wantHead(t, log.db, 5)
	wantRows(t, log.db, 0, "SELECT count(*) FROM sessions WHERE user_id = $1", ada)
	wantRows(t, log.db, 1, "SELECT count(*) FROM sessions WHERE user_id = $1", bob)
}

// Whatever is appended about users while they are erased, by several processes: nothing of them is left, nothing comes
// after, and nothing but the two errors says so.
func testEraseAtOnce(t *testing.T, b Backend) {
	const users, callers = 10, 4
	d := deploy(t, b)
	logs := []process{d.process(t), d.process(t)}
	var ids []uuid.UUID
	for range users {
		ids = append(ids, newID())
		mustAppend(t, logs[0], registration(ids[len(ids)-1], ids[len(ids)-1].String()+"@example.org"))
	}
	var group errgroup.Group
	for i := range callers {
		log := logs[i%len(logs)]
		group.Go(func() error {
			for round := range dose(20) {
				for _, user := range ids {
					a := session(newID(), user)
					if round%2 == 0 {
						a = facts(eventstore.UserStream(user))
						a.Metadata.Address = "192.0.2.7"
						a.State = []eventstore.StateChange{credential(user, "another")}
					}
					if _, err := log.Append(t.Context(), a); err != nil && !errors.Is(err, eventstore.ErrStreamClosed) && !errors.Is(err, eventstore.ErrNoKey) {
						return err
					}
				}
			}
			return nil
		})
	}
	for i, user := range ids {
		for range 2 { // only one can
			group.Go(func() error {
				if _, err := logs[i%len(logs)].Append(t.Context(), erasure(user)); err != nil && !errors.Is(err, eventstore.ErrStreamClosed) {
					return err
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"credentials", "sessions", "user_keys", "reservations"} {
		wantRows(t, logs[0].db, 0, "SELECT count(*) FROM "+table)
	}
	erased := map[uuid.UUID]bool{}
	for _, e := range readAll(t, d.process(t).Log) {
		if erased[e.Stream.Subject] {
			t.Errorf("%s at %d comes after its user was erased", e.Type, e.Position)
		}
		erased[e.Stream.Subject] = erased[e.Stream.Subject] || e.Type == eventstore.TypeErased
		if e.Personal != nil || e.Metadata.Address != "" {
			t.Errorf("the event at %d opens: %+v", e.Position, e)
		}
	}
	if len(erased) != users {
		t.Errorf("%d users, want %d", len(erased), users)
	}
}

// What is no erasure is refused, and an erasure that is not written erases nothing.
func testEraseRefused(t *testing.T, b Backend) {
	log := setup(t, b)
	ada, bob := newID(), newID()
	mustAppend(t, log, registration(ada, "ada@example.org"))
	mustAppend(t, log, registration(bob, "bob@example.org"))
	with := func(change func(*eventstore.Append)) eventstore.Append {
		a := erasure(ada)
		change(&a)
		return a
	}
	for name, c := range map[string]struct {
		a    eventstore.Append
		want error
	}{
		"not in the user's own stream": {with(func(a *eventstore.Append) { a.Stream = eventstore.SessionStream(newID(), ada) }), eventstore.ErrInvalid},
		"without a user":               {with(func(a *eventstore.Append) { a.Stream = eventstore.SystemStream("x") }), eventstore.ErrInvalid},
		"not the last event":           {with(func(a *eventstore.Append) { a.Events = append(a.Events, fact(1)) }), eventstore.ErrInvalid},
		"personal fields":              {with(func(a *eventstore.Append) { a.Events[0].Personal = json.RawMessage(`{"name":"Ada"}`) }), eventstore.ErrInvalid},
		"an address":                   {with(func(a *eventstore.Append) { a.Metadata.Address = "192.0.2.7" }), eventstore.ErrInvalid},
		"wrong version":                {with(func(a *eventstore.Append) { a.Expected = 7 }), eventstore.ErrWrongExpectedVersion},
		"taken value": {with(func(a *eventstore.Append) {
			a.Reserve = []eventstore.Reservation{{Scope: "email", Value: "bob@example.org"}}
		}), eventstore.ErrReserved},
	} {
		_, err := log.Append(t.Context(), c.a)
		wantError(t, name, err, c.want)
	}
	wantHead(t, log.db, 2)
	for _, table := range []string{"credentials", "user_keys", "reservations"} {
		wantRows(t, log.db, 2, "SELECT count(*) FROM "+table)
	}
	for _, e := range readAll(t, log.Log) {
		if e.Forgotten {
			t.Errorf("the event at %d is forgotten", e.Position)
		}
	}
}
