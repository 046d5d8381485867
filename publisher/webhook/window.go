package webhook

import (
	"time"

	"github.com/google/uuid"
)

// window is the events that were taken from the stream and are not written down yet, those that the webhook wants, in the
// order of their positions. They are sent from here. One whose user has a delivery that is stored, or whose answer takes
// long, is settled without an outcome: it gets a row that is pending, and goes on as every delivery that has one.
//
// The checkpoint follows the beginning of the window. So every event up to it has a row, and none after it.
type window struct {
	parcels []*parcel
	settled int // of them at the beginning, without a gap
	waiting int // of them that wait for an earlier one of their user
	lines   map[uuid.UUID]*line
	last    place // of the last event that was taken, wanted or not
}

// line is what the window has of one user.
type line struct {
	waiting []*parcel // for the one that is on its way
	parcels int       // all of them
	held    bool      // nothing more is sent from the window
}

// state is how far a delivery in the window is.
type state int

const (
	waiting state = iota // for an earlier one of its user
	onItsWay
	settled // to be written down
)

func newWindow(at place) window { return window{lines: map[uuid.UUID]*line{}, last: at} }

// add puts a delivery at the end, and says whether it is to be sent now: not where its user is held, or where an earlier one
// of the user is on its way.
func (w *window) add(p *parcel, held, busy bool) (send bool) {
	l := w.lines[p.subject]
	if l == nil {
		l = &line{}
		w.lines[p.subject] = l
	}
	if held {
		w.hold(p.subject)
	}
	l.parcels++
	p.since = time.Now()
	switch {
	case l.held:
		p.state = settled
		p.unload()
	case busy:
		p.state = waiting
		l.waiting = append(l.waiting, p)
		w.waiting++
	default:
		p.state = onItsWay
	}
	w.parcels = append(w.parcels, p)
	w.advance()
	return p.state == onItsWay
}

// answered settles a delivery that was on its way, and answers with the one of its user that is to be sent next, if any.
// After a failure nothing more of the user is.
func (w *window) answered(p *parcel) (next *parcel) {
	p.state = settled
	w.advance()
	if p.status == DeliveryPending {
		w.hold(p.subject)
	}
	l := w.lines[p.subject]
	if l == nil || len(l.waiting) == 0 {
		return nil
	}
	next, l.waiting = l.waiting[0], l.waiting[1:]
	next.state = onItsWay
	w.waiting--
	return next
}

// hold has the events of a user that were not sent yet stored as pending, and those that come as long as the window has any.
func (w *window) hold(user uuid.UUID) {
	l := w.lines[user]
	if l == nil {
		return
	}
	for _, p := range l.waiting {
		p.state = settled
		p.unload()
	}
	w.waiting -= len(l.waiting)
	l.waiting, l.held = nil, true
	w.advance()
}

func (w *window) holdAll() {
	for user := range w.lines {
		w.hold(user)
	}
}

// spill settles what holds up the beginning of the window because its answer takes long.
func (w *window) spill(longest time.Duration) {
	for w.settled < len(w.parcels) && time.Since(w.parcels[w.settled].since) >= longest {
		p := w.parcels[w.settled]
		p.state = settled
		w.hold(p.subject)
	}
}

func (w *window) advance() {
	for w.settled < len(w.parcels) && w.parcels[w.settled].state == settled {
		w.settled++
	}
}

// ready is what can be written down, and the place of the checkpoint after that.
func (w *window) ready(saved place) ([]*parcel, place) {
	switch w.settled {
	case len(w.parcels):
		return w.parcels, w.last
	case 0:
		return nil, saved
	}
	return w.parcels[:w.settled], w.parcels[w.settled-1].place()
}

// written takes away what was written down.
func (w *window) written(list []*parcel) {
	for _, p := range list {
		if l := w.lines[p.subject]; l.parcels > 1 {
			l.parcels--
		} else {
			delete(w.lines, p.subject)
		}
	}
	w.parcels = w.parcels[len(list):]
	w.settled -= len(list)
}

// cut takes away what comes after the last delivery whose outcome is known: whoever is next takes it from the stream again.
// The rest is settled.
func (w *window) cut(saved place) {
	w.holdAll()
	n := 0
	for i, p := range w.parcels {
		p.state = settled
		if p.tried {
			n = i + 1
		}
	}
	if n < len(w.parcels) {
		w.last = saved
		if n > 0 {
			w.last = w.parcels[n-1].place()
		}
		w.parcels = w.parcels[:n]
	}
	w.settled = n
}
