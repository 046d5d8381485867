package api

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/publisher/webhook"
)

const noWebhook = "there is no such webhook"

// webhookView is a webhook as an answer shows it: with its secret only where that is new.
type webhookView struct {
	webhook.Webhook
	Secret string `json:"secret,omitempty"`
}

// listWebhooks answers GET /v1/webhooks, in the order in which they were made.
func (s *Server) listWebhooks(c *echo.Context) error {
	values, err := query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	const list = "webhooks"
	after, err := parseIDCursor(s.CursorKey, list, values.Get("cursor"))
	if err != nil {
		return err
	}
	hooks, err := s.Webhooks.List(c.Request().Context(), after, size+1)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, pageOf(hooks, size, func(last webhook.Webhook) string { return idCursor(s.CursorKey, list, last.ID) }))
}

// createWebhook answers POST /v1/webhooks.
func (s *Server) createWebhook(c *echo.Context) error {
	var body struct {
		URL    string   `json:"url"`
		Events []string `json:"events"`
		From   *int64   `json:"from"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	if err := required("url", body.URL); err != nil {
		return err
	}
	w := webhook.Wish{URL: body.URL, Events: body.Events}
	if body.From != nil {
		if w.From = *body.From; w.From < 1 {
			return refuse(identity.CodeInvalidRequest, "a webhook begins at a position from 1 up")
		}
	}
	if w.CommandID, err = who.commandID(c, "create webhook"); err != nil {
		return err
	}
	hook, secret, err := s.Webhooks.Create(c.Request().Context(), w)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/webhooks/"+hook.ID.String())
	return c.JSON(http.StatusCreated, webhookView{hook, secret.Reveal()})
}

// showWebhook answers GET /v1/webhooks/{id}.
func (s *Server) showWebhook(c *echo.Context) error {
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	if _, err := query(c); err != nil {
		return err
	}
	hook, err := s.Webhooks.Get(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, hook)
}

// changeWebhook answers PATCH /v1/webhooks/{id}.
func (s *Server) changeWebhook(c *echo.Context) error {
	var body struct {
		URL          *string         `json:"url"`
		Events       *[]string       `json:"events"`
		Status       *webhook.Status `json:"status"`
		RotateSecret bool            `json:"rotate_secret"`
	}
	who, err := s.command(c, &body)
	if err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	changed, err := s.Webhooks.Update(c.Request().Context(), id, webhook.Change{
		URL: body.URL, Events: body.Events, Status: body.Status, RotateSecret: body.RotateSecret,
	}, who.metadata)
	if err != nil {
		return err
	}
	if changed.Position > 0 {
		setPosition(c, changed.Position)
	}
	return c.JSON(http.StatusOK, webhookView{changed.Webhook, changed.Secret.Reveal()})
}

// deleteWebhook answers DELETE /v1/webhooks/{id}.
func (s *Server) deleteWebhook(c *echo.Context) error {
	if _, err := s.command(c, nil); err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	if err := s.Webhooks.Delete(c.Request().Context(), id); err != nil {
		return err
	}
	return done(c, 0)
}

// listDeliveries answers GET /v1/webhooks/{id}/deliveries, the newest first.
func (s *Server) listDeliveries(c *echo.Context) error {
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	values, err := query(c, "status", "limit", "cursor")
	if err != nil {
		return err
	}
	size, err := limit(values)
	if err != nil {
		return err
	}
	f := webhook.DeliveryFilter{Status: webhook.DeliveryStatus(values.Get("status")), Limit: size + 1}
	list := "deliveries of " + id.String() + " " + values.Get("status")
	if f.Before, err = parsePositionCursor(s.CursorKey, list, values.Get("cursor")); err != nil {
		return err
	}
	deliveries, err := s.Webhooks.Deliveries(c.Request().Context(), id, f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, pageOf(deliveries, size, func(last webhook.Delivery) string {
		return positionCursor(s.CursorKey, list, last.Position)
	}))
}

// redriveAll answers POST /v1/webhooks/{id}/redrive.
func (s *Server) redriveAll(c *echo.Context) error { return s.redrive(c, uuid.Nil) }

// redriveOne answers POST /v1/webhooks/{id}/deliveries/{delivery}/redrive.
func (s *Server) redriveOne(c *echo.Context) error {
	delivery, err := uuid.Parse(c.Param("delivery"))
	if err != nil || delivery == uuid.Nil {
		return refuse(identity.CodeNotFound, "the webhook has no such delivery")
	}
	return s.redrive(c, delivery)
}

func (s *Server) redrive(c *echo.Context, delivery uuid.UUID) error {
	if _, err := s.command(c, nil); err != nil {
		return err
	}
	id, err := pathID(c, noWebhook)
	if err != nil {
		return err
	}
	// Checked for its form only: done twice is as good as done once.
	if _, err := idempotencyKey(c); err != nil {
		return err
	}
	redriven, err := s.Webhooks.Redrive(c.Request().Context(), id, delivery)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Redriven int `json:"redriven"`
	}{redriven})
}

// testWebhook answers POST /v1/webhooks/{id}/test. A request repeated with its Idempotency-Key sends again, under the same id.
func (s *Server) testWebhook(c *echo.Context) error {
	who, err := s.command(c, nil)
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
	outcome, err := s.Webhooks.Test(c.Request().Context(), id, trial)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, outcome)
}
