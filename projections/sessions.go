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

	"usher.example/eventstore"
	"usher.example/identity"
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
	Reason    string     `json:"reason,omitempty"`    // why it ended
	Methods   []string   `json:"methods"`             // that proved who it was; none for a grant
	Client    string     `json:"client_id,omitempty"` // whose grant it is; "" for a login
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
	return []Table{{
		Name: SessionsName, Key: []string{"subject", "id"}, User: "subject",
		Columns: tableColumns(sessionColumns, func(c *Column) { c.Null = c.Name == "ended_at" }), Fill: 90,
		Create: fmt.Sprintf(`CREATE TABLE %s (
			subject    TEXT      NOT NULL,
			id         TEXT      NOT NULL,
			started_at TIMESTAMP NOT NULL,
			expires_at TIMESTAMP NOT NULL,
			ended_at   TIMESTAMP,
			reason     TEXT      NOT NULL,
			methods    TEXT      NOT NULL,
			client     TEXT      NOT NULL,
			address    TEXT      NOT NULL,
			user_agent TEXT      NOT NULL,
			version    INTEGER   NOT NULL,
			position   INTEGER   NOT NULL,
			PRIMARY KEY (subject, id)
		) WITHOUT ROWID`, TableName(d, SessionsName, generation)),
	}}
}

// sessionRow is a row of the sessions' table.
type sessionRow struct {
	SessionView
	changed bool // by the events that were folded
	begun   bool // the session's first event is among those that were folded
}

var sessionColumns = []column[sessionRow]{
	field("subject", "uuid", func(s *sessionRow) uuid.UUID { return s.User }),
	field("id", "uuid", func(s *sessionRow) uuid.UUID { return s.ID }),
	field("started_at", "timestamptz", func(s *sessionRow) time.Time { return s.StartedAt }),
	field("expires_at", "timestamptz", func(s *sessionRow) time.Time { return s.ExpiresAt }),
	field("ended_at", "timestamptz", func(s *sessionRow) *time.Time { return s.EndedAt }),
	field("reason", "text", func(s *sessionRow) string { return s.Reason }),
	field("methods", "jsonb", func(s *sessionRow) string { return encodeList(s.Methods) }),
	field("client", "text", func(s *sessionRow) string { return s.Client }),
	field("address", "text", func(s *sessionRow) string { return s.Address }),
	field("user_agent", "text", func(s *sessionRow) string { return s.UserAgent }),
	field("version", "int", func(s *sessionRow) int32 { return int32(s.Version) }),
	field("position", "bigint", func(s *sessionRow) int64 { return s.Position }),
}

// The version guards a row against events that it has. What a session began with does not change.
const putSessions = `ON CONFLICT (subject, id) DO UPDATE SET ended_at = excluded.ended_at, reason = excluded.reason,
	version = excluded.version, position = excluded.position WHERE t.version < excluded.version`

// sessionChanges are changes to the sessions.
type sessionChanges struct {
	table   string
	loading bool
	rows    map[uuid.UUID]*sessionRow
	erased  userSet // whose sessions are not written, and deleted
	size    int
}

// Changes implements Projection: one statement reads the rows that events go on from, one writes all that changed.
func (SessionProjection) Changes(g Generation) Changes {
	return &sessionChanges{table: g.Table(SessionsName), loading: g.Loading, rows: map[uuid.UUID]*sessionRow{}, erased: userSet{}}
}

// Size implements Changes.
func (c *sessionChanges) Size() int { return c.size }

// Fold implements Changes.
func (c *sessionChanges) Fold(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
	if err := c.load(ctx, db, events); err != nil {
		return err
	}
	c.erased.addErased(events)
	for _, e := range events {
		if begins(e) {
			c.size += rowBytes + len(e.Metadata.Address) + len(e.Metadata.UserAgent)
		}
	}
	return foldSessions(c.rows, events)
}

// Write implements Changes. Rows go in the order of the key, which is the order that every writer locks them in.
func (c *sessionChanges) Write(ctx context.Context, tx eventstore.DB) error {
	var begun, rows []sessionRow
	for _, s := range sortedRows(c.rows, func(a, b *sessionRow) int {
		return cmp.Or(bytes.Compare(a.User[:], b.User[:]), bytes.Compare(a.ID[:], b.ID[:]))
	}) {
		switch {
		case !s.changed || c.erased.has(s.User):
		case c.loading && s.begun:
			begun = append(begun, *s)
		default:
			rows = append(rows, *s)
		}
	}
	if err := loadRows(ctx, tx, c.table, sessionColumns, begun); err != nil {
		return err
	}
	if err := insertRows(ctx, tx, c.table, sessionColumns, rows, putSessions); err != nil {
		return err
	}
	return onSubjects(ctx, tx, "DELETE FROM "+c.table+" WHERE", c.erased)
}

// begins says whether an event is the first of a session.
func begins(e eventstore.Event) bool {
	return e.Type == identity.TypeSessionStarted || e.Type == identity.TypeSessionGranted
}

// fold changes a session's row by an event of the session's stream.
func (s *sessionRow) fold(e eventstore.Event) error {
	switch e.Type {
	case identity.TypeSessionStarted:
		p, err := identity.Decode[identity.SessionStarted](e)
		if err != nil {
			return err
		}
		*s = sessionRow{SessionView: SessionView{
			ID: e.Stream.ID, User: e.Stream.Subject, StartedAt: e.RecordedAt, ExpiresAt: p.ExpiresAt.UTC().Truncate(time.Microsecond),
			Methods: p.Methods, Address: e.Metadata.Address, UserAgent: e.Metadata.UserAgent,
		}, begun: e.Version == 1}
	case identity.TypeSessionGranted:
		p, err := identity.Decode[identity.SessionGranted](e)
		if err != nil {
			return err
		}
		*s = sessionRow{SessionView: SessionView{
			ID: e.Stream.ID, User: e.Stream.Subject, StartedAt: e.RecordedAt, ExpiresAt: p.ExpiresAt.UTC().Truncate(time.Microsecond),
			Client: p.Client, Address: e.Metadata.Address, UserAgent: e.Metadata.UserAgent,
		}, begun: e.Version == 1}
	case identity.TypeSessionEnded:
		p, err := identity.Decode[identity.SessionEnded](e)
		if err != nil {
			return err
		}
		ended := e.RecordedAt
		s.EndedAt, s.Reason = &ended, p.Reason
	}
	s.Version, s.Position, s.changed = e.Version, e.Position, true
	return nil
}

// foldSessions changes the rows of sessions by events, in their order. rows has the sessions whose first event here is not
// the first of their stream. What is no session, such as a login that failed, has no row.
func foldSessions(rows map[uuid.UUID]*sessionRow, events []eventstore.Event) error {
	for _, e := range events {
		if e.Stream.Kind != eventstore.KindSession {
			continue
		}
		s := rows[e.Stream.ID]
		if s == nil && begins(e) {
			s = new(sessionRow)
			rows[e.Stream.ID] = s
		}
		if s == nil || e.Version <= s.Version {
			continue
		}
		if err := s.fold(e); err != nil {
			return err
		}
	}
	return nil
}

const sessionView = `subject, id, started_at, expires_at, ended_at, reason, CAST(methods AS text), client, address, user_agent, version, position`

func scanSession(row eventstore.Row, s *SessionView) error {
	var methods string
	if err := row.Scan(&s.User, &s.ID, &s.StartedAt, &s.ExpiresAt, &s.EndedAt, &s.Reason, &methods, &s.Client, &s.Address, &s.UserAgent, &s.Version, &s.Position); err != nil {
		return err
	}
	s.StartedAt, s.ExpiresAt = s.StartedAt.UTC(), s.ExpiresAt.UTC()
	if s.EndedAt != nil {
		*s.EndedAt = s.EndedAt.UTC()
	}
	return json.Unmarshal([]byte(methods), &s.Methods)
}

// load reads the rows of the sessions that are not in memory and whose first event here is not the first of their stream.
func (c *sessionChanges) load(ctx context.Context, db eventstore.DB, events []eventstore.Event) error {
	wanted := unknown(c.rows, eventstore.KindSession, events)
	if len(wanted) == 0 {
		return nil
	}
	users, ids := make([]uuid.UUID, len(wanted)), make([]uuid.UUID, len(wanted))
	for i, s := range wanted {
		users[i], ids[i] = s.Subject, s.ID
	}
	query, args := "SELECT "+sessionView+" FROM "+c.table+" JOIN unnest($1::uuid[], $2::uuid[]) AS k (subject, id) USING (subject, id)", []any{idArray(users), idArray(ids)}
	if db.Dialect() == eventstore.SQLite {
		query = "SELECT " + sessionView + " FROM " + c.table + " WHERE (subject, id) IN (SELECT u.value, i.value FROM json_each($1) u JOIN json_each($2) i ON i.key = u.key)"
		args = []any{list(db.Dialect(), users), list(db.Dialect(), ids)}
	}
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.table, err)
	}
	defer rows.Close()
	for rows.Next() {
		s := new(sessionRow)
		if err := scanSession(rows, &s.SessionView); err != nil {
			return fmt.Errorf("read %s: %w", c.table, err)
		}
		c.rows[s.ID] = s
		c.size += rowBytes + len(s.Address) + len(s.UserAgent)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", c.table, err)
	}
	return nil
}

// userSet is a set of users.
type userSet map[uuid.UUID]struct{}

func (s userSet) has(user uuid.UUID) bool { _, has := s[user]; return has }

// addErased adds the users who are erased by events. Nothing is said of them after that: see eventstore.TypeErased.
func (s userSet) addErased(events []eventstore.Event) {
	for _, e := range events {
		if e.Type == identity.TypeUserErased {
			s[e.Stream.ID] = struct{}{}
		}
	}
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
