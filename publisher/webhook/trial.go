package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
)

// TestType is the type of what Test sends. It is no event of the log.
const TestType = "webhook.test"

// maxTrial bounds how long somebody waits for a test, however long an attempt may take.
const maxTrial = 45 * time.Second

// Trial is what came of a test.
type Trial struct {
	ID        uuid.UUID `json:"id"` // webhook-id
	Delivered bool      `json:"delivered"`
	Status    int       `json:"status,omitempty"` // of HTTP; absent where there was no answer
	Reason    string    `json:"reason,omitempty"` // why it failed
	Response  string    `json:"response,omitempty"`
	Took      float64   `json:"seconds"`
}

// Test sends a document of TestType to a webhook's endpoint now, signed as deliveries are, and answers with what came of it.
// The webhook may be disabled. Nothing is stored, and a failure is not tried again. trial is the id of the document; a new
// one is made when it is the nil UUID. It fails with ErrNotFound, or identity.CodeOverloaded while many are tested.
func (s *Service) Test(ctx context.Context, id, trial uuid.UUID) (Trial, error) {
	select {
	case s.tests <- struct{}{}:
		defer func() { <-s.tests }()
	default:
		return Trial{}, refuse(identity.CodeOverloaded, "%d tests are being made", maxTests)
	}
	hook, keys, err := s.read(ctx, id)
	if err != nil {
		return Trial{}, err
	}
	if trial == uuid.Nil {
		if trial, err = uuid.NewV7(); err != nil {
			return Trial{}, err
		}
	}
	data, err := json.Marshal(map[string]uuid.UUID{"webhook": id})
	if err != nil {
		return Trial{}, err
	}
	to, err := url.Parse(hook.URL)
	if err != nil {
		return Trial{}, fmt.Errorf("test the webhook %s: its URL can't be read", id)
	}
	m, err := newMessage(to, newSigner(keys), cloudevent.NewDocument(trial, s.Source, TestType, s.now(), data))
	if err != nil {
		return Trial{}, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, maxTrial, errTimeout)
	defer cancel()
	a := s.client.send(waiting, m)
	if a.cut {
		return Trial{}, fmt.Errorf("test the webhook %s: %w", id, context.Cause(ctx))
	}
	return Trial{
		ID: trial, Delivered: a.ok(), Status: a.status, Reason: a.reason, Response: string(a.excerpt),
		Took: a.took.Round(time.Millisecond).Seconds(),
	}, nil
}
