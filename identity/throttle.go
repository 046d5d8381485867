package identity

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Bounds of guessing. Those of an account hold for the address that is typed, so an address that nobody has is slowed down
// exactly like one that somebody has.
//
// Many people share a network, who mistype their passwords, and some are strangers to each other: its bound is there for those
// who try one password on many accounts, and makes them slow. It never shuts out anybody else: past it attempts are still
// looked at, one after the other.
const (
	accountFree   = 4                // failures before there is a wait
	firstWait     = 10 * time.Second // after the last free one; each further failure doubles it
	longestWait   = 5 * time.Minute
	accountMemory = time.Hour // without a failure, and all of them are forgotten

	networkFree   = 100 // failures in a window
	networkWindow = 5 * time.Minute
	networkPace   = 2 * time.Second // between two attempts after those, until the window ends
	maxPaced      = 10              // attempts that wait for that, each on another account
)

// failures is how often somebody failed to show who they are, for an account or from a network.
type failures struct {
	count    int
	last     time.Time // of them
	forgetAt time.Time
}

// at is how many of the failures still count.
func (f failures) at(now time.Time) int {
	if !now.Before(f.forgetAt) {
		return 0
	}
	return f.count
}

// and is what two sources say together, neither of which need know all: the worse of both.
func (f failures) and(g failures, now time.Time) failures {
	if f.at(now) == 0 {
		return g
	}
	if g.at(now) == 0 {
		return f
	}
	f.count = max(f.count, g.count)
	f.last = later(f.last, g.last)
	f.forgetAt = later(f.forgetAt, g.forgetAt)
	return f
}

func later(t, u time.Time) time.Time {
	if t.Before(u) {
		return u
	}
	return t
}

// accountWait is how long the next attempt on an account has to wait; 0 or less where it has not.
func (f failures) accountWait(now time.Time) time.Duration {
	over := f.at(now) - accountFree
	if over < 0 {
		return 0
	}
	return f.last.Add(min(firstWait<<min(over, 5), longestWait)).Sub(now)
}

// failuresRow is a row of the table throttle that may not be there.
type failuresRow struct {
	count          *int
	last, forgetAt *time.Time
}

func (r *failuresRow) columns() []any { return []any{&r.count, &r.last, &r.forgetAt} }

func (r *failuresRow) failures() failures {
	if r.count == nil {
		return failures{}
	}
	return failures{*r.count, *r.last, *r.forgetAt}
}

// The scopes of what is throttled, each counted apart. What strangers fail at concerns nobody who is logged in, nor who comes
// from a device that was logged in before.
const (
	scopeLogin    = "login"     // the address that is typed
	scopeDevice   = "device"    // one that a user was logged in on before
	scopeSession  = "session"   // what is asked of somebody who is logged in
	scopeUserCode = "user_code" // of a device, by somebody who is logged in
	scopeNetwork  = "network"
)

// throttle slows guessing down. What it counts is in the database, so all processes share it and a restart forgets
// nothing.
//
// The count is read before a password is looked at and written after it, so attempts at the same moment would all find
// it low. In one process they stand in a line for what they are counted on: no more are let through at once than there are free
// failures left, the others wait for their outcome. Processes don't wait for each other, so at the same moment each
// may let that many through, and no more.
type throttle struct {
	db       eventstore.DB
	log      *eventstore.Log
	networks bool // slow networks down too
	now      func() time.Time
	pause    func(context.Context, time.Duration) error

	mu    sync.Mutex
	lines map[string]*line // by key
	paces map[string]*pace // of networks, by key
}

// line is the attempts with one key that are under way in this process.
type line struct {
	members int // attempts, from before they read the count to their end
	running int // that were let through
	waiting int
	told    int           // how many outcomes there were
	known   failures      // what the last told; the database may know more
	moved   chan struct{} // closed at each outcome
}

// pace is what is left to a network that has failed too often: one attempt after the other.
type pace struct {
	next    time.Time           // when the next attempt may be looked at
	waiting map[string]struct{} // the keys of those that wait
}

// maxWaiting bounds the attempts on one account that wait for others. It is enough for a service that logs in often at once.
const maxWaiting = 256

// attempt is one try to show who one is: begin, read the counts, wait, then failed or succeeded or neither, and leave.
type attempt struct {
	*throttle
	scope       string
	key         []byte // of what it is counted on
	network     []byte // key; nil where it is not counted
	line        *line
	toldBefore  int // outcomes before the counts were read
	admitted    bool
	hadFailures bool // when it was let through
}

// key is what is stored of a value: it can't be told from it which one it is.
func (t *throttle) key(scope, value string) []byte {
	return t.log.Sealer().ReservationKey(eventstore.Reservation{Scope: "throttle-" + scope, Value: value})
}

// begin puts an attempt of somebody who is not logged in, on the account of an address, into its line. leave has to be called.
func (t *throttle) begin(e Email, network string) *attempt {
	a := &attempt{throttle: t, scope: scopeLogin, key: t.key(scopeLogin, e.Key())}
	if t.networks && network != "" {
		a.network = t.key(scopeNetwork, network)
	}
	return a.join()
}

// beginApart is begin for an attempt that is counted on something else than an address, and on no network.
func (t *throttle) beginApart(scope string, id uuid.UUID) *attempt {
	a := &attempt{throttle: t, scope: scope, key: t.key(scope, id.String())}
	return a.join()
}

func (a *attempt) join() *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.line = a.lines[string(a.key)]; a.line == nil {
		a.line = &line{moved: make(chan struct{})}
		a.lines[string(a.key)] = a.line
	}
	a.line.members++
	a.toldBefore = a.line.told
	return a
}

// enter reads the counts and waits, for an attempt that has begun and reads nothing else first. It fails as wait does, or
// as the database does; and if it does, leave has been called.
func (a *attempt) enter(ctx context.Context) error {
	counted, network, err := a.read(ctx)
	if err == nil {
		err = a.wait(ctx, counted, network)
	}
	if err != nil {
		a.leave()
	}
	return err
}

// leave ends an attempt.
func (a *attempt) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
	if a.line.members--; a.line.members == 0 {
		delete(a.lines, string(a.key))
	}
}

// end lets the others of the line go on.
func (a *attempt) end() {
	if !a.admitted {
		return
	}
	a.admitted = false
	a.line.running--
	close(a.line.moved)
	a.line.moved = make(chan struct{})
}

// read reads the counts.
func (a *attempt) read(ctx context.Context) (counted, network failures, err error) {
	var of, from failuresRow
	err = a.db.QueryRow(ctx, `
		SELECT a.failures, a.failed_at, a.forget_at, n.failures, n.failed_at, n.forget_at
		  FROM (SELECT 1) one LEFT JOIN throttle a ON a.key = $1 LEFT JOIN throttle n ON n.key = $2`,
		a.key, a.network).Scan(append(of.columns(), from.columns()...)...)
	if err != nil {
		return failures{}, failures{}, fmt.Errorf("read the throttle: %w", err)
	}
	return of.failures(), from.failures(), nil
}

// wait waits for the attempt's turn, given the counts as they were read since begin. It fails with ErrThrottled where
// there were too many failures, or ctx's cause.
func (a *attempt) wait(ctx context.Context, counted, network failures) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.admitted {
		now := a.now()
		known := counted
		if a.line.told > a.toldBefore { // the counts may have been read before that
			known = counted.and(a.line.known, now)
		}
		if wait := known.accountWait(now); wait > 0 {
			return throttled(wait)
		}
		if count := known.at(now); a.line.running == 0 || count+a.line.running < accountFree {
			a.line.running++
			a.admitted, a.hadFailures = true, count > 0
			break
		}
		if a.line.waiting >= maxWaiting {
			return throttled(time.Second)
		}
		if err := a.standInLine(ctx); err != nil {
			return err
		}
	}
	if network.at(a.now()) < networkFree {
		return nil
	}
	return a.keepPace(ctx)
}

// keepPace waits until an attempt from a network that has failed too often may be looked at, without the lock that it is
// called with. An account has one place among those that wait, so that nobody takes them all by one.
func (a *attempt) keepPace(ctx context.Context) error {
	now := a.now()
	p := a.paces[string(a.network)]
	if p == nil {
		a.dropPaces(now)
		p = &pace{waiting: map[string]struct{}{}}
		a.paces[string(a.network)] = p
	}
	turn := later(p.next, now)
	if _, waits := p.waiting[string(a.key)]; waits || len(p.waiting) >= maxPaced {
		return throttled(turn.Sub(now) + networkPace)
	}
	p.next = turn.Add(networkPace)
	p.waiting[string(a.key)] = struct{}{}
	a.mu.Unlock()
	err := a.pause(ctx, turn.Sub(now))
	a.mu.Lock()
	delete(p.waiting, string(a.key))
	return err
}

// standInLine waits for the next outcome, without the lock that it is called with.
func (a *attempt) standInLine(ctx context.Context) error {
	moved := a.line.moved
	a.line.waiting++
	a.mu.Unlock()
	var err error
	select {
	case <-moved:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	a.mu.Lock()
	a.line.waiting--
	return err
}

// failed counts a failure, of a user where that is known, and answers with how many there are with it of what it is counted
// on. Whoever goes away does not keep it from being counted. It fails as the database does.
//
// That row is the last, so that it is locked for no longer than the commit takes: a login that succeeds removes
// it in its append, which others wait for. The commit does not wait for the disk: a crash may forget a failure.
func (a *attempt) failed(ctx context.Context, user uuid.UUID) (count int, err error) {
	now := a.now().UTC()
	rows, args := `($1, $4, $5, 1, $2, $2, $3, false)`, []any{a.key, now, now.Add(accountMemory), a.scope, uuid.NullUUID{UUID: user, Valid: user != uuid.Nil}, accountFree}
	if a.network != nil {
		rows, args = `($7, '`+scopeNetwork+`', NULL, 1, $2, $2, $8, false), `+rows, append(args, a.network, now.Add(networkWindow))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	answer, err := a.db.Query(ctx, `
		INSERT INTO throttle (key, scope, user_id, failures, since, failed_at, forget_at, slowed) VALUES `+rows+`
		ON CONFLICT (key) DO UPDATE
		   SET user_id   = excluded.user_id,
		       failures  = CASE WHEN throttle.forget_at <= excluded.failed_at THEN 1 ELSE throttle.failures + 1 END,
		       since     = CASE WHEN throttle.forget_at <= excluded.failed_at THEN excluded.failed_at ELSE throttle.since END,
		       slowed    = throttle.forget_at > excluded.failed_at AND throttle.failures + 1 >= $6,
		       failed_at = excluded.failed_at,
		       forget_at = CASE WHEN throttle.forget_at <= excluded.failed_at OR excluded.key = $1 THEN excluded.forget_at
		                        ELSE throttle.forget_at END
		RETURNING key, failures, failed_at, forget_at, `+eventstore.Relaxed(a.db.Dialect()), args...)
	if err != nil {
		return 0, fmt.Errorf("count a failure: %w", err)
	}
	defer answer.Close()
	var counted failures
	for answer.Next() {
		var key []byte
		var f failures
		if err := answer.Scan(&key, &f.count, &f.last, &f.forgetAt, new(string)); err != nil {
			return 0, fmt.Errorf("count a failure: %w", err)
		}
		if bytes.Equal(key, a.key) {
			counted = f
		}
	}
	if err := answer.Err(); err != nil {
		return 0, fmt.Errorf("count a failure: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(a.line.known.and(counted, now)) // the answers to failures at once come in any order
	return counted.count, nil
}

// tell tells the line of an outcome, and lets the others of it go on.
func (a *attempt) tell(f failures) {
	a.line.known = f
	a.line.told++
	a.end()
}

// countTimeout bounds the count of a failure, which the caller's going away does not.
const countTimeout = 10 * time.Second

// anyFailures says whether there are failures, also such as were counted while this attempt was under way.
func (a *attempt) anyFailures() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hadFailures || a.line.told > a.toldBefore && a.line.known.at(a.now()) > 0
}

// clear is the state change that forgets the failures, for the append of a success; none where there are none.
// Once it is written, succeeded is called.
func (a *attempt) clear() []eventstore.StateChange {
	if !a.anyFailures() {
		return nil
	}
	return []eventstore.StateChange{dropRow("throttle", map[string]any{"key": bytea(a.key)})}
}

// pardon is the state change that forgets what was failed at on the account of an address, by whomever: for an append by which
// somebody has shown in another way to be who has it, or an administrator lets the user in.
func (t *throttle) pardon(e Email) eventstore.StateChange {
	return dropRow("throttle", map[string]any{"key": bytea(t.key(scopeLogin, e.Key()))})
}

// succeeded tells the line that the failures are forgotten.
func (a *attempt) succeeded() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell(failures{})
}

// forgive forgets the failures, for a success that appends nothing.
func (a *attempt) forgive(ctx context.Context) error {
	if a.anyFailures() {
		if _, err := a.db.Exec(ctx, `DELETE FROM throttle WHERE key = $1`, a.key); err != nil {
			return fmt.Errorf("forget failures: %w", err)
		}
	}
	a.succeeded()
	return nil
}

// dropPaces forgets the networks that nobody waits for any more, with the lock held. Whoever adds one calls it, so that the map is
// bounded by those of the last few seconds.
func (t *throttle) dropPaces(now time.Time) {
	maps.DeleteFunc(t.paces, func(_ string, p *pace) bool { return len(p.waiting) == 0 && p.next.Before(now) })
}

// dropForgotten removes what counts no longer from the database, where one process does it for all.
func (t *throttle) dropForgotten(ctx context.Context) error {
	if _, err := t.db.Exec(ctx, `DELETE FROM throttle WHERE forget_at <= $1`, t.now().UTC()); err != nil {
		return fmt.Errorf("remove forgotten failures: %w", err)
	}
	return nil
}

// throttled is the one answer to an attempt that comes too soon, whoever it is on and whatever it shows.
func throttled(wait time.Duration) error {
	return &Error{Code: CodeThrottled, Detail: "there were too many failed attempts", RetryAfter: wait}
}
