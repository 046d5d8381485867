package storetest

import (
	"testing"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// A reader that goes on from an anchor is told when the log is not the one that it has read.
func testAnchor(t *testing.T, b Backend) {
	p := setup(t, b)
	for range 10 {
		mustAppend(t, p, facts(eventstore.UserStream(newID())))
	}
	all := readAll(t, p.Log)
	for name, c := range map[string]struct {
		anchor      eventstore.Anchor
		limit       int
		first, last int64 // 0 for none
		want        error
	}{
		"the beginning":    {eventstore.Anchor{}, 3, 1, 3, nil},
		"the first event":  {eventstore.AnchorOf(all[0]), 3, 2, 4, nil},
		"in between":       {eventstore.AnchorOf(all[5]), 100, 7, 10, nil},
		"the head":         {eventstore.AnchorOf(all[9]), 100, 0, 0, nil},
		"another event":    {eventstore.Anchor{Position: 6, ID: uuid.New()}, 3, 0, 0, eventstore.ErrForked},
		"another at head":  {eventstore.Anchor{Position: 10, ID: uuid.New()}, 3, 0, 0, eventstore.ErrForked},
		"beyond the head":  {eventstore.Anchor{Position: 11, ID: uuid.New()}, 3, 0, 0, eventstore.ErrForked},
		"far beyond it":    {eventstore.Anchor{Position: 99, ID: uuid.New()}, 3, 0, 0, eventstore.ErrForked},
		"an event earlier": {eventstore.Anchor{Position: 5, ID: all[5].ID}, 3, 0, 0, eventstore.ErrForked},
	} {
		events, _, err := p.ReadAfter(t.Context(), c.anchor, c.limit)
		wantError(t, name, err, c.want)
		switch {
		case c.first == 0 && len(events) == 0:
		case len(events) == 0 || events[0].Position != c.first || events[len(events)-1].Position != c.last:
			t.Errorf("%s: %d events, want %d to %d", name, len(events), c.first, c.last)
		}
	}
	for position, want := range map[int64]eventstore.Anchor{0: {}, 1: eventstore.AnchorOf(all[0]), 10: eventstore.AnchorOf(all[9])} {
		if got, err := p.AnchorAt(t.Context(), position); got != want || err != nil {
			t.Errorf("AnchorAt(%d) = %v, %v, want %v", position, got, err, want)
		}
	}
	_, err := p.AnchorAt(t.Context(), 11)
	wantError(t, "AnchorAt beyond the head", err, eventstore.ErrGap)
}
