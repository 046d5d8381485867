package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"usher/eventstore"
	"usher/identity"
	"usher/projections"
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
		eventually(t, "the read model is there", func() bool {
			return s.call("GET", "/v1/users", "", "Authorization", admin, "Usher-Min-Position", fmt.Sprint(s.head())).status == http.StatusOK
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
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
		eventually(t, "the rebuild is done", func() bool {
			return s.ofProjection(admin, "resume", "", http.StatusOK).Generation == 2
		})
		eventually(t, "it is recorded", func() bool {
			events, err := s.log.ReadStream(t.Context(), eventstore.SystemStream("projection/users").ID, 0, 10)
			return err == nil && len(events) == 1 && events[0].Type == identity.TypeProjectionRebuilt && events[0].Metadata.Actor[:5] == "user:"
		})
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
		sick := s.user("sick@example.org")
		master, _ := eventstore.NewMasterKey() // nothing is sealed
		unchecked := eventstore.New(db, master, eventstore.Options{})
		poison, err := unchecked.Append(t.Context(), eventstore.Append{Stream: eventstore.UserStream(sick), Expected: 1,
			Events: []eventstore.NewEvent{{Type: identity.TypeUserRoleGranted, Data: []byte(`{"role":7}`)}}})
		if err != nil {
			t.Fatal(err)
		}
		s.append(sick, identity.Locked{})
		s.project()
		eventually(t, "the event is parked", func() bool {
			st, err := s.server.Checkpoints.Status(t.Context(), projections.UsersName)
			return err == nil && st.ParkedCount == 2
		})
		expect(t, s.call("POST", "/v1/projections/users/retry", "", "Authorization", admin), 409, codePoisonEvent)
		skip := fmt.Sprintf(`{"user":%q,"position":%d}`, sick, poison.Position)
		expect(t, s.call("POST", "/v1/projections/users/skip", fmt.Sprintf(`{"user":%q,"position":%d}`, sick, poison.Position+1), "Authorization", admin), 409, codeNotParked)
		a := s.call("POST", "/v1/projections/users/skip", skip, "Authorization", admin)
		if a.status != http.StatusOK || a.header.Get("Usher-Position") != fmt.Sprint(s.head()) {
			t.Fatalf("skip = %d at %s: %s", a.status, a.header.Get("Usher-Position"), a.body)
		}
		var now projections.Status
		if err := json.Unmarshal([]byte(a.body), &now); err != nil {
			t.Fatal(err)
		}
		if now.ParkedCount != 0 || now.SkipCount != 1 || len(now.Skipped) != 1 || now.Skipped[0].Position != poison.Position {
			t.Errorf("status = %+v, want the event skipped", now)
		}
		expect(t, s.call("POST", "/v1/projections/users/skip", skip, "Authorization", admin), 409, codeNotParked)
		if a := s.call("GET", "/v1/users?status=locked", "", "Authorization", admin); a.status != http.StatusOK || a.field(t, "items")[:5] == "[]" {
			t.Errorf("the event behind it was not applied: %s", a.body)
		}
	})
}
