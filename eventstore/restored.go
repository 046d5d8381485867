package eventstore

import "github.com/google/uuid"

// TypeRestored is the type of the events that tell those who follow the log elsewhere that it was restored to an earlier
// position, or that its database gave way to one that lacks its newest events, after these had been published.
const TypeRestored = "log.restored"

// Restored is the content of such an event. One that has more void events than fit is followed by others with the rest.
type Restored struct {
	// Fork is the last position up to which what was published is still the log's.
	Fork int64 `json:"fork"`
	// Last is the last position that had been published, and Voided how many events up to there are void.
	Last   int64 `json:"last"`
	Voided int64 `json:"voided"`
	// Part counts the events that tell of one restore, from 1, and Parts says how many there are.
	Part  int `json:"part"`
	Parts int `json:"parts"`
	// Void are the events that were published and are not in the log, by position: all of them in all parts together, unless
	// there are more than MaxVoid.
	Void []VoidEvent `json:"void"`
}

// VoidEvent is an event that did not happen, although it was published.
type VoidEvent struct {
	Position int64     `json:"position"`
	ID       uuid.UUID `json:"id"`
	Type     string    `json:"type"`
	Stream   uuid.UUID `json:"stream"`
	Subject  string    `json:"subject"` // the user's id, or "system"
}

// Bounds of what is told of void events.
const (
	MaxVoid     = 100_000 // of one restore
	MaxVoidPart = 1000    // in one event
)

// EventType is TypeRestored.
func (Restored) EventType() string { return TypeRestored }

// LogStream is the stream of what happened to the log itself.
func LogStream() Stream { return SystemStream("log") }
