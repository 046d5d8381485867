package api

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/server"
)

// EventView is an event as the API and the commands show it.
type EventView struct {
	Position  int64           `json:"position"`
	ID        uuid.UUID       `json:"id"`
	Type      string          `json:"type"`
	Schema    int             `json:"schema_version"`
	Subject   string          `json:"subject"` // the user's id, or "system"
	Stream    uuid.UUID       `json:"stream"`
	Kind      eventstore.Kind `json:"stream_kind"`
	Version   int             `json:"version"`
	Time      time.Time       `json:"time"`
	Data      json.RawMessage `json:"data"`
	Metadata  metadataView    `json:"metadata"`
	Forgotten bool            `json:"forgotten,omitempty"` // its personal fields are gone
}

type metadataView struct {
	eventstore.Metadata
	Address   string `json:"address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// ViewEvent is how an event is shown.
func ViewEvent(e eventstore.Event) EventView {
	subject := "system"
	if e.Stream.Subject != uuid.Nil {
		subject = e.Stream.Subject.String()
	}
	return EventView{
		Position: e.Position, ID: e.ID, Type: e.Type, Schema: e.SchemaVersion, Subject: subject, Stream: e.Stream.ID, Kind: e.Stream.Kind, Version: e.Version,
		Time: e.RecordedAt, Data: e.Payload(), Forgotten: e.Forgotten,
		Metadata: metadataView{Metadata: e.Metadata, Address: e.Metadata.Address, UserAgent: e.Metadata.UserAgent},
	}
}

// viewEvents shows events to a caller, with their personal fields if that is allowed to read about users.
func viewEvents(events []eventstore.Event, to server.Caller) []EventView {
	views := make([]EventView, len(events))
	for i, e := range events {
		if !to.May(client.ScopeUsersRead) {
			e.Personal, e.Metadata.Address, e.Metadata.UserAgent = nil, "", ""
		}
		views[i] = ViewEvent(e)
	}
	return views
}
