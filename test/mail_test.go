package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"usher.example/internal/devstack"
	"usher.example/internal/devstack/mailserver"
)

// `usher dev` shows mails in its log, and the link in them works.
func TestDevShowsMails(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p, c := d.startDev()
	d.takeAdmin(p)
	c.mustRegister(t, "ada@example.org")
	var link *url.URL
	eventually(t, "the mail is in the log", func() error {
		for line := range strings.Lines(p.stderr.String()) {
			var mail struct{ Msg, To, Subject, Link string }
			if json.Unmarshal([]byte(line), &mail) == nil && mail.Msg == "mail" {
				if mail.To != "ada@example.org" || mail.Subject != "Confirm your email address" {
					t.Errorf("mail to %q about %q", mail.To, mail.Subject)
				}
				var err error
				link, err = url.Parse(mail.Link)
				return err
			}
		}
		return fmt.Errorf("it is not there")
	})
	if link.Path != "/account/verify" || link.Host != strings.Replace(strings.TrimPrefix(c.base, "http://"), "127.0.0.1", "localhost", 1) {
		t.Errorf("the link is %s", link)
	}
	c.want(t, http.StatusNoContent, "POST", "/v1/auth/verify-email", map[string]string{"code": link.Query().Get("code")})
	name, value := bearer(c.login(t, credentials{"ada@example.org", userPassword}))
	if a := c.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value); !strings.Contains(string(a.body), `"email_verified":true`) {
		t.Errorf("GET /v1/me = %s, want a verified address", a.body)
	}
	p.stop(t)
}

// A process that is killed after it sent a mail and before it noted so: another sends one more, and the code in the last
// one is good. Nothing is lost, and of two processes one sends.
func TestMailsSurviveKills(t *testing.T) {
	t.Parallel()
	server := mailserver.Start(t, mailserver.Options{User: "usher", Password: "the mail server's own"})
	d := newServeDeployment(t, database(t), devstack.NATS(t).URL())
	d.env = append(d.env, "SMTP_URL="+server.URL(), "MAIL_FROM=The Service <service@usher.test>", "PUBLIC_URL=https://usher.test",
		"ACCOUNT_URL=https://app.usher.test/id/", "JWT_ISSUER=https://id.usher.test")
	d.keepSecret("the mail server's own")
	d.start("publish", "--continuous")
	p, c := d.startServe()

	registered := make(chan struct{})
	var mails atomic.Int32
	server.OnData(func(string) error {
		if mails.Add(1) == 1 {
			<-registered
			p.kill() // in the middle of the mail server's answer
		}
		return nil
	})
	ada := c.mustRegister(t, "ada@example.org")
	close(registered)
	eventually(t, "the process is killed", func() error {
		select {
		case <-p.ended:
			return nil
		default:
			return fmt.Errorf("it runs")
		}
	})
	_, c = d.startServe()
	d.startServe()
	metadata := c.want(t, http.StatusOK, "GET", "/.well-known/openid-configuration", nil)
	for _, want := range []string{`"issuer":"https://id.usher.test"`, `"jwks_uri":"https://usher.test/.well-known/jwks.json"`} {
		if !strings.Contains(string(metadata.body), want) {
			t.Errorf("the metadata is %s, want %s in it", metadata.body, want)
		}
	}
	eventually(t, "the mail comes once more", func() error { return wantMails(server, 2) })
	sent := server.Mails()
	for _, m := range sent {
		if m.To != "ada@example.org" || m.From != "service@usher.test" || m.Header.Get("From") != `"The Service" <service@usher.test>` ||
			!strings.Contains(m.Text, "https://app.usher.test/id/account/verify?code="+m.Code()) {
			t.Errorf("mail from %s %v to %s:\n%s", m.From, m.Header, m.To, m.Text)
		}
		d.keepSecret(m.Code())
	}
	wantProblem(t, c.want(t, http.StatusUnprocessableEntity, "POST", "/v1/auth/verify-email", map[string]string{"code": sent[0].Code()}),
		http.StatusUnprocessableEntity, "invalid_code")
	c.want(t, http.StatusNoContent, "POST", "/v1/auth/verify-email", map[string]string{"code": sent[1].Code()})

	// What was asked for while the mail server was away comes when it is back.
	server.Stop()
	c.want(t, http.StatusAccepted, "POST", "/v1/auth/password/forgot", map[string]string{"email": ada.Email})
	c.want(t, http.StatusAccepted, "POST", "/v1/auth/password/forgot", map[string]string{"email": "nobody@example.org"})
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mail to reset the password comes", func() error { return wantMails(server, 3) })
	code := server.Mails()[2].Code()
	d.keepSecret(code)
	const changed = "a wholly different phrase"
	d.keepSecret(changed)
	c.want(t, http.StatusNoContent, "POST", "/v1/auth/password/reset", map[string]string{"code": code, "new_password": changed})
	c.login(t, credentials{ada.Email, changed})
	eventually(t, "the notice comes", func() error { return wantMails(server, 4) })
	if m := server.Mails()[3]; m.Subject() != "Your password was changed" {
		t.Errorf("mail about %q, want the password", m.Subject())
	}
}

func wantMails(server *mailserver.Server, n int) error {
	if mails := server.Mails(); len(mails) != n {
		return fmt.Errorf("there are %d mails, want %d", len(mails), n)
	}
	return nil
}
