package webhook

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// prepare makes events of the stream ready to be sent, in the order of their positions, and answers with how their users
// stand. An event is sent as the message has it, unless that may have more than may be sent, or is of an old schema version:
// then it is read from the log. It fails with eventstore.ErrForeign or errFenced, or where nothing can be read now.
func (s *sender) prepare(ctx context.Context, list []*parcel) (map[uuid.UUID]standing, error) {
	users := make([]uuid.UUID, len(list))
	for i, p := range list {
		users[i] = p.subject
	}
	read := time.Now()
	found, err := s.look(ctx, users, list[len(list)-1].place())
	if err != nil {
		return nil, err
	}
	var unread []*parcel
	for _, p := range list {
		p.read = read
		if s.Service.OmitPersonal || p.isUser && found[p.subject].keyless || s.Service.Log.Outdated(p.event) {
			unread = append(unread, p)
		}
	}
	return found, s.compose(ctx, unread)
}

// compose reads the events of deliveries from the log. A user who was erased by now has no key any more, whatever key is still
// in memory: so it is looked up each time. It fails where nothing can be read now; an event that can't be read at all fails
// alone.
func (s *sender) compose(ctx context.Context, list []*parcel) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *parcel) int { return cmp.Compare(a.position, b.position) })
	log, read := s.Service.Log, time.Now()
	positions := make([]int64, len(list))
	for i, p := range list {
		positions[i] = p.position
		if p.isUser {
			log.Sealer().Forget(p.subject)
		}
	}
	events, err := log.ReadAt(ctx, positions)
	switch {
	case err == nil:
		for i, p := range list {
			p.event, p.read = events[i], read
		}
	case ctx.Err() != nil || errors.Is(err, eventstore.ErrUnavailable):
		return err
	case len(list) == 1:
		list[0].unreadable, list[0].read = err, read
	default:
		for i := range list {
			if err := s.compose(ctx, list[i:i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// attempt makes one attempt.
func (s *sender) attempt(ctx context.Context, p *parcel) {
	p.began = s.Service.now()
	if time.Since(p.read) > freshFor {
		p.stale = true
		return
	}
	var m message
	err := p.unreadable
	if err == nil {
		t := s.target.Load()
		m, err = newMessage(t.url, t.signer, cloudevent.Structured(p.event, s.Service.encoding()))
	}
	if err != nil { // trying again for ever would hold the user's later events back for ever
		s.logger().ErrorContext(ctx, "event can't be sent", slog.Int64("position", p.position), slog.Any("error", err))
		p.reason = "the event can't be read from the log"
		return
	}
	parent, end := p.event.StartSpan(s.Tracer, "deliver "+p.event.Type)
	m.traceParent = parent
	p.answer = s.Service.client.send(ctx, m)
	end(p.failure())
}
