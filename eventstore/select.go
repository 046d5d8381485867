package eventstore

import (
	"context"
	"fmt"
)

// Selection is which events of the log a reader wants, and what of them. The zero value is everything.
type Selection struct {
	// Kinds are those of the streams whose events are wanted; of all streams when empty. A TypeErased is always among the
	// answers, and so is the last event of a part, which tells whose log it was read from.
	Kinds []Kind
	// Sealed leaves personal fields sealed: the reader has no use for them, and they take most of the time.
	Sealed bool
}

// readBytes is about how much one read of a part of the log has in memory, however large the events are. It is some 6,000 events of
// the usual size.
const readBytes = 2 << 20

// ReadRange reads the selected events after one position and up to another, which the log has reached, in the order of
// their positions, upcast, and opened unless they are to stay sealed. Where they come to more than a few MiB it reads no further,
// and the position that it has read through, with which it answers, is before the other. It fails with ErrGap where a position is
// missing, selected or not.
func (l *Log) ReadRange(ctx context.Context, after, to int64, s Selection) (events []Event, through int64, err error) {
	events, through, n, err := l.store.ReadRange(ctx, after, to, s.Kinds, readBytes)
	if err == nil && n != through-after {
		err = fmt.Errorf("%w: %d events where there are %d", ErrGap, n, through-after)
	}
	if err != nil {
		return nil, after, fmt.Errorf("read after %d up to %d: %w", after, to, err)
	}
	if s.Sealed {
		l.forgetErased(events)
		return events, through, l.upcast(events)
	}
	events, err = l.opened(ctx, events)
	return events, through, err
}

// ReadSome is ReadAll for as many events as there may be: it ends early where they come to more than a few MiB. It says
// whether there may be more.
func (l *Log) ReadSome(ctx context.Context, after int64, limit int) (events []Event, more bool, err error) {
	to := after + int64(limit)
	events, through, _, err := l.store.ReadRange(ctx, after, to, nil, readBytes)
	if err != nil {
		return nil, false, fmt.Errorf("read after %d: %w", after, err)
	}
	if err := inOrder(after, events); err != nil {
		return nil, false, err
	}
	events, err = l.opened(ctx, events)
	return events, through < to || len(events) == limit, err
}
