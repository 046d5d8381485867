package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.example/eventstore"
)

// State is what a relay is doing.
type State string

// The states of a relay.
const (
	StateStarting   State = "starting"
	StateStandby    State = "standby"    // another relay holds the lease
	StateRunning    State = "running"    // publishing, or waiting for events
	StateRetrying   State = "retrying"   // the broker or the database can't be reached or refuses
	StateBlocked    State = "blocked"    // an event can't be published, and none after it
	StateRebuilding State = "rebuilding" // filling the JetStream stream again from the log
	StateHalted     State = "halted"     // until it is reset
	StateReset      State = "reset"      // a reset was asked for
	StateStopped    State = "stopped"    // no relay is running
)

// Status is how far the log is published.
type Status struct {
	Head      int64  `json:"head"`      // last position of the log
	Published int64  `json:"published"` // last position in the JetStream stream
	Lag       int64  `json:"lag"`       // events between the two
	State     State  `json:"state"`
	Error     string `json:"error,omitempty"`
	// Alive says whether a relay has told of itself lately: one that has halted goes on doing so.
	Alive bool `json:"-"`
}

// Counters count what a relay did since it was made.
type Counters struct {
	Resyncs   int64 // times it began anew from the state of the stream
	TailsLost int64 // times the stream had lost its end
	Rebuilds  int64 // of the stream
	Restores  int64 // times the stream had what the log did not have any more, and was made its copy again
}

// Status is the state of this relay. It asks nobody: the head is the last one that the relay saw.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Head: r.head.Load(), Published: r.published.Load(), State: r.state}
	s.Head = max(s.Head, s.Published)
	s.Lag = s.Head - s.Published
	if r.err != nil {
		s.Error = r.err.Error()
	}
	return s
}

// Counters counts what this relay did.
func (r *Relay) Counters() Counters {
	return Counters{Resyncs: r.resyncs.Load(), TailsLost: r.tailsLost.Load(), Rebuilds: r.rebuilds.Load(), Restores: r.restores.Load()}
}

// silence is the age from which a relay's row says that the relay is gone.
const silence = 4 * heartbeat

// ReadStatus is the state of whichever relay publishes to a stream, as it last wrote it down, at most a few seconds ago.
func ReadStatus(ctx context.Context, log *eventstore.Log, db eventstore.DB, stream string, now time.Time) (Status, error) {
	head, err := log.Head(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("status of the relay: %w", err)
	}
	s := Status{Head: head, State: StateStopped}
	var updated time.Time
	err = db.QueryRow(ctx, "SELECT published, state, error, updated_at FROM relay WHERE stream = $1", stream).
		Scan(&s.Published, &s.State, &s.Error, &updated)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return Status{}, fmt.Errorf("status of the relay: %w", err)
	}
	s.Alive = s.State != StateStopped && now.Sub(updated) <= silence
	if s.State != StateHalted && !s.Alive {
		s.State = StateStopped
	}
	reset, err := resetWanted(ctx, db, stream)
	if err != nil {
		return Status{}, fmt.Errorf("status of the relay: %w", err)
	}
	if reset {
		s.State, s.Error = StateReset, ""
	}
	s.Lag = max(0, s.Head-s.Published)
	return s, nil
}

func (r *Relay) setState(state State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.is(state, err) {
		return
	}
	r.state, r.err = state, err
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// is compares; the mutex is held.
func (r *Relay) is(state State, err error) bool {
	if r.state != state || (r.err == nil) != (err == nil) {
		return false
	}
	return err == nil || r.err.Error() == err.Error()
}

// report makes what stopped the relay its state, and logs it unless it was the last thing logged.
func (r *Relay) report(err error) {
	state := StateRetrying
	switch {
	case err == nil || errors.Is(err, errStopped):
		state, err = StateStopped, nil
	case errors.Is(err, ErrHalted):
		state = StateHalted
	case errors.Is(err, errResetWanted) || errors.Is(err, ErrDamaged):
		state = StateRebuilding
	case errors.Is(err, ErrUnpublishable):
		state = StateBlocked
	}
	r.mu.Lock()
	news := err != nil && !r.is(state, err)
	r.mu.Unlock()
	r.setState(state, err)
	if !news {
		return
	}
	switch state {
	case StateHalted, StateBlocked:
		r.Logger.Error("the relay stopped", "state", state, "error", err)
	default:
		r.Logger.Warn("the relay begins anew", "state", state, "error", err)
	}
}
