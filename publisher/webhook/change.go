package webhook

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Change is what is to be different of a webhook. What is nil stays as it is.
type Change struct {
	URL          *string
	Events       *[]string
	Status       *Status
	RotateSecret bool
}

// Changed is a webhook after a change.
type Changed struct {
	Webhook
	Secret   Secret // the new one, where that was asked for
	Position int64  // of webhook.disabled; 0 where there was nothing to append
}

// Update changes a webhook. Disabling it appends webhook.disabled with the given metadata. It fails with ErrNotFound,
// ErrInvalidURL, ErrUnknownEvent, identity.CodeInvalidRequest for a status that there is not, or ErrConflict: its secret
// was rotated too often.
//
// All of it is one transaction, but for disabling, which as an append is one of its own: what is refused is refused before
// that, and it comes first. So where Update fails nothing else was done, and no secret is in force that its caller was not
// shown; done again it does what is left.
func (s *Service) Update(ctx context.Context, id uuid.UUID, c Change, m eventstore.Metadata) (changed Changed, err error) {
	wanted, err := s.check(ctx, c)
	if err != nil {
		return Changed{}, err
	}
	if c.Status != nil && *c.Status == StatusDisabled {
		if c.RotateSecret {
			if _, err := s.rotated(ctx, s.DB, id); err != nil {
				return Changed{}, err
			}
		}
		if changed.Position, err = s.disable(ctx, id, identity.WebhookOperator, m); err != nil {
			return Changed{}, err
		}
		defer s.signal() // whatever becomes of the rest
	}
	var keys keyRing
	err = s.DB.Transact(ctx, func(tx eventstore.DB) (err error) {
		if c.Status != nil && *c.Status == StatusActive {
			if err := s.enable(ctx, tx, id); err != nil {
				return err
			}
		}
		if c.RotateSecret {
			if keys, err = s.rotated(ctx, tx, id); err != nil {
				return err
			}
			wanted.sealed = keys.seal(s.Log.Sealer(), id)
		}
		if err := s.write(ctx, tx, id, wanted); err != nil {
			return err
		}
		now, err := s.get(ctx, tx, id)
		changed.Webhook = now.Webhook
		return err
	})
	if c.RotateSecret && err != nil && s.inForce(ctx, id, wanted.sealed) {
		err = nil // what was lost is the answer
	}
	if err != nil {
		if changed.Position > 0 {
			err = fmt.Errorf("it is disabled, and nothing else of it is changed: %w", err)
		}
		return Changed{}, fmt.Errorf("change the webhook %s: %w", id, err)
	}
	if c.RotateSecret {
		changed.Secret = keys[0].reveal()
	}
	s.signal()
	return changed, nil
}

// wanted is what the columns of a webhook are to be; nil for what stays.
type wanted struct {
	url, events *string
	sealed      []byte // the secrets
}

// check refuses a change that can't be, whatever the webhook.
func (s *Service) check(ctx context.Context, c Change) (w wanted, err error) {
	if c.Status != nil && *c.Status != StatusActive && *c.Status != StatusDisabled {
		return w, refuse(identity.CodeInvalidRequest, "the status of a webhook is %s or %s", StatusActive, StatusDisabled)
	}
	if c.URL != nil {
		address, err := s.guard.checkURL(ctx, *c.URL)
		if err != nil {
			return w, err
		}
		w.url = &address
	}
	if c.Events != nil {
		filters, err := parseFilters(*c.Events, s.types)
		if err != nil {
			return w, err
		}
		text := marshalTexts(filters)
		w.events = &text
	}
	return w, nil
}

// rotated are the secrets of a webhook with a new one before them. Whoever rotates at the same moment waits for the other's
// transaction, and so takes none from it. It fails with ErrNotFound or ErrConflict.
func (s *Service) rotated(ctx context.Context, tx eventstore.DB, id uuid.UUID) (keyRing, error) {
	query := "SELECT secrets FROM webhooks WHERE id = $1"
	if tx.Dialect() == eventstore.Postgres { // where others could be writing at the same time
		query += " FOR UPDATE"
	}
	var sealed []byte
	if err := tx.QueryRow(ctx, query, id).Scan(&sealed); err != nil {
		return nil, notFound("read the secrets", err)
	}
	keys, err := openKeyRing(s.Log.Sealer(), id, sealed)
	if err != nil {
		return nil, err
	}
	return keys.rotate(s.now())
}

// write writes the columns that are to be different. It fails with ErrNotFound.
func (s *Service) write(ctx context.Context, tx eventstore.DB, id uuid.UUID, w wanted) error {
	touched, err := tx.Exec(ctx, `
		UPDATE webhooks SET url = coalesce($2, url), events = coalesce(`+s.json("$3")+`, events), secrets = coalesce($4, secrets), updated_at = $5
		 WHERE id = $1`, id, w.url, w.events, w.sealed, s.now())
	if err == nil && touched == 0 {
		err = errNoWebhook()
	}
	return err
}

// inForce says whether secrets are those of a webhook, also where ctx has ended meanwhile.
func (s *Service) inForce(ctx context.Context, id uuid.UUID, sealed []byte) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
	defer cancel()
	var stored []byte
	err := s.DB.QueryRow(ctx, "SELECT secrets FROM webhooks WHERE id = $1", id).Scan(&stored)
	return err == nil && bytes.Equal(stored, sealed)
}

// json is a placeholder of JSON text as its column takes it.
func (s *Service) json(placeholder string) string {
	if s.DB.Dialect() == eventstore.Postgres {
		return placeholder + "::jsonb"
	}
	return placeholder
}

// enable makes a webhook active again, if it is not.
func (s *Service) enable(ctx context.Context, tx eventstore.DB, id uuid.UUID) error {
	// The lock of the deliveries first: see the table.
	touched, err := tx.Exec(ctx, `UPDATE webhook_progress SET failing_since = NULL, dead_in_a_row = 0
		WHERE webhook = $1 AND EXISTS (SELECT 1 FROM webhook_states WHERE webhook = $1 AND status <> 'active')`, id)
	if err != nil || touched == 0 {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE webhook_states SET status = 'active', reason = '', changed_at = $2 WHERE webhook = $1 AND status <> 'active'", id, s.now())
	return err
}
