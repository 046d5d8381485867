package projections_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/projections"
)

// history appends a random history of a new user. Some end with the user's erasure.
func (s *stack) history(t *testing.T) uuid.UUID {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	events := []eventstore.NewEvent{s.registered()}
	if s.random.IntN(2) == 0 {
		events[0] = s.imported()
	}
	for range s.random.IntN(12) {
		events = append(events, s.change())
	}
	s.append(t, id, events...)
	if s.random.IntN(8) == 0 {
		s.append(t, id, identity.NewEvent(identity.Erased{}))
	}
	return id
}

// A user in the read model is the user whom identity decides on, in every field, whatever happened to the user: read
// from the log, from messages, and once the personal fields are forgotten.
func TestUsersAgreeWithIdentity(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		var users []uuid.UUID
		for i := range 150 {
			id := s.history(t)
			users = append(users, id)
			if i%3 > 0 {
				continue
			}
			if _, err := s.db.Exec(t.Context(), "DELETE FROM user_keys WHERE user_id = $1", id); err != nil {
				t.Fatal(err)
			}
		}
		log := eventstore.New(s.db, s.master, eventstore.Options{}) // which has no keys in memory
		r := s.runner()
		r.Log, r.BatchSize = log, 40
		start(t, r)
		s.await(t)
		for range 50 {
			users = append(users, s.history(t))
		}
		s.publish(t, cloudevent.Options{})
		s.await(t)

		service := identity.New(identity.Config{Log: log, Store: s.db, DB: s.db})
		readModel := projections.Users{DB: s.db}
		erased, forgotten := 0, 0
		for _, id := range users {
			view, err := readModel.Get(t.Context(), id)
			gone := errors.Is(err, projections.ErrNotFound)
			if err != nil && !gone {
				t.Fatal(err)
			}
			u, err := service.ReadUser(t.Context(), id)
			if gone != errors.Is(err, identity.ErrNotFound) {
				t.Errorf("user %s is gone from the read model: %v; ReadUser() = %v", id, gone, err)
			}
			if gone {
				erased++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.Email == "" {
				forgotten++
			}
			if diff := cmp.Diff(document(t, u), document(t, view)); diff != "" {
				t.Errorf("user %s (-identity +read model):\n%s", id, diff)
			}
		}
		if erased == 0 || forgotten == 0 {
			t.Errorf("%d users erased and %d forgotten: this tried nothing", erased, forgotten)
		}
	})
}

// document is a user as the API shows it.
func document(t *testing.T, user any) (fields map[string]any) {
	t.Helper()
	raw, err := json.Marshal(user)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}
