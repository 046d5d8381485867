package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"

	"usher.example/eventstore"
)

// publicHost is the host of a URL that was checked.
func publicHost(public string) string {
	u, err := url.Parse(public)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// wrongPublicURL says what is wrong where PUBLIC_URL is not set; "" where its default is right, which is for a process of this
// machine alone: else mails would lead to, and tokens and events name, whatever answers there on the machine of whoever reads
// them.
func (c *config) wrongPublicURL() string {
	if c.sources["PUBLIC_URL"] != fromDefault {
		return ""
	}
	host, port, err := net.SplitHostPort(c.HTTPAddr)
	a, noIP := netip.ParseAddr(host)
	if err == nil && port == "8080" && (host == "localhost" || noIP == nil && a.IsLoopback()) {
		return ""
	}
	return "PUBLIC_URL is not set, so mails, tokens and events name " + defaultPublicURL + "; set it to where clients reach the API"
}

// warnOfPublicURL tells whoever starts a process that works against Postgres what is wrong with PUBLIC_URL.
func (d *deployment) warnOfPublicURL() {
	if wrong := d.config.wrongPublicURL(); wrong != "" && d.store.Dialect() == eventstore.Postgres {
		d.logger.Warn(wrong)
	}
}

// checkPublicURL looks at what mails, tokens and events name. In dev that is where the API answers.
func checkPublicURL(_ context.Context, d *deployment, r *report) {
	if d.store.Dialect() != eventstore.Postgres {
		return
	}
	figures := map[string]any{"public_url": d.config.PublicURL, "issuer": d.config.JWTIssuer, "account_url": d.config.AccountURL}
	if wrong := d.config.wrongPublicURL(); wrong != "" {
		r.warn("public URL", wrong, figures)
		return
	}
	r.ok("public URL", figures)
}
