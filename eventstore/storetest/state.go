package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Rows of state tables are inserted, replaced whole and deleted with the append that carries them.
func testState(t *testing.T, b Backend) {
	log := setup(t, b)
	user, session := newID(), newID()
	at := func(second int) time.Time { return time.Date(2026, 3, 1, 12, 0, second, 123456000, time.UTC) }
	sessionRow := func(counter, rotated int) eventstore.StateChange {
		return stateRow("sessions", map[string]any{
			"session_id": session, "user_id": user, "counter": counter, "late": 0,
			"started_at": at(0), "rotated_at": at(rotated).In(time.FixedZone("east", 3600)), "expires_at": at(59),
		})
	}
	put := func(changes ...eventstore.StateChange) {
		t.Helper()
		a := facts(eventstore.UserStream(user))
		a.State = changes
		mustAppend(t, log, a)
	}
	deleted := func(c eventstore.StateChange) eventstore.StateChange {
		c.Delete = true
		return c
	}

	fresh := credential(user, "first")
	fresh.New = true
	put(fresh, sessionRow(1, 1), stateRow("user_keys", map[string]any{"user_id": user, "wrapped": `\x00ff10`}),
		stateRow("signing_keys", map[string]any{"kid": "k1", "algorithm": "ES256", "private": `\xbeef`, "created_at": at(0), "signs_from": at(0), "token_seconds": 1800}))
	type state struct {
		Hash             string
		Changed          time.Time
		Session          uuid.UUID
		Counter          int
		Started, Rotated time.Time
		Wrapped, Private []byte
	}
	read := func() (s state) {
		t.Helper()
		err := log.db.QueryRow(t.Context(), `
			SELECT c.hash, c.changed_at, s.session_id, s.counter, s.started_at, s.rotated_at, k.wrapped, g.private
			  FROM credentials c JOIN sessions s ON s.user_id = c.user_id JOIN user_keys k ON k.user_id = c.user_id
			  JOIN signing_keys g ON g.kid = 'k1' WHERE c.user_id = $1`, user).
			Scan(&s.Hash, &s.Changed, &s.Session, &s.Counter, &s.Started, &s.Rotated, &s.Wrapped, &s.Private)
		if err != nil {
			t.Fatal(err)
		}
		s.Changed, s.Started, s.Rotated = s.Changed.UTC(), s.Started.UTC(), s.Rotated.UTC()
		return s
	}
	want := state{"first", at(0), session, 1, at(0), at(1), []byte{0, 0xff, 0x10}, []byte{0xbe, 0xef}}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("put: -want +got\n%s", diff)
	}
	put(credential(user, "second"), sessionRow(2, 2))
	want.Hash, want.Counter, want.Rotated = "second", 2, at(2)
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("replace: -want +got\n%s", diff)
	}
	key := func(column string, id uuid.UUID) []byte {
		row, err := json.Marshal(map[string]any{column: id})
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	put(deleted(credential(user, "")), deleted(eventstore.StateChange{Table: "sessions", Row: key("session_id", session)}),
		deleted(eventstore.StateChange{Table: "user_keys", Row: key("user_id", user)}))
	put(deleted(eventstore.StateChange{Table: "credentials", Row: key("user_id", user)})) // no longer there
	for _, table := range []string{"credentials", "sessions", "user_keys"} {
		wantRows(t, log.db, 0, "SELECT count(*) FROM "+table)
	}
	wantRows(t, log.db, 1, "SELECT count(*) FROM signing_keys")
}

// Where an append is not written, nothing that came with it is.
func testStateOfFailedAppends(t *testing.T, b Backend) {
	d := deploy(t, b)
	log := d.process(t)
	first := newID()
	mustAppend(t, log, registration(first, "first@example.org"))
	again := func(change func(*eventstore.Append)) eventstore.Append {
		a := registration(newID(), "second@example.org")
		change(&a)
		return a
	}
	failing := map[string]eventstore.Append{
		"wrong version": again(func(a *eventstore.Append) {
			a.Expected, a.CreateKey, a.Metadata, a.Events = 3, false, eventstore.Metadata{}, []eventstore.NewEvent{fact(1)}
		}),
		"taken value": again(func(a *eventstore.Append) {
			a.Reserve = append(a.Reserve, eventstore.Reservation{Scope: "email", Value: "first@example.org"})
		}),
		"null in a row": again(func(a *eventstore.Append) {
			a.State = append(a.State, stateRow("sessions", map[string]any{"session_id": newID(), "user_id": first}))
		}),
		"new row that is there": again(func(a *eventstore.Append) {
			there := credential(first, "another")
			there.New = true
			a.State = append(a.State, there)
		}),
		"malformed row": again(func(a *eventstore.Append) {
			a.State = append(a.State, eventstore.StateChange{Table: "sessions", Row: []byte("{")})
		}),
		"malformed bytes": again(func(a *eventstore.Append) {
			a.State = append(a.State, stateRow("user_keys", map[string]any{"user_id": first, "wrapped": `\xzz`}))
		}),
		"malformed data": again(func(a *eventstore.Append) { a.Events[0].Data = json.RawMessage(`{"a":`) }),
		"malformed neighbour": again(func(a *eventstore.Append) {
			a.Events = append(a.Events, eventstore.NewEvent{Type: "x.y", Data: json.RawMessage(`]`)})
		}),
		"not a state table": again(func(a *eventstore.Append) {
			a.State = append(a.State, stateRow("events", map[string]any{"position": 7}))
		}),
		"no such table": again(func(a *eventstore.Append) { a.State = append(a.State, stateRow("nothing", map[string]any{"id": 7})) }),
	}
	for name, a := range failing {
		if _, err := log.Append(t.Context(), a); err == nil {
			t.Errorf("%s: appended", name)
		}
	}
	wantHead(t, log.db, 1)
	for _, table := range []string{"events", "streams", "reservations", "user_keys", "credentials"} {
		wantRows(t, log.db, 1, "SELECT count(*) FROM "+table)
	}
	wantRows(t, log.db, 0, "SELECT count(*) FROM sessions")
	wantRows(t, log.db, 0, "SELECT count(*) FROM commands")
	mustAppend(t, log, registration(newID(), "second@example.org"))
}

// A rule of a state table refuses an append, and that one alone: the last of the admins stays, however the appends that
// take them away fall into batches.
func testStateRules(t *testing.T, b Backend) {
	d := deploy(t, b)
	processes := []process{d.process(t), d.process(t)}
	admin := func(id uuid.UUID, removed bool) eventstore.Append {
		a := facts(eventstore.UserStream(id))
		row := stateRow("admins", map[string]any{"user_id": id})
		row.Delete = removed
		a.State = []eventstore.StateChange{row}
		return a
	}
	var ids []uuid.UUID
	for range 20 {
		ids = append(ids, newID())
		mustAppend(t, processes[0].Log, admin(ids[len(ids)-1], false))
	}
	head := int64(len(ids))
	mustAppend(t, processes[0].Log, admin(newID(), true)) // who is none takes nobody away
	var group sync.WaitGroup
	var refused atomic.Int32
	for i, id := range ids {
		group.Go(func() {
			_, err := processes[i%2].Append(context.WithoutCancel(t.Context()), admin(id, true))
			if errors.Is(err, eventstore.ErrStateRefused) {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if refused.Load() != 1 {
		t.Errorf("%d appends were refused, want 1", refused.Load())
	}
	wantRows(t, processes[0].db, 1, "SELECT count(*) FROM admins")
	wantHead(t, processes[0].db, head+1+head-1)
}
