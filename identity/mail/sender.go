package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// job is a mail that is to be sent.
type job struct {
	position int64
	user     uuid.UUID
	kind     kind
	attempts int // that its mailbox put off
}

const (
	maxAttempts  = 24 // at most an hour apart: most of a day
	firstBackoff = time.Minute
	lastBackoff  = time.Hour
	lookAgain    = time.Minute // when nothing says so
)

// backoff is how long a mail waits that its mailbox has put off so many times.
func backoff(attempts int) time.Duration {
	return min(firstBackoff<<min(attempts-1, 10), lastBackoff)
}

// work sends what is to be sent, until ctx ends or the database can't be reached.
func (m *Mailer) work(ctx context.Context) error {
	// Whoever held the lease before may have died with a mail in hand. It is sent again.
	if _, err := m.DB.Exec(ctx, `UPDATE mails SET claimed = false WHERE claimed`); err != nil {
		return fmt.Errorf("take over the mails: %w", err)
	}
	sending, cancel := linger(ctx, stopWait)
	defer cancel()
	wait := time.Duration(0)
	for {
		next, err := m.sendDue(ctx, sending)
		var failed *transportError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &failed):
			if wait == 0 {
				m.logger.WarnContext(ctx, "mail waits: it can't be handed over", slog.Any("error", failed.error))
			}
			m.Transport.Rest()
			wait = min(max(2*wait, firstWait), lastWait)
			if err := eventstore.Pause(ctx, wait); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case wait > 0:
			m.logger.InfoContext(ctx, "mail goes on")
			wait = 0
		}
		m.Transport.Rest()
		timer := time.NewTimer(next)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// stopWait is how long a mail that is being sent may still take once this process is to stop.
const stopWait = 5 * time.Second

// linger is a context that outlives another one for a while.
func linger(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// transportError blames the transport, and no mail.
type transportError struct{ error }

func (e *transportError) Unwrap() error { return e.error }

// sendDue sends what is due, and answers with how long nothing else will be. It fails with a *transportError, or as the
// database does.
func (m *Mailer) sendDue(ctx, sending context.Context) (time.Duration, error) {
	for i := 0; ; i++ {
		if i%countEvery == 0 {
			if err := m.count(ctx); err != nil {
				return 0, err
			}
		}
		j, err := m.claim(ctx)
		if errors.Is(err, eventstore.ErrNoRows) {
			return m.nextDue(ctx)
		}
		if err != nil {
			return 0, fmt.Errorf("take a mail in hand: %w", err)
		}
		if err := m.send(ctx, sending, j); err != nil {
			return 0, err
		}
	}
}

// countEvery is after how many mails those that wait are counted again, where there are many.
const countEvery = 100

func (m *Mailer) count(ctx context.Context) error {
	var n int64
	if err := m.DB.QueryRow(ctx, `SELECT count(*) FROM mails`).Scan(&n); err != nil {
		return fmt.Errorf("count the mails: %w", err)
	}
	m.waiting.Store(n)
	return nil
}

// nextDue is how long nothing will be due.
func (m *Mailer) nextDue(ctx context.Context) (time.Duration, error) {
	var due *time.Time
	if err := m.DB.QueryRow(ctx, `SELECT min(due_at) FROM mails WHERE NOT claimed`).Scan(&due); err != nil {
		return 0, fmt.Errorf("find the next mail: %w", err)
	}
	wait := lookAgain
	if due != nil {
		wait = min(due.Sub(m.Now()), wait)
	}
	return wait, m.count(ctx)
}

// claim takes the mail in hand that has been due for longest. Should another process still take itself for the one that
// sends, no mail is in the hands of both. It fails with eventstore.ErrNoRows where none is due.
func (m *Mailer) claim(ctx context.Context) (j job, err error) {
	var k string
	err = m.DB.QueryRow(ctx, `
		UPDATE mails SET claimed = true
		 WHERE NOT claimed AND position = (SELECT position FROM mails WHERE NOT claimed AND due_at <= $1 ORDER BY due_at, position LIMIT 1)
		RETURNING position, user_id, kind, attempts`, m.now()).Scan(&j.position, &j.user, &k, &j.attempts)
	j.kind = kind(k)
	return j, err
}

// send sends one mail, for as long as sending lasts, and notes what became of it. It fails with a *transportError, or as the database does.
func (m *Mailer) send(ctx, sending context.Context, j job) error {
	log := m.logger.With(slog.String("kind", string(j.kind)), slog.String("user", j.user.String()), slog.Int64("position", j.position))
	to, before, err := m.mayReach(ctx, j)
	var message Message
	if err == nil {
		message, err = m.compose(ctx, j, to)
	}
	var tooMany *tooManyError
	switch {
	case errors.Is(err, errUnneeded):
		return m.finish(ctx, j, outcomeUnneeded)
	case errors.As(err, &tooMany) && tooMany.wait > patience:
		log.WarnContext(ctx, "mail is not sent", slog.Any("error", err))
		return m.finish(ctx, j, outcomeTooMany)
	case errors.As(err, &tooMany):
		return m.putBack(ctx, j, j.attempts, tooMany.wait)
	case errors.Is(err, eventstore.ErrUnavailable), err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return m.delay(ctx, j, log, err)
	}
	err = m.Transport.Send(sending, message)
	var refusal *Refusal
	switch {
	case err == nil:
		return errors.Join(m.counted(ctx, before), m.finish(ctx, j, outcomeSent))
	case errors.As(err, &refusal) && refusal.Permanent:
		log.WarnContext(ctx, "mail was refused", slog.Any("error", err))
		return m.finish(ctx, j, outcomeRefused)
	case errors.As(err, &refusal):
		return m.delay(ctx, j, log, err)
	}
	// It goes behind the others: if this mail is what breaks the connection, it keeps nobody from theirs.
	return errors.Join(&transportError{err}, m.putBack(ctx, j, j.attempts, firstWait))
}

// delay puts off a mail that could not be sent, and has itself to blame, or gives it up.
func (m *Mailer) delay(ctx context.Context, j job, log *slog.Logger, err error) error {
	if j.attempts++; j.attempts >= maxAttempts {
		log.WarnContext(ctx, "mail was given up", slog.Any("error", err))
		return m.finish(ctx, j, outcomeGivenUp)
	}
	log.InfoContext(ctx, "mail was put off", slog.Any("error", err), slog.Int("attempts", j.attempts))
	m.sent.WithLabelValues(string(j.kind), outcomeDelayed).Inc()
	return m.putBack(ctx, j, j.attempts, backoff(j.attempts))
}

// finish notes that there is nothing more to do about a mail. After it was sent that must not get lost, or it would be sent
// again: it is tried until it is done, and once more after ctx has ended.
func (m *Mailer) finish(ctx context.Context, j job, outcome string) error {
	m.sent.WithLabelValues(string(j.kind), outcome).Inc()
	for wait := firstWait / 10; ; wait = min(2*wait, firstWait) {
		err := m.drop(ctx, j)
		if err == nil {
			return nil
		}
		m.logger.WarnContext(ctx, "a mail that was dealt with is still written down", slog.Int64("position", j.position), slog.Any("error", err))
		if err := eventstore.Pause(ctx, wait); err != nil {
			return err
		}
	}
}

// noteTimeout bounds what is noted of a mail that was sent, which the end of ctx does not: a database that does not answer would
// keep the process from ending.
const noteTimeout = 5 * time.Second

func (m *Mailer) drop(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	_, err := m.DB.Exec(ctx, `DELETE FROM mails WHERE position = $1`, j.position)
	return err
}

func (m *Mailer) putBack(ctx context.Context, j job, attempts int, wait time.Duration) error {
	_, err := m.DB.Exec(ctx, `UPDATE mails SET claimed = false, attempts = $2, due_at = $3 WHERE position = $1`, j.position, attempts, m.now().Add(wait))
	if err != nil {
		return fmt.Errorf("put a mail back: %w", err)
	}
	return nil
}

// errUnneeded: the user is gone, or has no use for the mail any more.
var errUnneeded = errors.New("the mail is not needed any more")

// tooManyError: the address of a mail got many of late.
type tooManyError struct{ wait time.Duration }

func (e *tooManyError) Error() string { return "its address got many mails of late" }

// mayReach finds out to whom a mail goes, and when others of its kind went there. It fails with a *tooManyError where those are
// too many, with errUnneeded, or as the database does.
func (m *Mailer) mayReach(ctx context.Context, j job) (to identity.Email, before []count, err error) {
	address, err := m.address(ctx, j)
	switch {
	case errors.Is(err, identity.ErrNotFound), errors.Is(err, identity.ErrCodeNotNeeded), err == nil && address == "":
		return identity.Email{}, nil, errUnneeded
	case err == nil:
		to, err = identity.ParseEmail(address)
	}
	if err != nil {
		return identity.Email{}, nil, fmt.Errorf("address a mail: %w", err)
	}
	if before, err = m.counts(ctx, j.kind, to); err != nil {
		return to, nil, err
	}
	var wait time.Duration
	for _, c := range before {
		wait = max(wait, c.bound.wait(c.sent, m.now()))
	}
	if wait > 0 {
		return to, nil, &tooManyError{wait}
	}
	return to, before, nil
}

// address is where a mail goes. A notice goes to the address that the user had then, or before where the event changed it:
// whoever can change the address can't keep the user from being told.
func (m *Mailer) address(ctx context.Context, j job) (string, error) {
	if j.kind.carriesCode() {
		return m.Users.CodeAddress(ctx, j.user, identity.Purpose(j.kind))
	}
	position := j.position
	if j.kind == kindEmailChanged {
		position--
	}
	u, err := m.Users.UserAt(ctx, j.user, position)
	if err != nil {
		return "", err
	}
	return u.Email, nil
}

// compose makes a mail of what the log says now. It fails with errUnneeded, or as the database does.
func (m *Mailer) compose(ctx context.Context, j job, to identity.Email) (Message, error) {
	e, err := m.event(ctx, j)
	if err != nil {
		return Message{}, err
	}
	u, err := m.Users.UserAt(ctx, j.user, math.MaxInt64)
	switch {
	case errors.Is(err, identity.ErrNotFound):
		return Message{}, errUnneeded
	case err != nil:
		return Message{}, fmt.Errorf("compose a mail: %w", err)
	}
	letter := m.Letters.about(j.kind, e, u)
	if j.kind.carriesCode() {
		code, address, err := m.Users.NewCode(ctx, j.user, identity.Purpose(j.kind))
		switch {
		case errors.Is(err, identity.ErrNotFound), errors.Is(err, identity.ErrCodeNotNeeded):
			return Message{}, errUnneeded
		case err != nil:
			return Message{}, fmt.Errorf("compose a mail: %w", err)
		case address != to.String(): // it has changed since
			return Message{}, errUnneeded
		}
		letter.Link = m.Letters.link(j.kind, code)
	}
	return m.Letters.write(j.kind, to, letter)
}

// event reads what a mail is about. It fails with errUnneeded where that did not happen: the mail was taken in hand, and the
// database gave way to another that lacks its newest events.
func (m *Mailer) event(ctx context.Context, j job) (eventstore.Event, error) {
	events, err := m.Log.ReadAll(ctx, j.position-1, 1)
	switch {
	case err != nil:
		return eventstore.Event{}, err
	case len(events) == 0 || events[0].Stream.Subject != j.user:
		return eventstore.Event{}, errUnneeded
	}
	return events[0], nil
}
