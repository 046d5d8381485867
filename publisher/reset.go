package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// ResetPlan says what a reset does.
type ResetPlan struct {
	Stream    string   `json:"stream"`
	Messages  int64    `json:"messages"`  // in the stream, which are deleted
	Last      int64    `json:"last"`      // the stream's last sequence
	Head      int64    `json:"head"`      // of the log, which is published from its beginning
	Common    int64    `json:"common"`    // up to here the stream has what the log has
	Consumers []string `json:"consumers"` // durable ones, which go on where they are or after Common, whichever is less
	SetBack   []string `json:"set_back"`  // those of them that have read further than Common
}

// String is the plan in words.
func (p ResetPlan) String() string {
	s := fmt.Sprintf("delete the JetStream stream %s with its %d messages, and publish the log again, up to position %d", p.Stream, p.Messages, p.Head)
	if p.Common < p.Last {
		s += fmt.Sprintf("; what subscribers got after position %d is not in the log", p.Common)
	}
	return s
}

// PlanReset says what Reset would make happen now, and changes nothing.
func (r *Relay) PlanReset(ctx context.Context) (ResetPlan, error) {
	plan := ResetPlan{Stream: r.Stream.Name}
	info, err := r.look(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return plan, fmt.Errorf("plan a reset: %w", err)
	}
	if plan.Head, err = r.Log.Head(ctx); err != nil {
		return plan, fmt.Errorf("plan a reset: %w", err)
	}
	if info == nil {
		return plan, nil
	}
	plan.Messages, plan.Last = int64(info.State.Msgs), int64(info.State.LastSeq)
	if plan.Common, err = r.common(ctx, info, plan.Head); err != nil {
		return plan, fmt.Errorf("plan a reset: %w", err)
	}
	durables, err := r.durables(ctx)
	if err != nil {
		return plan, fmt.Errorf("plan a reset: %w", err)
	}
	for _, d := range durables {
		plan.Consumers = append(plan.Consumers, d.Config.Durable)
		if d.Floor > plan.Common {
			plan.SetBack = append(plan.SetBack, d.Config.Durable)
		}
	}
	return plan, nil
}

// Reset asks whichever relay runs, or runs next, to do what PlanReset says. It answers once that is written down; the
// relay sees it within seconds. Unless it is forced it fails with ErrNotHalted where the relay has not halted, since a
// stream that is well is not made anew. In Postgres only the owner of the tables may ask for it.
func (r *Relay) Reset(ctx context.Context, force bool) error {
	n, err := r.DB.Exec(ctx, `
		INSERT INTO relay_orders (stream, ordered_at)
		SELECT $1, $2 WHERE $3 OR EXISTS (SELECT 1 FROM relay WHERE stream = $1 AND state = 'halted')
		ON CONFLICT (stream) DO UPDATE SET ordered_at = excluded.ordered_at`, r.Stream.Name, r.Now().UTC(), force)
	if err == nil && n == 0 {
		err = ErrNotHalted
	}
	if err != nil {
		return fmt.Errorf("reset the relay: %w", err)
	}
	return nil
}

// resetWanted says whether a reset is asked for and not begun.
func resetWanted(ctx context.Context, db eventstore.DB, stream string) (bool, error) {
	err := db.QueryRow(ctx, "SELECT 1 FROM relay_orders WHERE stream = $1", stream).Scan(new(int))
	if errors.Is(err, eventstore.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for an order: %w", err)
	}
	return true, nil
}

// reset makes the stream anew from the log, whatever is in it. Durable consumers are kept, also those of a rebuild that
// the reset replaces, but none goes on after a position up to which the stream was another log's.
func (r *Relay) reset(ctx context.Context, found row, info *jetstream.StreamInfo, head int64) (last int64, err error) {
	r.Logger.Warn("resetting: the JetStream stream is made anew from the log")
	r.takeDamage()
	plan := &rebuild{Reason: "reset"}
	if plan.First, err = r.firstOwed(ctx, head, 0); err != nil {
		return 0, err
	}
	common := head
	if info != nil {
		plan.Replaces = info.Created
		if common, err = r.common(ctx, info, head); err != nil {
			return 0, err
		}
		if plan.Durables, err = r.durables(ctx); err != nil {
			return 0, err
		}
	}
	if found.rebuild != nil {
		for _, d := range found.rebuild.Durables {
			if !slices.ContainsFunc(plan.Durables, func(p durable) bool { return p.Config.Durable == d.Config.Durable }) {
				plan.Durables = append(plan.Durables, d)
			}
		}
	}
	for i := range plan.Durables {
		plan.Durables[i].setBack(common)
	}
	if err := r.planRebuild(ctx, plan); err != nil {
		return 0, err
	}
	// The plan is written down by now, so the order is not needed any more. It is gone before the stream is touched.
	if _, err := r.DB.Exec(ctx, "DELETE FROM relay_orders WHERE stream = $1", r.Stream.Name); err != nil {
		return 0, fmt.Errorf("take the order back: %w", err)
	}
	return r.continueRebuild(ctx, plan, head)
}

// setBack makes a consumer that has read further than a position go on after it, and leaves it a mark: what it had read
// after that is not in the log, and its owner has to know.
func (d *durable) setBack(common int64) {
	if d.Floor <= common {
		return
	}
	d.Floor = common
	d.Config.Metadata = maps.Clone(d.Config.Metadata)
	if d.Config.Metadata == nil {
		d.Config.Metadata = map[string]string{}
	}
	d.Config.Metadata[cloudevent.MetadataSetBack] = strconv.FormatInt(common, 10)
}

// common is the last position at which the stream has the same event as the log. Two logs that are copies of one another
// agree up to some position and nowhere after it.
func (r *Relay) common(ctx context.Context, info *jetstream.StreamInfo, head int64) (int64, error) {
	first, last := int64(info.State.FirstSeq), min(int64(info.State.LastSeq), head)
	if info.State.Msgs == 0 || last < first {
		return last, nil
	}
	var failed error
	n := sort.Search(int(last-first+1), func(i int) bool {
		if failed != nil {
			return true
		}
		m, there, err := r.fetchAt(ctx, first+int64(i))
		if err != nil {
			failed = err
			return true
		}
		if !there {
			return false // purged or damaged: it tells nothing, its neighbours will
		}
		same, err := r.agrees(ctx, m)
		failed = err
		return !same
	})
	if failed != nil {
		return 0, failed
	}
	return first + int64(n) - 1, nil
}
