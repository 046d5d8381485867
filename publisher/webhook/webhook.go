// Package webhook sends events to HTTP endpoints of others, signed as Standard Webhooks says.
//
// A webhook is an endpoint and the event types it wants. A [Worker] follows the JetStream stream for every active webhook,
// with a subscription and at a pace of its own. It sends what the webhook wants as it comes, and writes it down once, with
// what came of it, in the transaction that moves the webhook's checkpoint. What failed, what waits behind that, and what an
// endpoint is too slow for is stored as pending, and sent from there. [Service] makes and changes webhooks and shows deliveries.
//
// Guarantees:
//
//   - Every event that a webhook wants is sent until the endpoint has taken it, or is set aside as a dead letter after its
//     attempts; whatever dies or restarts. It may be sent more than once, then under the same id.
//   - The events of one user are sent to an endpoint in order, one after the other. One that fails holds back that user's
//     later events, until it is taken or dead, and nobody else's.
//   - An endpoint that is slow or down holds up no other. Memory, connections and stored deliveries are bounded for each.
//   - A payload is stored nowhere but in the log and the stream. Less than a second before it is sent, its user still had a
//     key, or it was read from the log: what was erased by then is not sent.
//   - No connection is made to an address of this machine or its networks, unless that is allowed: see [Config].
//
// A delivery:
//
//	taken from the stream ── 2xx ▶ delivered ── after a while ▶ gone
//	taken from the stream ── anything else, or no answer soon ▶ pending
//	pending ── 2xx ▶ delivered
//	pending ── any other answer, or none ▶ pending, for another attempt
//	pending ── the last attempt failed ▶ dead ── redrive ▶ pending
//
// The package does not promise order across a redrive: by then, later events of the user may have been sent.
package webhook

import (
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// Webhook is an endpoint that events are sent to.
type Webhook struct {
	ID     uuid.UUID `json:"id"`
	URL    string    `json:"url"`
	Events []string  `json:"events"` // event types, prefixes such as "user.*", or "*"
	Status Status    `json:"status"`
	Reason string    `json:"reason,omitempty"` // why it is disabled: identity.WebhookGone, …

	Position     int64     `json:"position"` // every wanted event up to here is a delivery, or was one
	Pending      int       `json:"pending"`
	Dead         int       `json:"dead"`
	Running      bool      `json:"running"`                // a worker is at it
	FailingSince time.Time `json:"failing_since,omitzero"` // the first failure since the last success

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Status says whether a webhook gets events.
type Status string

// The states of a webhook. One that is disabled keeps its place: enabled again, it goes on from there.
const (
	StatusActive   Status = "active"
	StatusDisabled Status = "disabled"
)

// Limits.
const (
	// MaxWebhooks bounds the webhooks of a deployment: each has a subscription, which brings it every event.
	MaxWebhooks = 100
	// MaxPending and MaxDead bound the deliveries that are stored for a webhook. Beyond either, it takes no more events
	// from the stream until there is room; the log keeps them.
	MaxPending = 10_000
	MaxDead    = 100_000
	// MaxLimit bounds a page of deliveries, and DefaultLimit is how many it has otherwise.
	MaxLimit     = 1000
	DefaultLimit = 50
)

// Delivered deliveries are a record, for those who look into what was sent: the newest of a webhook, for a while.
const (
	keepDelivered    = 1000
	keepDeliveredFor = 7 * 24 * time.Hour
	// maxUntrimmed is how many deliveries may end until old ones are dropped although it is not long ago that some were.
	maxUntrimmed = 20 * keepDelivered
)

// failingLimit is how long an endpoint may do nothing but fail before it is disabled.
const failingLimit = 5 * 24 * time.Hour

// Errors to compare with, by errors.Is.
var (
	ErrNotFound     = &identity.Error{Code: identity.CodeNotFound}
	ErrInvalidURL   = &identity.Error{Code: identity.CodeInvalidURL}
	ErrUnknownEvent = &identity.Error{Code: identity.CodeUnknownEvent}
	ErrConflict     = &identity.Error{Code: identity.CodeConflict}
	ErrKeyReused    = identity.ErrKeyReused
)
