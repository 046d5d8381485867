package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// ActivityName is the name of the projection of what happened.
const ActivityName = "activity"

// ActivityView is something that happened, as the read model shows it. It has nothing in it that an event marks as
// personal but where the user was.
type ActivityView struct {
	Position  int64           `json:"position"`
	Time      time.Time       `json:"time"`
	User      uuid.UUID       `json:"user,omitzero"`    // whom it is about; the nil UUID for none
	Session   uuid.UUID       `json:"session,omitzero"` // the session that it happened in, or that began or ended
	Type      string          `json:"type"`
	Actor     string          `json:"actor,omitempty"` // see eventstore.Metadata
	Details   ActivityDetails `json:"details"`
	Address   string          `json:"address,omitempty"` // of the user's client, where it was the user or somebody unknown
	UserAgent string          `json:"user_agent,omitempty"`
}

// ActivityDetails is what an event says of itself in a word. Which fields there are depends on its type.
type ActivityDetails struct {
	Reason  string   `json:"reason,omitempty"`
	Role    string   `json:"role,omitempty"`
	Methods []string `json:"methods,omitempty"`
	Client  string   `json:"client,omitempty"`
	Scopes  []string `json:"scopes,omitempty"`
}

// ActivityProjection fills the read model "activity": a row for every event. It takes every event of every type, also of
// those that it knows nothing of: there is nothing that it could not show.
type ActivityProjection struct{}

// Name implements Projection.
func (ActivityProjection) Name() string { return ActivityName }

// CodeVersion implements Projection.
func (ActivityProjection) CodeVersion() int { return 1 }

// Wants implements Projection.
func (ActivityProjection) Wants() eventstore.Selection { return eventstore.Selection{} }

// Tables implements Projection. The user comes first in the key, so that what a user did, and what an erasure clears, is a
// range of it. Events that are about no user have the nil UUID there, and those of no session have it as the session.
func (ActivityProjection) Tables(d eventstore.Dialect, generation int) []Table {
	return []Table{{
		Name: ActivityName, Key: []string{"subject", "position"}, User: "subject",
		Columns: tableColumns(activityColumns),
		Create: fmt.Sprintf(`CREATE TABLE %s (
			subject    TEXT      NOT NULL,
			position   INTEGER   NOT NULL,
			time       TIMESTAMP NOT NULL,
			session    TEXT      NOT NULL,
			type       TEXT      NOT NULL,
			actor      TEXT      NOT NULL,
			details    TEXT      NOT NULL,
			address    TEXT      NOT NULL,
			user_agent TEXT      NOT NULL,
			PRIMARY KEY (subject, position)
		) WITHOUT ROWID`, TableName(d, ActivityName, generation)),
		Indexes: []Index{{Name: "position", Columns: []string{"position"}}},
	}}
}

var activityColumns = []column[ActivityView]{
	field("subject", "uuid", func(a *ActivityView) uuid.UUID { return a.User }),
	field("position", "bigint", func(a *ActivityView) int64 { return a.Position }),
	field("time", "timestamptz", func(a *ActivityView) time.Time { return a.Time }),
	field("session", "uuid", func(a *ActivityView) uuid.UUID { return a.Session }),
	field("type", "text", func(a *ActivityView) string { return a.Type }),
	field("actor", "text", func(a *ActivityView) string { return a.Actor }),
	field("details", "json", func(a *ActivityView) string { return a.Details.encode() }),
	field("address", "text", func(a *ActivityView) string { return a.Address }),
	field("user_agent", "text", func(a *ActivityView) string { return a.UserAgent }),
}

func (d ActivityDetails) encode() string {
	if d.Reason == "" && d.Role == "" && d.Client == "" && len(d.Methods) == 0 {
		return "{}"
	}
	raw, err := json.Marshal(d)
	if err != nil { // strings can be expressed in JSON
		panic(err)
	}
	return string(raw)
}

// activityChanges are rows to be added.
type activityChanges struct {
	table   string
	loading bool
	rows    []ActivityView
	erased  userSet
	size    int
}

// Changes implements Projection: one statement writes all rows, and one takes from earlier rows of users who are erased
// where they were.
func (ActivityProjection) Changes(g Generation) Changes {
	return &activityChanges{table: g.Table(ActivityName), loading: g.Loading, erased: userSet{}}
}

// Size implements Changes.
func (c *activityChanges) Size() int { return c.size }

// Fold implements Changes.
func (c *activityChanges) Fold(_ context.Context, _ eventstore.DB, events []eventstore.Event) error {
	c.erased.addErased(events)
	c.rows = slices.Grow(c.rows, len(events))
	for _, e := range events {
		a := activityOf(e)
		c.size += rowBytes + len(a.Address) + len(a.UserAgent) + len(a.Actor)
		c.rows = append(c.rows, a)
	}
	return nil
}

// Write implements Changes.
func (c *activityChanges) Write(ctx context.Context, tx eventstore.DB) (err error) {
	for i := range c.rows {
		if c.erased.has(c.rows[i].User) {
			c.rows[i].Address, c.rows[i].UserAgent = "", ""
		}
	}
	if c.loading {
		err = loadRows(ctx, tx, c.table, activityColumns, c.rows)
	} else {
		err = insertRows(ctx, tx, c.table, activityColumns, c.rows, "ON CONFLICT DO NOTHING")
	}
	if err != nil {
		return err
	}
	return onSubjects(ctx, tx, "UPDATE "+c.table+" SET address = '', user_agent = '' WHERE (address <> '' OR user_agent <> '') AND", c.erased)
}

// activityOf is the row of an event. The client of somebody else, such as an administrator, is left out: the user is not
// told of it, and the erasure of whom it belongs to would not clear it.
func activityOf(e eventstore.Event) ActivityView {
	a := ActivityView{Position: e.Position, Time: e.RecordedAt, User: e.Stream.Subject, Type: e.Type, Actor: e.Metadata.Actor}
	if e.Stream.Kind == eventstore.KindSession {
		a.Session = e.Stream.ID
	}
	if a.Actor == "" || a.Actor == identity.ActorAnonymous || identity.IsActor(a.Actor, e.Stream.Subject) {
		a.Address, a.UserAgent = e.Metadata.Address, e.Metadata.UserAgent
	}
	switch e.Type {
	case identity.TypeUserPasswordChanged, identity.TypeUserRoleGranted, identity.TypeUserRoleRevoked, identity.TypeUserTOTPDisabled,
		identity.TypeUserLoginFailed, identity.TypeUserConsentGiven, identity.TypeUserConsentWithdrawn, identity.TypeSessionStarted,
		identity.TypeSessionGranted, identity.TypeSessionEnded:
		var d ActivityDetails
		if json.Unmarshal(e.Data, &d) == nil { // an event that can't be read has no details
			a.Details = d
		}
	}
	return a
}
