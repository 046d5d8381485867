// Package publisher copies the log to a JetStream stream, where other services subscribe to it.
//
// Guarantees, whatever dies or restarts, and however many relays run at once:
//
//   - Every event is in the stream once, in the order of the log, and its sequence is its position.
//   - No event is skipped. One that can't be published stops the relay, which then says so.
//   - What the stream loses is published again under the same sequences, and its durable consumers go on where they were.
//   - Whoever sees a user.erased in the stream finds no other message about its user there: they are gone before it comes.
//   - A stream that belongs to another log, or to another history of this one, is left alone until an operator decides; or, with
//     [Config.FollowRestores], it is made a copy of the log again, and subscribers are told.
//   - Every read of the log begins with the event that was read last. So nothing is published that follows another history than
//     what was published before.
//
// The fence is the broker's: every message states the sequence that it must follow, so that the server refuses a
// duplicate, a gap, a reordering and a second relay. The stream's last sequence is the cursor; the copy in the database
// is for monitoring and for noticing losses. The lease only saves standbys the trouble of being refused.
//
// The package does not deliver to webhooks, and it does not decide what an event means.
package publisher

import (
	"cmp"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// The errors of this package. Flush answers with them; Run logs them, and Status shows their text.
var (
	// ErrHalted: the relay stopped for good and touches nothing until it is reset. The first time it comes with
	// ErrStreamAhead or ErrForeignStream; once it was written down, with their text.
	ErrHalted = errors.New("the relay is halted until `usher outbox reset`")
	// ErrNotHalted: a reset was asked of a relay that has not halted.
	ErrNotHalted = errors.New("the relay has not halted")
	// ErrStreamAhead: the stream has more events than the log, as after the log was restored from a backup.
	ErrStreamAhead = errors.New("the JetStream stream is ahead of the log")
	// ErrForeignStream: the stream has another event where the log has its own.
	ErrForeignStream = errors.New("the JetStream stream belongs to another log")
	// ErrNothingCommon: the stream has no event of the log at all, so that even FollowRestores leaves it alone.
	ErrNothingCommon = errors.New("they have no event in common, so it is left alone")
	// ErrUnpublishable: the broker takes no message as large as an event is. The relay tries again now and then.
	ErrUnpublishable = errors.New("an event can't be published")
	// ErrDamaged: messages are missing inside the stream, or are not those of the log.
	ErrDamaged = errors.New("the JetStream stream is damaged")
	// ErrUnreachable: there is no connection to the broker. The relay goes on as soon as there is.
	ErrUnreachable = errors.New("NATS can't be reached")
	// ErrNotAcknowledged: the broker left messages without an answer, or answered with something else than expected.
	ErrNotAcknowledged = errors.New("not acknowledged")
)

// Config of a Relay. Log, DB, Conn and Source are needed.
type Config struct {
	Log  *eventstore.Log
	DB   eventstore.DB
	Conn *nats.Conn // made with nats.ReconnectBufSize(-1): it must not keep messages while it is disconnected

	Stream       StreamConfig
	Source       string // the attribute source of every message
	OmitPersonal bool   // publish without personal fields
	// FollowRestores mends a stream that has what the log does not have any more, instead of halting.
	FollowRestores bool
	BatchSize      int           // events read at once while few are waiting, 1,000 when 0; a backlog is read by 1,000 and more
	Window         int           // messages published and not acknowledged yet, 2,000 when 0
	Poll           time.Duration // how long a missed wake-up may delay an event, 30 s when 0
	Holder         string        // unique among all relays; random when empty
	LeaseTTL       time.Duration // how long a dead relay's standby waits, 10 s when 0
	ScrubEvery     time.Duration // 24 h when 0; when negative only [Relay.Scrub] scrubs
	LookEvery      time.Duration // between looks at the state of the stream, 5 s when 0
	OverwriteFor   time.Duration // how long the messages of one erased user are overwritten, before the rest is only deleted; 5 s when 0
	Tracer         trace.Tracer  // records the publishing of events whose trace is sampled; nothing is when nil
	Logger         *slog.Logger  // slog.Default() when nil
	Now            func() time.Time
}

// StreamConfig is the part of the JetStream stream's configuration that is a matter of choice.
type StreamConfig struct {
	Name     string        // "USHER" when empty
	Replicas int           // 1 when 0
	MaxAge   time.Duration // 0: for ever
	MaxBytes int64         // 0: no limit
}

// DefaultStream is the name of the stream where none is configured.
const DefaultStream = "USHER"

// Relay publishes the log. Run may be called again after it returned, but only one of Run and Flush at a time; the
// other methods are safe for concurrent use.
type Relay struct {
	Config
	js jetstream.JetStream

	published   atomic.Int64 // last position known to be in the stream
	head        atomic.Int64 // last position read from the log
	resyncs     atomic.Int64
	rebuilds    atomic.Int64
	tailsLost   atomic.Int64
	restores    atomic.Int64
	lastScrub   atomic.Pointer[ScrubReport]
	loaded      atomic.Bool   // the row in the database was read, so that it may be written
	saved       savedRow      // owned by the goroutine that saves
	changed     chan struct{} // capacity 1: the state has to be saved
	scrubWanted chan struct{} // capacity 1
	renewed     chan struct{} // capacity 1: the lease was, so it is time to look at the log

	mu        sync.Mutex
	state     State
	err       error
	found     error // by a scrub, until the next resync: ErrDamaged or ErrForeignStream
	accounted accounted
	floors    floors
	stopPump  func(cause error) // nil while nothing is being pumped
	server    string            // id of the server at the last resync
}

// New makes a relay. It does nothing until Run or Flush.
func New(c Config) (*Relay, error) {
	if c.Log == nil || c.DB == nil || c.Conn == nil || c.Source == "" {
		return nil, errors.New("a relay needs a log, a database, a connection and a source")
	}
	c.Stream.Name = cmp.Or(c.Stream.Name, DefaultStream)
	c.Stream.Replicas = cmp.Or(c.Stream.Replicas, 1)
	c.BatchSize = cmp.Or(c.BatchSize, 1000)
	c.Window = cmp.Or(c.Window, 2000)
	c.Poll = cmp.Or(c.Poll, 30*time.Second)
	c.Holder = cmp.Or(c.Holder, uuid.NewString())
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 10*time.Second)
	c.ScrubEvery = cmp.Or(c.ScrubEvery, 24*time.Hour)
	c.LookEvery = cmp.Or(c.LookEvery, 5*time.Second)
	c.OverwriteFor = cmp.Or(c.OverwriteFor, 5*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	c.Logger = c.Logger.With("stream", c.Stream.Name)
	if c.Now == nil {
		c.Now = time.Now
	}
	js, err := jetstream.New(c.Conn)
	if err != nil {
		return nil, err
	}
	return &Relay{Config: c, js: js, state: StateStarting, changed: make(chan struct{}, 1), scrubWanted: make(chan struct{}, 1),
		renewed: make(chan struct{}, 1)}, nil
}

func (r *Relay) encoding() cloudevent.Options {
	return cloudevent.Options{Source: r.Source, OmitPersonal: r.OmitPersonal}
}
