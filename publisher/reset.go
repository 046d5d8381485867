package publisher

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
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
	s := fmt.Sprintf("delete the JetStream stream %s with all that is in it (messages: %d), and publish the log again, up to position %d", p.Stream, p.Messages, p.Head)
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
	found, err := r.survey(ctx, info, plan.Head)
	if err != nil {
		return plan, fmt.Errorf("plan a reset: %w", err)
	}
	plan.Common = found.fork
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
