// Package mailserver is a mail server inside the process of a test: it keeps what it is sent, and fails as the test wants.
package mailserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"usher.example/internal/devstack"
)

// Options say how a server is set up. The zero value takes mails from anybody, without TLS.
type Options struct {
	TLS            *tls.Config // offered by STARTTLS
	Implicit       bool        // TLS from the first byte instead
	ASCII          bool        // SMTPUTF8 is not offered
	User, Password string      // asked for when set
}

// Server is a mail server. Its methods may be called concurrently.
type Server struct {
	options Options
	addr    string

	mu     sync.Mutex
	smtp   *smtp.Server
	mails  []Mail
	onRcpt func(to string) error
	onData func(to string) error
	opened int
}

// ErrDrop is an answer that is none: the connection is closed.
var ErrDrop = errors.New("the connection is dropped")

// Refuse is an answer with a code, and the enhanced one that goes with it.
func Refuse(code int, enhanced smtp.EnhancedCode) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "the test says so"}
}

// Start starts a server for one test.
func Start(tb devstack.TB, o Options) *Server {
	tb.Helper()
	port, err := devstack.FreePort()
	if err != nil {
		tb.Fatalf("mailserver: %v", err)
	}
	s := &Server{options: o, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := s.Resume(); err != nil {
		tb.Fatalf("mailserver: %v", err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Resume starts a server that was stopped, where it was.
func (s *Server) Resume() error {
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return err
	}
	if s.options.Implicit {
		listener = tls.NewListener(listener, s.options.TLS)
	}
	server := smtp.NewServer(backend{s})
	server.Domain = "mail.test"
	server.EnableSMTPUTF8 = !s.options.ASCII
	server.AllowInsecureAuth = true
	server.ErrorLog = silent{}
	if !s.options.Implicit {
		server.TLSConfig = s.options.TLS
	}
	s.mu.Lock()
	s.smtp = server
	s.mu.Unlock()
	go server.Serve(listener) //nolint:errcheck // it ends with Stop
	return nil
}

// Stop closes the server and all its connections.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.smtp
	s.mu.Unlock()
	server.Close()
}

// URL is the server's address as SMTP_URL has it.
func (s *Server) URL() string {
	u := url.URL{Scheme: "smtp", Host: s.addr}
	if s.options.Implicit {
		u.Scheme = "smtps"
	}
	if s.options.User != "" {
		u.User = url.UserPassword(s.options.User, s.options.Password)
	}
	return u.String()
}

// OnRcpt has answer decide on each recipient; nil takes all. It may block.
func (s *Server) OnRcpt(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRcpt = answer
}

// OnData has answer decide on each message, after it was kept; nil takes all. It may block.
func (s *Server) OnData(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onData = answer
}

// Mails are those that were sent to the end, the first first, whatever the answer was.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Connections is how many connections there were.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// Mail is a mail that came.
type Mail struct {
	From, To   string // of the envelope
	Header     mail.Header
	Text, HTML string
	TLS        bool // it came over a TLS connection
}

var code = regexp.MustCompile(`/account/(?:verify|reset|email)\?code=([A-Za-z0-9_-]+)`)

// Code is the code in the link of the mail, "" where it has none.
func (m Mail) Code() string {
	if found := code.FindStringSubmatch(m.Text); found != nil {
		return found[1]
	}
	return ""
}

// Subject is the mail's subject, decoded.
func (m Mail) Subject() string {
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return err.Error()
	}
	return subject
}

// parse reads a message that has a text and an HTML part.
func parse(raw []byte) (m Mail, err error) {
	message, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return m, err
	}
	m.Header = message.Header
	media, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil || media != "multipart/alternative" {
		return m, fmt.Errorf("content type %q: %w", media, err)
	}
	parts := multipart.NewReader(message.Body, params["boundary"])
	for _, part := range []struct {
		media string
		into  *string
	}{{"text/plain", &m.Text}, {"text/html", &m.HTML}} {
		p, err := parts.NextRawPart()
		if err != nil {
			return m, err
		}
		media, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil || media != part.media || params["charset"] != "UTF-8" || p.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
			return m, fmt.Errorf("part %v: %w", p.Header, err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			return m, err
		}
		*part.into = string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
	}
	if _, err := parts.NextRawPart(); err != io.EOF {
		return m, fmt.Errorf("a third part: %w", err)
	}
	return m, nil
}

type backend struct{ *Server }

func (b backend) NewSession(c *smtp.Conn) (smtp.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened++
	return &session{server: b.Server, conn: c, admitted: b.options.User == ""}, nil
}

// session is one connection.
type session struct {
	server   *Server
	conn     *smtp.Conn
	admitted bool
	from, to string
}

func (s *session) AuthMechanisms() []string {
	if s.server.options.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.server.options.User || password != s.server.options.Password {
			return smtp.ErrAuthFailed
		}
		s.admitted = true
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if !s.admitted {
		return Refuse(530, smtp.EnhancedCode{5, 7, 0})
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	answer := s.server.onRcpt
	s.server.mu.Unlock()
	s.to = to
	return s.answer(answer)
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m, err := parse(raw)
	if err != nil {
		return Refuse(554, smtp.EnhancedCode{5, 6, 0})
	}
	m.From, m.To = s.from, s.to
	_, m.TLS = s.conn.TLSConnectionState()
	s.server.mu.Lock()
	s.server.mails = append(s.server.mails, m)
	answer := s.server.onData
	s.server.mu.Unlock()
	return s.answer(answer)
}

func (s *session) answer(answer func(string) error) error {
	if answer == nil {
		return nil
	}
	err := answer(s.to)
	if errors.Is(err, ErrDrop) {
		s.conn.Close()
	}
	return err
}

func (s *session) Reset()        { s.from, s.to = "", "" }
func (s *session) Logout() error { return nil }

// silent is where the server logs that clients went away, which tests make them.
type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// Certificate is that of a server at 127.0.0.1, which has signed it itself.
type Certificate struct {
	Server *tls.Config
	Roots  *x509.CertPool // that a client has to trust
	PEM    []byte         // the same
}

// NewCertificate makes a certificate that is good for a day.
func NewCertificate() (c Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, err
	}
	c.Server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	c.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.Roots = x509.NewCertPool()
	c.Roots.AppendCertsFromPEM(c.PEM)
	return c, nil
}
