package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

const (
	// requestWait bounds one request to the JetStream API.
	requestWait = 5 * time.Second
	// lookWait is shorter: while a cluster elects a leader, nobody answers, and asking again costs nothing.
	lookWait = time.Second
)

// ageSlack is how far the clocks of the database and of the broker may differ when a message's age is judged.
const ageSlack = time.Minute

// wanted is the configuration of the stream, on the base of the one that it has: what is no concern of the relay's, such
// as its placement, stays.
func (c StreamConfig) wanted(base jetstream.StreamConfig) jetstream.StreamConfig {
	base.Name = c.Name
	base.Subjects = []string{cloudevent.SubjectPrefix + ">"}
	base.Retention = jetstream.LimitsPolicy
	base.Discard = jetstream.DiscardOld
	base.DiscardNewPerSubject = false
	base.MaxMsgs = -1
	base.MaxMsgsPerSubject = -1
	base.MaxConsumers = -1
	base.MaxMsgSize = -1
	base.MaxBytes = -1
	if c.MaxBytes > 0 {
		base.MaxBytes = c.MaxBytes
	}
	base.MaxAge = c.MaxAge
	base.Storage = jetstream.FileStorage
	base.Compression = jetstream.NoCompression // a damaged block would stall consumers instead of being passed over
	base.Replicas = c.Replicas
	base.AllowDirect = true
	base.AllowAtomicPublish = true
	base.AllowMsgTTL = false
	base.NoAck = false
	base.Sealed = false
	base.Duplicates = 100 * time.Millisecond // the least there is: no message has an id
	if base.MaxAge > 0 {
		base.Duplicates = min(base.Duplicates, base.MaxAge)
	}
	return base
}

// look reads the state of the stream. It fails with jetstream.ErrStreamNotFound where there is none.
func (r *Relay) look(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, stop := context.WithTimeout(ctx, lookWait)
	defer stop()
	s, err := r.js.Stream(ctx, r.Stream.Name)
	if err != nil {
		return nil, fmt.Errorf("look at the stream: %w", err)
	}
	return s.CachedInfo(), nil
}

// create makes the stream so that its next sequence is first.
func (r *Relay) create(ctx context.Context, first int64) (*jetstream.StreamInfo, error) {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	cfg := r.Stream.wanted(jetstream.StreamConfig{Description: "usher's event log", FirstSeq: uint64(first)})
	s, err := r.js.CreateStream(ctx, cfg)
	for wait := 20 * time.Millisecond; noStore(err) && eventstore.Pause(ctx, wait) == nil; wait *= 2 {
		s, err = r.js.CreateStream(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("create the stream: %w", err)
	}
	r.Logger.Info("created the JetStream stream", "first", first)
	return s.CachedInfo(), nil
}

// noStore reports whether the server could not make the files of a stream. Right after a stream of the same name was deleted
// that passes: the server writes and removes the files of the old one a little longer than it says.
func noStore(err error) bool {
	const streamCreateFailed jetstream.ErrorCode = 10049
	var answer *jetstream.APIError
	return errors.As(err, &answer) && answer.ErrorCode == streamCreateFailed
}

func (r *Relay) deleteStream(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	if err := r.js.DeleteStream(ctx, r.Stream.Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete the stream: %w", err)
	}
	return nil
}

// configure brings the stream's configuration to what is wanted. What can't be changed is logged and left: the events in
// it are right all the same.
func (r *Relay) configure(ctx context.Context, info *jetstream.StreamInfo) {
	want := r.Stream.wanted(info.Config)
	if reflect.DeepEqual(want, info.Config) {
		return
	}
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	if _, err := r.js.UpdateStream(ctx, want); err != nil {
		r.Logger.Error("the JetStream stream's configuration is not the wanted one, and can't be changed", "error", err)
		return
	}
	r.Logger.Info("updated the JetStream stream's configuration")
}

// message is what is stored at a sequence of the stream.
type message struct {
	position int64
	subject  string
	id       string // "" for a message that is not an event's
	bare     bool   // it says that it lacks the personal fields
}

// fetch reads one message from the stream's leader, which the direct API would not promise: by sequence, or by subject
// where the request says so. found is false where there is none, or none that can be read.
func (r *Relay) fetch(ctx context.Context, request string) (m message, found bool, err error) {
	ctx, stop := context.WithTimeout(ctx, requestWait)
	defer stop()
	reply, err := r.Conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+r.Stream.Name, []byte(request))
	if err != nil {
		return m, false, fmt.Errorf("read from the stream: %w", err)
	}
	return readMessage(reply.Data)
}

// readMessage reads the answer to a request for a message.
func readMessage(raw []byte) (m message, found bool, err error) {
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject string `json:"subject"`
			Seq     int64  `json:"seq"`
			Headers []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return m, false, fmt.Errorf("read from the stream: %w", err)
	}
	switch {
	case answer.Error == nil:
	case answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return m, false, nil
	case strings.Contains(answer.Error.Description, "bad message"): // its checksum is wrong
		return m, false, nil
	default:
		return m, false, fmt.Errorf("read from the stream: %w", answer.Error)
	}
	m.position, m.subject = answer.Message.Seq, answer.Message.Subject
	if len(answer.Message.Headers) > 0 {
		header, err := nats.DecodeHeadersMsg(answer.Message.Headers)
		if err != nil {
			return m, false, fmt.Errorf("read from the stream: %w", err)
		}
		m.id, m.bare = header.Get(cloudevent.HeaderID), header.Get(cloudevent.HeaderPersonal) != ""
	}
	return m, true, nil
}

// fetchLast reads the last message with a subject that matches, among those that were not deleted.
func (r *Relay) fetchLast(ctx context.Context, subjects string) (m message, found bool, err error) {
	return r.fetch(ctx, `{"last_by_subj":"`+subjects+`"}`)
}

func (r *Relay) fetchAt(ctx context.Context, position int64) (m message, found bool, err error) {
	return r.fetch(ctx, fmt.Sprintf(`{"seq":%d}`, position))
}

// eventIDs reads the ids of the events after a position up to another, in order.
func (r *Relay) eventIDs(ctx context.Context, after, upTo int64) ([]uuid.UUID, error) {
	rows, err := r.DB.Query(ctx, "SELECT position, event_id FROM events WHERE position > $1 AND position <= $2 ORDER BY position", after, upTo)
	if err != nil {
		return nil, fmt.Errorf("read event ids: %w", err)
	}
	defer rows.Close()
	ids := make([]uuid.UUID, 0, upTo-after)
	for rows.Next() {
		var (
			position int64
			id       uuid.UUID
		)
		if err := rows.Scan(&position, &id); err != nil {
			return nil, fmt.Errorf("read event ids: %w", err)
		}
		if want := after + int64(len(ids)) + 1; position != want {
			return nil, fmt.Errorf("read event ids: %w: position %d where %d belongs", eventstore.ErrGap, position, want)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read event ids: %w", err)
	}
	return ids, nil
}

// lost answers with those of the positions, none of which is in the stream, that ought to be: the events about erased
// users were purged, but for those that say that they are erased. It looks no further once it has found enough.
func (r *Relay) lost(ctx context.Context, positions []int64, enough int) ([]int64, error) {
	const chunk = 500
	var lost []int64
	for len(positions) > 0 && len(lost) < enough {
		some := positions[:min(chunk, len(positions))]
		positions = positions[len(some):]
		purged, err := r.purged(ctx, some)
		if err != nil {
			return nil, err
		}
		for _, p := range some {
			if !purged[p] {
				lost = append(lost, p)
			}
		}
	}
	return lost, nil
}

func (r *Relay) purged(ctx context.Context, positions []int64) (map[int64]bool, error) {
	marks := make([]string, len(positions))
	args := make([]any, len(positions))
	for i, p := range positions {
		marks[i], args[i] = fmt.Sprintf("$%d", i+1), p
	}
	rows, err := r.DB.Query(ctx, `
		SELECT e.position FROM events e JOIN streams s ON s.stream = e.subject
		 WHERE s.state = 'erased' AND NOT (e.stream = s.stream AND e.version = s.version)
		   AND e.position IN (`+strings.Join(marks, ", ")+")", args...)
	if err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	defer rows.Close()
	purged := make(map[int64]bool)
	for rows.Next() {
		var p int64
		if err := rows.Scan(&p); err != nil {
			return nil, fmt.Errorf("look for erased users: %w", err)
		}
		purged[p] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look for erased users: %w", err)
	}
	return purged, nil
}

// firstOwed is the first position that has to be in a stream which is filled now: 1, or the first event that is not
// older than the stream's maximum age; head+1 where all are older.
func (r *Relay) firstOwed(ctx context.Context, head int64, slack time.Duration) (int64, error) {
	if r.Stream.MaxAge <= 0 {
		return 1, nil
	}
	oldest := r.Now().Add(slack - r.Stream.MaxAge)
	var failed error
	n := sort.Search(int(head), func(i int) bool { // times never decrease with positions
		var at time.Time
		if failed == nil {
			failed = r.DB.QueryRow(ctx, "SELECT recorded_at FROM events WHERE position = $1", int64(i)+1).Scan(&at)
		}
		return at.After(oldest)
	})
	if failed != nil {
		return 0, fmt.Errorf("look for the first event younger than %v: %w", r.Stream.MaxAge, failed)
	}
	return int64(n) + 1, nil
}
