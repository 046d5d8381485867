package api

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// What a client did for a user is the user's own doing, in all that there is of the user; what it did by itself, or for another
// user, is not, and where from is nothing to the user.
func TestActorsInAnExport(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	ada, eve, app := s.user("ada@example.org"), s.user("eve@example.org"), uuid.Must(uuid.NewV7())
	type shown struct {
		Actor   string `json:"actor"`
		Address string `json:"address"`
	}
	const from = "192.0.2.1"
	want := map[string]shown{
		identity.ActorUser(ada):           {identity.ActorUser(ada), from},
		identity.ActorDelegated(ada, app): {identity.ActorDelegated(ada, app), from},
		identity.ActorDelegated(eve, app): {"administrator", ""},
		identity.ActorUser(eve):           {"administrator", ""},
		identity.ActorClient(app):         {identity.ActorClient(app), ""},
	}
	actors := map[uuid.UUID]string{}
	for actor := range want {
		e := identity.NewEvent(identity.RoleGranted{Role: "writer-" + uuid.NewString()[:8]})
		e.ID = uuid.Must(uuid.NewV7())
		_, err := s.log.Append(t.Context(), eventstore.Append{
			Stream: eventstore.UserStream(ada), Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{e},
			Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: actor, Address: from},
		})
		if err != nil {
			t.Fatal(err)
		}
		actors[e.ID] = actor
	}
	a := s.want(s.as(s.login("ada@example.org"), "GET", "/v1/me/export", ""), http.StatusOK, "")
	var export struct {
		Events []struct {
			ID       uuid.UUID
			Metadata shown
		}
	}
	if err := json.Unmarshal([]byte(a.body), &export); err != nil {
		t.Fatal(err)
	}
	for _, e := range export.Events {
		if actor, of := actors[e.ID]; of {
			if e.Metadata != want[actor] {
				t.Errorf("%s is shown as %+v, want %+v", actor, e.Metadata, want[actor])
			}
			delete(actors, e.ID)
		}
	}
	if len(actors) > 0 {
		t.Errorf("not shown: %v", actors)
	}
}
