package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lease lets one of several processes do a piece of work. It is a row in the database with a holder and a time, kept by
// the database's clock. A holder that was paused may still believe in a lease that has passed on: whatever must not be
// done twice is guarded by its own fence, such as Epoch or the broker's expected sequence, and not by the lease alone.
type Lease struct {
	DB     DB
	Name   string
	Holder string        // unique among all processes
	TTL    time.Duration // how long the lease outlives its holder
	Epoch  int64         // counts the holders; set by Acquire
}

// Acquire takes the lease or prolongs it, and says whether it is held.
func (l *Lease) Acquire(ctx context.Context) (held bool, err error) {
	now := map[Dialect]string{
		Postgres: "clock_timestamp()",
		SQLite:   "strftime('%Y-%m-%d %H:%M:%f', 'now')",
	}[l.DB.Dialect()]
	until := map[Dialect]string{
		Postgres: "clock_timestamp() + $3 * interval '1 millisecond'",
		SQLite:   "strftime('%Y-%m-%d %H:%M:%f', 'now', ($3 / 1000.0) || ' seconds')",
	}[l.DB.Dialect()]
	err = l.DB.QueryRow(ctx, `
		INSERT INTO leases AS l (name, holder, epoch, expires_at) VALUES ($1, $2, 1, `+until+`)
		ON CONFLICT (name) DO UPDATE
		   SET epoch = l.epoch + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END,
		       holder = excluded.holder, expires_at = excluded.expires_at
		 WHERE l.holder = excluded.holder OR l.expires_at < `+now+`
		RETURNING epoch`, l.Name, l.Holder, l.TTL.Milliseconds()).Scan(&l.Epoch)
	if errors.Is(err, ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("acquire the lease %s: %w", l.Name, err)
	}
	return true, nil
}

// Release gives the lease up, so that another process need not wait for its end.
func (l *Lease) Release(ctx context.Context) error {
	past := map[Dialect]string{Postgres: "'-infinity'", SQLite: "''"}[l.DB.Dialect()]
	if _, err := l.DB.Exec(ctx, "UPDATE leases SET expires_at = "+past+" WHERE name = $1 AND holder = $2", l.Name, l.Holder); err != nil {
		return fmt.Errorf("release the lease %s: %w", l.Name, err)
	}
	return nil
}
