package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore/cloudevent"
)

// forget takes what a user.erased erases out of the stream: every message about its user that comes before it. It is done
// before that event itself is published, so whoever sees it finds nothing of the user in the stream any more.
//
// Purging a message only marks it; its bytes stay in the server's files until most of the block around them is marked as
// well. So the messages that carry something personal are overwritten first, those of the user's own stream before those of
// sessions, and then all that is left is purged. To overwrite a message the server writes the whole block that it is in once
// more, 8 MB if that is full, and everybody else's events wait meanwhile: so that is bounded by Config.OverwriteFor.
//
// What was done when the relay dies, or the server, is not done again: the messages of erased users are not missed.
func (r *Relay) forget(ctx context.Context, user uuid.UUID, erased int64) error {
	fail := func(err error) error { return fmt.Errorf("forget %s at %d: %w", user, erased, err) }
	s, err := r.js.Stream(ctx, r.Stream.Name)
	if err != nil {
		return fail(err)
	}
	info := s.CachedInfo()
	positions, err := r.personal(ctx, user, int64(info.State.FirstSeq), erased)
	if err != nil {
		return fail(err)
	}
	until := time.Now().Add(r.OverwriteFor)
	for i, p := range positions {
		if time.Now().After(until) {
			r.Logger.Warn("messages of an erased user are purged and not overwritten, which would take too long: their bytes stay on "+
				"the broker's disk until it writes the blocks anew", "user", user, "messages", len(positions)-i)
			break
		}
		if err := r.overwrite(ctx, s, p); err != nil {
			return fail(err)
		}
	}
	if err := r.purge(ctx, s, user, erased); err != nil {
		return fail(err)
	}
	after, err := r.look(ctx)
	if err != nil {
		return fail(err)
	}
	r.account(info, after)
	return nil
}

// personal lists the positions from one up to before another at which the log has something personal about a user, what
// tells most about a person first.
func (r *Relay) personal(ctx context.Context, user uuid.UUID, from, before int64) ([]int64, error) {
	rows, err := r.DB.Query(ctx, `
		SELECT position FROM events WHERE subject = $1 AND position >= $2 AND position < $3 AND personal IS NOT NULL
		 ORDER BY CASE kind WHEN 'user' THEN 0 ELSE 1 END, position DESC`, user, from, before)
	if err != nil {
		return nil, fmt.Errorf("read the user's positions: %w", err)
	}
	defer rows.Close()
	var positions []int64
	for rows.Next() {
		var p int64
		if err := rows.Scan(&p); err != nil {
			return nil, fmt.Errorf("read the user's positions: %w", err)
		}
		positions = append(positions, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the user's positions: %w", err)
	}
	return positions, nil
}

// overwrite deletes a message and has its bytes overwritten, unless it carries nothing personal: a stream that was filled
// again since the user was erased has only such.
func (r *Relay) overwrite(ctx context.Context, s jetstream.Stream, position int64) error {
	m, there, err := r.fetchAt(ctx, position)
	if err != nil || !there || m.bare {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	if err := s.SecureDeleteMsg(ctx, uint64(position)); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("overwrite the message at %d: %w", position, err)
	}
	return nil
}

// purge deletes the messages about a user that come before a position.
func (r *Relay) purge(ctx context.Context, s jetstream.Stream, user uuid.UUID, before int64) error {
	ctx, stop := context.WithTimeout(ctx, purgeWait)
	defer stop()
	subjects := jetstream.WithPurgeSubject(cloudevent.UserSubjects(user))
	if err := s.Purge(ctx, subjects, jetstream.WithPurgeSequence(uint64(before))); err != nil {
		return fmt.Errorf("purge the user's messages: %w", err)
	}
	return nil
}

// purgeWait is long: the server looks through every block that has messages of the user.
const purgeWait = 30 * time.Second

// accounted is how many messages are missing inside a stream, all of them of erased users. Which ones they are need not be
// looked at again while it is as many.
type accounted struct {
	created time.Time // the stream
	deleted int
}

// of says whether the account is that of a stream as it stands.
func (a accounted) of(info *jetstream.StreamInfo) bool {
	return a.created.Equal(info.Created) && a.deleted == info.State.NumDeleted
}

// account notes what forget has deleted, between two looks at the stream.
func (r *Relay) account(before, after *jetstream.StreamInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accounted.created.Equal(before.Created) && before.Created.Equal(after.Created) {
		r.accounted.deleted += after.State.NumDeleted - before.State.NumDeleted
	}
}

// undead are the users whose messages a scrub has seen although they were erased before the stream's end, with the positions
// at which they were: a server that lost power may bring back what was purged.
func (s *scrubbing) undead(ctx context.Context) (map[uuid.UUID]int64, error) {
	rows, err := s.DB.Query(ctx, `
		SELECT e.position, e.subject, l.position
		  FROM streams s
		  JOIN events l ON l.stream = s.stream AND l.version = s.version
		  JOIN events e ON e.subject = s.stream AND e.position < l.position
		 WHERE s.state = 'erased' AND l.position <= $2 AND e.position >= $1`, s.report.First, s.report.Last)
	if err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	defer rows.Close()
	found := map[uuid.UUID]int64{}
	for rows.Next() {
		var position, erased int64
		var user uuid.UUID
		if err := rows.Scan(&position, &user, &erased); err != nil {
			return nil, fmt.Errorf("look for erased users: %w", err)
		}
		if _, missing := slices.BinarySearch(s.gaps, position); !missing {
			found[user] = erased
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	return found, nil
}
