package projections_test

import (
	"errors"
	"testing"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/projections"
)

// A user who is parked is erased like any other: the row goes, and what waited for the user is given up.
func TestEraseParkedUser(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		sick, other := s.register(t), s.register(t)
		for _, user := range s.users {
			s.appendUnchecked(t, user, eventstore.NewEvent{Type: identity.TypeUserRoleGranted, Data: []byte(`{"role":7}`)})
			s.append(t, user, renamed("Behind it"))
		}
		s.publish(t, cloudevent.Options{})
		s.await(t)
		if st := s.status(t); st.ParkedUsers != 2 || st.ParkedCount != 4 {
			t.Fatalf("status = %+v, want two users parked", st)
		}
		s.append(t, sick, identity.NewEvent(identity.Erased{}))
		s.publish(t, cloudevent.Options{})
		s.await(t)
		if st := s.status(t); st.ParkedUsers != 1 || st.ParkedCount != 2 || st.Parked[0].Subject != other {
			t.Errorf("status = %+v, want the other user parked", st)
		}
		if _, err := (projections.Users{DB: s.db}).Get(t.Context(), sick); !errors.Is(err, projections.ErrNotFound) {
			t.Errorf("Get() = %v, want %v", err, projections.ErrNotFound)
		}
		if u, err := (projections.Users{DB: s.db}).Get(t.Context(), other); err != nil || u.Version != 1 {
			t.Errorf("Get() = %+v, %v, want the other user as before", u, err)
		}
	})
}
