package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

const (
	pollInterval = 250 * time.Millisecond // between reads of the log's tail when no wake-up comes
	followBatch  = 1000
)

// Follow keeps what is in memory right: it reads the tail of the log after each wake-up, after each connection to the database
// that was made anew, and a few times a second without one, drops the state of every user who has a newer event, and the key of
// whoever is erased, and tells Config.SessionEnded of sessions that ended, Config.KeyRotated of other signing keys and
// Config.ClientChanged of clients. Without
// Follow, and whenever it is not up to date, users are read from the log each time.
//
// Each read begins with the event that was read last. Where the log does not have that any more, it is another log than was
// read before: everything in memory is dropped, Config.Forked is told, and the log is read anew.
//
// wake is signalled when some process may have committed; signals may be lost or shared. It may be nil, for a process
// that is alone. If signals can be cut off, WakeCut has to be told.
//
// Follow runs until ctx ends and returns its cause. Errors of the database are logged and tried again.
func (s *Service) Follow(ctx context.Context, wake <-chan struct{}) error {
	defer s.trust.lose()
	connected, stop := s.log.WatchConnections()
	defer stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var f tail
	failing := false
	for {
		err := s.catchUp(ctx, &f)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			s.trust.lose()
			f.known = false
			if !failing {
				s.logger.WarnContext(ctx, "users are read from the log each time: its tail can't be followed", slog.Any("error", err))
			}
		case failing:
			s.logger.InfoContext(ctx, "users are kept in memory again")
		}
		failing = err != nil
		select {
		case <-wake:
		case <-connected:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tail is how far the log was followed.
type tail struct {
	at     eventstore.Anchor
	known  bool              // nothing after it was missed
	newest eventstore.Anchor // that was ever read of this log: where following starts anew, at is behind it
	renew  func()            // what was told of another log does not count any more; nil if that was said, or there was none
}

// moveTo notes the event that was read last. It fails with eventstore.ErrForked where another was read at its place before.
func (f *tail) moveTo(at eventstore.Anchor) error {
	if at.Position == f.newest.Position && at != f.newest {
		return fmt.Errorf("read up to %d: %w", at.Position, eventstore.ErrForked)
	}
	f.at = at
	if at.Position > f.newest.Position {
		f.newest = at
	}
	return nil
}

// catchUp reads to the end of the log and tells the cache what it finds.
func (s *Service) catchUp(ctx context.Context, f *tail) error {
	err := s.readOnFrom(ctx, f)
	if errors.Is(err, eventstore.ErrForked) {
		s.trust.lose()
		s.logger.ErrorContext(ctx, "the log is another one than was read before: what is in memory is dropped", slog.Any("error", err))
		s.doubts.begin(s.now())
		*f = tail{renew: s.forked()}
		err = s.readOnFrom(ctx, f)
	}
	if err == nil && f.renew != nil {
		// Until now nothing was known of this log, so it could have become another one again without a word.
		s.doubts.begin(s.now())
		f.renew()
		f.renew = nil
	}
	return err
}

// readOnFrom reads from where the log was followed to up to its end.
func (s *Service) readOnFrom(ctx context.Context, f *tail) error {
	if !f.known {
		if err := s.startFollowing(ctx, f); err != nil {
			return err
		}
	}
	for {
		caughtUp := s.trust.begin(s.now())
		// The events are left sealed: which stream has which version is all that matters here.
		events, more, err := eventstore.ReadAfter(ctx, s.store, f.at, followBatch)
		if err != nil {
			return err
		}
		for _, e := range events {
			s.noticed(e)
			if err := f.moveTo(eventstore.AnchorOf(e)); err != nil {
				return err
			}
		}
		if !more {
			if f.at.Position < f.newest.Position {
				return fmt.Errorf("the log ends at %d: %w", f.at.Position, eventstore.ErrForked)
			}
			caughtUp()
			s.followed.set(f.at.Position)
			return nil
		}
	}
}

// startFollowing drops every state, and begins where the oldest access tokens that are still good were issued: sessions that
// ended since then have to be told of. It fails with eventstore.ErrForked where the log is another one than was followed before.
func (s *Service) startFollowing(ctx context.Context, f *tail) error {
	s.cache.forgetAll()
	s.clientChanged(uuid.Nil)
	if _, _, err := eventstore.ReadAfter(ctx, s.store, f.newest, 1); err != nil {
		return err
	}
	position, err := s.log.PositionAt(ctx, s.now().Add(-s.accessLifetime))
	if err != nil {
		return err
	}
	if f.at, err = s.log.AnchorAt(ctx, position); err != nil {
		return err
	}
	f.known = true
	return nil
}

// noticed tells whom it concerns of an event.
func (s *Service) noticed(e eventstore.Event) {
	switch {
	case e.Stream.Kind == eventstore.KindUser:
		s.cache.outdate(e.Stream.ID, e.Version)
		if e.Type == TypeUserErased {
			s.log.Sealer().Forget(e.Stream.ID)
			s.cache.forget(e.Stream.ID)
		}
	case e.Stream.Kind == eventstore.KindClient:
		s.clientChanged(e.Stream.ID)
	case e.Type == TypeSessionEnded:
		s.sessionEnded(e.Stream.ID)
	case e.Type == TypeKeyRotated:
		s.keyRotated()
	case e.Type == TypeLogRestored:
		restored, err := Decode[eventstore.Restored](e)
		if err != nil {
			s.logger.Error("what a restore made void can't be read", slog.Int64("position", e.Position), slog.Any("error", err))
		}
		for _, void := range restored.Void {
			if void.Type == TypeSessionStarted || void.Type == TypeSessionGranted { // which never began, though it has a token
				s.sessionEnded(void.Stream)
			}
		}
	}
}

// WakeCut says whether the signals of other processes are cut off from Follow. From cut to mended, and until the log
// was read once more, users are read from the log each time.
func (s *Service) WakeCut(cut bool) { s.trust.setCut(cut) }

// Followed answers with a channel that is closed once Follow has read further, which it does after commits of whichever
// process.
func (s *Service) Followed() <-chan struct{} { return s.followed.wait() }

// progress is a position that moves on, or back in a log that was restored, and those who wait for that. The zero value is where
// the log begins.
type progress struct {
	mu       sync.Mutex
	position int64
	further  chan struct{}
}

func (p *progress) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.further == nil {
		p.further = make(chan struct{})
	}
	return p.further
}

func (p *progress) set(position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if position == p.position {
		return
	}
	p.position = position
	if p.further != nil {
		close(p.further)
		p.further = nil
	}
}
