package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

const selectWebhooks = `
	SELECT w.id, w.url, CAST(w.events AS text), %s, s.status, s.reason, s.changed_at, p.checkpoint, p.pending, p.dead, p.dead_in_a_row,
	       p.failing_since, p.changes, w.created_at, w.updated_at,
	       EXISTS (SELECT 1 FROM leases l WHERE l.name = '` + leasePrefix + `' || w.id AND l.expires_at > `
const fromWebhooks = `)
	  FROM webhooks w JOIN webhook_states s ON s.webhook = w.id JOIN webhook_progress p ON p.webhook = w.id `

// stored is a webhook as it is stored.
type stored struct {
	Webhook
	secrets    []byte
	deadInARow int
	changes    int64
	unusable   error // why its events can't be read; it holds up no other webhook
}

// What a query reads of the secrets. Whoever only shows webhooks may not read any, see deploy/postgres.
const (
	withSecrets    = "w.secrets"
	withoutSecrets = "NULL"
)

func (s *Service) query(ctx context.Context, db eventstore.DB, secrets, where string, args ...any) ([]stored, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(selectWebhooks, secrets)+eventstore.Clock(s.DB.Dialect())+fromWebhooks+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	defer rows.Close()
	list := []stored{}
	for rows.Next() {
		var w stored
		var events, status string
		var changed time.Time
		var failing *time.Time
		if err := rows.Scan(&w.ID, &w.URL, &events, &w.secrets, &status, &w.Reason, &changed, &w.Position, &w.Pending, &w.Dead, &w.deadInARow,
			&failing, &w.changes, &w.CreatedAt, &w.UpdatedAt, &w.Running); err != nil {
			return nil, fmt.Errorf("read webhooks: %w", err)
		}
		if err := json.Unmarshal([]byte(events), &w.Events); err != nil {
			w.Events, w.unusable = []string{}, fmt.Errorf("read the events of the webhook %s: %w", w.ID, err)
		}
		if failing != nil {
			w.FailingSince = failing.UTC()
		}
		w.Status, w.CreatedAt, w.UpdatedAt = Status(status), w.CreatedAt.UTC(), w.UpdatedAt.UTC()
		if changed.After(w.UpdatedAt) {
			w.UpdatedAt = changed.UTC()
		}
		list = append(list, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	return list, nil
}

// List answers with at most limit webhooks after one, in the order in which they were made; the nil UUID stands for the
// beginning.
func (s *Service) List(ctx context.Context, after uuid.UUID, limit int) ([]Webhook, error) {
	list, err := s.query(ctx, s.DB, withoutSecrets, "WHERE w.id > $1 ORDER BY w.id LIMIT $2", after, limit)
	if err != nil {
		return nil, err
	}
	hooks := make([]Webhook, len(list))
	for i, w := range list {
		hooks[i] = w.Webhook
	}
	return hooks, nil
}

// Get answers with a webhook. It fails with ErrNotFound.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (Webhook, error) {
	w, err := s.get(ctx, s.DB, id)
	return w.Webhook, err
}

func (s *Service) get(ctx context.Context, db eventstore.DB, id uuid.UUID) (stored, error) {
	list, err := s.query(ctx, db, withSecrets, "WHERE w.id = $1", id)
	if err != nil {
		return stored{}, err
	}
	if len(list) == 0 {
		return stored{}, errNoWebhook()
	}
	return list[0], nil
}

// read answers with a webhook and its secrets.
func (s *Service) read(ctx context.Context, id uuid.UUID) (Webhook, keyRing, error) {
	w, err := s.get(ctx, s.DB, id)
	if err != nil {
		return Webhook{}, nil, err
	}
	keys, err := openKeyRing(s.Log.Sealer(), id, w.secrets)
	return w.Webhook, keys, err
}
