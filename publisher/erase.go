package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

// forget takes what a user.erased erases out of the stream: every message about its user that comes before it. It is done
// before that event itself is published, so whoever sees it finds nothing of the user in the stream any more. A subject
// has the messages of many users; which are this one's, the log knows.
//
// Deleting a message only marks it; its bytes stay in the server's files until most of the block around them is marked as
// well. So the messages that carry something personal are overwritten, those of the user's own stream before those of
// sessions. To overwrite a message the server writes the whole block that it is in once more, 8 MB if that is full, and
// everybody else's events wait meanwhile: so that is bounded by Config.OverwriteFor, after which the rest is only deleted.
//
// What was done when the relay dies, or the server, need not be done again: the messages of erased users are not missed.
// The next relay finds the user.erased unpublished, and deletes what is left.
func (r *Relay) forget(ctx context.Context, user uuid.UUID, erased int64) error {
	fail := func(err error) error { return fmt.Errorf("forget %s at %d: %w", user, erased, err) }
	before, err := r.look(ctx)
	if err != nil {
		return fail(err)
	}
	personal, others, err := r.positionsOf(ctx, user, int64(before.State.FirstSeq), erased)
	if err != nil {
		return fail(err)
	}
	personal, bare, err := r.withPersonal(ctx, personal)
	if err != nil {
		return fail(err)
	}
	if err := r.overwrite(ctx, user, personal); err != nil {
		return fail(err)
	}
	if err := r.deleteMessages(ctx, append(others, bare...), func(int) bool { return false }); err != nil {
		return fail(err)
	}
	after, err := r.look(ctx)
	if err != nil {
		return fail(err)
	}
	r.account(before, after)
	return nil
}

// positionsOf lists the positions from one up to before another at which the log has something about a user: those with
// something personal, what tells most about a person first, and the others.
func (r *Relay) positionsOf(ctx context.Context, user uuid.UUID, from, before int64) (personal, others []int64, err error) {
	rows, err := r.DB.Query(ctx, `
		SELECT position, personal IS NOT NULL FROM events WHERE subject = $1 AND position >= $2 AND position < $3
		 ORDER BY CASE kind WHEN 'user' THEN 0 ELSE 1 END, position DESC`, user, from, before)
	if err != nil {
		return nil, nil, fmt.Errorf("read the user's positions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p int64
		var tells bool
		if err := rows.Scan(&p, &tells); err != nil {
			return nil, nil, fmt.Errorf("read the user's positions: %w", err)
		}
		if tells {
			personal = append(personal, p)
		} else {
			others = append(others, p)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("read the user's positions: %w", err)
	}
	return personal, others, nil
}

// withPersonal tells the messages that carry something personal from those that say that they do not, which are all in a
// stream that was filled again since the user was erased. Those that are gone are neither.
func (r *Relay) withPersonal(ctx context.Context, positions []int64) (personal, bare []int64, err error) {
	there, tells := make([]bool, len(positions)), make([]bool, len(positions))
	request := func(i int) []byte { return fmt.Appendf(nil, `{"seq":%d}`, positions[i]) }
	err = r.askEach(ctx, "MSG.GET", len(positions), request, func(i int, answer []byte) error {
		m, found, err := readMessage(answer)
		there[i], tells[i] = found, !m.bare
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for i, p := range positions { // answers come in any order
		switch {
		case there[i] && tells[i]:
			personal = append(personal, p)
		case there[i]:
			bare = append(bare, p)
		}
	}
	return personal, bare, nil
}

// overwrite deletes messages and has their bytes overwritten, as long as that may take.
func (r *Relay) overwrite(ctx context.Context, user uuid.UUID, positions []int64) error {
	until, left := time.Now().Add(r.OverwriteFor), 0
	err := r.deleteMessages(ctx, positions, func(int) bool {
		if time.Now().Before(until) {
			return true
		}
		left++
		return false
	})
	if left > 0 {
		r.Logger.Warn("messages of an erased user are deleted and not overwritten, which would take too long: their bytes stay on "+
			"the broker's disk until it writes the blocks anew", "user", user, "messages", left)
	}
	return err
}

// deleteMessages deletes the messages at some positions. securely is asked of each as it is sent, in order.
func (r *Relay) deleteMessages(ctx context.Context, positions []int64, securely func(i int) bool) error {
	request := func(i int) []byte { return fmt.Appendf(nil, `{"seq":%d,"no_erase":%t}`, positions[i], !securely(i)) }
	return r.askEach(ctx, "MSG.DELETE", len(positions), request, func(i int, raw []byte) error {
		var answer struct {
			Error   *jetstream.APIError `json:"error"`
			Success bool                `json:"success"`
		}
		err := json.Unmarshal(raw, &answer)
		switch {
		case err == nil && answer.Success:
			return nil
		case err == nil && answer.Error != nil && answer.Error.ErrorCode == sequenceNotFound: // it is deleted already
			return nil
		case err == nil && answer.Error != nil:
			err = answer.Error
		case err == nil:
			err = errors.New("the server did not delete it")
		}
		return fmt.Errorf("delete the message at %d: %w", positions[i], err)
	})
}

const sequenceNotFound jetstream.ErrorCode = 10043

// accounted is where a stream begins and how many messages are missing inside it, all of them of erased users. Which ones
// they are need not be looked at again while it is so.
type accounted struct {
	created time.Time // the stream
	first   uint64
	deleted int
}

func accountOf(info *jetstream.StreamInfo) accounted {
	return accounted{info.Created, info.State.FirstSeq, info.State.NumDeleted}
}

// of says whether the account is that of a stream as it stands.
func (a accounted) of(info *jetstream.StreamInfo) bool {
	return a.created.Equal(info.Created) && a.first == info.State.FirstSeq && a.deleted == info.State.NumDeleted
}

// account notes what forget has deleted, between two looks at the stream.
func (r *Relay) account(before, after *jetstream.StreamInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.accounted.of(before) && before.Created.Equal(after.Created) {
		r.accounted.deleted += after.State.NumDeleted - before.State.NumDeleted
	}
}

// undead are the users whose messages a scrub has seen although they were erased before the stream's end, with the positions
// at which they were: a server that lost power may bring back what was deleted.
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
