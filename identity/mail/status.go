package mail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.example/eventstore"
)

// Status is how mail stands in the whole deployment.
type Status struct {
	Position int64     // up to which the log was looked through for what calls for a mail
	Lag      int64     // events from there to the head of the log
	Running  bool      // a process sends
	Waiting  int64     // mails that are to be sent
	Since    time.Time // when what the oldest of those is about happened that no mailbox has put off; zero where there is none
}

// ReadStatus reads it from the database. It fails with eventstore.ErrNoRows where mail was never set up.
func ReadStatus(ctx context.Context, db eventstore.DB) (Status, error) {
	var s Status
	var head int64
	err := db.QueryRow(ctx, `
		SELECT checkpoint, (SELECT coalesce(max(position), 0) FROM events), (SELECT count(*) FROM mails),
		       EXISTS (SELECT 1 FROM leases WHERE name = $1 AND expires_at > `+eventstore.Clock(db.Dialect())+`)
		  FROM subscriptions WHERE name = $1`, name).Scan(&s.Position, &head, &s.Waiting, &s.Running)
	if err != nil {
		return s, fmt.Errorf("status of mail: %w", err)
	}
	s.Lag = max(head-s.Position, 0)
	err = db.QueryRow(ctx, `
		SELECT e.recorded_at FROM mails m JOIN events e ON e.position = m.position WHERE m.attempts = 0 ORDER BY m.position LIMIT 1`).Scan(&s.Since)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return s, fmt.Errorf("status of mail: %w", err)
	}
	return s, nil
}
