package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// ErrForked: the log is not the one that was read before. Its database was restored, or gave way to another that lacks its
// newest events; from some position on it has others, or none.
var ErrForked = errors.New("the log does not have what was read from it: its database was restored, or gave way to one that lacks its newest events")

// Anchor is the event that somebody has read the log up to. The zero value is where the log begins.
type Anchor struct {
	Position int64
	ID       uuid.UUID
}

// AnchorOf is the anchor at an event.
func AnchorOf(e Event) Anchor { return Anchor{e.Position, e.ID} }

// ReadAfter reads at most limit events after an anchor as they are stored, in the order of their positions. The anchor is read
// with them, by the same statement: as long as the log has it, the events continue what was read before. It fails with
// ErrForked where the log does not, and with ErrGap where a position is missing. It ends early where the events come to more
// than a few MiB, and says whether there may be more.
func ReadAfter(ctx context.Context, store Store, a Anchor, limit int) (events []Event, more bool, err error) {
	first, to := a.Position, a.Position+int64(limit)
	if first > 0 {
		first--
	}
	events, through, _, err := store.ReadRange(ctx, first, to, nil, readBytes)
	if err != nil {
		return nil, false, fmt.Errorf("read after %d: %w", a.Position, err)
	}
	if a.Position > 0 {
		if len(events) == 0 || AnchorOf(events[0]) != a {
			return nil, false, fmt.Errorf("read after %d: %w", a.Position, ErrForked)
		}
		events = events[1:]
	}
	return events, through < to || len(events) == limit, inOrder(a.Position, events)
}

// ReadAfter reads at most limit events after an anchor, opened and upcast. It fails as the function of that name does.
func (l *Log) ReadAfter(ctx context.Context, a Anchor, limit int) (events []Event, more bool, err error) {
	events, more, err = ReadAfter(ctx, l.store, a, limit)
	if err != nil {
		return nil, false, err
	}
	events, err = l.opened(ctx, events)
	return events, more, err
}

// AnchorAt is the anchor at a position. It fails with ErrGap where the log has nothing there.
func (l *Log) AnchorAt(ctx context.Context, position int64) (Anchor, error) {
	if position == 0 {
		return Anchor{}, nil
	}
	events, err := l.store.ReadAll(ctx, position-1, 1)
	switch {
	case err != nil:
		return Anchor{}, fmt.Errorf("read the event at %d: %w", position, err)
	case len(events) == 0 || events[0].Position != position:
		return Anchor{}, fmt.Errorf("read the event at %d: %w", position, ErrGap)
	}
	return AnchorOf(events[0]), nil
}
