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

// ReadRange reads the selected events after one position and up to another, which the log has reached, in the order of
// their positions, upcast, and opened unless they are to stay sealed. It fails with ErrGap where a position is missing,
// selected or not.
func (l *Log) ReadRange(ctx context.Context, after, to int64, s Selection) ([]Event, error) {
	events, n, err := l.store.ReadRange(ctx, after, to, s.Kinds)
	if err == nil && n != to-after {
		err = fmt.Errorf("%w: %d events where there are %d", ErrGap, n, to-after)
	}
	if err != nil {
		return nil, fmt.Errorf("read after %d up to %d: %w", after, to, err)
	}
	if s.Sealed {
		l.forgetErased(events)
		return events, l.upcast(events)
	}
	return l.opened(ctx, events)
}
