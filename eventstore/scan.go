package eventstore

import (
	"context"
	"fmt"
)

// Scan reads the log after a position and looks for events of certain types: it answers with at most limit of them, opened
// and upcast, and with the position that it has looked through the log to. It looks at no more than span events, so it may
// have found none and not be at the end. Only what is asked for is opened. It fails with ErrGap where a position is missing.
func (l *Log) Scan(ctx context.Context, after int64, limit, span int, wanted func(eventType string) bool) (found []Event, through int64, err error) {
	through = after
	for span > 0 && len(found) < limit {
		size := min(span, scanPage)
		page, err := l.store.ReadAll(ctx, through, size)
		if err != nil {
			return nil, after, fmt.Errorf("read after %d: %w", through, err)
		}
		for _, e := range page {
			if e.Position != through+1 {
				return nil, after, fmt.Errorf("read after %d: %w: position %d where %d belongs", through, ErrGap, e.Position, through+1)
			}
			through = e.Position
			if wanted(e.Type) {
				if found = append(found, e); len(found) == limit {
					break
				}
			}
		}
		if len(page) < size {
			break
		}
		span -= size
	}
	found, err = l.opened(ctx, found)
	return found, through, err
}

const scanPage = 500
