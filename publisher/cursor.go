package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"usher.example/eventstore"
)

const (
	// saveEvery is the shortest time between two copies of the cursor to the database.
	saveEvery = 500 * time.Millisecond
	// heartbeat is the longest: the row tells that the relay is alive, and learns of a reset.
	heartbeat = 5 * time.Second
)

// row is the relay's row in the database.
type row struct {
	published int64
	state     State
	reason    string   // of the state
	rebuild   *rebuild // nil unless one is under way
	reset     bool     // is asked for
}

// savedRow is the cursor that was last written there, and when.
type savedRow struct {
	published int64
	at        time.Time
}

// haltedError is an ErrHalted that was written down, perhaps by another process.
type haltedError struct{ text string }

func (e *haltedError) Error() string        { return e.text }
func (e *haltedError) Is(target error) bool { return target == ErrHalted }

// adopt makes what the row says this relay's own, which from then on writes it. It fails with ErrHalted, but not where a relay
// that follows restores may do something about it.
func (r *Relay) adopt(found row) error {
	defer r.loaded.Store(true)
	r.published.Store(max(found.published, r.published.Load()))
	if found.state != StateHalted || found.reset || r.FollowRestores && !strings.Contains(found.reason, ErrNothingCommon.Error()) {
		return nil
	}
	halted := &haltedError{found.reason}
	r.report(halted) // before the row is written, or it would be halted no longer
	return halted
}

func (r *Relay) load(ctx context.Context) (row, error) {
	var (
		found row
		plan  *string
	)
	err := r.DB.QueryRow(ctx, "SELECT published, state, error, durables FROM relay WHERE stream = $1", r.Stream.Name).
		Scan(&found.published, &found.state, &found.reason, &plan)
	if errors.Is(err, eventstore.ErrNoRows) {
		found, err = row{state: StateStarting}, nil
	}
	if err == nil {
		found.reset, err = resetWanted(ctx, r.DB, r.Stream.Name)
	}
	if err == nil && plan != nil {
		err = json.Unmarshal([]byte(*plan), &found.rebuild)
	}
	if err != nil {
		return row{}, fmt.Errorf("read the relay's row: %w", err)
	}
	return found, nil
}

// keepSaving copies the cursor and the state to the database until ctx ends: a change of state at once, the cursor a
// few times a second at most.
func (r *Relay) keepSaving(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-tick.C:
			if r.published.Load() == r.saved.published && r.Now().Sub(r.saved.at) < heartbeat {
				continue
			}
		}
		// Where the database can't be written to, the relay stops for that reason itself, as soon as it reads.
		if err := r.save(ctx); err != nil && ctx.Err() == nil {
			r.Logger.Debug("the relay's cursor was not saved", "error", err)
		}
	}
}

// save writes the row, once it was read; unless a reset is asked for there: then it interrupts the relay.
func (r *Relay) save(ctx context.Context) error {
	if !r.loaded.Load() {
		return nil
	}
	s := r.Status()
	now := r.Now().UTC()
	n, err := r.DB.Exec(ctx, `
		INSERT INTO relay (stream, published, state, error, updated_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (stream) DO UPDATE
		   SET published = excluded.published, state = excluded.state, error = excluded.error, updated_at = excluded.updated_at
		 WHERE NOT EXISTS (SELECT 1 FROM relay_orders o WHERE o.stream = relay.stream)`, r.Stream.Name, s.Published, s.State, s.Error, now)
	if err != nil {
		return fmt.Errorf("save the relay's cursor: %w", err)
	}
	if n == 0 {
		r.interrupt(errResetWanted)
		return nil
	}
	r.saved = savedRow{s.Published, now}
	return nil
}

// putState writes a state that must be there before the relay goes on.
func (r *Relay) putState(ctx context.Context, published int64, state State, reason string, plan *rebuild) error {
	var text *string
	if plan != nil {
		raw, err := json.Marshal(plan)
		if err != nil {
			return fmt.Errorf("encode the rebuild: %w", err)
		}
		s := string(raw)
		text = &s
	}
	_, err := r.DB.Exec(ctx, `
		INSERT INTO relay (stream, published, state, error, durables, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (stream) DO UPDATE
		   SET published = excluded.published, state = excluded.state, error = excluded.error,
		       durables = excluded.durables, updated_at = excluded.updated_at`,
		r.Stream.Name, published, state, reason, text, r.Now().UTC())
	if err != nil {
		return fmt.Errorf("save the relay's state: %w", err)
	}
	return nil
}
