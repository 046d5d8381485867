package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

var ada, eve = uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())

// windowOf is a window with an event of each user, at the positions from 1 on.
func windowOf(users ...uuid.UUID) (w window, parcels []*parcel) {
	w = newWindow(place{})
	onWay := map[uuid.UUID]bool{}
	for i, user := range users {
		p := &parcel{position: int64(i + 1), subject: user, status: DeliveryPending}
		if w.add(p, false, onWay[user]) {
			onWay[user] = true
		}
		w.last = p.place()
		parcels = append(parcels, p)
	}
	return w, parcels
}

// come settles a delivery, and answers with the position of the one that is sent next.
func (w *window) come(p *parcel, status DeliveryStatus) int64 {
	p.tried, p.status = true, status
	if next := w.answered(p); next != nil {
		return next.position
	}
	return 0
}

// readyNow is the positions that are ready to be written, and where the checkpoint would be.
func (w *window) readyNow() (positions []int64, checkpoint int64) {
	list, to := w.ready(place{})
	for _, p := range list {
		positions = append(positions, p.position)
	}
	return positions, to.position
}

func (w *window) wantReady(t *testing.T, when string, checkpoint int64, positions ...int64) {
	t.Helper()
	got, at := w.readyNow()
	if diff := cmp.Diff(positions, got); diff != "" || at != checkpoint {
		t.Errorf("%s: the checkpoint would be at %d, want %d; ready (-want +got):\n%s", when, at, checkpoint, diff)
	}
}

// The checkpoint follows what is settled without a gap, however the answers come.
func TestWindowFollowsTheFirstThatIsNotSettled(t *testing.T) {
	t.Parallel()
	w, p := windowOf(ada, eve, ada)
	w.come(p[1], DeliveryDelivered)
	w.wantReady(t, "the second is delivered", 0)
	if next := w.come(p[0], DeliveryDelivered); next != 3 {
		t.Errorf("after the user's first, position %d is sent, want 3", next)
	}
	w.wantReady(t, "the first is, too", 2, 1, 2)
	list, _ := w.ready(place{})
	w.written(list)
	w.come(p[2], DeliveryDelivered)
	w.wantReady(t, "those are written, and the third is delivered", 3, 3)
	list, _ = w.ready(place{})
	w.written(list)
	if len(w.lines) != 0 || w.waiting != 0 {
		t.Errorf("%d users are left, and %d deliveries wait", len(w.lines), w.waiting)
	}
}

// After a failure, what comes of the user is to be stored; after a dead letter, it goes on.
func TestWindowHoldsAUser(t *testing.T) {
	t.Parallel()
	w, p := windowOf(ada, ada, eve)
	if next := w.come(p[0], DeliveryPending); next != 0 {
		t.Errorf("after a failure, position %d is sent", next)
	}
	if w.add(&parcel{position: 4, subject: ada}, false, false) {
		t.Error("what comes next of the user is sent")
	}
	w.wantReady(t, "a user is held", 2, 1, 2)
	if w.waiting != 0 {
		t.Errorf("%d deliveries wait", w.waiting)
	}
	w, p = windowOf(ada, ada)
	if next := w.come(p[0], DeliveryDead); next != 2 {
		t.Errorf("after a dead letter, position %d is sent, want 2", next)
	}
}

// What takes long is settled as it is, with all of its user.
func TestWindowSpills(t *testing.T) {
	t.Parallel()
	w, _ := windowOf(ada, ada, eve)
	w.spill(0)
	w.wantReady(t, "all takes long", 3, 1, 2, 3)
	w, p := windowOf(ada, ada, eve)
	w.come(p[2], DeliveryDelivered)
	w.spill(patience)
	w.wantReady(t, "nothing does", 0)
}

// At the end, what comes after the last that was answered is left to whoever is next.
func TestWindowIsCut(t *testing.T) {
	t.Parallel()
	w, p := windowOf(ada, eve, ada, eve)
	w.come(p[1], DeliveryDelivered)
	w.cut(place{})
	w.wantReady(t, "the second was answered", 2, 1, 2)
	if p[0].status != DeliveryPending || p[0].tried {
		t.Errorf("the first, which was not answered, is %s", p[0].status)
	}
	w, _ = windowOf(ada, eve)
	w.cut(place{})
	w.wantReady(t, "none was answered", 0)
}
