package main

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"net/url"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/mail"
)

// startMail starts what sends mail in the group, where mail can be sent: with SMTP_URL, or shown in the log in dev. NATS
// brings the events that call for it.
func (d *deployment) startMail(ctx context.Context, group *errgroup.Group, p process, registry *prometheus.Registry, users *identity.Service) error {
	c := d.config
	switch {
	case c.SMTPURL == "" && !p.showMail:
		d.logger.Warn("no mail is sent: SMTP_URL is not set")
		if c.LoginNeedsVerified || c.EnumerationSafe {
			d.logger.Warn("users who register can't log in: that needs a verified address, and nobody is mailed a code to verify it with")
		}
		return nil
	case p.conn == nil:
		d.logger.Warn("no mail is sent from here: NATS_URL is not set")
		return nil
	}
	letters, err := c.letters()
	if err != nil {
		return err
	}
	var transport mail.Transport = mail.Log{Logger: d.logger}
	if c.SMTPURL != "" {
		if transport, err = c.smtp(); err != nil {
			return err
		}
	}
	js, err := jetstream.New(p.conn)
	if err != nil {
		return err
	}
	mailer, err := mail.New(ctx, mail.Config{
		Log: d.log, DB: d.store, Users: users, JetStream: js, Transport: transport, Letters: letters, DeviceKey: d.deviceKey,
		Holder: d.holder, Registry: registry, Logger: d.logger,
	})
	if err != nil {
		return err
	}
	group.Go(func() error { return mailer.Run(ctx) })
	return nil
}

// smtp is how mail is handed over to the server of SMTP_URL.
func (c *config) smtp() (mail.Transport, error) {
	server, err := mail.ParseServer(string(c.SMTPURL), c.SMTPTLS)
	if err != nil {
		return nil, badSetting("SMTP_URL")
	}
	from, err := c.mailFrom()
	if err != nil {
		return nil, err
	}
	return mail.NewSMTP(server, mail.SMTPConfig{From: *from, Hello: publicHost(c.PublicURL)}), nil
}

// mailFrom is whom mails come from.
func (c *config) mailFrom() (*netmail.Address, error) {
	if c.MailFrom == "" {
		return &netmail.Address{Name: c.BrandName, Address: "no-reply@" + publicHost(c.PublicURL)}, nil
	}
	from, err := netmail.ParseAddress(c.MailFrom)
	if err != nil {
		return nil, badSetting("MAIL_FROM")
	}
	return from, nil
}

// letters is what mails are written with. It fails where a template of MAIL_TEMPLATES can't be used, with its file and line.
func (c *config) letters() (*mail.Letters, error) {
	pages, err := url.Parse(c.AccountURL)
	if err != nil {
		return nil, badSetting("ACCOUNT_URL")
	}
	b, err := c.brand()
	if err != nil {
		return nil, err
	}
	letters, err := mail.NewLetters(mail.LettersConfig{Brand: b, AccountURL: pages, Replaced: folder(c.MailTemplates)})
	if err != nil {
		return nil, fmt.Errorf("write mails, with the templates of MAIL_TEMPLATES: %w", err)
	}
	return letters, nil
}

// mailAge is how long the oldest mail waits that no mailbox has put off.
func mailAge(s mail.Status) time.Duration {
	if s.Since.IsZero() {
		return 0
	}
	return time.Since(s.Since)
}

// checkMail looks at whether mails go out.
func checkMail(ctx context.Context, d *deployment, r *report) {
	s, err := mail.ReadStatus(ctx, d.store)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) && d.config.SMTPURL == "":
		r.ok("mail", map[string]any{"set_up": false})
		return
	case errors.Is(err, eventstore.ErrNoRows):
		r.fail("mail", "it was never set up; start `usher serve` with SMTP_URL", nil)
		return
	case err != nil:
		r.fail("mail", err.Error(), nil)
		return
	}
	age, err := d.ageAfter(ctx, s.Position)
	figures := map[string]any{"position": s.Position, "lag": s.Lag, "age": age.Round(time.Millisecond).String(), "waiting": s.Waiting,
		"oldest_mail": mailAge(s).Round(time.Millisecond).String(), "running": s.Running}
	switch {
	case err != nil:
		r.fail("mail", err.Error(), nil)
	case !s.Running && (age > oldEvent || s.Waiting > 0):
		r.fail("mail", fmt.Sprintf("no process sends mail, %s and %s wait; start `usher serve` with SMTP_URL and NATS_URL", counted(s.Waiting, "mail", "mails"), counted(s.Lag, "event", "events")), figures)
	case !s.Running:
		r.warn("mail", "no process sends mail; start `usher serve` with SMTP_URL and NATS_URL", figures)
	case age > oldEvent:
		r.fail("mail", "it is behind: what events call for is not sent; the log of the process that sends says why", figures)
	case mailAge(s) > oldEvent:
		r.warn("mail", "mails wait to be handed over; the log of the process that sends says why", figures)
	default:
		r.ok("mail", figures)
	}
}
