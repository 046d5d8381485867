package main

import (
	"context"
	netmail "net/mail"
	"net/url"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

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
		return nil
	case p.conn == nil:
		d.logger.Warn("no mail is sent from here: NATS_URL is not set")
		return nil
	}
	site, err := url.Parse(c.PublicURL)
	if err != nil {
		return badSetting("PUBLIC_URL")
	}
	var transport mail.Transport = mail.Log{Logger: d.logger}
	if c.SMTPURL != "" {
		if transport, err = c.smtp(site); err != nil {
			return err
		}
	}
	js, err := jetstream.New(p.conn)
	if err != nil {
		return err
	}
	mailer, err := mail.New(ctx, mail.Config{
		Log: d.log, DB: d.store, Users: users, JetStream: js, Transport: transport, PublicURL: site, DeviceKey: d.deviceKey,
		Holder: d.holder, Registry: registry, Logger: d.logger,
	})
	if err != nil {
		return err
	}
	group.Go(func() error { return mailer.Run(ctx) })
	return nil
}

// smtp is how mail is handed over to the server of SMTP_URL.
func (c *config) smtp(site *url.URL) (mail.Transport, error) {
	server, err := mail.ParseServer(string(c.SMTPURL))
	if err != nil {
		return nil, badSetting("SMTP_URL")
	}
	from := &netmail.Address{Address: "no-reply@" + site.Hostname()}
	if c.MailFrom != "" {
		if from, err = netmail.ParseAddress(c.MailFrom); err != nil {
			return nil, badSetting("MAIL_FROM")
		}
	}
	return mail.NewSMTP(server, mail.SMTPConfig{From: *from, Hello: site.Hostname()}), nil
}
