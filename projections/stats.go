package projections

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// StatsName is the name of the projection of statistics.
const StatsName = "stats"

// Span is how much time a figure is of.
type Span string

// The spans: hours and days, both of UTC.
const (
	SpanHour Span = "hour"
	SpanDay  Span = "day"
)

// Length is how long a span is; 0 for one that there is not.
func (s Span) Length() time.Duration {
	switch s {
	case SpanHour:
		return time.Hour
	case SpanDay:
		return 24 * time.Hour
	}
	return 0
}

// Figures is what happened in a span of time.
type Figures struct {
	Start         time.Time `json:"start"`
	Registrations int64     `json:"registrations"`
	Logins        int64     `json:"logins"`
	FailedLogins  int64     `json:"failed_logins"` // of users that there are, and as far as they are told: see user.login_failed
	ActiveUsers   int64     `json:"active_users"`  // who logged in, or did something that is an event
}

// StatsProjection fills the read model "stats": figures by hour and by day.
//
// Active users are counted exactly: which users were counted in a span stands in a table of its own, for as long as the
// span may still come up (keepActive), and until the user is erased. What was counted stays.
//
// Counts go up by what a batch has, so nothing but the checkpoint guards them: a batch is applied once.
type StatsProjection struct{}

// keepActive is how long after its end a span is known to have counted a user. Events come in the order of time, so only
// one that was parked, and is applied longer after than this, may count its user twice.
const keepActive = 30 * 24 * time.Hour

// Name implements Projection.
func (StatsProjection) Name() string { return StatsName }

// CodeVersion implements Projection.
func (StatsProjection) CodeVersion() int { return 1 }

// Wants implements Projection.
func (StatsProjection) Wants() eventstore.Selection { return eventstore.Selection{Sealed: true} }

// Tables implements Projection.
func (StatsProjection) Tables(d eventstore.Dialect, generation int) []Table {
	return []Table{
		{
			Name: StatsName, Key: []string{"span", "start"}, Columns: tableColumns(figuresColumns), Fill: 50,
			Create: fmt.Sprintf(`CREATE TABLE %s (
				span          TEXT      NOT NULL,
				start         TIMESTAMP NOT NULL,
				registrations INTEGER   NOT NULL,
				logins        INTEGER   NOT NULL,
				failed_logins INTEGER   NOT NULL,
				active_users  INTEGER   NOT NULL,
				PRIMARY KEY (span, start)
			) WITHOUT ROWID`, TableName(d, StatsName, generation)),
		},
		{
			Name: activeName, Key: []string{"subject", "span", "start"}, User: "subject", Columns: tableColumns(activeColumns),
			Create: fmt.Sprintf(`CREATE TABLE %s (
				subject TEXT      NOT NULL,
				span    TEXT      NOT NULL,
				start   TIMESTAMP NOT NULL,
				PRIMARY KEY (subject, span, start)
			) WITHOUT ROWID`, TableName(d, activeName, generation)),
			Indexes: []Index{{Name: "start", Columns: []string{"start"}, WithTable: true}}, // old rows go while new ones come
		},
	}
}

const activeName = "stats_active"

// bucket is a span of time.
type bucket struct {
	span  Span
	start int64 // Unix seconds
}

func bucketOf(span Span, at time.Time) bucket { return bucket{span, at.Truncate(span.Length()).Unix()} }

// figuresRow is what is added to the row of a bucket.
type figuresRow struct {
	Figures
	span Span
}

var figuresColumns = []column[figuresRow]{
	field("span", "text", func(f *figuresRow) string { return string(f.span) }),
	field("start", "timestamptz", func(f *figuresRow) time.Time { return f.Start }),
	field("registrations", "bigint", func(f *figuresRow) int64 { return f.Registrations }),
	field("logins", "bigint", func(f *figuresRow) int64 { return f.Logins }),
	field("failed_logins", "bigint", func(f *figuresRow) int64 { return f.FailedLogins }),
	field("active_users", "bigint", func(f *figuresRow) int64 { return f.ActiveUsers }),
}

const addFigures = `ON CONFLICT (span, start) DO UPDATE SET registrations = t.registrations + excluded.registrations,
	logins = t.logins + excluded.logins, failed_logins = t.failed_logins + excluded.failed_logins,
	active_users = t.active_users + excluded.active_users`

// activeRow says that a user is counted in a bucket.
type activeRow struct {
	user uuid.UUID
	bucket
}

var activeColumns = []column[activeRow]{
	field("subject", "uuid", func(a *activeRow) uuid.UUID { return a.user }),
	field("span", "text", func(a *activeRow) string { return string(a.span) }),
	field("start", "timestamptz", func(a *activeRow) time.Time { return time.Unix(a.start, 0).UTC() }),
}

// statsChanges are what is to be added to the figures: by the hour, of which days follow when they are written.
type statsChanges struct {
	figures, active string // tables
	hours           map[int64]*Figures
	seen            map[activeHour]struct{}
	erased          userSet
}

// activeHour says that a user was active in an hour, which begins at a time in Unix seconds.
type activeHour struct {
	user  uuid.UUID
	start int64
}

// Changes implements Projection: one statement notes who was active, one adds up the figures, one forgets what is of no
// more use, and one the users who are erased.
func (StatsProjection) Changes(g Generation) Changes {
	return &statsChanges{
		figures: g.Table(StatsName), active: g.Table(activeName),
		hours: map[int64]*Figures{}, seen: map[activeHour]struct{}{}, erased: userSet{},
	}
}

// Size implements Changes. A user's hour comes to two rows.
func (c *statsChanges) Size() int { return len(c.seen) * rowBytes / 2 }

// Fold implements Changes. It looks at no payload, so that there is no event that it can't take.
func (c *statsChanges) Fold(_ context.Context, _ eventstore.DB, events []eventstore.Event) error {
	c.erased.addErased(events)
	for _, e := range events {
		var add Figures
		switch e.Type {
		case identity.TypeUserRegistered:
			add.Registrations = 1
		case identity.TypeSessionStarted:
			add.Logins = 1
		case identity.TypeUserLoginFailed:
			add.FailedLogins = 1
		}
		user := e.Stream.Subject
		isActive := user != uuid.Nil && (add.Logins > 0 || identity.IsActor(e.Metadata.Actor, user))
		if add == (Figures{}) && !isActive {
			continue
		}
		start := bucketOf(SpanHour, e.RecordedAt).start
		hour := c.hours[start]
		if hour == nil {
			hour = new(Figures)
			c.hours[start] = hour
		}
		hour.add(add)
		if isActive {
			c.seen[activeHour{user, start}] = struct{}{}
		}
	}
	return nil
}

func (f *Figures) add(more Figures) {
	f.Registrations += more.Registrations
	f.Logins += more.Logins
	f.FailedLogins += more.FailedLogins
	f.ActiveUsers += more.ActiveUsers
}

// Write implements Changes.
func (c *statsChanges) Write(ctx context.Context, tx eventstore.DB) error {
	if len(c.hours) > 0 {
		counted, err := insertActive(ctx, tx, c.active, c.activeRows())
		if err != nil {
			return err
		}
		rows, newest := c.figuresRows(counted)
		if err := insertRows(ctx, tx, c.figures, figuresColumns, rows, addFigures); err != nil {
			return err
		}
		// By the newest day, so that the rows that are left don't depend on where a batch ends.
		old := newest.Truncate(SpanDay.Length()).Add(-keepActive)
		if _, err := tx.Exec(ctx, "DELETE FROM "+c.active+" WHERE start < $1", old); err != nil {
			return fmt.Errorf("forget who was active before %s: %w", old.Format(time.DateOnly), err)
		}
	}
	return onSubjects(ctx, tx, "DELETE FROM "+c.active+" WHERE", c.erased)
}

// bucketsOf are the hour that begins at a time and the day that it is in.
func bucketsOf(hour int64) [2]bucket {
	return [2]bucket{{SpanHour, hour}, bucketOf(SpanDay, time.Unix(hour, 0).UTC())}
}

// activeRows are the rows of who was active, in the order in which every writer locks them.
func (c *statsChanges) activeRows() []activeRow {
	rows := make([]activeRow, 0, 2*len(c.seen))
	for s := range c.seen {
		for _, b := range bucketsOf(s.start) {
			rows = append(rows, activeRow{s.user, b})
		}
	}
	slices.SortFunc(rows, func(a, b activeRow) int {
		return cmp.Or(bytes.Compare(a.user[:], b.user[:]), cmp.Compare(a.span, b.span), cmp.Compare(a.start, b.start))
	})
	return slices.Compact(rows) // a day has several hours
}

// figuresRows are what is added to the figures, with the users who were counted, and the newest time that they are of.
func (c *statsChanges) figuresRows(counted map[bucket]int64) (rows []figuresRow, newest time.Time) {
	sums := map[bucket]*Figures{}
	for start, f := range c.hours {
		for _, b := range bucketsOf(start) {
			if sums[b] == nil {
				sums[b] = &Figures{Start: time.Unix(b.start, 0).UTC(), ActiveUsers: counted[b]}
			}
			sums[b].add(*f)
		}
	}
	for b, f := range sums {
		rows = append(rows, figuresRow{*f, b.span})
		if f.Start.After(newest) {
			newest = f.Start
		}
	}
	slices.SortFunc(rows, func(a, b figuresRow) int { return cmp.Or(cmp.Compare(a.span, b.span), a.Start.Compare(b.Start)) })
	return rows, newest
}

// insertActive notes users as counted, and answers with how many were not before.
func insertActive(ctx context.Context, tx eventstore.DB, table string, active []activeRow) (counted map[bucket]int64, err error) {
	counted = map[bucket]int64{}
	err = insertReturning(ctx, tx, table, activeColumns, active, "ON CONFLICT DO NOTHING RETURNING span, start", func(row eventstore.Row) error {
		var span string
		var start time.Time
		if err := row.Scan(&span, &start); err != nil {
			return err
		}
		counted[bucket{Span(span), start.Unix()}]++
		return nil
	})
	return counted, err
}
