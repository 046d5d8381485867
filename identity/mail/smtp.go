package mail

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// Server is a mail server that messages are submitted to, and how. It can't be printed by accident.
type Server struct {
	host           string
	port           int
	implicit       bool   // TLS from the first byte
	tls            string // what starttls has to come to
	user, password string
}

func (s Server) String() string       { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }
func (s Server) GoString() string     { return s.String() }
func (s Server) LogValue() slog.Value { return slog.StringValue(s.String()) }

// What TLS can be where it does not begin with the first byte.
const (
	tlsRequired = "required" // nothing is sent without TLS
	tlsOptional = "optional" // TLS where the server offers it
	tlsOff      = "off"
)

// ParseServer reads the URL of a mail server: smtp://user:password@host:587, with STARTTLS, or smtps://user:password@host:465,
// with TLS from the first byte. User, password and port may be left out. security is required, optional or off, which
// ?starttls= in the URL may say as well; where neither does, TLS is required over a network and optional on this machine. Whoever listens or stands in between could else read
// the codes, or take the offer of TLS out. Errors have nothing of the text in them.
func ParseServer(text, security string) (Server, error) {
	bad := errors.New("a mail server is smtp://user:password@host:587 or smtps://user:password@host:465")
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.TrimSuffix(u.Path, "/") != "" || u.Fragment != "" {
		return Server{}, bad
	}
	s := Server{host: u.Hostname()}
	switch u.Scheme {
	case "smtp":
		s.port = 587
	case "smtps":
		s.port, s.implicit = 465, true
	default:
		return Server{}, bad
	}
	if u.Port() != "" {
		if s.port, err = strconv.Atoi(u.Port()); err != nil || s.port < 1 || s.port > 65535 {
			return Server{}, bad
		}
	}
	if u.User != nil {
		s.user = u.User.Username()
		s.password, _ = u.User.Password()
		if s.user == "" || s.password == "" {
			return Server{}, bad
		}
	}
	if u.RawQuery != "" {
		spelled, found := strings.CutPrefix(u.RawQuery, "starttls=")
		if !found || spelled == "" || s.implicit {
			return Server{}, bad
		}
		if security != "" && security != spelled {
			return Server{}, errors.New("starttls in the address of the mail server says otherwise; leave one of the two out")
		}
		security = spelled
	}
	switch s.tls = security; {
	case security == "" && (s.implicit || !local(s.host)):
		s.tls = tlsRequired
	case security == "":
		s.tls = tlsOptional
	case !slices.Contains([]string{tlsRequired, tlsOptional, tlsOff}, security):
		return Server{}, errors.New("TLS to a mail server is required, optional or off")
	case s.implicit && security != tlsRequired:
		return Server{}, errors.New("with smtps there is always TLS")
	}
	return s, nil
}

// local says whether a host is this machine.
func local(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// SMTPConfig is how messages are submitted.
type SMTPConfig struct {
	From    mail.Address
	Hello   string        // how the server is greeted: the name of this host, or of the site
	TLS     *tls.Config   // the system's roots when nil
	Timeout time.Duration // of a connection, and of a message; 30 s when 0
}

// SMTP submits messages to a mail server (RFC 6409).
type SMTP struct {
	server Server
	config SMTPConfig
	open   *session // nil between bursts of messages
}

// session is a connection to the server, which is good for many messages.
type session struct {
	client *gomail.Client
	smtp   *smtp.Client
	conn   net.Conn
	forget func() bool // that conn is closed when a context ends
}

// NewSMTP makes a transport. It does not connect yet.
func NewSMTP(s Server, c SMTPConfig) *SMTP {
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	if c.TLS == nil {
		c.TLS = &tls.Config{}
	}
	c.TLS = c.TLS.Clone()
	c.TLS.ServerName = s.host
	c.TLS.MinVersion = tls.VersionTLS12
	return &SMTP{server: s, config: c}
}

// Send submits a message: over the connection that is open, if it still works, or over a new one. See Transport.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	message := m.mime(s.config.From)
	if s.open != nil {
		err := s.submit(m, message)
		if !errors.Is(err, errGone) {
			return err
		}
	}
	open, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to the mail server %s: %w", s.server, err)
	}
	s.open = open
	return s.submit(m, message)
}

// Rest closes the connection.
func (s *SMTP) Rest() {
	if s.open == nil {
		return
	}
	// A server that does not answer the farewell loses nothing.
	_ = s.open.client.CloseWithSMTPClient(s.open.smtp)
	s.drop()
}

func (s *SMTP) drop() {
	s.open.forget()
	s.open.conn.Close()
	s.open = nil
}

// dial connects and authenticates. The connection is closed when ctx ends.
func (s *SMTP) dial(ctx context.Context) (*session, error) {
	open := &session{forget: func() bool { return true }}
	connect := func(dialing context.Context, network, address string) (conn net.Conn, err error) {
		if s.server.implicit {
			conn, err = (&tls.Dialer{Config: s.config.TLS}).DialContext(dialing, network, address)
		} else {
			conn, err = (&net.Dialer{}).DialContext(dialing, network, address)
		}
		if err == nil {
			open.conn, open.forget = conn, context.AfterFunc(ctx, func() { conn.Close() })
		}
		return conn, err
	}
	options := []gomail.Option{
		gomail.WithPort(s.server.port), gomail.WithTimeout(s.config.Timeout), gomail.WithHELO(s.config.Hello),
		gomail.WithTLSConfig(s.config.TLS), gomail.WithDialContextFunc(connect),
	}
	switch {
	case s.server.implicit:
		options = append(options, gomail.WithSSL())
	case s.server.tls == tlsRequired:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case s.server.tls == tlsOptional:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSOpportunistic))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if s.server.user != "" {
		// Plain ones refuse to go over a network without TLS, unless it is switched off.
		ways := []gomail.SMTPAuthType{gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin}
		if s.server.tls == tlsOff {
			ways = []gomail.SMTPAuthType{gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlainNoEnc, gomail.SMTPAuthLoginNoEnc}
		}
		options = append(options, gomail.WithUsername(s.server.user), gomail.WithPassword(s.server.password), gomail.WithOpportunisticSMTPAuth(ways...))
	}
	var err error
	if open.client, err = gomail.NewClient(s.server.host, options...); err != nil {
		return nil, err
	}
	if open.smtp, err = open.client.DialToSMTPClientWithContext(ctx); err != nil {
		open.forget()
		if open.conn != nil {
			open.conn.Close()
		}
		return nil, err
	}
	return open, nil
}

// errGone: the server has closed a connection that was open for longer.
var errGone = errors.New("the connection to the mail server is gone")

// submit hands a message over the open connection. It fails with errGone before anything was handed over, with a
// *Refusal, or with what broke the connection, and then there is none.
//
// An address whose local part is not ASCII goes only to a server that says it can deal with one (RFC 6531): others take it
// too, and then do what they like with it.
func (s *SMTP) submit(m Message, message *gomail.Msg) error {
	if offered, _ := s.open.smtp.Extension("SMTPUTF8"); !offered && !isASCII(m.To.Mailbox()) {
		return &Refusal{Permanent: true, Reason: "it does not offer SMTPUTF8, which an address needs whose local part is not ASCII"}
	}
	err := s.open.client.SendWithSMTPClient(s.open.smtp, message)
	var failed *gomail.SendError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &failed):
		s.drop()
		return fmt.Errorf("submit to the mail server %s: %w", s.server, err)
	}
	refusal := refusalOf(failed)
	if refusal != nil && failed.Reason == gomail.ErrSMTPRcptTo { // after which the connection was set back
		return refusal
	}
	s.drop()
	switch {
	case refusal != nil:
		return refusal
	case message.IsDelivered(): // and then the connection broke
		return nil
	case failed.Reason == gomail.ErrConnCheck:
		return errGone
	case failed.Reason == gomail.ErrSMTPRcptTo: // the text has the address in it
		return fmt.Errorf("submit to the mail server %s: %s failed with %d", s.server, failed.Reason, failed.ErrorCode())
	}
	return fmt.Errorf("submit to the mail server %s: %w", s.server, err)
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// refusalOf is the refusal that a failure is, nil where it is none: the server's answer to a recipient or to a content, but
// not that the service is about to close.
func refusalOf(failed *gomail.SendError) *Refusal {
	code := failed.ErrorCode()
	switch failed.Reason {
	case gomail.ErrSMTPRcptTo, gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
	default:
		return nil
	}
	if code < 400 || code > 599 || code == 421 {
		return nil
	}
	// "Not authorized" (RFC 3463, X.7.x) and "authenticate first" (RFC 4954) say that we may not send, which an operator may
	// still mend; they don't say that there is no such mailbox.
	ours := code == 530 || strings.HasPrefix(failed.EnhancedStatusCode(), "5.7.")
	return &Refusal{Code: code, Permanent: code >= 500 && !ours}
}

// Log shows messages in a log instead of sending them. It is for development: whoever reads the log can use the codes.
type Log struct{ Logger *slog.Logger }

// Send logs a message.
func (l Log) Send(ctx context.Context, m Message) error {
	shown := slog.String("link", m.Link)
	if m.Link == "" {
		shown = slog.String("text", m.Text)
	}
	l.Logger.InfoContext(ctx, "mail", slog.String("to", m.To.String()), slog.String("subject", m.Subject), shown)
	return nil
}

// Rest does nothing.
func (Log) Rest() {}
