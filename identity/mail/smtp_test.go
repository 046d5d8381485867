package mail

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
	"usher.example/internal/devstack/mailserver"
)

func TestParseServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, tls string
		want      Server // the zero one where it is refused
	}{
		{"smtp://mail.test", "", Server{host: "mail.test", port: 587, tls: tlsRequired}},
		{"smtp://mail.test:25/", "", Server{host: "mail.test", port: 25, tls: tlsRequired}},
		{"smtp://127.0.0.1:1025", "", Server{host: "127.0.0.1", port: 1025, tls: tlsOptional}},
		{"smtp://192.168.0.1:1025", "", Server{host: "192.168.0.1", port: 1025, tls: tlsRequired}},
		{"smtp://u:p@mail.test", "", Server{host: "mail.test", port: 587, tls: tlsRequired, user: "u", password: "p"}},
		{"smtp://u%40x:p%2Fq@[::1]:2525", "", Server{host: "::1", port: 2525, tls: tlsOptional, user: "u@x", password: "p/q"}},
		{"smtp://u:p@mail.test", "off", Server{host: "mail.test", port: 587, tls: tlsOff, user: "u", password: "p"}},
		{"smtp://mail.test", "optional", Server{host: "mail.test", port: 587, tls: tlsOptional}},
		{"smtp://u:p@localhost:1025", "required", Server{host: "localhost", port: 1025, tls: tlsRequired, user: "u", password: "p"}},
		{"smtps://u:p@mail.test", "", Server{host: "mail.test", port: 465, tls: tlsRequired, implicit: true, user: "u", password: "p"}},
		{"smtps://127.0.0.1:2465", "", Server{host: "127.0.0.1", port: 2465, tls: tlsRequired, implicit: true}},
		{"smtps://mail.test", "off", Server{}},
		{"smtps://mail.test", "optional", Server{}},
		{"smtp://mail.test", "yes", Server{}},
		{"", "", Server{}},
		{"mail.test:587", "", Server{}},
		{"http://mail.test", "", Server{}},
		{"smtp://", "", Server{}},
		{"smtp://mail.test/inbox", "", Server{}},
		{"smtp://mail.test:0", "", Server{}},
		{"smtp://mail.test:99999", "", Server{}},
		{"smtp://u@mail.test", "", Server{}},
		{"smtp://:p@mail.test", "", Server{}},
		{"smtp://mail.test?starttls=off", "", Server{host: "mail.test", port: 587, tls: tlsOff}},
		{"smtp://mail.test?starttls=optional", "optional", Server{host: "mail.test", port: 587, tls: tlsOptional}},
		{"smtp://mail.test?starttls=off", "required", Server{}},
		{"smtp://mail.test?starttls=", "", Server{}},
		{"smtp://mail.test?starttls=yes", "", Server{}},
		{"smtps://mail.test?starttls=off", "", Server{}},
		{"smtp://mail.test?tls=off", "", Server{}},
		{"smtp://mail.test#x", "", Server{}},
		{"smtp://u:p%zz@mail.test", "", Server{}},
		{"smtp://mail.test\r\nRCPT TO:<eve@evil.test>:", "", Server{}},
	} {
		got, err := ParseServer(c.text, c.tls)
		if got != c.want || (err == nil) != (c.want != Server{}) {
			t.Errorf("ParseServer(%q, %q) = %+v, %v, want %+v", c.text, c.tls, got, err, c.want)
		}
		if err != nil && len(c.text) > 7 && strings.Contains(err.Error(), c.text) {
			t.Errorf("ParseServer(%q) echoes it: %v", c.text, err)
		}
	}
	s, err := ParseServer("smtp://user:s3cret@mail.test", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %s", s, s, s), s.LogValue().String()} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("a server prints its password: %s", text)
		}
	}
}

// To whom a mail goes can't bring headers or recipients with it.
func TestAddressesAreOneRecipient(t *testing.T) {
	t.Parallel()
	server := mailserver.Start(t, mailserver.Options{})
	transport := transportTo(t, server, nil)
	for to, mailbox := range map[string]string{
		"a+b@example.org": "a+b@example.org", "!#$%&'*+-/=?^_`{|}~@example.org": "!#$%&'*+-/=?^_`{|}~@example.org",
		"Jürgen@Bücher.example": "Jürgen@xn--bcher-kva.example", "a.b.c@EXAMPLE.org": "a.b.c@example.org",
	} {
		before := len(server.Mails())
		email, err := identity.ParseEmail(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := transport.Send(t.Context(), Message{To: email, Subject: "S", Text: "T\n", HTML: "<p>T</p>"}); err != nil {
			t.Errorf("Send() to %q = %v", to, err)
			continue
		}
		mails := server.Mails()[before:]
		if len(mails) != 1 || mails[0].To != mailbox || mails[0].Header.Get("To") != "<"+mailbox+">" || mails[0].Text != "T\n" {
			t.Errorf("Send() to %q: %+v", to, mails)
		}
	}
	for _, to := range []string{"a@example.org\r\nBcc: eve@evil.test", "a@example.org>\r\nRCPT TO:<eve@evil.test", "a@example.org, eve@evil.test", ""} {
		if m, err := identity.ParseEmail(to); err == nil {
			t.Errorf("%q is an address: %+v", to, m)
		}
	}
	m := hello(t)
	m.Subject = "S\r\nBcc: eve@evil.test\r\n\r\nbody"
	if err := transport.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	mails := server.Mails()
	if last := mails[len(mails)-1]; last.Header.Get("Bcc") != "" || last.Text != "Hello\n" {
		t.Errorf("a subject became headers: %v", last.Header)
	}
}

func transportTo(t *testing.T, server *mailserver.Server, change func(*SMTPConfig)) *SMTP {
	t.Helper()
	parsed, err := ParseServer(server.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := SMTPConfig{From: netmail.Address{Address: "no-reply@usher.test"}, Hello: "usher.test", Timeout: 5 * time.Second}
	if change != nil {
		change(&c)
	}
	transport := NewSMTP(parsed, c)
	t.Cleanup(transport.Rest)
	return transport
}

func hello(t *testing.T) Message {
	t.Helper()
	ada, err := identity.ParseEmail("ada@example.org")
	if err != nil {
		t.Fatal(err)
	}
	return Message{To: ada, Subject: "Hello", Text: "Hello\n", HTML: "<p>Hello</p>"}
}

// What a server answers to one message blames that message; everything else blames the server. No error has the address.
func TestAnswers(t *testing.T) {
	t.Parallel()
	server := mailserver.Start(t, mailserver.Options{})
	transport := transportTo(t, server, func(c *SMTPConfig) { c.Timeout = 300 * time.Millisecond })
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, c := range map[string]struct {
		answer func(string) error
		want   *Refusal // nil where the server is to blame
	}{
		"no such mailbox":     {refusing(550, 5, 1, 1), &Refusal{Code: 550, Permanent: true}},
		"mailbox full":        {refusing(552, 5, 2, 2), &Refusal{Code: 552, Permanent: true}},
		"try later":           {refusing(451, 4, 3, 0), &Refusal{Code: 451, Permanent: false}},
		"greylisted":          {refusing(450, 4, 7, 1), &Refusal{Code: 450, Permanent: false}},
		"relaying denied":     {refusing(554, 5, 7, 1), &Refusal{Code: 554, Permanent: false}},
		"authenticate first":  {refusing(530, 5, 7, 0), &Refusal{Code: 530, Permanent: false}},
		"about to close":      {refusing(421, 4, 3, 2), nil},
		"connection is cut":   {func(string) error { return mailserver.ErrDrop }, nil},
		"no answer at all":    {func(string) error { <-hang; return nil }, nil},
		"not an answer of it": {refusing(354, 3, 0, 0), nil},
	} {
		for _, stage := range []struct {
			name string
			set  func(func(string) error)
		}{{"recipient", server.OnRcpt}, {"content", server.OnData}} {
			stage.set(c.answer)
			err := transport.Send(t.Context(), hello(t))
			stage.set(nil)
			var got *Refusal
			errors.As(err, &got)
			if diff := cmp.Diff(c.want, got); diff != "" || err == nil {
				t.Errorf("%s, %s: %v (-want +got):\n%s", name, stage.name, err, diff)
			}
			if err != nil && strings.Contains(err.Error(), "ada@") {
				t.Errorf("%s, %s: the error has the address: %v", name, stage.name, err)
			}
			if err := transport.Send(t.Context(), hello(t)); err != nil {
				t.Errorf("%s, %s: the next message: %v", name, stage.name, err)
			}
		}
	}
}

func refusing(code int, enhanced ...int) func(string) error {
	return func(string) error { return mailserver.Refuse(code, smtp.EnhancedCode(enhanced)) }
}

// A connection is used for many messages, and one that the server has closed meanwhile is opened again.
func TestConnectionIsKept(t *testing.T) {
	t.Parallel()
	server := mailserver.Start(t, mailserver.Options{})
	transport := transportTo(t, server, nil)
	send := func(connections int) {
		t.Helper()
		if err := transport.Send(t.Context(), hello(t)); err != nil {
			t.Fatal(err)
		}
		if n := server.Connections(); n != connections {
			t.Errorf("%d connections, want %d", n, connections)
		}
	}
	send(1)
	send(1)
	server.Stop()
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	send(2)
	send(2)
	transport.Rest()
	send(3)
	if n := len(server.Mails()); n != 5 {
		t.Errorf("%d mails, want 5", n)
	}
	// A context that ends cuts it.
	hang, reached := make(chan struct{}), make(chan struct{})
	defer close(hang)
	transport.Rest()
	ctx, cancel := context.WithCancel(t.Context())
	server.OnRcpt(func(string) error { close(reached); <-hang; return nil })
	done := make(chan error)
	m := hello(t)
	go func() { done <- transport.Send(ctx, m) }()
	<-reached
	cancel()
	if err := <-done; err == nil {
		t.Error("Send() = nil, want an error")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certificate, err := mailserver.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	const user, password = "usher", "p@ss/word"
	for name, c := range map[string]struct {
		server   mailserver.Options
		security string
		roots    *x509.CertPool
		password string
		ok, tls  bool
	}{
		"plain":                            {mailserver.Options{}, "", nil, "", true, false},
		"plain, where TLS is required":     {mailserver.Options{}, tlsRequired, nil, "", false, false},
		"offered":                          {mailserver.Options{TLS: certificate.Server}, "", certificate.Roots, "", true, true},
		"offered, and switched off":        {mailserver.Options{TLS: certificate.Server}, tlsOff, nil, "", true, false},
		"offered by somebody else":         {mailserver.Options{TLS: certificate.Server}, "", x509.NewCertPool(), "", false, false},
		"required":                         {mailserver.Options{TLS: certificate.Server}, tlsRequired, certificate.Roots, "", true, true},
		"implicit":                         {mailserver.Options{TLS: certificate.Server, Implicit: true}, "", certificate.Roots, "", true, true},
		"implicit by somebody else":        {mailserver.Options{TLS: certificate.Server, Implicit: true}, "", x509.NewCertPool(), "", false, false},
		"password":                         {mailserver.Options{TLS: certificate.Server, User: user, Password: password}, "", certificate.Roots, password, true, true},
		"password, implicit":               {mailserver.Options{TLS: certificate.Server, Implicit: true, User: user, Password: password}, "", certificate.Roots, password, true, true},
		"password, on this machine":        {mailserver.Options{User: user, Password: password}, "", nil, password, true, false},
		"password, switched off":           {mailserver.Options{User: user, Password: password}, tlsOff, nil, password, true, false},
		"wrong password":                   {mailserver.Options{TLS: certificate.Server, User: user, Password: password}, "", certificate.Roots, "wr0ng", false, false},
		"password that nobody asks for":    {mailserver.Options{}, "", nil, password, false, false},
		"no password, where one is needed": {mailserver.Options{User: user, Password: password}, "", nil, "", false, false},
	} {
		server := mailserver.Start(t, c.server)
		parsed, err := ParseServer(server.URL(), "")
		if err != nil {
			t.Fatal(err)
		}
		parsed.user, parsed.password = "", ""
		if c.password != "" {
			parsed.user, parsed.password = user, c.password
		}
		if c.security != "" {
			parsed.tls = c.security
		}
		config := SMTPConfig{From: netmail.Address{Address: "no-reply@usher.test"}, Hello: "usher.test", Timeout: 5 * time.Second}
		transport := NewSMTP(parsed, config)
		transport.config.TLS.RootCAs = c.roots
		err = transport.Send(t.Context(), hello(t))
		var refusal *Refusal
		if (err == nil) != c.ok || errors.As(err, &refusal) {
			t.Errorf("%s: Send() = %v, want ok: %v", name, err, c.ok)
		}
		if err != nil && strings.Contains(err.Error(), c.password) && c.password != "" {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
		if mails := server.Mails(); c.ok && (len(mails) != 1 || mails[0].TLS != c.tls) || !c.ok && len(mails) > 0 {
			t.Errorf("%s: mails %+v, want TLS: %v", name, mails, c.tls)
		}
		transport.Rest()
	}
}

// An address that needs SMTPUTF8 goes to no server that does not offer it, and the refusal says why; others go there, over the
// same connection.
func TestAddressThatNeedsSMTPUTF8(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{true, false} {
		server := mailserver.Start(t, mailserver.Options{ASCII: plain})
		transport := transportTo(t, server, nil)
		for to, utf8 := range map[string]bool{"jürgen@example.org": true, "ada@bücher.example": false} {
			email, err := identity.ParseEmail(to)
			if err != nil {
				t.Fatal(err)
			}
			m := hello(t)
			m.To = email
			err = transport.Send(t.Context(), m)
			var refusal *Refusal
			switch refused := errors.As(err, &refusal); {
			case utf8 && plain && (!refused || !refusal.Permanent || !strings.Contains(err.Error(), "SMTPUTF8") || strings.Contains(err.Error(), "example.org")):
				t.Errorf("to %s: %v, want a refusal that names SMTPUTF8", to, err)
			case !(utf8 && plain) && err != nil:
				t.Errorf("to %s, SMTPUTF8 offered: %v: %v", to, !plain, err)
			}
		}
		want := 2
		if plain {
			want = 1
		}
		if got := len(server.Mails()); got != want || server.Connections() != 1 {
			t.Errorf("%d mails over %d connections, want %d over one", got, server.Connections(), want)
		}
	}
}
