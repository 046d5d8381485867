package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/server"
)

// ofProjection asks for something to be done to the projection of users, and reads how it is then.
func (s *stack) ofProjection(admin, what, body string, status int) projections.Status {
	s.tb.Helper()
	a := s.call("POST", "/v1/projections/users/"+what, body, "Authorization", admin)
	if a.status != status {
		s.tb.Fatalf("POST %s = %d %s, want %d", what, a.status, a.body, status)
	}
	var now projections.Status
	if err := json.Unmarshal([]byte(a.body), &now); err != nil {
		s.tb.Fatal(err)
	}
	return now
}

// A rebuild that is requested is done by a process that runs projections, and shown until then.
func TestRequestRebuild(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		admin := "Bearer " + s.login("admin@example.org")
		expect(t, s.call("POST", "/v1/projections/users/rebuild", "", "Authorization", admin), 404, identity.CodeNotFound) // nobody has run it
		stop := s.project()
		devstack.Eventually(t, "the read model is there", func() bool {
			return s.call("GET", "/v1/users", "", "Authorization", admin, "Usher-Min-Position", fmt.Sprint(s.head())).status == http.StatusOK
		})
		stop()
		for range 2 {
			now := s.ofProjection(admin, "rebuild", "", http.StatusAccepted)
			if now.Rebuild == nil || now.Rebuild.State != projections.RebuildRequested || now.Rebuild.Generation != 2 || now.Generation != 1 {
				t.Errorf("status = %+v, want a rebuild that is requested", now)
			}
		}
		if a := s.call("DELETE", "/v1/projections/users/rebuild", "", "Authorization", admin); a.status != http.StatusOK || a.field(t, "rebuild") != "" {
			t.Errorf("DELETE rebuild = %d %s, want no rebuild", a.status, a.body)
		}
		s.ofProjection(admin, "rebuild", "{}", http.StatusAccepted)
		s.project()
		devstack.Eventually(t, "the rebuild is done", func() bool {
			// The number of the one that was cancelled is not given again.
			return s.ofProjection(admin, "resume", "", http.StatusOK).Generation == 3
		})
		devstack.Eventually(t, "it is recorded", func() bool {
			events, err := s.log.ReadStream(t.Context(), eventstore.SystemStream("projection/users").ID, 0, 10)
			return err == nil && len(events) == 1 && events[0].Type == identity.TypeProjectionRebuilt && events[0].Metadata.Actor[:5] == "user:"
		})
	})
}

// poisoned makes a user with an event that can't be applied and one behind it, and runs the projection of users until both
// are parked.
func (s *stack) poisoned(t *testing.T) (user uuid.UUID, poison int64, stop func()) {
	t.Helper()
	user = s.user("sick@example.org")
	master, _ := eventstore.NewMasterKey() // nothing is sealed
	unchecked := eventstore.New(s.db, master, eventstore.Options{})
	appended, err := unchecked.Append(t.Context(), eventstore.Append{Stream: eventstore.UserStream(user), Expected: 1,
		Events: []eventstore.NewEvent{{Type: identity.TypeUserRoleGranted, Data: []byte(`{"role":7}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	s.append(user, identity.Locked{})
	stop = s.project()
	s.awaitParked(t, 2)
	return user, appended.Position, stop
}

func (s *stack) awaitParked(t *testing.T, n int) {
	t.Helper()
	devstack.Eventually(t, fmt.Sprintf("%d events are parked", n), func() bool {
		st, err := s.server.Checkpoints.Status(t.Context(), projections.UsersName)
		return err == nil && st.ParkedCount == n
	})
}

// Where no process runs the projection, what is asked for is written down, and done when one does.
func TestAskWithoutAWorker(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		admin := "Bearer " + s.login("admin@example.org")
		sick, poison, stop := s.poisoned(t)
		stop()
		s.server.Projections.RequestWait = time.Millisecond
		if now := s.ofProjection(admin, "retry", fmt.Sprintf(`{"user":%q}`, sick), http.StatusAccepted); now.ParkedCount != 2 {
			t.Errorf("status = %+v, want both events parked", now)
		}
		stop = s.project()
		s.server.Projections.RequestWait = time.Minute
		expect(t, s.call("POST", "/v1/projections/users/retry", "", "Authorization", admin), 409, server.CodePoisonEvent)
		stop()
		s.server.Projections.RequestWait = time.Millisecond
		now := s.ofProjection(admin, "skip", fmt.Sprintf(`{"user":%q,"position":%d}`, sick, poison), http.StatusAccepted)
		if now.ParkedCount != 1 || now.SkipCount != 1 {
			t.Errorf("status = %+v, want the one skipped and the other parked", now)
		}
		s.project()
		s.awaitParked(t, 0)
		expect(t, s.call("POST", "/v1/projections/users/retry", "", "Authorization", admin), 409, server.CodeNotParked)
	})
}

// A poison event is seen, tried again in vain, and given up; those behind it are applied.
func TestSkipByAPI(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		if _, _, err := s.identity.EnsureAdmin(t.Context(), "admin@example.org", secret); err != nil {
			t.Fatal(err)
		}
		admin := "Bearer " + s.login("admin@example.org")
		sick, poison, _ := s.poisoned(t)
		expect(t, s.call("POST", "/v1/projections/users/retry", "", "Authorization", admin), 409, server.CodePoisonEvent)
		skip := fmt.Sprintf(`{"user":%q,"position":%d}`, sick, poison)
		expect(t, s.call("POST", "/v1/projections/users/skip", fmt.Sprintf(`{"user":%q,"position":%d}`, sick, poison+1), "Authorization", admin), 409, server.CodeNotParked)
		a := s.call("POST", "/v1/projections/users/skip", skip, "Authorization", admin)
		if a.status != http.StatusOK || a.header.Get("Usher-Position") != fmt.Sprint(s.head()) {
			t.Fatalf("skip = %d at %s: %s", a.status, a.header.Get("Usher-Position"), a.body)
		}
		var now projections.Status
		if err := json.Unmarshal([]byte(a.body), &now); err != nil {
			t.Fatal(err)
		}
		if now.ParkedCount != 0 || now.SkipCount != 1 || len(now.Skipped) != 1 || now.Skipped[0].Position != poison {
			t.Errorf("status = %+v, want the event skipped", now)
		}
		expect(t, s.call("POST", "/v1/projections/users/skip", skip, "Authorization", admin), 409, server.CodeNotParked)
		if a := s.call("GET", "/v1/users?status=locked", "", "Authorization", admin); a.status != http.StatusOK || a.field(t, "items")[:5] == "[]" {
			t.Errorf("the event behind it was not applied: %s", a.body)
		}
	})
}
