// Package eventstore is the log: the one place where facts about users are written, and the order they are read in.
//
// A [Log] stands on a [Store], which is Postgres or SQLite. It seals personal fields before they are stored and opens
// them after they were read, and lets appends that wait at the same time share a commit.
//
// Guarantees, held by the suite in eventstore/storetest for every store:
//
//   - Positions count from 1 without gaps, in commit order. A reader at position > n never skips an event and never
//     sees one twice, whatever writers do beside it.
//   - An append is one transaction: its events, its reservations and its rows in state tables are stored together or
//     not at all.
//   - The versions of a stream count from 1 without gaps.
//   - An append repeated with its command id answers as the first one did and changes nothing.
//   - After a user's [TypeErased] nothing can be appended about the user, and nothing that was sealed for the user can be
//     opened any more.
//
// It does not publish anything (package publisher does) and does not know what an event means (package identity does).
package eventstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Kind says what a stream is about.
type Kind string

// The kinds of streams.
const (
	KindUser    Kind = "user"    // one user; the stream's id is the user's id
	KindSession Kind = "session" // one login on one device
	KindClient  Kind = "client"  // one client of OAuth; it concerns no user
	KindSystem  Kind = "system"  // what concerns no user either: keys, projections, webhooks
)

// Stream names the events of one aggregate.
type Stream struct {
	ID   uuid.UUID
	Kind Kind
	// Subject is the user whom the stream's events are about: whose key seals their personal fields and under whose
	// id they are published. It is the nil UUID for streams that concern no user.
	Subject uuid.UUID
}

// UserStream is the stream of one user.
func UserStream(user uuid.UUID) Stream {
	return Stream{ID: user, Kind: KindUser, Subject: user}
}

// SessionStream is the stream of one session of a user.
func SessionStream(session, user uuid.UUID) Stream {
	return Stream{ID: session, Kind: KindSession, Subject: user}
}

// ClientStream is the stream of one client of OAuth.
func ClientStream(client uuid.UUID) Stream { return Stream{ID: client, Kind: KindClient} }

// SystemStream is the system stream with the given name. Its id is derived from the name (UUIDv5), so that every
// process finds the same one.
func SystemStream(name string) Stream {
	return Stream{ID: uuid.NewSHA1(systemNamespace, []byte(name)), Kind: KindSystem}
}

var systemNamespace = uuid.MustParse("6f1a0c1e-6a53-5d0c-9d2b-3a1f0f2b7c55")

// String is the stream as logs and errors show it.
func (s Stream) String() string { return string(s.Kind) + "/" + s.ID.String() }

// TypeErased is the type of a user's last event, and the one type that the log itself knows. The append that ends with it
// forgets the user, in its one transaction: the data key is destroyed, and with it every personal field in the log; the
// user's rows go from all state tables that have a column user_id; what the user's stream held is let go of, but for what
// the same append reserves; and every stream of the user is closed. The event itself has nothing personal.
const TypeErased = "user.erased"

// Event is an immutable fact, as it was read from the log.
type Event struct {
	Position      int64 // place in the whole log, from 1; its JetStream sequence too
	Stream        Stream
	Version       int // number in its stream, from 1
	ID            uuid.UUID
	Type          string // for example "user.registered"
	SchemaVersion int
	Data          json.RawMessage // the fields that are not personal, a JSON object
	Personal      json.RawMessage // the personal fields, a JSON object; nil when there are none or they are forgotten
	Metadata      Metadata
	RecordedAt    time.Time // UTC, microseconds, never before that of an earlier position

	// Sealed is the stored form of the personal fields of Data and Metadata: see [Sealer]. A Store fills it in;
	// opening an event sets it to nil.
	Sealed []byte
	// Forgotten says that the event had personal fields and that the key to them has been destroyed.
	Forgotten bool
}

// Payload is the whole content of the event: the fields of Data and of Personal in one JSON object.
func (e Event) Payload() json.RawMessage { return joinObjects(e.Data, e.Personal) }

// Decode reads the event's content: Data into open, Personal into personal. personal is left as it is where the event
// has no personal fields or they are forgotten. Either may be nil.
func (e Event) Decode(open, personal any) error {
	if open != nil && len(e.Data) > 0 {
		if err := json.Unmarshal(e.Data, open); err != nil {
			return fmt.Errorf("decode %s at %d: %w", e.Type, e.Position, err)
		}
	}
	if personal != nil && len(e.Personal) > 0 {
		if err := json.Unmarshal(e.Personal, personal); err != nil {
			return fmt.Errorf("decode personal fields of %s at %d: %w", e.Type, e.Position, err)
		}
	}
	return nil
}

// NewEvent is an event to be appended.
type NewEvent struct {
	ID            uuid.UUID // UUIDv7; made by Append when it is the nil UUID
	Type          string
	SchemaVersion int             // 1 when 0
	Data          json.RawMessage // a JSON object; {} when nil
	Personal      json.RawMessage // a JSON object; nil for an event without personal fields
}

// joinObjects makes one JSON object of two, either of which may be empty.
func joinObjects(a, b json.RawMessage) json.RawMessage {
	a, b = members(a), members(b)
	out := make(json.RawMessage, 0, len(a)+len(b)+3)
	out = append(append(out, '{'), a...)
	if len(a) > 0 && len(b) > 0 {
		out = append(out, ',')
	}
	return append(append(out, b...), '}')
}

// members is what stands between the braces of a JSON object.
func members(object []byte) []byte {
	object = bytes.TrimSpace(object)
	if len(object) < 2 {
		return nil
	}
	return bytes.TrimSpace(object[1 : len(object)-1])
}
