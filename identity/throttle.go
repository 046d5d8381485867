package identity

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"usher.example/eventstore"
)

// Bounds of guessing. Those of an account hold for the address that is typed, so an address that nobody has is slowed down
// exactly like one that somebody has. Many people share a network, who mistype their passwords: its bound is there for
// those who try one password on many accounts, and never grows into a wait that is longer than its window.
const (
	accountFree   = 4                // failures before there is a wait
	firstWait     = 10 * time.Second // after the last free one; each further failure doubles it
	longestWait   = 5 * time.Minute
	accountMemory = time.Hour // without a failure, and all of them are forgotten

	networkFree   = 100 // failures in a window, and nothing more until it ends
	networkWindow = 5 * time.Minute
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

// networkWait is how long the next attempt from a network has to wait.
func (f failures) networkWait(now time.Time) time.Duration {
	if f.at(now) < networkFree {
		return 0
	}
	return f.forgetAt.Sub(now)
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

// Network is what counts as one client: an IPv4 address, or the /64 that an IPv6 address is in, because whoever has one
// of those has all of it. It is "" for what is no address.
func Network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil { // only for more bits than an address has
		panic(err)
	}
	return p.String()
}

// The scopes of what is throttled.
const (
	scopeAccount = "throttle-account"
	scopeNetwork = "throttle-network"
)

// throttle slows guessing down. What it counts is in the database, so all processes share it and a restart forgets
// nothing.
//
// The count is read before a password is looked at and written after it, so attempts at the same moment would all find
// it low. In one process they stand in a line for their account: no more are let through at once than there are free
// failures left, the others wait for their outcome. Processes don't wait for each other, so at the same moment each
// may let that many through, and no more.
type throttle struct {
	db       eventstore.DB
	log      *eventstore.Log
	networks bool // slow networks down too
	now      func() time.Time

	mu    sync.Mutex
	lines map[string]*line // by account
}

// line is the attempts on one account that are under way in this process.
type line struct {
	members int // attempts, from before they read the count to their end
	running int // that were let through
	waiting int
	known   failures      // what outcomes told; the database may know more
	moved   chan struct{} // closed at each outcome
}

// maxWaiting bounds the attempts on one account that wait for others. It is enough for a service that logs in often at once.
const maxWaiting = 256

// attempt is one try to show who one is: begin, read the counts, wait, then failed or succeeded or neither, and leave.
type attempt struct {
	*throttle
	account, network []byte // keys; network is nil where there is none
	line             *line
	admitted         bool
	hadFailures      bool // when it was let through
}

// begin puts an attempt on the account of an address into its line. leave has to be called.
func (t *throttle) begin(e Email, clientAddress string) *attempt {
	a := &attempt{throttle: t, account: t.log.Sealer().ReservationKey(eventstore.Reservation{Scope: scopeAccount, Value: e.Key()})}
	if network := Network(clientAddress); t.networks && network != "" {
		a.network = t.log.Sealer().ReservationKey(eventstore.Reservation{Scope: scopeNetwork, Value: network})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.line = t.lines[string(a.account)]; a.line == nil {
		a.line = &line{moved: make(chan struct{})}
		t.lines[string(a.account)] = a.line
	}
	a.line.members++
	return a
}

// enter is begin, a read of the counts, and wait, for an attempt that reads nothing else first. It fails as wait does, or
// as the database does; if it does not, leave has to be called.
func (t *throttle) enter(ctx context.Context, e Email, clientAddress string) (*attempt, error) {
	a := t.begin(e, clientAddress)
	account, network, err := a.read(ctx)
	if err == nil {
		err = a.wait(ctx, account, network)
	}
	if err != nil {
		a.leave()
		return nil, err
	}
	return a, nil
}

// leave ends an attempt.
func (a *attempt) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
	if a.line.members--; a.line.members == 0 {
		delete(a.lines, string(a.account))
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
func (a *attempt) read(ctx context.Context) (account, network failures, err error) {
	var of, from failuresRow
	err = a.db.QueryRow(ctx, `
		SELECT a.failures, a.failed_at, a.forget_at, n.failures, n.failed_at, n.forget_at
		  FROM (SELECT 1) one LEFT JOIN throttle a ON a.key = $1 LEFT JOIN throttle n ON n.key = $2`,
		a.account, a.network).Scan(append(of.columns(), from.columns()...)...)
	if err != nil {
		return failures{}, failures{}, fmt.Errorf("read the throttle: %w", err)
	}
	return of.failures(), from.failures(), nil
}

// wait waits for the attempt's turn, given the counts as they were read since begin. It fails with ErrThrottled where
// there were too many failures, or ctx's cause.
func (a *attempt) wait(ctx context.Context, account, network failures) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		now := a.now()
		known := account.and(a.line.known, now) // there may have been outcomes since the counts were read
		if wait := max(known.accountWait(now), network.networkWait(now)); wait > 0 {
			return throttled(wait)
		}
		if count := known.at(now); a.line.running == 0 || count+a.line.running < accountFree {
			a.line.running++
			a.admitted, a.hadFailures = true, count > 0
			return nil
		}
		if a.line.waiting >= maxWaiting {
			return throttled(time.Second)
		}
		if err := a.standInLine(ctx); err != nil {
			return err
		}
	}
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

// failed counts a failure, and answers with how many of the account there are with it. Whoever goes away does not keep it
// from being counted. It fails as the database does.
//
// The account's row is the last, so that it is locked for no longer than the commit takes: a login that succeeds removes
// it in its append, which others wait for. The commit does not wait for the disk: a crash may forget a failure.
func (a *attempt) failed(ctx context.Context) (count int, err error) {
	relaxed := map[eventstore.Dialect]string{eventstore.Postgres: "set_config('synchronous_commit', 'off', true)", eventstore.SQLite: "''"}[a.db.Dialect()]
	now := a.now().UTC()
	rows, args := `($1, 1, $2, $3)`, []any{a.account, now, now.Add(accountMemory)}
	if a.network != nil {
		rows, args = `($4, 1, $2, $5), `+rows, append(args, a.network, now.Add(networkWindow))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	answer, err := a.db.Query(ctx, `
		INSERT INTO throttle (key, failures, failed_at, forget_at) VALUES `+rows+`
		ON CONFLICT (key) DO UPDATE
		   SET failures  = CASE WHEN throttle.forget_at <= excluded.failed_at THEN 1 ELSE throttle.failures + 1 END,
		       failed_at = excluded.failed_at,
		       forget_at = CASE WHEN throttle.forget_at <= excluded.failed_at OR excluded.key = $1 THEN excluded.forget_at
		                        ELSE throttle.forget_at END
		RETURNING key, failures, failed_at, forget_at, `+relaxed, args...)
	if err != nil {
		return 0, fmt.Errorf("count a failure: %w", err)
	}
	defer answer.Close()
	var account failures
	for answer.Next() {
		var key []byte
		var f failures
		if err := answer.Scan(&key, &f.count, &f.last, &f.forgetAt, new(string)); err != nil {
			return 0, fmt.Errorf("count a failure: %w", err)
		}
		if bytes.Equal(key, a.account) {
			account = f
		}
	}
	if err := answer.Err(); err != nil {
		return 0, fmt.Errorf("count a failure: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line.known = a.line.known.and(account, now) // the answers to failures at once come in any order
	a.end()
	return account.count, nil
}

// countTimeout bounds the count of a failure, which the caller's going away does not.
const countTimeout = 10 * time.Second

// anyFailures says whether the account has failures, also such as were counted while this attempt was under way.
func (a *attempt) anyFailures() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hadFailures || a.line.known.at(a.now()) > 0
}

// clear is the state change that forgets the account's failures, for the append of a success; none where there are none.
// Once it is written, succeeded is called.
func (a *attempt) clear() []eventstore.StateChange {
	if !a.anyFailures() {
		return nil
	}
	return []eventstore.StateChange{dropRow("throttle", map[string]any{"key": bytea(a.account)})}
}

// succeeded tells the line that the account's failures are forgotten.
func (a *attempt) succeeded() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line.known = failures{}
	a.end()
}

// forgive forgets the account's failures, for a success that appends nothing.
func (a *attempt) forgive(ctx context.Context) error {
	if a.anyFailures() {
		if _, err := a.db.Exec(ctx, `DELETE FROM throttle WHERE key = $1`, a.account); err != nil {
			return fmt.Errorf("forget failures: %w", err)
		}
	}
	a.succeeded()
	return nil
}

// dropForgotten removes what counts no longer.
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
