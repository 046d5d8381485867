package api

import (
	"context"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/publisher/webhook"
	"usher.example/server"
)

// ofWebhook is a path that names a webhook.
type ofWebhook struct {
	ID uuid.UUID `path:"id" missing:"there is no such webhook"`
}

// webhookView is a webhook as an answer shows it: with its secret only where that is new.
type webhookView struct {
	webhook.Webhook
	Secret string `json:"secret,omitempty"`
}

// listWebhooks answers GET /v1/webhooks, in the order in which they were made.
func (a *api) listWebhooks(ctx context.Context, _ *server.Call, in paging) (server.Answer, error) {
	const list = "webhooks"
	after, err := parseIDCursor(a.CursorKey, list, in.Cursor)
	if err != nil {
		return server.Answer{}, err
	}
	size := in.Limit.size()
	hooks, err := a.Webhooks.List(ctx, after, size+1)
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(pageOf(hooks, size, func(last webhook.Webhook) string { return idCursor(a.CursorKey, list, last.ID) })), nil
}

// mayHaveSent lets nobody have sent what they may not read: a webhook gets events with their personal fields.
func mayHaveSent(who server.Caller) error {
	return who.Need(client.ScopeEventsRead, client.ScopeUsersRead)
}

// createWebhook answers POST /v1/webhooks.
func (a *api) createWebhook(ctx context.Context, call *server.Call, in struct {
	URL    string   `json:"url" required:"true"`
	Events []string `json:"events"`
	From   *int64   `json:"from"`
}) (server.Answer, error) {
	if err := mayHaveSent(call.Caller); err != nil {
		return server.Answer{}, err
	}
	w := webhook.Wish{URL: in.URL, Events: in.Events, CommandID: call.CommandID("create webhook")}
	if in.From != nil {
		if w.From = *in.From; w.From < 1 {
			return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "a webhook begins at a position from 1 up")
		}
	}
	hook, secret, err := a.Webhooks.Create(ctx, w)
	return server.Created("/v1/webhooks/"+hook.ID.String(), webhookView{hook, secret.Reveal()}), err
}

// showWebhook answers GET /v1/webhooks/{id}.
func (a *api) showWebhook(ctx context.Context, _ *server.Call, in ofWebhook) (server.Answer, error) {
	hook, err := a.Webhooks.Get(ctx, in.ID)
	return server.OK(hook), err
}

// changeWebhook answers PATCH /v1/webhooks/{id}.
func (a *api) changeWebhook(ctx context.Context, call *server.Call, in struct {
	ofWebhook
	URL          *string         `json:"url"`
	Events       *[]string       `json:"events"`
	Status       *webhook.Status `json:"status"`
	RotateSecret bool            `json:"rotate_secret"`
}) (server.Answer, error) {
	if in.URL != nil || in.Events != nil || in.RotateSecret {
		if err := mayHaveSent(call.Caller); err != nil {
			return server.Answer{}, err
		}
	}
	changed, err := a.Webhooks.Update(ctx, in.ID, webhook.Change{
		URL: in.URL, Events: in.Events, Status: in.Status, RotateSecret: in.RotateSecret,
	}, call.Metadata())
	return server.OK(webhookView{changed.Webhook, changed.Secret.Reveal()}).At(changed.Position), err
}

// deleteWebhook answers DELETE /v1/webhooks/{id}.
func (a *api) deleteWebhook(ctx context.Context, _ *server.Call, in ofWebhook) (server.Answer, error) {
	return server.Done(0), a.Webhooks.Delete(ctx, in.ID)
}

// listDeliveries answers GET /v1/webhooks/{id}/deliveries, the newest first; with endpoints' answers for those who may read about users.
func (a *api) listDeliveries(ctx context.Context, call *server.Call, in struct {
	ofWebhook
	paging
	Status webhook.DeliveryStatus `query:"status"`
}) (server.Answer, error) {
	size := in.Limit.size()
	f := webhook.DeliveryFilter{Status: in.Status, Limit: size + 1}
	list := "deliveries of " + in.ID.String() + " " + string(in.Status)
	var err error
	if f.Before, err = parsePositionCursor(a.CursorKey, list, in.Cursor); err != nil {
		return server.Answer{}, err
	}
	deliveries, err := a.Webhooks.Deliveries(ctx, in.ID, f)
	if err != nil {
		return server.Answer{}, err
	}
	if !call.May(client.ScopeUsersRead) { // what an endpoint answers may well repeat what it was sent
		for i := range deliveries {
			deliveries[i].Response = ""
		}
	}
	return server.OK(pageOf(deliveries, size, func(last webhook.Delivery) string {
		return positionCursor(a.CursorKey, list, last.Position)
	})), nil
}

// redriveAll answers POST /v1/webhooks/{id}/redrive. Done twice is as good as done once, with an idempotency key or without.
func (a *api) redriveAll(ctx context.Context, _ *server.Call, in ofWebhook) (server.Answer, error) {
	return a.redrive(ctx, in.ID, uuid.Nil)
}

// redriveOne answers POST /v1/webhooks/{id}/deliveries/{delivery}/redrive.
func (a *api) redriveOne(ctx context.Context, _ *server.Call, in struct {
	ofWebhook
	Delivery uuid.UUID `path:"delivery" missing:"the webhook has no such delivery"`
}) (server.Answer, error) {
	if in.Delivery == uuid.Nil { // which stands for all of them
		return server.Answer{}, server.Refuse(identity.CodeNotFound, "the webhook has no such delivery")
	}
	return a.redrive(ctx, in.ID, in.Delivery)
}

func (a *api) redrive(ctx context.Context, id, delivery uuid.UUID) (server.Answer, error) {
	redriven, err := a.Webhooks.Redrive(ctx, id, delivery)
	return server.OK(struct {
		Redriven int `json:"redriven"`
	}{redriven}), err
}

// testWebhook answers POST /v1/webhooks/{id}/test. A request repeated with its Idempotency-Key sends again, under the same id.
func (a *api) testWebhook(ctx context.Context, call *server.Call, in ofWebhook) (server.Answer, error) {
	outcome, err := a.Webhooks.Test(ctx, in.ID, call.CommandID("test webhook "+in.ID.String()))
	return server.OK(outcome), err
}
