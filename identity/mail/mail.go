// Package mail sends users the mails that events call for: codes to verify an address, to set another password or to have
// another address, and notices of what happened to an account.
//
// A request only appends an event. A subscription writes down, in the transaction that moves its checkpoint, that the event
// calls for a mail; a sender works through what is written down, one mail at a time. What a mail says and where it goes is
// read from the log as it is sent, and a code is made then, so that nothing personal and no secret waits anywhere.
//
// Guarantees:
//
//   - No request waits for a mail server. While the server or the database can't be reached, mails wait, for as long as it
//     takes. While NATS can't be, or the relay has halted, the log itself is read, a little later.
//   - What the JetStream stream says counts only if the log says it too.
//   - A mail is sent at least once, and twice only where a process died between sending it and noting so. The code in the
//     last one is the one that is good.
//   - A mailbox that puts a mail off delays that mail; one that refuses it ends it, which is logged and counted. Neither
//     delays others.
//   - However many processes there are, one sends: it holds a lease.
//   - The mails of a user who is erased are not sent.
//   - One address gets a few mails of a kind in an hour at most, whoever asks for them, by whatever route.
//   - A mail is a text and the same in HTML, in the language that the user chose, and says nothing that a stranger could choose. To show
//     it fetches nothing. Templates that stand in for ours are checked before anything is sent.
//   - Nothing is sent for what was in the log before mail was set up, nor for what is older than three days when it is read;
//     and filling a read model anew sends nothing at all.
//
// It does not read answers, bounces or complaints, and does not sign (DKIM): that is for the mail server.
package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Config is what a Mailer stands on. All fields are needed but those with a default.
type Config struct {
	Log       *eventstore.Log
	DB        eventstore.DB // of the same database
	Users     Users
	JetStream jetstream.JetStream // whose stream the relay fills
	Transport Transport
	Letters   *Letters
	// DeviceKey makes what is stored of the devices that users log in with. It is the same in all processes.
	DeviceKey []byte

	// Holder names this mailer among all that there are; random when empty. See projections.Runner.
	Holder   string
	LeaseTTL time.Duration // how long a process that died keeps the others from taking over; 5 s when 0
	Registry prometheus.Registerer
	Logger   *slog.Logger     // slog.Default() when nil
	Now      func() time.Time // time.Now when nil
}

// Users is what the mailer asks about users. *identity.Service implements it.
type Users interface {
	// CodeAddress is the address that a code would be for; "" where the user needs none.
	CodeAddress(ctx context.Context, user uuid.UUID, p identity.Purpose) (string, error)
	// NewCode makes the code of a mail that is about to be sent, and answers with the address that it is for.
	NewCode(ctx context.Context, user uuid.UUID, p identity.Purpose) (identity.MailCode, string, error)
	// UserAt is a user's state as of a position.
	UserAt(ctx context.Context, user uuid.UUID, position int64) (*identity.User, error)
}

// Transport hands messages to whoever delivers them. Only one is handed over at a time.
type Transport interface {
	// Send fails with a *Refusal where this message is to blame; any other error blames the transport.
	Send(ctx context.Context, m Message) error
	// Rest is told that nothing more is to be sent for now.
	Rest()
}

// Message is a mail that is ready to be sent.
type Message struct {
	To            identity.Email // which can't be anything but one address
	Language      string         // that it is in
	Subject, Link string         // Link is "" where there is nothing to follow
	Text, HTML    string
	Logo          *Logo // that HTML shows; nil for none
}

// Refusal is the answer of a mail server that does not take one message, of which others may well be taken. It has nothing
// of the server's own words, in which the address would be.
type Refusal struct {
	Code      int // of SMTP; 0 where the server was not asked
	Permanent bool
	Reason    string // why it was not asked
}

func (r *Refusal) Error() string {
	if r.Code == 0 {
		return "the mail server can't take the message: " + r.Reason
	}
	return fmt.Sprintf("the mail server refused the message with %d", r.Code)
}

// Mailer sends mails. Run does the work.
type Mailer struct {
	Config
	logger  *slog.Logger
	wake    chan struct{}
	sent    *prometheus.CounterVec
	waiting atomic.Int64 // as of the last look at them; 0 while another process sends
}

// Consumer is the name of the durable consumer that what calls for mails comes through.
const Consumer = name

const (
	name       = "mail" // of the subscription, its durable consumer, and the lease
	defaultTTL = 5 * time.Second
)

// New makes a mailer, and marks the place in the log from which on events call for mails: where the log ends at the first
// call ever.
func New(ctx context.Context, c Config) (*Mailer, error) {
	c.Holder = cmp.Or(c.Holder, eventstore.NewHolder())
	c.LeaseTTL = cmp.Or(c.LeaseTTL, defaultTTL)
	if c.Now == nil {
		c.Now = time.Now
	}
	m := &Mailer{Config: c, logger: cmp.Or(c.Logger, slog.Default()), wake: make(chan struct{}, 1)}
	m.sent = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usher_mails_total", Help: "Mails by kind, and by what became of them or of an attempt to send them.",
	}, []string{"kind", "outcome"})
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "usher_mails_waiting", Help: "Mails that are to be sent, in the process that sends them.",
	}, func() float64 { return float64(m.waiting.Load()) })
	for _, collector := range []prometheus.Collector{m.sent, waiting} {
		if err := c.Registry.Register(collector); err != nil {
			return nil, err
		}
	}
	head, err := c.Log.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up mail: %w", err)
	}
	_, err = c.DB.Exec(ctx, `INSERT INTO subscriptions (name, checkpoint, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		name, head, m.now())
	if err != nil {
		return nil, fmt.Errorf("set up mail: %w", err)
	}
	return m, nil
}

// now is the time as databases keep it.
func (m *Mailer) now() time.Time { return m.Now().UTC().Truncate(time.Microsecond) }

// What became of a mail, or of an attempt.
const (
	outcomeSent     = "sent"
	outcomeDelayed  = "delayed"  // its mailbox put it off
	outcomeRefused  = "refused"  // its mailbox does not take it
	outcomeGivenUp  = "given_up" // its mailbox put it off too often
	outcomeUnneeded = "unneeded" // the user is gone, or has no use for it any more
	outcomeTooMany  = "too_many" // its address got many of late
	outcomeStale    = "stale"    // what it is about was long ago when it was read
)

// Waits between tries of what failed.
const (
	firstWait = time.Second
	lastWait  = 30 * time.Second
)

// Run waits for the lease and sends mails while it holds it, until ctx ends; then it returns nil. Whatever fails is logged
// and tried again.
func (m *Mailer) Run(ctx context.Context) error {
	lease := &eventstore.Lease{DB: m.DB, Name: name, Holder: m.Holder, TTL: m.LeaseTTL}
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		began := time.Now()
		err := lease.Hold(ctx, m.lead)
		m.waiting.Store(0)
		m.Transport.Rest()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, eventstore.ErrLeaseLost) {
			m.logger.WarnContext(ctx, "mail waits", slog.Any("error", err))
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		if eventstore.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

// lead does the work of the process that sends.
func (m *Mailer) lead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.follow(ctx) })
	g.Go(func() error { return m.work(ctx) })
	return g.Wait()
}
