package webhook

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// parcel is a delivery in the hands of the sender. It comes from the stream and has no row yet, or it comes from its row.
type parcel struct {
	position  int64
	eventID   uuid.UUID
	subject   uuid.UUID // the user, or the system stream
	isUser    bool
	eventType string
	attempts  int       // made before
	at        time.Time // when it is due, of one that has a row
	stored    bool      // it has a row

	// What is sent. A worker reads it.
	event      eventstore.Event
	unreadable error     // instead of the event: it can't be had, which is what comes of the delivery
	read       time.Time // when it was known last that the event may be sent as it is

	// What came of the attempt, which a worker writes.
	answer
	began time.Time
	stale bool // there was no attempt: the event was read too long ago

	// What becomes of the delivery.
	tried    bool // there was an attempt, and its outcome is known
	status   DeliveryStatus
	next     *time.Time // when the next attempt is to be made; nil for as soon as it is its turn
	response []byte     // sealed

	state state // in the window
	since time.Time
}

// newParcels are the deliveries of events from the stream.
func newParcels(events []eventstore.Event) []*parcel {
	parcels, list := make([]parcel, len(events)), make([]*parcel, len(events))
	for i, event := range events {
		p := &parcels[i]
		p.position, p.eventID, p.eventType, p.event, p.status = event.Position, event.ID, event.Type, event, DeliveryPending
		if p.subject, p.isUser = event.Stream.Subject, true; p.subject == uuid.Nil {
			p.subject, p.isUser = event.Stream.ID, false
		}
		list[i] = p
	}
	return list
}

// unload lets go of the event, which may be large, once it is not sent any more.
func (p *parcel) unload() { p.event = eventstore.Event{} }

func (p *parcel) place() place { return place{p.position, p.eventID} }

// decide says what becomes of a delivery after an attempt. An endpoint that is gone gets it again once it is enabled.
func (s *sender) decide(p *parcel) {
	p.tried, p.status, p.next = true, DeliveryPending, nil
	now := s.Service.now()
	switch {
	case p.ok():
		p.status = DeliveryDelivered
	case p.gone():
		p.next = &now
	case p.attempts >= s.Service.Retries: // and this one was the last
		p.status = DeliveryDead
	default:
		at := now.Add(max(backoff(s.Service.RetryDelay, p.attempts+1, s.Service.Random()), p.retryAfter))
		p.next = &at
	}
}

// A delivery's id need not be stored: it is a UUIDv7 (RFC 9562) with the time of the event's id, twelve bits of the webhook's
// id and, in 62 bits, the position.

const positionBits = 1<<62 - 1

func deliveryID(webhook, event uuid.UUID, position int64) (id uuid.UUID) {
	copy(id[:6], event[:])
	id[6], id[7] = 0x70|webhook[14]&0x0f, webhook[15]
	binary.BigEndian.PutUint64(id[8:], 0b10<<62|uint64(position))
	return id
}

// positionOf is the position of the webhook's delivery that has an id, if there may be one.
func positionOf(webhook, delivery uuid.UUID) (position int64, ok bool) {
	position = int64(binary.BigEndian.Uint64(delivery[8:]) & positionBits)
	return position, deliveryID(webhook, delivery, position) == delivery
}

// An endpoint's answer may repeat what it was sent, so it is sealed as that is: with the user's own key.

func responsePlace(delivery uuid.UUID) string { return "webhook_deliveries/" + delivery.String() }

// sealResponse seals what is stored of the answer: nothing once the user is erased.
func (e *endpoint) sealResponse(ctx context.Context, p *parcel) (err error) {
	sealer, at := e.Service.Log.Sealer(), responsePlace(deliveryID(e.id, p.eventID, p.position))
	switch {
	case !p.tried, len(p.excerpt) == 0, p.response != nil: // of what is on its way yet, the answer is the worker's
	case !p.isUser:
		p.response = sealer.SealState(at, p.excerpt)
	default:
		p.response, err = sealer.SealFor(ctx, p.subject, at, p.excerpt)
		if errors.Is(err, eventstore.ErrNoKey) {
			return nil
		}
	}
	return err
}

func (s *Service) openResponse(ctx context.Context, id, subject uuid.UUID, isUser bool, sealed []byte) (string, error) {
	if sealed == nil {
		return "", nil
	}
	var plain []byte
	var err error
	if isUser {
		plain, err = s.Log.Sealer().OpenFor(ctx, subject, responsePlace(id), sealed)
	} else {
		plain, err = s.Log.Sealer().OpenState(responsePlace(id), sealed)
	}
	if errors.Is(err, eventstore.ErrNoKey) {
		return "", nil
	}
	return string(plain), err
}
