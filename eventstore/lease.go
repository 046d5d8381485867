package eventstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
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

	history string // of the database, when the lease was acquired; empty before that
}

// NewHolder is a name for a Lease that no other holder has, in this process or elsewhere.
func NewHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// Clock is an expression for the database's time, by which leases end.
func Clock(d Dialect) string {
	if d == Postgres {
		return "clock_timestamp()"
	}
	return "strftime('%Y-%m-%d %H:%M:%f', 'now')"
}

// historyOf is an expression for the history of a database, which is empty where nobody can tell.
var historyOf = map[Dialect]string{Postgres: "log_history()", SQLite: "''"}

// Acquire takes the lease or prolongs it, and says whether it is held. Once the database has another history than when it was
// acquired, it is not held any longer, which Acquire says once: whoever worked under it begins anew from what that database has,
// and may acquire it again.
func (l *Lease) Acquire(ctx context.Context) (held bool, err error) {
	now := Clock(l.DB.Dialect())
	until := map[Dialect]string{
		Postgres: "clock_timestamp() + $3 * interval '1 millisecond'",
		SQLite:   "strftime('%Y-%m-%d %H:%M:%f', 'now', ($3 / 1000.0) || ' seconds')",
	}[l.DB.Dialect()]
	var history string
	err = l.DB.QueryRow(ctx, `
		INSERT INTO leases AS l (name, holder, epoch, expires_at) VALUES ($1, $2, 1, `+until+`)
		ON CONFLICT (name) DO UPDATE
		   SET epoch = l.epoch + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END,
		       holder = excluded.holder, expires_at = excluded.expires_at
		 WHERE l.holder = excluded.holder OR l.expires_at < `+now+`
		RETURNING epoch, `+historyOf[l.DB.Dialect()], l.Name, l.Holder, l.TTL.Milliseconds()).Scan(&l.Epoch, &history)
	if errors.Is(err, ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("acquire the lease %s: %w", l.Name, err)
	}
	before := l.history
	if before == "" || history == "" {
		l.history = cmp.Or(before, history)
		return true, nil
	}
	if history != before {
		l.history = ""
	}
	return history == before, nil
}

// Await waits until the lease is held. It fails with the cause of ctx, or as the database does.
func (l *Lease) Await(ctx context.Context) error {
	for {
		held, err := l.Acquire(ctx)
		if err != nil || held {
			return err
		}
		if err := Pause(ctx, l.TTL/4); err != nil {
			return err
		}
	}
}

// Release gives the lease up, so that another process need not wait for its end.
func (l *Lease) Release(ctx context.Context) error {
	past := map[Dialect]string{Postgres: "'-infinity'", SQLite: "''"}[l.DB.Dialect()]
	if _, err := l.DB.Exec(ctx, "UPDATE leases SET expires_at = "+past+" WHERE name = $1 AND holder = $2", l.Name, l.Holder); err != nil {
		return fmt.Errorf("release the lease %s: %w", l.Name, err)
	}
	return nil
}

// ErrLeaseLost: the lease has passed on to another holder, or could not be renewed in time.
var ErrLeaseLost = errors.New("the lease was lost")

// Hold waits for the lease, works while it is held, and gives it up. The context of the work ends once the lease can't be
// held any longer.
//
// It fails with the error of the work, with ErrLeaseLost where the lease was lost meanwhile, with the cause of ctx, or as
// the database does while it waits: then the work has not begun.
func (l *Lease) Hold(ctx context.Context, work func(context.Context) error) error {
	if err := l.Await(ctx); err != nil {
		return err
	}
	working, stop := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { stop(l.Keep(working, func() {})) })
	err := work(working)
	lost := errors.Is(context.Cause(working), ErrLeaseLost)
	stop(nil)
	renewing.Wait()
	if lost {
		return ErrLeaseLost
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.TTL)
	defer cancel()
	return errors.Join(err, l.Release(after))
}

// Keep renews a lease that was acquired until ctx ends, and calls renewed each time. It fails with ErrLeaseLost, or with the cause of
// ctx. While the database can't be reached, nobody else can take the lease either, but nobody knows: it counts as held for as long
// as it was acquired for. So no longer is a database waited for that does not answer: others may well reach it.
func (l *Lease) Keep(ctx context.Context, renewed func()) error {
	lease, last := *l, time.Now()
	for {
		if err := Pause(ctx, l.TTL/4); err != nil {
			return err
		}
		began := time.Now()
		limited, cancel := context.WithDeadline(ctx, last.Add(l.TTL))
		held, err := lease.Acquire(limited)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && (!held || lease.Epoch != l.Epoch), err != nil && time.Since(last) >= l.TTL:
			return ErrLeaseLost
		case err == nil:
			last = began
			renewed()
		}
	}
}

// Pause waits, or fails with the cause of ctx if that ends first.
func Pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
