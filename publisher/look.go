package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// keepLooking looks at the stream every few seconds, until ctx ends: whoever may manage it can empty it or change it, and
// nothing that is published would tell. What is missing makes the relay rebuild the stream; a configuration that is not
// the wanted one is set right.
func (r *Relay) keepLooking(ctx context.Context) {
	tick := time.NewTicker(r.LookEvery)
	defer tick.Stop()
	var refused []string // drift that could not be mended, and was logged
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.Status().State != StateRunning { // the relay looks itself before it runs again
			continue
		}
		// What can't be looked at now is next time; where the broker is away, the relay knows.
		if err := r.lookAgain(ctx, &refused); err != nil && ctx.Err() == nil {
			r.Logger.Debug("the JetStream stream was not looked at", "error", err)
		}
	}
}

func (r *Relay) lookAgain(ctx context.Context, refused *[]string) error {
	published := r.published.Load()
	info, err := r.look(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		r.interrupt(fmt.Errorf("%w: it is gone", ErrDamaged))
		return nil
	}
	if err != nil {
		return err
	}
	if int64(info.State.LastSeq) < published {
		r.interrupt(fmt.Errorf("%w: it ends at %d, and was published up to %d", ErrDamaged, info.State.LastSeq, published))
		return nil
	}
	if d := drift(info.Config, r.Stream.wanted(info.Config)); len(d) > 0 && !slices.Equal(d, *refused) {
		r.configure(ctx, info)
		*refused = d
	} else if len(d) == 0 {
		*refused = nil
	}
	head, err := r.Log.Head(ctx)
	if err != nil {
		return err
	}
	missing, err := r.missing(ctx, info, head)
	if err != nil {
		return err
	}
	lost, err := r.lost(ctx, missing, 1)
	if err != nil {
		return err
	}
	seen, err := r.seenFloors(ctx, info)
	if err != nil {
		return err
	}
	again, err := r.look(ctx)
	if err != nil {
		return err
	}
	if !again.Created.Equal(info.Created) || r.Status().State != StateRunning { // another stream, or it is being filled
		return nil
	}
	if len(lost) > 0 {
		r.hasFound(fmt.Errorf("%w: messages are missing, the first at %d", ErrDamaged, lost[0]))
		return nil
	}
	// What was taken out between the two looks may have moved the floors.
	if again.State.FirstSeq == info.State.FirstSeq && again.State.NumDeleted == info.State.NumDeleted {
		r.mu.Lock()
		r.accounted, r.floors = accountOf(info), seen
		r.mu.Unlock()
	}
	return nil
}

// hasFound makes the relay do something about the stream: rebuild it, for an ErrDamaged, or halt or follow, for an
// ErrForeignStream.
func (r *Relay) hasFound(found error) {
	r.mu.Lock()
	r.found = found
	r.mu.Unlock()
	r.interrupt(found)
}

// floors are the positions up to which the durable consumers of a stream had handled everything at the last look at it.
// When messages that they had not handled are purged, the server moves them on to where the stream begins now.
type floors struct {
	created time.Time // the stream
	of      map[string]int64
}

func (r *Relay) seenFloors(ctx context.Context, info *jetstream.StreamInfo) (floors, error) {
	durables, err := r.durables(ctx)
	f := floors{created: info.Created, of: make(map[string]int64, len(durables))}
	for _, d := range durables {
		f.of[d.Config.Durable] = d.Floor
	}
	return f, err
}

// setBackToFloors has durable consumers go on where they were at the last look, if anything is missing between there and
// where the server says that they are: they may not have handled it.
func (r *Relay) setBackToFloors(ctx context.Context, info *jetstream.StreamInfo, head int64, durables []durable) error {
	r.mu.Lock()
	f := r.floors
	r.mu.Unlock()
	if !f.created.Equal(info.Created) {
		return nil
	}
	missing, err := r.missing(ctx, info, head)
	if err != nil {
		return err
	}
	for i := range durables {
		d := &durables[i]
		floor, known := f.of[d.Config.Durable]
		if !known || floor >= d.Floor {
			continue
		}
		between := slices.DeleteFunc(slices.Clone(missing), func(p int64) bool { return p <= floor || p > d.Floor })
		lost, err := r.lost(ctx, between, 1)
		if err != nil {
			return err
		}
		if len(lost) > 0 {
			r.Logger.Warn("a durable consumer had not handled all that is missing, and gets it again", "durable", d.Config.Durable, "after", floor)
			d.Floor = floor
		}
	}
	return nil
}
