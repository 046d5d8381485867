package eventstore

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Reader goes through the log, part by part. Readers of a Log that go through the same parts at about the same time, such
// as rebuilds of several read models, read and open them once: whoever comes first to a part reads what all of them want
// of it, and the others are handed that. The last few parts are kept for them, and none is handed on for longer than a data
// key is used.
type Reader struct {
	log       *Log
	selection Selection
	at        int64 // where the last part that was asked for ends; guarded by the parts' mutex
}

// Reader makes a reader of the selected events. It has to be closed.
func (l *Log) Reader(s Selection) *Reader {
	r := &Reader{log: l, selection: s}
	l.parts.mu.Lock()
	defer l.parts.mu.Unlock()
	l.parts.readers = append(l.parts.readers, r)
	return r
}

// Close lets go of what is kept for the reader.
func (r *Reader) Close() {
	p := &r.log.parts
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readers = slices.DeleteFunc(p.readers, func(other *Reader) bool { return other == r })
	if len(p.readers) < 2 {
		p.list = nil
	}
}

// ReadRange is ReadRange of the Log, with events that must not be changed, of which those that might have stayed sealed may
// be opened. Parts may be asked for side by side, but begin in their order.
func (r *Reader) ReadRange(ctx context.Context, after, to int64) (events []Event, through int64, err error) {
	p, mine := r.log.parts.find(r, after, to)
	if p == nil {
		return r.log.ReadRange(ctx, after, to, r.selection)
	}
	if mine {
		p.events, p.through, p.err = r.log.ReadRange(ctx, after, to, p.selection)
		r.log.parts.keep(p)
		close(p.read)
	}
	select {
	case <-p.read:
	case <-ctx.Done():
		return nil, after, context.Cause(ctx)
	}
	if p.err != nil { // which may be for what only others want, or because another was told to end
		return r.log.ReadRange(ctx, after, to, r.selection)
	}
	return r.selection.of(p.events), p.through, nil
}

// maxKept bounds the parts that are kept: how many bytes their events have, and what each has besides.
const (
	maxKept     = 16 << 20
	besidesData = 512
)

// parts are those that were read last.
type parts struct {
	mu      sync.Mutex
	readers []*Reader
	list    []*part // the oldest first
}

// part is a part of the log: what is selected of what follows one position, up to another.
type part struct {
	after, to int64
	selection Selection
	since     time.Time
	read      chan struct{} // closed once there are events or an error
	events    []Event
	through   int64
	err       error
	bytes     int // guarded by the parts' mutex; 0 until it is read
}

// find answers with a part that has what a reader wants, or with a new one that is the reader's to read, or with nil
// where nobody else has use for it.
func (p *parts) find(r *Reader, after, to int64) (found *part, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.at = max(r.at, to)
	for _, known := range p.list {
		if known.after == after && known.to == to && known.selection.has(r.selection) && time.Since(known.since) < keyFor {
			return known, false
		}
	}
	wanted, others := r.selection, false
	for _, other := range p.readers {
		if other != r && other.at <= after {
			wanted, others = wanted.and(other.selection), true
		}
	}
	if !others {
		return nil, false
	}
	found = &part{after: after, to: to, selection: wanted, since: time.Now(), read: make(chan struct{})}
	p.list = append(p.list, found)
	return found, true
}

// keep lets go of the oldest parts, now that one of them was read.
func (p *parts) keep(read *part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range read.events {
		read.bytes += len(e.Data) + len(e.Sealed) + len(e.Personal) + besidesData
	}
	kept := 0
	for i, known := range slices.Backward(p.list) {
		if kept += known.bytes; kept > maxKept && i < len(p.list)-1 {
			p.list = slices.Delete(p.list, 0, i+1)
			break
		}
	}
}

// drop lets go of all parts: what they have may not be in the log any more.
func (p *parts) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = nil
}

// and is what either selects.
func (s Selection) and(other Selection) Selection {
	s.Sealed = s.Sealed && other.Sealed
	if len(s.Kinds) == 0 || len(other.Kinds) == 0 {
		s.Kinds = nil
		return s
	}
	s.Kinds = slices.Clone(s.Kinds)
	for _, k := range other.Kinds {
		if !slices.Contains(s.Kinds, k) {
			s.Kinds = append(s.Kinds, k)
		}
	}
	return s
}

// has says whether what another selects is among what this does.
func (s Selection) has(other Selection) bool {
	if s.Sealed && !other.Sealed || len(s.Kinds) > 0 && len(other.Kinds) == 0 {
		return false
	}
	return len(s.Kinds) == 0 || !slices.ContainsFunc(other.Kinds, func(k Kind) bool { return !slices.Contains(s.Kinds, k) })
}

// of are the selected ones of a part's events, and the last one.
func (s Selection) of(events []Event) []Event {
	if len(s.Kinds) == 0 {
		return events
	}
	n := 0
	for i := range events {
		if s.selects(&events[i]) || i == len(events)-1 {
			n++
		}
	}
	selected := make([]Event, 0, n)
	for i := range events {
		if s.selects(&events[i]) || i == len(events)-1 {
			selected = append(selected, events[i])
		}
	}
	return selected
}

func (s Selection) selects(e *Event) bool {
	return slices.Contains(s.Kinds, e.Stream.Kind) || e.Type == TypeErased
}
