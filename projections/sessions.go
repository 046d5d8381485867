package projections

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
	"usher/identity"
)

// SessionsName is the name of the projection of sessions.
const SessionsName = "sessions"

// SessionView is a session as the read model shows it.
type SessionView struct {
	ID        uuid.UUID  `json:"id"`
	User      uuid.UUID  `json:"user"`
	StartedAt time.Time  `json:"started_at"`
	ExpiresAt time.Time  `json:"expires_at"` // when it ends at the latest
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why it ended
	Methods   []string   `json:"methods"`          // that proved who it was
	Address   string     `json:"address,omitempty"`
	UserAgent string     `json:"user_agent,omitempty"`
	Version   int        `json:"version"`  // of the newest event of the session's stream that is in it
	Position  int64      `json:"position"` // of the same event
}

// SessionProjection fills the read model "sessions": a row for every session of a user who is not erased. Whether a
// session that has not ended is over by time is for queries to say.
type SessionProjection struct{}

// Name implements Projection.
func (SessionProjection) Name() string { return SessionsName }

// CodeVersion implements Projection.
func (SessionProjection) CodeVersion() int { return 1 }

// Wants implements Projection.
func (SessionProjection) Wants() eventstore.Selection {
	return eventstore.Selection{Kinds: []eventstore.Kind{eventstore.KindSession}}
}

// Tables implements Projection. The user comes first in the key, so that the rows of one who is erased, and the pages of
// one's sessions, are a range of it; ids are UUIDv7, and so in the order of time.
func (SessionProjection) Tables(d eventstore.Dialect, generation int) []Table {
	create := map[eventstore.Dialect]string{
		eventstore.Postgres: `CREATE TABLE %s (
			subject    uuid        NOT NULL, -- the user
			id         uuid        NOT NULL,
			started_at timestamptz NOT NULL,
			expires_at timestamptz NOT NULL,
			ended_at   timestamptz,
			reason     text        NOT NULL,
			methods    jsonb       NOT NULL,
			address    text        NOT NULL,
			user_agent text        NOT NULL,
			version    int         NOT NULL,
			position   bigint      NOT NULL,
			PRIMARY KEY (subject, id)
		) WITH (fillfactor = 90)`,
		eventstore.SQLite: `CREATE TABLE %s (
			subject    TEXT      NOT NULL,
			id         TEXT      NOT NULL,
			started_at TIMESTAMP NOT NULL,
			expires_at TIMESTAMP NOT NULL,
			ended_at   TIMESTAMP,
			reason     TEXT      NOT NULL,
			methods    TEXT      NOT NULL,
			address    TEXT      NOT NULL,
			user_agent TEXT      NOT NULL,
			version    INTEGER   NOT NULL,
			position   INTEGER   NOT NULL,
			PRIMARY KEY (subject, id)
		) WITHOUT ROWID`,
	}[d]
	return []Table{{Name: SessionsName, Key: []string{"subject", "id"}, User: "subject", Create: fmt.Sprintf(create, TableName(SessionsName, generation))}}
}

// sessionRow is a row of the sessions' table.
type sessionRow struct {
	SessionView
	begun bool // the session's first event is among those that are applied
}

var sessionColumns = []column[sessionRow]{
	field("subject", "uuid", func(s *sessionRow) uuid.UUID { return s.User }),
	field("id", "uuid", func(s *sessionRow) uuid.UUID { return s.ID }),
	field("started_at", "timestamptz", func(s *sessionRow) time.Time { return s.StartedAt }),
	field("expires_at", "timestamptz", func(s *sessionRow) time.Time { return s.ExpiresAt }),
	field("ended_at", "timestamptz", func(s *sessionRow) *time.Time { return s.EndedAt }),
	field("reason", "text", func(s *sessionRow) string { return s.Reason }),
	field("methods", "jsonb", func(s *sessionRow) string { return encodeList(s.Methods) }),
	field("address", "text", func(s *sessionRow) string { return s.Address }),
	field("user_agent", "text", func(s *sessionRow) string { return s.UserAgent }),
	field("version", "int", func(s *sessionRow) int32 { return int32(s.Version) }),
	field("position", "bigint", func(s *sessionRow) int64 { return s.Position }),
}

// The version guards a row against events that it has. What a session began with does not change.
const putSessions = `ON CONFLICT (subject, id) DO UPDATE SET ended_at = excluded.ended_at, reason = excluded.reason,
	version = excluded.version, position = excluded.position WHERE t.version < excluded.version`

// Apply implements Projection: one statement reads the rows that the events go on from, one writes all that changed.
func (SessionProjection) Apply(ctx context.Context, tx eventstore.DB, g Generation, events []eventstore.Event) error {
	table := TableName(SessionsName, g.Number)
	before, err := loadSessions(ctx, tx, table, events)
	if err != nil {
		return err
	}
	erased := erasedUsers(events)
	changed, err := foldSessions(before, erased, events)
	if err != nil {
		return err
	}
	var begun, rows []sessionRow
	for _, s := range changed {
		if g.Loading && s.begun {
			begun = append(begun, s)
		} else {
			rows = append(rows, s)
		}
	}
	if err := loadRows(ctx, tx, table, sessionColumns, begun); err != nil {
		return err
	}
	if err := insertRows(ctx, tx, table, sessionColumns, rows, putSessions); err != nil {
		return err
	}
	return onSubjects(ctx, tx, "DELETE FROM "+table+" WHERE", erased)
}

// foldSession is a session's row after an event of the session's stream.
func foldSession(s sessionRow, e eventstore.Event) (sessionRow, error) {
	switch e.Type {
	case identity.TypeSessionStarted:
		p, err := identity.Decode[identity.SessionStarted](e)
		if err != nil {
			return s, err
		}
		s = sessionRow{SessionView: SessionView{
			ID: e.Stream.ID, User: e.Stream.Subject, StartedAt: e.RecordedAt, ExpiresAt: p.ExpiresAt.UTC().Truncate(time.Microsecond),
			Methods: p.Methods, Address: e.Metadata.Address, UserAgent: e.Metadata.UserAgent,
		}, begun: e.Version == 1}
	case identity.TypeSessionEnded:
		p, err := identity.Decode[identity.SessionEnded](e)
		if err != nil {
			return s, err
		}
		ended := e.RecordedAt
		s.EndedAt, s.Reason = &ended, p.Reason
	}
	s.Version, s.Position = e.Version, e.Position
	return s, nil
}

// foldSessions applies events to the rows of their sessions, in their order, and answers with the rows that changed, in
// the order in which every writer locks them, but for those of users who are erased. rows has the sessions whose first
// event here is not the first of their stream. What is no session, such as a login that failed, has no row.
func foldSessions(rows map[uuid.UUID]sessionRow, erased userSet, events []eventstore.Event) (list []sessionRow, err error) {
	changed := make(map[uuid.UUID]struct{}, len(events))
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindSession {
			continue
		}
		s, known := rows[e.Stream.ID]
		if !known && e.Type != identity.TypeSessionStarted || e.Version <= s.Version {
			continue
		}
		if s, err = foldSession(s, e); err != nil {
			return nil, err
		}
		rows[s.ID] = s
		changed[s.ID] = struct{}{}
	}
	for id := range changed {
		if !erased.has(rows[id].User) {
			list = append(list, rows[id])
		}
	}
	slices.SortFunc(list, func(a, b sessionRow) int {
		return cmp.Or(bytes.Compare(a.User[:], b.User[:]), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return list, nil
}

const sessionView = `subject, id, started_at, expires_at, ended_at, reason, CAST(methods AS text), address, user_agent, version, position`

func scanSession(row eventstore.Row, s *SessionView) error {
	var methods string
	if err := row.Scan(&s.User, &s.ID, &s.StartedAt, &s.ExpiresAt, &s.EndedAt, &s.Reason, &methods, &s.Address, &s.UserAgent, &s.Version, &s.Position); err != nil {
		return err
	}
	s.StartedAt, s.ExpiresAt = s.StartedAt.UTC(), s.ExpiresAt.UTC()
	if s.EndedAt != nil {
		*s.EndedAt = s.EndedAt.UTC()
	}
	return json.Unmarshal([]byte(methods), &s.Methods)
}

// loadSessions reads the rows of the sessions whose first event here is not the first of their stream.
func loadSessions(ctx context.Context, tx eventstore.DB, table string, events []eventstore.Event) (map[uuid.UUID]sessionRow, error) {
	found := map[uuid.UUID]sessionRow{}
	seen := map[uuid.UUID]struct{}{}
	var users, ids []uuid.UUID
	for _, e := range events {
		if _, again := seen[e.Stream.ID]; again || e.Stream.Kind != eventstore.KindSession {
			continue
		}
		seen[e.Stream.ID] = struct{}{}
		if e.Version > 1 {
			users, ids = append(users, e.Stream.Subject), append(ids, e.Stream.ID)
		}
	}
	if len(ids) == 0 {
		return found, nil
	}
	query, args := "SELECT "+sessionView+" FROM "+table+" JOIN unnest($1::uuid[], $2::uuid[]) AS k (subject, id) USING (subject, id)", []any{idArray(users), idArray(ids)}
	if tx.Dialect() == eventstore.SQLite {
		query = "SELECT " + sessionView + " FROM " + table + " WHERE (subject, id) IN (SELECT u.value, i.value FROM json_each($1) u JOIN json_each($2) i ON i.key = u.key)"
		args = []any{list(tx.Dialect(), users), list(tx.Dialect(), ids)}
	}
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var s sessionRow
		if err := scanSession(rows, &s.SessionView); err != nil {
			return nil, fmt.Errorf("read %s: %w", table, err)
		}
		found[s.ID] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return found, nil
}

// userSet is a set of users.
type userSet map[uuid.UUID]struct{}

func (s userSet) has(user uuid.UUID) bool { _, has := s[user]; return has }

// erasedUsers are the users who are erased by events. Nothing is said of them after that: see eventstore.TypeErased.
func erasedUsers(events []eventstore.Event) userSet {
	var erased userSet
	for _, e := range events {
		if e.Type == identity.TypeUserErased {
			if erased == nil {
				erased = userSet{}
			}
			erased[e.Stream.ID] = struct{}{}
		}
	}
	return erased
}

// onSubjects runs a statement that ends where the condition of a column subject is to follow, for all users of a set.
func onSubjects(ctx context.Context, tx eventstore.DB, statement string, users userSet) error {
	if len(users) == 0 {
		return nil
	}
	ids := slices.SortedFunc(maps.Keys(users), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	if _, err := tx.Exec(ctx, statement+" subject "+anyOf(tx.Dialect(), 1), list(tx.Dialect(), ids)); err != nil {
		return fmt.Errorf("forget erased users: %w", err)
	}
	return nil
}

// encodeList is a list of texts as JSON.
func encodeList(texts []string) string {
	if len(texts) == 0 {
		return "[]"
	}
	raw, err := json.Marshal(texts)
	if err != nil { // strings can be expressed in JSON
		panic(err)
	}
	return string(raw)
}
