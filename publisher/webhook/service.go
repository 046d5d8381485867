package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
)

// Config is what webhooks stand on. Log, DB and Source are needed.
type Config struct {
	Log    *eventstore.Log
	DB     eventstore.DB
	Source string // the attribute source of what is sent

	OmitPersonal bool           // send events without their personal fields
	Allow        []netip.Prefix // networks that may be connected to although they are not public, and without TLS
	Timeout      time.Duration  // of an attempt; 30 s when 0
	Retries      int            // attempts after the first
	RetryDelay   time.Duration  // before the second attempt, doubled before each one after it; 60 s when 0
	// FailuresInARow is how many deliveries may run out of attempts, without a success between them, before the endpoint
	// gets one request at a time. 3 when 0.
	FailuresInARow int

	Logger *slog.Logger     // slog.Default() when nil
	Now    func() time.Time // time.Now when nil
	Random func() float64   // in [0, 1), for the jitter of retries; math/rand's when nil
}

// Service makes and changes webhooks. It is safe for concurrent use, in any number of processes.
type Service struct {
	Config
	guard  guard
	client *client
	types  []string
	tests  chan struct{} // a place for each test that may be made at once
	// changed is signalled when a worker of this process has something to look at.
	changed chan struct{}
}

const maxTests = 8

// New makes a service.
func New(c Config) *Service {
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.RetryDelay = cmp.Or(c.RetryDelay, time.Minute)
	c.FailuresInARow = cmp.Or(c.FailuresInARow, 3)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	g := guard{c.Allow}
	return &Service{
		Config: c, guard: g, client: newClient(g, c.Timeout, c.Now), types: identity.EventTypes(),
		tests: make(chan struct{}, maxTests), changed: make(chan struct{}, 1),
	}
}

func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Microsecond) }

func (s *Service) encoding() cloudevent.Options {
	return cloudevent.Options{Source: s.Source, OmitPersonal: s.OmitPersonal}
}

// signal tells a worker of this process that something was changed. Those of other processes see it a moment later.
func (s *Service) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func refuse(code identity.Code, format string, args ...any) error {
	return &identity.Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func errNoWebhook() error { return refuse(identity.CodeNotFound, "there is no such webhook") }

// Wish is what a webhook is made from.
type Wish struct {
	URL    string
	Events []string // filters; every event when empty
	From   int64    // the position of the first event that it may get; 0 for the next one that is appended
	// CommandID makes the wish repeatable: see identity.CommandID. The nil UUID stands for none.
	CommandID uuid.UUID
}

// request is the SHA-256 of what was wished, to tell a repeated request from another one with the same command id.
func (w Wish) request() []byte {
	raw, err := json.Marshal([]any{w.URL, w.Events, w.From})
	if err != nil { // texts and numbers can be expressed in JSON
		panic(err)
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

// Create makes a webhook, which is active, and answers with its secret. A wish repeated with its command id gets the same
// answer.
//
// It fails with ErrInvalidURL, ErrUnknownEvent, identity.CodeInvalidRequest for a position that the log has not reached,
// ErrKeyReused for the command id of another wish, or ErrConflict: there are MaxWebhooks, or the secret of a repeated wish
// was rotated since.
func (s *Service) Create(ctx context.Context, w Wish) (Webhook, Secret, error) {
	if hook, secret, err := s.repeated(ctx, w); err == nil || !errors.Is(err, ErrNotFound) {
		return hook, secret, err
	}
	address, err := s.guard.checkURL(ctx, w.URL)
	if err != nil {
		return Webhook{}, Secret{}, err
	}
	filters, err := parseFilters(w.Events, s.types)
	if err != nil {
		return Webhook{}, Secret{}, err
	}
	head, err := s.Log.Head(ctx)
	if err != nil {
		return Webhook{}, Secret{}, fmt.Errorf("create a webhook: %w", err)
	}
	checkpoint := head
	if w.From != 0 {
		if checkpoint = w.From - 1; checkpoint < 0 || checkpoint > head {
			return Webhook{}, Secret{}, refuse(identity.CodeInvalidRequest, "a webhook begins at a position from 1 to %d", head+1)
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Webhook{}, Secret{}, err
	}
	now := s.now()
	hook := Webhook{ID: id, URL: address, Events: filters, Status: StatusActive, Position: checkpoint, CreatedAt: now, UpdatedAt: now}
	keys := keyRing{newKey(1)}
	err = s.DB.Transact(ctx, func(tx eventstore.DB) error { return s.insert(ctx, tx, hook, keys, w) })
	if errors.Is(err, errRepeated) { // by a request at the same time
		return s.repeated(ctx, w)
	}
	if err != nil {
		return Webhook{}, Secret{}, fmt.Errorf("create a webhook: %w", err)
	}
	s.signal()
	return hook, keys[0].reveal(), nil
}

// errRepeated: a webhook was made with the same command id.
var errRepeated = errors.New("made already")

func (s *Service) insert(ctx context.Context, tx eventstore.DB, hook Webhook, keys keyRing, w Wish) error {
	if tx.Dialect() == eventstore.Postgres { // where others could be counting at the same time
		if _, err := tx.Exec(ctx, "LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
	}
	var count int
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM webhooks").Scan(&count); err != nil {
		return err
	}
	if count >= MaxWebhooks {
		return refuse(identity.CodeConflict, "there are %d webhooks, which is the most; delete one first", count)
	}
	command := uuid.NullUUID{UUID: w.CommandID, Valid: w.CommandID != uuid.Nil}
	inserted, err := tx.Exec(ctx, `
		INSERT INTO webhooks (id, url, events, secrets, command_id, request, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (command_id) DO NOTHING`,
		hook.ID, hook.URL, marshalTexts(hook.Events), keys.seal(s.Log.Sealer(), hook.ID), command, w.request(), hook.CreatedAt)
	if err != nil {
		return err
	}
	if inserted == 0 {
		return errRepeated
	}
	if _, err := tx.Exec(ctx, "INSERT INTO webhook_states (webhook, status, reason, changed_at) VALUES ($1, $2, '', $3)",
		hook.ID, string(hook.Status), hook.CreatedAt); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO webhook_progress (webhook, checkpoint, epoch) VALUES ($1, $2, 0)", hook.ID, hook.Position)
	return err
}

// repeated answers a wish that was fulfilled before. It fails with ErrNotFound if there was none with its command id.
func (s *Service) repeated(ctx context.Context, w Wish) (Webhook, Secret, error) {
	if w.CommandID == uuid.Nil {
		return Webhook{}, Secret{}, errNoWebhook()
	}
	var id uuid.UUID
	var request []byte
	err := s.DB.QueryRow(ctx, "SELECT id, request FROM webhooks WHERE command_id = $1", w.CommandID).Scan(&id, &request)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return Webhook{}, Secret{}, errNoWebhook()
	case err != nil:
		return Webhook{}, Secret{}, fmt.Errorf("look for a webhook: %w", err)
	case !bytes.Equal(request, w.request()):
		return Webhook{}, Secret{}, refuse(identity.CodeKeyReused, "the idempotency key was used for another request")
	}
	hook, keys, err := s.read(ctx, id)
	if err != nil {
		return Webhook{}, Secret{}, err
	}
	secret, ok := keys.first(s.now())
	if !ok {
		return Webhook{}, Secret{}, refuse(identity.CodeConflict, "the webhook %s was made with this request, and its secret was rotated since", id)
	}
	return hook, secret, nil
}

// disable appends webhook.disabled and makes the webhook disabled, together. One that is disabled already stays as it is,
// and of several who disable it at once, one does. It answers with the event's position, 0 where there is none. It fails with
// ErrNotFound, also where the webhook is deleted at the same moment: the database lets nothing of it come back then.
func (s *Service) disable(ctx context.Context, id uuid.UUID, reason string, m eventstore.Metadata) (position int64, err error) {
	var status string
	var since time.Time
	err = s.DB.QueryRow(ctx, "SELECT status, changed_at FROM webhook_states WHERE webhook = $1", id).Scan(&status, &since)
	if err != nil {
		return 0, notFound("disable the webhook", err)
	}
	if Status(status) == StatusDisabled {
		return 0, nil
	}
	row, err := json.Marshal(map[string]any{"webhook": id, "status": StatusDisabled, "reason": reason, "changed_at": s.now()})
	if err != nil {
		return 0, err
	}
	m.Address, m.UserAgent = "", "" // a system stream has nobody's key to seal them with
	result, err := s.Log.Append(ctx, eventstore.Append{
		Stream:   eventstore.SystemStream("webhook/" + id.String()),
		Expected: eventstore.AnyVersion,
		Events:   []eventstore.NewEvent{identity.NewEvent(identity.WebhookDisabled{Webhook: id, Reason: reason})},
		Metadata: m,
		// The same for all who saw it active.
		CommandID: identity.CommandID("webhook.disabled", id.String()+since.UTC().Format(time.RFC3339Nano)),
		State:     []eventstore.StateChange{{Table: "webhook_states", Row: row}},
	})
	if errors.Is(err, eventstore.ErrStateRefused) {
		return 0, errNoWebhook()
	}
	if err != nil {
		return 0, fmt.Errorf("disable the webhook %s: %w", id, err)
	}
	return result.Position, nil
}

// Delete deletes a webhook with all its deliveries. It fails with ErrNotFound.
func (s *Service) Delete(ctx context.Context, id uuid.UUID) error {
	err := s.DB.Transact(ctx, func(tx eventstore.DB) error {
		// The lock of the deliveries first: see the table.
		touched, err := tx.Exec(ctx, "DELETE FROM webhook_progress WHERE webhook = $1", id)
		if err == nil && touched == 0 {
			err = errNoWebhook()
		}
		for _, statement := range []string{
			"DELETE FROM webhook_deliveries WHERE webhook = $1", "DELETE FROM webhook_states WHERE webhook = $1", "DELETE FROM webhooks WHERE id = $1",
		} {
			if err == nil {
				_, err = tx.Exec(ctx, statement, id)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete the webhook %s: %w", id, err)
	}
	s.signal()
	return nil
}

// notFound makes the error of a query for a webhook's row ErrNotFound where there is none.
func notFound(what string, err error) error {
	if errors.Is(err, eventstore.ErrNoRows) {
		return errNoWebhook()
	}
	return fmt.Errorf("%s: %w", what, err)
}

func marshalTexts(texts []string) string {
	raw, err := json.Marshal(texts)
	if err != nil { // texts can be expressed in JSON
		panic(err)
	}
	return string(raw)
}
