// Package dossier is everything that usher has of one user, as one JSON document: what whoever it is about may have a copy of (GDPR,
// article 15).
//
// It is read from the truth, the log and the state tables: read models, the JetStream stream and deliveries are copies of the first.
//
// Guarantees: every event about the user is in it, with its personal fields and with where it came from; whatever a state table
// with a column user_id has of the user is too, but for secrets and what is made of them; nothing is in it that
// is another user's, such as the address of an administrator. It is written as it is read, so that it takes the memory of a few events
// however many there are.
package dossier

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Archive is where dossiers are read from. All fields are needed but Now.
type Archive struct {
	Log   *eventstore.Log
	DB    eventstore.DB // of the same database
	Users *identity.Service
	Now   func() time.Time // time.Now when nil
}

// Dossier is what there is of a user, as of a moment.
type Dossier struct {
	log   *eventstore.Log
	user  uuid.UUID
	state state
}

// state is the beginning of the document: all but the events.
type state struct {
	ExportedAt time.Time `json:"exported_at"`
	Position   int64     `json:"position"` // of the log, up to which events are in it
	kept
}

// Open reads all of a user but the events. current is the session that asks; the nil UUID for none. It fails with
// identity.ErrNotFound, also for a user who was erased, or as the database does.
func (a Archive) Open(ctx context.Context, user, current uuid.UUID) (*Dossier, error) {
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	d := &Dossier{log: a.Log, user: user, state: state{ExportedAt: now().UTC().Truncate(time.Microsecond)}}
	var err error
	if d.state.Position, err = a.Log.Head(ctx); err != nil {
		return nil, fmt.Errorf("open the dossier of %s: %w", user, err)
	}
	if d.state.kept, err = a.kept(ctx, user, current); err != nil {
		return nil, fmt.Errorf("open the dossier of %s: %w", user, err)
	}
	return d, nil
}

// pageSize is how many events are read at once. An event is a few hundred bytes, and at most eventstore.MaxEventBytes.
const pageSize = 100

// Write writes the document. Between two pages of events it asks whether to go on, and fails with what that fails with; with
// identity.ErrNotFound where the user was erased meanwhile; or as the log does. What was written then is no whole document.
func (d *Dossier) Write(ctx context.Context, to io.Writer, goOn func() error) error {
	out := bufio.NewWriter(to)
	begin, err := json.Marshal(d.state)
	if err != nil {
		return err
	}
	out.Write(begin[:len(begin)-1]) //nolint:errcheck // a bufio.Writer's errors stay until Flush
	out.WriteString(`,"events":[`)  //nolint:errcheck
	separator := ""
	for after, more := int64(0), true; more; {
		if after > 0 {
			if err := goOn(); err != nil {
				return err
			}
		}
		events, err := d.log.ReadSubject(ctx, d.user, after, pageSize)
		if err != nil {
			return fmt.Errorf("read the events of %s: %w", d.user, err)
		}
		more = len(events) == pageSize
		for _, e := range events {
			switch {
			case e.Position > d.state.Position:
				more = false
				continue
			case e.Type == eventstore.TypeErased || e.Forgotten:
				return identity.ErrNotFound
			}
			text, err := json.Marshal(d.view(e))
			if err != nil {
				return fmt.Errorf("write the event at %d: %w", e.Position, err)
			}
			out.WriteString(separator) //nolint:errcheck
			if _, err := out.Write(text); err != nil {
				return err
			}
			separator, after = ",", e.Position
		}
	}
	out.WriteString("]}\n") //nolint:errcheck
	return out.Flush()
}

// Event is an event as the user is told of it.
type Event struct {
	Position int64           `json:"position"`
	ID       uuid.UUID       `json:"id"`
	Type     string          `json:"type"`
	Schema   int             `json:"schema_version"`
	Stream   uuid.UUID       `json:"stream"`
	Kind     eventstore.Kind `json:"stream_kind"`
	Version  int             `json:"version"`
	Time     time.Time       `json:"time"`
	Data     json.RawMessage `json:"data"`
	Metadata metadata        `json:"metadata"`
}

type metadata struct {
	eventstore.Metadata
	Address   string `json:"address,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// otherUser is what another user, who had a hand in it, is called. Who that is, and where from, is theirs.
const otherUser = "administrator"

func (d *Dossier) view(e eventstore.Event) Event {
	m := metadata{Metadata: e.Metadata}
	switch actor := e.Metadata.Actor; {
	case actor == "", actor == identity.ActorAnonymous, identity.IsActor(actor, d.user):
		m.Address, m.UserAgent = e.Metadata.Address, e.Metadata.UserAgent
	case identity.IsUser(actor):
		m.Actor = otherUser
	}
	return Event{
		Position: e.Position, ID: e.ID, Type: e.Type, Schema: e.SchemaVersion, Stream: e.Stream.ID, Kind: e.Stream.Kind, Version: e.Version,
		Time: e.RecordedAt, Data: e.Payload(), Metadata: m,
	}
}
