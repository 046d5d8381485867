package subscription

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// versions remembers the last event of each stream that a filtered subscription saw, to notice by the next one that
// some are missing.
type versions struct {
	filters []filter
	last    *lru.Cache[uuid.UUID, lastSeen]
}

type lastSeen struct {
	version  int
	position int64
}

// filter is a subject filter in its parts: the shard and what follows it.
type filter struct{ shard, rest string }

const rememberedStreams = 1 << 16

func newVersions(subjects []string) *versions {
	if len(subjects) == 0 {
		return nil
	}
	last, err := lru.New[uuid.UUID, lastSeen](rememberedStreams)
	if err != nil { // only for a size of 0
		panic(err)
	}
	v := &versions{last: last}
	for _, s := range subjects {
		shard, rest, _ := strings.Cut(strings.TrimPrefix(s, cloudevent.SubjectPrefix), ".")
		v.filters = append(v.filters, filter{shard, rest})
	}
	return v
}

// whole says whether some filter lets every event of the event's stream through.
func (v *versions) whole(e eventstore.Event) bool {
	for _, f := range v.filters {
		if (f.shard == "*" || f.shard == cloudevent.Shard(e.Stream.Subject)) && (f.rest == ">" || f.rest == string(e.Stream.Kind)+".>") {
			return true
		}
	}
	return false
}

// filtered hands over the messages of a filtered stream, in which the versions of a stream follow each other.
func (l *loop) filtered(ctx context.Context, batch []message) error {
	events := make([]eventstore.Event, 0, len(batch))
	seen := map[uuid.UUID]lastSeen{}
	to := l.position
	for _, m := range batch {
		if m.position <= to {
			continue
		}
		e := m.event
		if m.unusable {
			var err error
			if e, err = l.readOne(ctx, m.position); err != nil {
				return err
			}
		}
		missing, err := l.missing(ctx, e, seen)
		if err != nil {
			return err
		}
		events = append(append(events, missing...), e)
		seen[e.Stream.ID] = lastSeen{e.Version, e.Position}
		to = m.position
	}
	if err := l.hand(ctx, events, to); err != nil {
		return err
	}
	for stream, last := range maps.All(seen) {
		l.versions.last.Add(stream, last)
	}
	return nil
}

// missing reads the events of a stream between the last that was seen and e.
func (l *loop) missing(ctx context.Context, e eventstore.Event, seen map[uuid.UUID]lastSeen) ([]eventstore.Event, error) {
	last, known := seen[e.Stream.ID]
	if !known {
		last, known = l.versions.last.Get(e.Stream.ID)
	}
	if !known || e.Version <= last.version+1 || !l.versions.whole(e) {
		return nil, nil
	}
	if l.Source == nil {
		if e.Type == eventstore.TypeErased {
			return nil, nil // what came before it was purged, and does not matter any more
		}
		return nil, &GapError{After: last.position, Next: e.Position}
	}
	l.logger().InfoContext(ctx, "the stream lacks events; reading them from the log", "stream", e.Stream.String(),
		"after", last.position, "next", e.Position)
	var found []eventstore.Event
	for at := last.position; at < e.Position-1; {
		events, err := l.Source.ReadAll(ctx, at, int(min(int64(l.maxBatch()), e.Position-1-at)))
		if err != nil {
			return nil, fmt.Errorf("read what the stream lacks: %w", err)
		}
		if len(events) == 0 {
			return nil, fmt.Errorf("read what the stream lacks: the source has nothing after %d", at)
		}
		for _, candidate := range events {
			if candidate.Stream.ID == e.Stream.ID && candidate.Version > last.version {
				found = append(found, candidate)
			}
		}
		at = events[len(events)-1].Position
	}
	return found, nil
}

// readOne reads one event from the source.
func (l *loop) readOne(ctx context.Context, position int64) (eventstore.Event, error) {
	if l.Source == nil {
		return eventstore.Event{}, &GapError{After: position - 1, Next: position + 1}
	}
	events, err := l.Source.ReadAll(ctx, position-1, 1)
	if err != nil {
		return eventstore.Event{}, fmt.Errorf("read what the stream lacks: %w", err)
	}
	if len(events) == 0 {
		return eventstore.Event{}, fmt.Errorf("read what the stream lacks: the source has nothing at %d", position)
	}
	return events[0], nil
}
