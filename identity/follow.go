package identity

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"usher.example/eventstore"
)

const (
	pollInterval = 250 * time.Millisecond // between reads of the log's tail when no wake-up comes
	followBatch  = 1000
)

// Follow keeps what is in memory right: it reads the tail of the log after each wake-up, and a few times a second without
// one, drops the state of every user who has a newer event, and the key of whoever is erased, and tells Config.SessionEnded
// of sessions that ended and Config.KeyRotated of other signing keys. Without Follow, and whenever it is not up to date,
// users are read from the log each time.
//
// wake is signalled when some process may have committed; signals may be lost or shared. It may be nil, for a process
// that is alone. If signals can be cut off, WakeCut has to be told.
//
// Follow runs until ctx ends and returns its cause. Errors of the database are logged and tried again.
func (s *Service) Follow(ctx context.Context, wake <-chan struct{}) error {
	defer s.trust.lose()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	const unknown = -1
	position := int64(unknown)
	failing := false
	for {
		var err error
		if position == unknown {
			position, err = s.startFollowing(ctx)
		} else {
			position, err = s.catchUp(ctx, position)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			s.trust.lose()
			position = unknown
			if !failing {
				s.logger.WarnContext(ctx, "users are read from the log each time: its tail can't be followed", slog.Any("error", err))
			}
		case failing:
			s.logger.InfoContext(ctx, "users are kept in memory again")
		}
		failing = err != nil
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startFollowing drops every state, and catches up from where the oldest access tokens that are still good were issued:
// sessions that ended since then have to be told of.
func (s *Service) startFollowing(ctx context.Context) (int64, error) {
	s.cache.forgetAll()
	position, err := s.log.PositionAt(ctx, s.now().Add(-s.accessLifetime))
	if err != nil {
		return -1, err
	}
	return s.catchUp(ctx, position)
}

// catchUp reads to the end of the log and tells the cache what it finds.
func (s *Service) catchUp(ctx context.Context, position int64) (int64, error) {
	for {
		caughtUp := s.trust.begin(s.now())
		// The events are left sealed: which stream has which version is all that matters here.
		events, err := s.store.ReadAll(ctx, position, followBatch)
		if err != nil {
			return -1, fmt.Errorf("read after %d: %w", position, err)
		}
		for _, e := range events {
			if e.Position != position+1 {
				return -1, fmt.Errorf("read after %d: %w", position, eventstore.ErrGap)
			}
			position = e.Position
			switch {
			case e.Stream.Kind == eventstore.KindUser:
				s.cache.outdate(e.Stream.ID, e.Version)
				if e.Type == TypeUserErased {
					s.log.Sealer().Forget(e.Stream.ID)
					s.cache.forget(e.Stream.ID)
				}
			case e.Type == TypeSessionEnded:
				s.sessionEnded(e.Stream.ID)
			case e.Type == TypeKeyRotated:
				s.keyRotated()
			}
		}
		if len(events) < followBatch {
			caughtUp()
			s.followed.set(position)
			return position, nil
		}
	}
}

// WakeCut says whether the signals of other processes are cut off from Follow. From cut to mended, and until the log
// was read once more, users are read from the log each time.
func (s *Service) WakeCut(cut bool) { s.trust.setCut(cut) }

// Followed answers with a channel that is closed once Follow has read further, which it does after commits of whichever
// process.
func (s *Service) Followed() <-chan struct{} { return s.followed.wait() }

// progress is a position that moves on, and those who wait for that. The zero value is where the log begins.
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
	if position <= p.position {
		return
	}
	p.position = position
	if p.further != nil {
		close(p.further)
		p.further = nil
	}
}
