// Package subscription hands usher's events to a handler: in order, in batches, each exactly once.
//
// It is the one loop that usher's own projections and webhooks run on, and the SDK with which other Go services follow
// users and sessions. Events come from the JetStream stream that the relay fills, through a durable pull consumer. The
// handler stores the position of the last event it handled, its checkpoint, together with what it did; that makes the
// whole exactly-once, whatever the broker delivers twice.
//
// Guarantees:
//
//   - Events are handed over in the order of their positions, none at or below the checkpoint.
//   - Nothing is skipped in silence. Where the stream lacks an event, it is read from the Source; without a Source Run
//     fails with ErrGap. With a filter on subjects, loss shows only between two events of one stream: see
//     Subscription.Subjects.
//   - When a "user.erased" is handed over, the stream has nothing else about that user any more. A subscription that comes
//     late finds gaps where it was, and reads the events, without their personal fields, from the Source.
//   - A lone event is handed over at once; a backlog comes in batches of up to MaxBatch. Memory is bounded.
//   - The loop survives a broker that stops and comes back, a consumer or stream that is deleted and made again with the
//     same sequences, redelivery in any order, and a crash at any point.
//
// A service that verifies access tokens and keeps nothing about users needs no subscription but a RevocationFeed, which tells
// it whose tokens to refuse.
//
// Several workers divide the work with a subscription each that lets through a part of the users: see [Partition].
//
// It does not make the handler's own work and the checkpoint one transaction: that is the handler's to do.
package subscription

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// Stream is the name of the JetStream stream that the relay fills.
const Stream = "USHER"

// ErrGap: the stream lacks events that the subscription has not handled, and there is no Source to read them from. Errors
// of this kind are *GapError.
var ErrGap = errors.New("the stream lacks events")

// GapError is the ErrGap of a range of positions.
type GapError struct {
	After int64 // the last position before the gap
	Next  int64 // the first position after it
}

func (e *GapError) Error() string {
	return fmt.Sprintf("the stream lacks events between positions %d and %d: they were about a user who is erased, or older than what the "+
		"stream keeps, or they were lost, which only the log can tell; set Source, for example to a Feed, and run again", e.After, e.Next)
}

// Is makes errors.Is(err, ErrGap) true.
func (e *GapError) Is(target error) bool { return target == ErrGap }

// ErrRestored: the log was restored from a backup, and the checkpoint is at an event that the log no longer has. Errors of
// this kind are *RestoredError.
var ErrRestored = errors.New("the log was restored to an earlier position")

// RestoredError is the ErrRestored of a checkpoint. Whatever was made of the events after After has to be taken back: they
// did not happen. Then the checkpoint is set to After, or the copy is made anew, and Run goes on.
type RestoredError struct {
	After      int64 // the last position that the log and the checkpoint have in common
	Checkpoint int64
}

func (e *RestoredError) Error() string {
	return fmt.Sprintf("the log was restored to position %d, and the checkpoint is at %d: what was handled in between did not happen", e.After, e.Checkpoint)
}

// Is makes errors.Is(err, ErrRestored) true.
func (e *RestoredError) Is(target error) bool { return target == ErrRestored }

// Source is where events are read that the stream lacks: a *Feed over HTTP or, beside the database, an *eventstore.Log.
type Source interface {
	// ReadAll reads at most limit events after a position, in the order of their positions, without a gap.
	ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
}

// Subscription is a named, checkpointed reader of the stream. Its fields are set before Run and not changed after.
type Subscription struct {
	JetStream jetstream.JetStream
	// Name is the durable consumer's name. It is made where it does not exist; two subscriptions never share one.
	Name string
	// Checkpoint answers with the position of the last event handled, 0 for none. It is asked at the start and again
	// after every error.
	Checkpoint func(ctx context.Context) (int64, error)
	// Handle handles a batch of at least one event and stores the position of the last one as the checkpoint. An event
	// that came in a message has all its fields in Data; one that was read from the Source has the personal ones in
	// Personal: identity.Decode reads both. If Handle fails, the checkpoint is asked again and the events after it are
	// handed over once more, after a wait; unless the error is Final, which ends Run.
	Handle func(ctx context.Context, events []eventstore.Event) error

	// BesideLog says that the checkpoint is kept in the database of the log, so that a backup has both. Handle then sees to
	// it that the events are the log's, and Run does not fail with ErrRestored.
	BesideLog bool
	// Source is read where the stream lacks an event. It may be nil for a subscription that is filtered, or that may end with
	// ErrGap: every erased user leaves gaps in the stream, so one that falls behind meets them sooner or later.
	Source Source
	// Stream is the JetStream stream, Stream ("USHER") when empty.
	Stream string
	// Subjects filters by subject: see Shard, Partition, Type and Kind. Nothing filters nothing.
	//
	// Without a filter, positions follow each other, so every loss is noticed. A filter that lets whole streams
	// through (Shard, Partition, Kind) notices a loss by the next event of the same stream, if it has seen an earlier one since Run
	// began; an event that is found missing in this way is handed over just before the one that showed it, whatever its
	// position. A filter on single types (Type) can't notice any. Where every loss must be noticed, do not filter, and
	// leave out in the handler what is not wanted.
	Subjects []string
	// Personal says that the handler needs the personal fields: an event whose message left them out is read from the
	// Source instead.
	Personal bool
	// MaxBatch bounds a batch; 2,000 when 0.
	MaxBatch int
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
}

// Shard is the filter for every event about a user and about the others of the user's shard, the 256th part of all: the
// handler leaves out whom it does not want.
func Shard(user uuid.UUID) string { return cloudevent.ShardSubjects(cloudevent.Shard(user)) }

// Type is the filter for every event of one type, for example "user.registered".
func Type(eventType string) string { return cloudevent.SubjectPrefix + "*." + eventType }

// Kind is the filter for every event of one kind of stream: those of users, or those of sessions.
func Kind(k eventstore.Kind) string { return cloudevent.SubjectPrefix + "*." + string(k) + ".>" }

// Final marks a handler's error as one that trying again does not mend: Run ends with it. Final of nil is nil.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &finalError{err}
}

type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// Waits between tries.
const (
	firstWait = 50 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Run hands events over until ctx ends, and then returns nil. It fails with the handler's error where that is Final,
// with a *GapError (ErrGap) where the stream lacks events and there is no Source, and with a *RestoredError (ErrRestored)
// where the log was restored from a backup that is older than the checkpoint. Everything else is logged and tried again.
//
// A read-only credential is enough where the durable consumer exists already: Run needs to publish to
// $JS.API.CONSUMER.INFO, $JS.API.CONSUMER.MSG.NEXT and $JS.ACK of the stream and the consumer. It also makes the
// consumer (CONSUMER.CREATE), sets it back (CONSUMER.RESET) and adapts its filter where it may.
func (s *Subscription) Run(ctx context.Context) error {
	l := loop{Subscription: s, versions: newVersions(s.Subjects)}
	for wait := time.Duration(0); ; wait = min(max(2*wait, firstWait), lastWait) {
		handled := l.handled
		err := l.session(ctx)
		var final *finalError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &final):
			return final.error
		case errors.Is(err, ErrGap), errors.Is(err, ErrRestored):
			return fmt.Errorf("subscription %s: %w", s.Name, err)
		}
		if l.handled > handled || errors.Is(err, errReconnected) {
			wait = 0
		}
		l.report(ctx, err)
		if eventstore.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

func (s *Subscription) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.Default().With("subscription", s.Name)
	}
	return s.Logger.With("subscription", s.Name)
}

func (s *Subscription) stream() string {
	if s.Stream == "" {
		return Stream
	}
	return s.Stream
}

const defaultBatch = 2000

func (s *Subscription) maxBatch() int {
	if s.MaxBatch <= 0 {
		return defaultBatch
	}
	return s.MaxBatch
}
