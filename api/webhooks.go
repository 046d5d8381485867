package api

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/publisher/webhook"
	"usher.example/server"
)

const noWebhook = "there is no such webhook"

// webhookView is a webhook as an answer shows it: with its secret only where that is new.
type webhookView struct {
	webhook.Webhook
	Secret string `json:"secret,omitempty"`
}

// listWebhooks answers GET /v1/webhooks, in the order in which they were made.
func (a *api) listWebhooks(c *echo.Context) error {
	values, err := server.Query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	const list = "webhooks"
	after, err := parseIDCursor(a.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	hooks, err := a.Webhooks.List(c.Request().Context(), after, size+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, pageOf(hooks, size, func(last webhook.Webhook) string { return idCursor(a.CursorKey, list, last.ID) }))
}

// createWebhook answers POST /v1/webhooks.
func (a *api) createWebhook(c *echo.Context) error {
	var body struct {
		URL    string   `json:"url"`
		Events []string `json:"events"`
		From   *int64   `json:"from"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("url", body.URL); err != nil {
		return err
	}
	w := webhook.Wish{URL: body.URL, Events: body.Events}
	if body.From != nil {
		if w.From = *body.From; w.From < 1 {
			return server.Refuse(identity.CodeInvalidRequest, "a webhook begins at a position from 1 up")
		}
	}
	if w.CommandID, err = who.commandID(c, "create webhook"); err != nil {
		return err
	}
	hook, secret, err := a.Webhooks.Create(c.Request().Context(), w)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/webhooks/"+hook.ID.String())
	return c.JSON(http.StatusCreated, webhookView{hook, secret.Reveal()})
}

// showWebhook answers GET /v1/webhooks/{id}.
func (a *api) showWebhook(c *echo.Context) error {
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	if _, err := server.Query(c); err != nil {
		return err
	}
	hook, err := a.Webhooks.Get(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, hook)
}

// changeWebhook answers PATCH /v1/webhooks/{id}.
func (a *api) changeWebhook(c *echo.Context) error {
	var body struct {
		URL          *string         `json:"url"`
		Events       *[]string       `json:"events"`
		Status       *webhook.Status `json:"status"`
		RotateSecret bool            `json:"rotate_secret"`
	}
	who, err := a.command(c, &body)
	if err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	changed, err := a.Webhooks.Update(c.Request().Context(), id, webhook.Change{
		URL: body.URL, Events: body.Events, Status: body.Status, RotateSecret: body.RotateSecret,
	}, who.metadata)
	if err != nil {
		return err
	}
	if changed.Position > 0 {
		server.SetPosition(c, changed.Position)
	}
	return c.JSON(http.StatusOK, webhookView{changed.Webhook, changed.Secret.Reveal()})
}

// deleteWebhook answers DELETE /v1/webhooks/{id}.
func (a *api) deleteWebhook(c *echo.Context) error {
	if _, err := a.command(c, nil); err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	if err := a.Webhooks.Delete(c.Request().Context(), id); err != nil {
		return err
	}
	return done(c, 0)
}

// listDeliveries answers GET /v1/webhooks/{id}/deliveries, the newest first.
func (a *api) listDeliveries(c *echo.Context) error {
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	values, err := server.Query(c, "status", "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	f := webhook.DeliveryFilter{Status: webhook.DeliveryStatus(values.Get("status")), Limit: size + 1}
	list := "deliveries of " + id.String() + " " + values.Get("status")
	if f.Before, err = parsePositionCursor(a.CursorKey, list, values.Get("cursor")); err != nil {
		return err
	}
	deliveries, err := a.Webhooks.Deliveries(c.Request().Context(), id, f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, pageOf(deliveries, size, func(last webhook.Delivery) string {
		return positionCursor(a.CursorKey, list, last.Position)
	}))
}

// redriveAll answers POST /v1/webhooks/{id}/redrive.
func (a *api) redriveAll(c *echo.Context) error { return a.redrive(c, uuid.Nil) }

// redriveOne answers POST /v1/webhooks/{id}/deliveries/{delivery}/redrive.
func (a *api) redriveOne(c *echo.Context) error {
	delivery, err := uuid.Parse(c.Param("delivery"))
	if err != nil || delivery == uuid.Nil {
		return server.Refuse(identity.CodeNotFound, "the webhook has no such delivery")
	}
	return a.redrive(c, delivery)
}

func (a *api) redrive(c *echo.Context, delivery uuid.UUID) error {
	if _, err := a.command(c, nil); err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	// Checked for its form only: done twice is as good as done once.
	if _, err := server.IdempotencyKey(c); err != nil {
		return err
	}
	redriven, err := a.Webhooks.Redrive(c.Request().Context(), id, delivery)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Redriven int `json:"redriven"`
	}{redriven})
}

// testWebhook answers POST /v1/webhooks/{id}/test. A request repeated with its Idempotency-Key sends again, under the same id.
func (a *api) testWebhook(c *echo.Context) error {
	who, err := a.command(c, nil)
	if err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	trial, err := who.commandID(c, "test webhook "+id.String())
	if err != nil {
		return err
	}
	outcome, err := a.Webhooks.Test(c.Request().Context(), id, trial)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, outcome)
}
