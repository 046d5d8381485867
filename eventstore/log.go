package eventstore

import (
	"bytes"
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
)

// Limits of an append.
const (
	// MaxEventBytes bounds one event: its data, personal fields and metadata together. It is far below what a broker
	// accepts by default (1 MiB), so that no stored event can stop the relay.
	MaxEventBytes = 256 << 10
	// MaxEvents bounds the events of one append.
	MaxEvents = 1000
	// anyVersionTries bounds how often an append at AnyVersion with personal fields is sealed again after it lost a
	// race, before it fails with ErrWrongExpectedVersion.
	anyVersionTries = 16
)

// Log appends to and reads from a Store. It is safe for concurrent use, and there is one of it in a process.
type Log struct {
	store     Store
	sealer    *Sealer
	committer *committer
	upcasters Upcasters
	parts     parts

	commits     watchers // of this process
	connections watchers // to the database, made anew
}

// Options of a Log. The zero value is good.
type Options struct {
	// QueueLimit bounds the appends that wait for a commit; beyond it Append fails with ErrOverloaded. 4,096 when 0.
	QueueLimit int
	// Upcasters bring old payloads to their current schema version as they are read.
	Upcasters Upcasters
	// OnCommit is told of each commit: how many appends and events it wrote, and how long it took. It must not block.
	OnCommit func(CommitStats)
}

// New makes a Log on a store.
func New(store Store, master MasterKey, o Options) *Log {
	l := &Log{
		store:     store,
		sealer:    NewSealer(master, store.DataKeys),
		upcasters: o.Upcasters,
	}
	store.OnConnect(func() {
		l.parts.drop()
		l.connections.signal()
	})
	l.committer = newCommitter(store, o.QueueLimit, func(s CommitStats) {
		l.commits.signal()
		if o.OnCommit != nil {
			o.OnCommit(s)
		}
	})
	return l
}

// Sealer is what the log seals with; identity seals its secrets in state tables with it.
func (l *Log) Sealer() *Sealer { return l.sealer }

// Head is the position of the newest event, 0 for an empty log.
func (l *Log) Head(ctx context.Context) (int64, error) { return l.store.Head(ctx) }

// Waiting is the number of appends that wait for a commit.
func (l *Log) Waiting() int { return l.committer.waiting() }

// Append writes events and everything that belongs to them, in one transaction. It answers once they are durable.
//
// It fails with a *VersionError (ErrWrongExpectedVersion), a *StaleError (ErrStale), a *ReservationError (ErrReserved),
// ErrStateRefused, ErrStreamClosed, ErrEventTooLarge, ErrInvalid, ErrNoKey, ErrOverloaded, ErrClosed or ErrUnavailable, and then nothing was written; or
// with ErrOutcomeUnknown, and then it may have been. Cancelling ctx takes the append back while it waits; once it was
// sent the answer is ErrOutcomeUnknown.
func (l *Log) Append(ctx context.Context, a Append) (r Result, err error) {
	ctx, span := startSpan(ctx, "append")
	if span != nil {
		defer func() {
			span.SetAttributes(attribute.String("usher.stream", a.Stream.String()), attribute.Int64("usher.position", r.Position))
			endSpan(span, err)
		}()
	}
	return l.append(ctx, a)
}

func (l *Log) append(ctx context.Context, a Append) (Result, error) {
	if err := checkAppend(&a); err != nil {
		return Result{}, fmt.Errorf("append to %s: %w", a.Stream, err)
	}
	for try := 1; ; try++ {
		p, key, resolved, err := l.prepare(ctx, a)
		if err != nil {
			return Result{}, fmt.Errorf("append to %s: %w", a.Stream, err)
		}
		r, err := l.committer.commit(ctx, p)
		if err == nil {
			switch {
			case p.Erase:
				l.sealer.Forget(a.Stream.Subject)
			case key != nil && !r.Repeated:
				l.sealer.remember(a.Stream.Subject, key) // the relay opens the event in a moment
			}
			return r, nil
		}
		if resolved && try < anyVersionTries && errors.Is(err, ErrWrongExpectedVersion) {
			continue
		}
		if errors.Is(err, ErrMasterKeyRetired) && try == 1 && l.sealer.masters.refresh(ctx) == nil && p.Key != nil {
			continue // what a state change carries is sealed by the caller, who has to do it again
		}
		return Result{}, fmt.Errorf("append to %s: %w", a.Stream, err)
	}
}

func checkAppend(a *Append) error {
	switch {
	case a.Stream.ID == uuid.Nil || a.Stream.Kind == "":
		return fmt.Errorf("%w: no stream", ErrInvalid)
	case len(a.Events) == 0:
		return fmt.Errorf("%w: no events", ErrInvalid)
	case len(a.Events) > MaxEvents:
		return fmt.Errorf("%w: %d events, at most %d", ErrInvalid, len(a.Events), MaxEvents)
	case a.Expected < AnyVersion:
		return fmt.Errorf("%w: expected version %d", ErrInvalid, a.Expected)
	case a.CreateKey && (a.Stream.Subject == uuid.Nil || a.Expected != NoStream):
		return fmt.Errorf("%w: a data key is made with a subject's first event", ErrInvalid)
	}
	if err := checkErasure(a); err != nil {
		return err
	}
	if slices.ContainsFunc(a.Given, func(v StreamVersion) bool { return v.Stream == a.Stream.ID || v.Stream == uuid.Nil }) {
		return fmt.Errorf("%w: what is given are other streams", ErrInvalid)
	}
	for i, r := range a.Reserve {
		if slices.Contains(a.Reserve[:i], r) {
			return fmt.Errorf("%w: a value of %s is reserved twice", ErrInvalid, r.Scope)
		}
	}
	for _, e := range a.Events {
		if hasNUL(e.Data) || hasNUL(e.Personal) {
			return fmt.Errorf("%w: %s has a NUL character, which Postgres does not store", ErrInvalid, e.Type)
		}
	}
	return nil
}

// checkErasure checks an append that has a TypeErased among its events.
func checkErasure(a *Append) error {
	at := slices.IndexFunc(a.Events, func(e NewEvent) bool { return e.Type == TypeErased })
	switch {
	case at < 0:
		return nil
	case a.Stream.Kind != KindUser || a.Stream.Subject != a.Stream.ID || a.CreateKey:
		return fmt.Errorf("%w: %s belongs at the end of a user's own stream", ErrInvalid, TypeErased)
	case at < len(a.Events)-1:
		return fmt.Errorf("%w: %s is the last event of a stream", ErrInvalid, TypeErased)
	case len(a.Events[at].Personal) > 0 || a.Metadata.Address != "" || a.Metadata.UserAgent != "":
		return fmt.Errorf("%w: %s has nothing personal", ErrInvalid, TypeErased)
	}
	return nil
}

// hasNUL says whether JSON has an escaped NUL character in it. A raw one is no JSON.
func hasNUL(text []byte) bool {
	for {
		i := bytes.Index(text, []byte(`\u0000`))
		if i < 0 {
			return false
		}
		before := 0 // backslashes: an odd number of them escapes this one
		for before < i && text[i-1-before] == '\\' {
			before++
		}
		if before%2 == 0 {
			return true
		}
		text = text[i+1:]
	}
}

// prepare makes an append ready to be written, with the data key that it creates, if it creates one. The version of an event is part of what its personal fields are bound
// to, so an append at AnyVersion that has some is resolved to the version that the stream has now.
func (l *Log) prepare(ctx context.Context, a Append) (p *Prepared, key cipher.AEAD, resolved bool, err error) {
	p = &Prepared{Append: a, Erase: a.Events[len(a.Events)-1].Type == TypeErased}
	if p.Meta, err = json.Marshal(a.Metadata); err != nil {
		return nil, nil, false, fmt.Errorf("encode metadata: %w", err)
	}
	p.Events = make([]NewEvent, len(a.Events))
	personal := false
	for i, e := range a.Events {
		if e.ID == uuid.Nil {
			if e.ID, err = uuid.NewV7(); err != nil {
				return nil, nil, false, err
			}
		}
		if e.SchemaVersion == 0 {
			e.SchemaVersion = 1
		}
		if len(e.Data) == 0 {
			e.Data = json.RawMessage("{}")
		}
		if size := len(e.Data) + len(e.Personal) + len(p.Meta) + len(a.Metadata.Address) + len(a.Metadata.UserAgent); size > MaxEventBytes {
			return nil, nil, false, fmt.Errorf("%w: %s has %d bytes, at most %d", ErrEventTooLarge, e.Type, size, MaxEventBytes)
		}
		personal = personal || len(e.Personal) > 0
		p.Events[i] = e
	}
	personal = personal || a.Metadata.Address != "" || a.Metadata.UserAgent != ""

	if a.CreateKey {
		key, p.Key = l.sealer.newDataKey(a.Stream.Subject)
	}
	p.Sealed = make([][]byte, len(p.Events))
	if personal {
		if resolved, err = l.sealAll(ctx, p, key); err != nil {
			return nil, nil, false, err
		}
	}
	p.ReserveKeys = l.reservationKeys(a.Reserve)
	p.ReleaseKeys = l.reservationKeys(a.Release)
	return p, key, resolved, nil
}

// sealAll seals the personal fields of the events, with the given key or, if it is nil, the subject's own.
func (l *Log) sealAll(ctx context.Context, p *Prepared, key cipher.AEAD) (resolved bool, err error) {
	subject := p.Stream.Subject
	if subject == uuid.Nil {
		return false, fmt.Errorf("%w: personal fields need a subject", ErrInvalid)
	}
	if key == nil {
		if key, err = l.sealer.keyOf(ctx, subject); err != nil {
			return false, err
		}
	}
	if p.Expected == AnyVersion {
		version, err := l.store.StreamVersion(ctx, p.Stream.ID)
		if err != nil {
			return false, fmt.Errorf("read the version: %w", err)
		}
		p.Expected, resolved = Expected(version), true
	}
	for i, e := range p.Events {
		if p.Sealed[i], err = sealEvent(key, p.Stream.ID, int(p.Expected)+i+1, e, p.Metadata); err != nil {
			return false, fmt.Errorf("seal %s: %w", e.Type, err)
		}
	}
	return resolved, nil
}

func (l *Log) reservationKeys(rs []Reservation) [][]byte {
	keys := make([][]byte, len(rs))
	for i, r := range rs {
		keys[i] = l.sealer.ReservationKey(r)
	}
	return keys
}

// ReadAll reads at most limit events after a position, opened and upcast, in the order of their positions. It fails
// with ErrGap where a position is missing.
func (l *Log) ReadAll(ctx context.Context, after int64, limit int) ([]Event, error) {
	events, err := l.store.ReadAll(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read after %d: %w", after, err)
	}
	if err := inOrder(after, events); err != nil {
		return nil, err
	}
	return l.opened(ctx, events)
}

// inOrder fails with ErrGap unless events follow a position one by one.
func inOrder(after int64, events []Event) error {
	for i := range events {
		if want := after + int64(i) + 1; events[i].Position != want {
			return fmt.Errorf("read after %d: %w: position %d where %d belongs", after, ErrGap, events[i].Position, want)
		}
	}
	return nil
}

// PositionAt is the position of the last event that was recorded at or before a moment, 0 if there is none. Times never
// go back in the log, so it is found by halving: some twenty reads of one event in a million.
func (l *Log) PositionAt(ctx context.Context, moment time.Time) (int64, error) {
	head, err := l.store.Head(ctx)
	if err != nil {
		return 0, fmt.Errorf("find the position at %s: %w", moment.Format(time.RFC3339Nano), err)
	}
	low, high := int64(0), head // recorded by then, and the last that may be
	for low < high {
		middle := low + (high-low+1)/2
		events, err := l.store.ReadAll(ctx, middle-1, 1)
		if err != nil {
			return 0, fmt.Errorf("find the position at %s: %w", moment.Format(time.RFC3339Nano), err)
		}
		if len(events) == 0 {
			return 0, fmt.Errorf("find the position at %s: %w: nothing at %d", moment.Format(time.RFC3339Nano), ErrGap, middle)
		}
		if events[0].RecordedAt.After(moment) {
			high = middle - 1
		} else {
			low = middle
		}
	}
	return low, nil
}

// ReadStream reads at most limit events of a stream after a version, opened and upcast. It fails with ErrGap where a
// version is missing.
func (l *Log) ReadStream(ctx context.Context, stream uuid.UUID, after, limit int) ([]Event, error) {
	events, err := l.store.ReadStream(ctx, stream, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", stream, err)
	}
	for i := range events {
		if want := after + i + 1; events[i].Version != want {
			return nil, fmt.Errorf("read stream %s: %w: version %d where %d belongs", stream, ErrGap, events[i].Version, want)
		}
	}
	return l.opened(ctx, events)
}

// ReadSubject reads at most limit events about a user after a position, from all their streams, opened and upcast.
func (l *Log) ReadSubject(ctx context.Context, user uuid.UUID, after int64, limit int) ([]Event, error) {
	events, err := l.store.ReadSubject(ctx, user, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", user, err)
	}
	return l.opened(ctx, events)
}

// ReadAt reads the events at some positions, each named once and in ascending order, opened and upcast. It fails with ErrGap
// where a position is missing.
func (l *Log) ReadAt(ctx context.Context, positions []int64) ([]Event, error) {
	events, err := l.store.ReadAt(ctx, positions)
	if err != nil {
		return nil, fmt.Errorf("read %d positions: %w", len(positions), err)
	}
	for i, position := range positions {
		if i >= len(events) || events[i].Position != position {
			return nil, fmt.Errorf("read %d positions: %w: nothing at %d", len(positions), ErrGap, position)
		}
	}
	return l.opened(ctx, events)
}

// opened forgets the keys of those who are erased by what was read before it opens anything: whoever read that much of
// the log is not shown what came before either.
func (l *Log) opened(ctx context.Context, events []Event) ([]Event, error) {
	l.forgetErased(events)
	if err := l.sealer.Open(ctx, events); err != nil {
		return nil, err
	}
	return events, l.upcast(events)
}

func (l *Log) forgetErased(events []Event) {
	for i := range events {
		if events[i].Type == TypeErased {
			l.sealer.Forget(events[i].Stream.Subject)
		}
	}
}

func (l *Log) upcast(events []Event) error {
	for i := range events {
		if err := l.upcasters.apply(&events[i]); err != nil {
			return err
		}
	}
	return nil
}

// Watch answers with a channel that is signalled after each commit of this process (several may share a signal), until
// stop is called.
func (l *Log) Watch() (committed <-chan struct{}, stop func()) { return l.commits.watch() }

// WatchConnections answers with a channel that is signalled after each connection to the database that was made anew: it may
// be to another server, whose log is another one from some position on. Who keeps what was read of the log reads on from the
// anchor then, see ReadAfter.
func (l *Log) WatchConnections() (made <-chan struct{}, stop func()) { return l.connections.watch() }

// Close takes no more appends and waits for those that were accepted. If ctx ends first, they go on, their callers are
// told the truth, and Close fails with its cause.
func (l *Log) Close(ctx context.Context) error { return l.committer.close(ctx) }
