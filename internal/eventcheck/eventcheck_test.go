package eventcheck

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"usher.example/eventstore"
)

type recorder []string

func (*recorder) Helper()                     {}
func (r *recorder) Errorf(f string, a ...any) { *r = append(*r, fmt.Sprintf(f, a...)) }

// The check bites: what is not as the schema says fails the test, and does not reach the store.
func TestStore(t *testing.T) {
	t.Parallel()
	registered := func(data, personal string) eventstore.NewEvent {
		return eventstore.NewEvent{Type: "user.registered", SchemaVersion: 1, Data: json.RawMessage(data), Personal: json.RawMessage(personal)}
	}
	for name, c := range map[string]struct {
		event eventstore.NewEvent
		want  string // part of the complaint
	}{
		"good":                       {registered(`{}`, `{"email":"a@example.org"}`), ""},
		"unknown type":               {eventstore.NewEvent{Type: "user.vanished"}, "no such schema"},
		"unknown version":            {eventstore.NewEvent{Type: "user.locked", SchemaVersion: 9}, "no such schema"},
		"personal field in the open": {registered(`{"email":"a@example.org"}`, ``), "email"},
		"open field sealed":          {eventstore.NewEvent{Type: "user.role_granted", Personal: json.RawMessage(`{"role":"admin"}`)}, "role"},
		"field too many":             {registered(`{"x":1}`, `{"email":"a@example.org"}`), "x"},
		"field missing":              {registered(`{}`, ``), "email"},
		"wrong value":                {eventstore.NewEvent{Type: "session.ended", Data: json.RawMessage(`{"reason":"bored"}`)}, "reason"},
		"wrong format":               {eventstore.NewEvent{Type: "session.started", Data: json.RawMessage(`{"methods":["password"],"expires_at":"soon"}`)}, "expires_at"},
		"no object":                  {eventstore.NewEvent{Type: "user.locked", Data: json.RawMessage(`[]`)}, "not a JSON object"},
	} {
		var r recorder
		batch := []*eventstore.Prepared{{Append: eventstore.Append{Events: []eventstore.NewEvent{c.event}}}}
		if c.want == "" {
			if err := Event(c.event); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if _, err := Store(&r, nil).Commit(t.Context(), batch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Commit = %v, want a complaint about %s", name, err, c.want)
		}
		if len(r) != 1 {
			t.Errorf("%s: the test was told %q", name, r)
		}
	}
}
