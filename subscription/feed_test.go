package subscription_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/api"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/subscription"
)

// feedOf is a feed whose requests are answered by a function.
func feedOf(t *testing.T, answer http.HandlerFunc) *subscription.Feed {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return &subscription.Feed{URL: server.URL + "/", Token: func(context.Context) (string, error) { return "secret", nil }}
}

func TestFeedHasWhatTheLogHas(t *testing.T) {
	t.Parallel()
	s := setup(t)
	user := uuid.Must(uuid.NewV7())
	s.append(t, 3, user)
	session := eventstore.SessionStream(uuid.Must(uuid.NewV7()), user)
	_, err := s.log.Append(t.Context(), eventstore.Append{
		Stream: session, Expected: eventstore.NoStream,
		Events:   []eventstore.NewEvent{identity.NewEvent(identity.SessionStarted{Methods: []string{"password"}})},
		Metadata: eventstore.Metadata{Actor: identity.ActorUser(user), Address: "192.0.2.1", UserAgent: "curl"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.append(t, 1, newUsers(1)...)
	want, err := s.log.ReadAll(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := feedOf(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization") + " " + r.URL.String(); got != "Bearer secret /v1/events?after=1&limit=3" {
			t.Errorf("asked is %s", got)
		}
		var items []api.EventView
		for _, e := range want {
			items = append(items, api.ViewEvent(e))
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"items": items}); err != nil {
			t.Error(err)
		}
	})
	got, err := f.ReadAll(t.Context(), 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want { // as in a message, the body is whole
		want[i].Data, want[i].Personal = want[i].Payload(), nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-log +feed):\n%s", diff)
	}
}

func TestFeedFails(t *testing.T) {
	t.Parallel()
	event := func(position int) string {
		return fmt.Sprintf(`{"position": %d, "type": "key.rotated", "subject": "system", "data": {}, "metadata": {}}`, position)
	}
	for name, test := range map[string]struct {
		status       int
		body, expect string
	}{
		"refused":       {http.StatusForbidden, `{"code": "forbidden", "detail": "the role admin is needed"}`, "answer 403 forbidden: the role admin is needed"},
		"no problem":    {http.StatusBadGateway, `<html>`, "answer 502"},
		"no page":       {http.StatusOK, `<html>`, "invalid character"},
		"begins late":   {http.StatusOK, `{"items": [` + event(9) + `]}`, "position 9 comes where 8 ought to be"},
		"has a gap":     {http.StatusOK, `{"items": [` + event(8) + `,` + event(10) + `]}`, "position 10 comes where 9 ought to be"},
		"nobody's user": {http.StatusOK, `{"items": [` + strings.Replace(event(8), "system", "ann", 1) + `]}`, "position 8: invalid UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := feedOf(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body)) // a client that went away
			})
			events, err := f.ReadAll(t.Context(), 7, 10)
			if err == nil || !strings.Contains(err.Error(), "read the feed after 7: ") || !strings.Contains(err.Error(), test.expect) {
				t.Errorf("ReadAll() = %v, %v, want %q", events, err, test.expect)
			}
		})
	}
	f := feedOf(t, func(http.ResponseWriter, *http.Request) { t.Error("a request without a token") })
	expired := errors.New("expired")
	f.Token = func(context.Context) (string, error) { return "", expired }
	if _, err := f.ReadAll(t.Context(), 0, 1); !errors.Is(err, expired) {
		t.Errorf("ReadAll() = %v, want %v", err, expired)
	}
}
