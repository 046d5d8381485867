package storetest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// Personal fields are in no column of any row that an append writes.
func testSealedAtRest(t *testing.T, b Backend) {
	log := setup(t, b)
	const email = "secret.address@example.org"
	a := registration(newID(), email)
	mustAppend(t, log, a)
	var data, metadata, reservation string
	var personal, key, wrapped []byte
	err := log.db.QueryRow(t.Context(), `
		SELECT CAST(e.data AS text), CAST(e.metadata AS text), e.personal, r.scope, r.key, k.wrapped
		  FROM events e JOIN reservations r ON r.stream = e.stream JOIN user_keys k ON k.user_id = e.subject`).
		Scan(&data, &metadata, &personal, &reservation, &key, &wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for name, stored := range map[string][]byte{
		"data": []byte(data), "metadata": []byte(metadata), "personal": personal, "scope": []byte(reservation), "key": key, "wrapped": wrapped,
	} {
		for _, secret := range []string{email, "secret.address", "Ada", a.Metadata.Address, a.Metadata.UserAgent} {
			if bytes.Contains(stored, []byte(secret)) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
	if len(personal) == 0 || len(key) != 32 || len(wrapped) == 0 {
		t.Errorf("%d, %d and %d bytes stored", len(personal), len(key), len(wrapped))
	}
	e := readAll(t, log.Log)[0]
	if !bytes.Equal(e.Personal, a.Events[0].Personal) || e.Metadata != a.Metadata || e.Sealed != nil || e.Forgotten {
		t.Errorf("read %+v", e)
	}
}

// A sealed value that was altered, or that stands at another event, does not open.
func testTampered(t *testing.T, b Backend) {
	for name, tamper := range map[string]string{
		"altered":                "UPDATE events SET personal = $2 WHERE position = $1",
		"of another version":     "UPDATE events SET personal = (SELECT personal FROM events WHERE position = $1 - 1) WHERE position = $1",
		"of another user":        "UPDATE events SET personal = (SELECT personal FROM events WHERE position = 3) WHERE position = $1",
		"under another type":     "UPDATE events SET type = 'user.imported' WHERE position = $1",
		"under another version":  "UPDATE events SET version = 7 WHERE position = $1",
		"said to be another's":   "UPDATE events SET subject = (SELECT subject FROM events WHERE position = 3) WHERE position = $1",
		"in another stream":      "UPDATE events SET stream = (SELECT stream FROM events WHERE position = 3), version = 7 WHERE position = $1",
		"key of another user":    "UPDATE user_keys SET wrapped = (SELECT wrapped FROM user_keys WHERE user_id = (SELECT subject FROM events WHERE position = 3)) WHERE user_id = (SELECT subject FROM events WHERE position = $1)",
		"cut to its first bytes": "UPDATE events SET personal = substr(personal, 1, 10) WHERE position = $1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, b)
			log := d.process(t)
			user := newID()
			a := registration(user, "ada@example.org")
			a.Events = append(a.Events, a.Events[0])
			mustAppend(t, log, a)
			mustAppend(t, log, registration(newID(), "bob@example.org"))
			args := []any{int64(2)}
			if name == "altered" {
				var sealed []byte
				if err := log.db.QueryRow(t.Context(), "SELECT personal FROM events WHERE position = $1", 2).Scan(&sealed); err != nil {
					t.Fatal(err)
				}
				sealed[len(sealed)-1] ^= 1
				args = append(args, sealed)
			}
			change(t, log.db, tamper, args...)
			// A process that has no keys in memory.
			if events, err := d.process(t).ReadAll(t.Context(), 1, 1); err == nil {
				t.Errorf("read %s", events[0].Personal)
			}
		})
	}
}

// Without the key the personal fields are gone for ever, and everything else is still there.
func testForgotten(t *testing.T, b Backend) {
	d := deploy(t, b)
	log := d.process(t)
	ada, bob := registration(newID(), "ada@example.org"), registration(newID(), "bob@example.org")
	mustAppend(t, log, ada)
	mustAppend(t, log, bob)
	plain := facts(ada.Stream)
	mustAppend(t, log, plain)
	readAll(t, log.Log) // the keys are in memory
	row, err := json.Marshal(map[string]any{"user_id": ada.Stream.ID})
	if err != nil {
		t.Fatal(err)
	}
	erase := facts(ada.Stream)
	erase.State = []eventstore.StateChange{{Table: "user_keys", Delete: true, Row: row}}
	mustAppend(t, log, erase)
	log.Sealer().Forget(ada.Stream.ID)
	for _, reader := range []process{log, d.process(t)} {
		events := readAll(t, reader.Log)
		type view struct {
			Personal, Address string
			Forgotten         bool
		}
		var got []view
		for _, e := range events {
			got = append(got, view{string(e.Personal), e.Metadata.Address, e.Forgotten})
			if e.Sealed != nil {
				t.Errorf("the event at %d came sealed", e.Position)
			}
		}
		want := []view{{"", "", true}, {string(bob.Events[0].Personal), bob.Metadata.Address, false}, {}, {}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	late := facts(ada.Stream)
	late.Metadata.Address = "192.0.2.1"
	_, err = log.Append(t.Context(), late)
	wantError(t, "append of personal fields without a key", err, eventstore.ErrNoKey)
}

func testWrongMasterKey(t *testing.T, b Backend) {
	d := deploy(t, b)
	mustAppend(t, d.process(t), registration(newID(), "ada@example.org"))
	d.master, _ = eventstore.NewMasterKey()
	if events, err := d.process(t).ReadAll(t.Context(), 0, 1); err == nil {
		t.Errorf("read %s", events[0].Personal)
	}
}

// Personal fields are bound to their version, so an append at any version that loses a race is sealed anew.
func testAnyVersionSealed(t *testing.T, b Backend) {
	const callers = 12
	d := deploy(t, b)
	logs := []process{d.process(t), d.process(t)}
	user := newID()
	mustAppend(t, logs[0], registration(user, "ada@example.org"))
	var group errgroup.Group
	for i := range callers {
		group.Go(func() error {
			personal, err := json.Marshal(map[string]int{"caller": i})
			if err != nil {
				return err
			}
			_, err = logs[i%len(logs)].Append(t.Context(), eventstore.Append{
				Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion,
				Events: []eventstore.NewEvent{{Type: "user.profile_updated", Personal: personal}},
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	events, err := logs[0].ReadStream(t.Context(), user, 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, e := range events {
		var personal struct{ Caller int }
		if err := e.Decode(nil, &personal); err != nil {
			t.Fatal(err)
		}
		seen[personal.Caller] = true
	}
	if len(events) != callers || len(seen) != callers {
		t.Errorf("%d events of %d callers, want %d", len(events), len(seen), callers)
	}
	if subject := events[0].Stream.Subject; subject == uuid.Nil {
		t.Error("no subject")
	}
}
