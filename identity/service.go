// Package identity is users and sessions: the events that they consist of, the decisions on them, and the service that
// carries out commands.
//
// A command is decided by a pure function from the state of its own stream to the events that fulfil it, and is done in
// one append together with its reservations and its rows in state tables. No command reads a read model, so all of them
// work while every projection is stopped. Passwords, hashes and private keys are in state tables only, never in events,
// logs or errors.
//
// What a user is follows from the events of the user's stream alone:
//
//	user.registered or user.imported ▶ active
//	active ── user.locked ▶ locked ── user.unlocked ▶ active
//	active or locked ── user.disabled ▶ disabled ── user.enabled ▶ as before
//	any of them ── user.erased ▶ no user, for good
//
// The package does not know of HTTP (package api), of tokens (package token) or of queries over many users (package
// projections).
package identity

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// Service carries out commands on users and sessions. It is safe for concurrent use, and there is one in a process.
type Service struct {
	log    *eventstore.Log
	store  eventstore.Store
	db     eventstore.DB
	pool   *password.Pool
	policy password.Policy

	rehash         bool
	safe           bool
	needsVerified  bool
	refreshKey     []byte
	codeKey        []byte
	passwordMaxAge time.Duration
	issuer         string
	sessionMax     time.Duration
	sessionIdle    time.Duration
	reuseGrace     time.Duration
	userAttributes []string
	accessLifetime time.Duration
	sessionEnded   func(uuid.UUID)
	keyRotated     func()
	clientChanged  func(uuid.UUID)
	forked         func() (done func())
	loadKeys       func(context.Context) error
	ledger         *Ledger
	now            func() time.Time
	logger         *slog.Logger

	cache    *cache
	trust    trust
	doubts   *doubts
	throttle *throttle
	failures chan failure
	followed progress
	keys     keysKnown
	uses     *uses
}

// Config is what a Service stands on. Log, Store, DB and Passwords are needed.
type Config struct {
	Log       *eventstore.Log
	Store     eventstore.Store // that Log stands on
	DB        eventstore.DB    // of the same database
	Passwords *password.Pool
	Policy    password.Policy

	// Rehash replaces a hash of another cost or scheme when its user logs in.
	Rehash bool
	// EnumerationSafe has Register answer the same whether or not the address is taken. A login tells no more: a right password
	// for an address that is not verified gets the answer of a wrong one, and the code is mailed again.
	EnumerationSafe bool
	// LoginNeedsVerifiedEmail has Login fail with ErrEmailNotVerified for a user whose address is not. EnumerationSafe implies
	// it, and has Login say nothing of that.
	LoginNeedsVerifiedEmail bool
	// RefreshKey authenticates refresh tokens. It is the same in all processes, and in no database.
	RefreshKey []byte
	// PasswordMaxAge is how long a password may be used for logins; 0 for ever.
	PasswordMaxAge time.Duration
	// CodeKey makes what is stored of codes. It is the same in all processes, and in no database.
	CodeKey []byte
	// RateLimits has too many failures to log in from one network slow down that network, beside those on one account.
	RateLimits bool
	// Issuer is what authenticators show the account as one of. "usher" when empty.
	Issuer string
	// SessionMax is how long a session lasts at most, 90 days when 0; SessionIdle how long without a refresh, 7 days when 0.
	SessionMax, SessionIdle time.Duration
	// ReuseGrace is how long a refresh token that was replaced gets its successor again whatever is known of that.
	ReuseGrace time.Duration
	// SessionEnded is told of each session that has ended: those that this process ends at once, and while Follow runs all
	// others, and at its start those that ended within AccessLifetime. It must not block. It may be nil.
	SessionEnded func(session uuid.UUID)
	// KeyRotated is told, while Follow runs, that the signing keys are others: see UseSigningKeys. It must not block. It may
	// be nil.
	KeyRotated func()
	// ClientChanged is told, while Follow runs, of each client that has changed, and with the nil UUID that any may have. It must
	// not block. It may be nil.
	ClientChanged func(client uuid.UUID)
	// Forked is told, while Follow runs, that the log is another one than was read before: whatever else was kept of it in memory
	// is to be dropped. What it answers with is called once SessionEnded was told anew. It must not block. It may be nil.
	Forked func() (done func())
	// LoadKeys reads the signing keys again, by UseSigningKeys: a session that begins or goes on has found that there are
	// others by now, and its access token is to be signed by one that is in force. It may be nil, where none are signed.
	LoadKeys func(context.Context) error
	// AccessLifetime is how long an access token lives.
	AccessLifetime time.Duration
	// UserAttributes names the attributes that users may set themselves; "*" stands for all. See ParseAttributes.
	UserAttributes []string
	// Ledger is where erasures are recorded outside the database. It may be nil.
	Ledger *Ledger
	// CachedUsers bounds the users kept in memory, of which there are fewer where they are large. 65,536 when 0.
	CachedUsers int

	Logger *slog.Logger     // nothing is logged when nil
	Now    func() time.Time // time.Now when nil
}

// New makes a service. Follow lets it answer from memory.
func New(c Config) *Service {
	s := &Service{
		log: c.Log, store: c.Store, db: c.DB, pool: c.Passwords, policy: c.Policy,
		rehash: c.Rehash, safe: c.EnumerationSafe, needsVerified: c.LoginNeedsVerifiedEmail || c.EnumerationSafe, refreshKey: c.RefreshKey, codeKey: c.CodeKey,
		passwordMaxAge: c.PasswordMaxAge, issuer: cmp.Or(c.Issuer, "usher"),
		sessionMax: cmp.Or(c.SessionMax, 90*24*time.Hour), sessionIdle: cmp.Or(c.SessionIdle, 7*24*time.Hour),
		reuseGrace: c.ReuseGrace, accessLifetime: c.AccessLifetime, userAttributes: c.UserAttributes,
		sessionEnded: c.SessionEnded, keyRotated: c.KeyRotated, clientChanged: c.ClientChanged, loadKeys: c.LoadKeys, forked: c.Forked, ledger: c.Ledger, now: c.Now, logger: c.Logger,
		failures: make(chan failure, maxFailures), uses: newUses(),
	}
	if s.sessionEnded == nil {
		s.sessionEnded = func(uuid.UUID) {}
	}
	if s.forked == nil {
		s.forked = func() func() { return func() {} }
	}
	if s.clientChanged == nil {
		s.clientChanged = func(uuid.UUID) {}
	}
	if s.keyRotated == nil {
		s.keyRotated = func() {}
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s.cache = newCache(cmp.Or(c.CachedUsers, 1<<16), s.ReadUser)
	s.doubts = newDoubts(c.AccessLifetime, s.now())
	s.throttle = &throttle{db: c.DB, log: c.Log, networks: c.RateLimits, now: s.now, pause: eventstore.Pause, lines: map[string]*line{}, paces: map[string]*pace{}}
	return s
}

// EnumerationSafe says whether Register answers the same for a taken address.
func (s *Service) EnumerationSafe() bool { return s.safe }

// LoginNeedsVerifiedEmail says whether Login refuses users whose address is not verified.
func (s *Service) LoginNeedsVerifiedEmail() bool { return s.needsVerified }

// CommandID is the command id for a caller's idempotency key. The scope keeps callers and commands apart: for example
// "register" for those that nobody is logged in for.
func CommandID(scope, key string) uuid.UUID {
	return uuid.NewSHA1(commandNamespace, []byte(scope+"\x00"+key))
}

// SecretCommandID is the command id for an idempotency key of a command that secrets tell apart from others with the same
// key, such as a code or a password. Nothing of them can be found out from it.
func (s *Service) SecretCommandID(scope, key string, secrets ...string) uuid.UUID {
	for _, secret := range secrets {
		scope += "\x00" + hex.EncodeToString(s.codeMAC("command", secret))
	}
	return CommandID(scope, key)
}

// answered is what a command id was answered with; for one that is not known, and the nil UUID, Repeated is false.
func (s *Service) answered(ctx context.Context, command uuid.UUID) (first eventstore.Result, err error) {
	if command == uuid.Nil {
		return first, nil
	}
	err = s.db.QueryRow(ctx, `SELECT position, version FROM commands WHERE command_id = $1`, command).Scan(&first.Position, &first.Version)
	if errors.Is(err, eventstore.ErrNoRows) {
		return eventstore.Result{}, nil
	}
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("look for the command: %w", err)
	}
	first.Repeated = true
	return first, nil
}

var commandNamespace = uuid.MustParse("b2b7a9a6-58a1-5b0f-8a4e-0a6d1d6f6a53")

// The scopes of reservations.
const (
	scopeEmail      = "email"
	scopeFirstAdmin = "first-admin"
)

// onlyFirstAdmin is held by the first administrator, so that there is only one.
var onlyFirstAdmin = eventstore.Reservation{Scope: scopeFirstAdmin, Value: scopeFirstAdmin}

func reserveEmail(e Email) eventstore.Reservation {
	return eventstore.Reservation{Scope: scopeEmail, Value: e.Key()}
}

// streamPage is how many events of a stream are read at once.
const streamPage = 500

// User is a user's own state: current in the process that changed it, and elsewhere within milliseconds. While that
// can't be had from memory it is read from the log. It fails with ErrNotFound or eventstore.ErrUnavailable.
func (s *Service) User(ctx context.Context, id uuid.UUID) (*User, error) {
	if !s.Current() {
		return s.ReadUser(ctx, id)
	}
	return s.cache.get(ctx, id)
}

// Current says whether Follow keeps what is in memory right at the moment, that of ClientChanged included.
func (s *Service) Current() bool { return s.trust.holds(s.now()) }

// userSince is User, and no older than a version that the caller has seen.
func (s *Service) userSince(ctx context.Context, id uuid.UUID, version int) (*User, error) {
	u, err := s.User(ctx, id)
	if err != nil || u.Version >= version {
		return u, err
	}
	s.cache.outdate(id, version)
	return s.ReadUser(ctx, id)
}

// ReadUser reads a user's state from the log: it has every event that was committed before the call. Where an earlier state
// is in memory only what came after it is read, so what a command costs does not grow with a user's history. It fails with
// ErrNotFound or eventstore.ErrUnavailable.
func (s *Service) ReadUser(ctx context.Context, id uuid.UUID) (*User, error) {
	earlier := s.cache.latest(id)
	u, err := s.readOn(ctx, id, earlier)
	switch {
	case err == nil:
		s.cache.keep(earlier, u)
	case errors.Is(err, ErrNotFound):
		s.cache.forget(id)
	}
	return u, err
}

// readOn brings an earlier state of a user, nil for none, up to the log. The last event of that state is read once more: where
// the log has another in its place, the state is of another history (the database was restored) and counts for nothing.
func (s *Service) readOn(ctx context.Context, id uuid.UUID, earlier *User) (*User, error) {
	if earlier == nil {
		return s.UserAt(ctx, id, math.MaxInt64)
	}
	events, err := s.log.ReadStream(ctx, id, earlier.Version-1, streamPage)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].ID != earlier.newest || len(events) == streamPage {
		return s.UserAt(ctx, id, math.MaxInt64)
	}
	if len(events) == 1 {
		return earlier, nil
	}
	u := *earlier
	for _, e := range events[1:] {
		if u, err = evolve(u, e); err != nil {
			return nil, err
		}
	}
	if !u.exists() {
		return nil, noSuchUser()
	}
	u.document = u.encode()
	return &u, nil
}

// UserAt is a user's state as of a position, without what has been forgotten since, read from the log in pages. It fails as
// ReadUser does; with ErrNotFound too where there was no such user yet.
func (s *Service) UserAt(ctx context.Context, id uuid.UUID, position int64) (*User, error) {
	var u User
	for more := true; more; {
		events, err := s.log.ReadStream(ctx, id, u.Version, streamPage)
		if err != nil {
			return nil, err
		}
		more = len(events) == streamPage
		for _, e := range events {
			if e.Stream.Kind != eventstore.KindUser {
				return nil, noSuchUser()
			}
			if e.Position > position {
				more = false
				break
			}
			if u, err = evolve(u, e); err != nil {
				return nil, err
			}
		}
	}
	if !u.exists() {
		return nil, noSuchUser()
	}
	u.document = u.encode()
	return &u, nil
}

// append appends to a user's stream, after which the state that is in memory is out of date. It fails with ErrNotFound where the user has
// been erased, and else as eventstore.Log.Append does.
func (s *Service) append(ctx context.Context, a eventstore.Append) (eventstore.Result, error) {
	// Whatever the answer is, the events may have been written.
	defer s.cache.outdate(a.Stream.ID, 0)
	result, err := s.log.Append(ctx, a)
	if erased(err) {
		err = noSuchUser()
	}
	return result, err
}

// erased says whether an append, or the sealing of something for a user, failed because the user has been erased.
func erased(err error) bool {
	return errors.Is(err, eventstore.ErrStreamClosed) || errors.Is(err, eventstore.ErrNoKey)
}

// change is what a command does to a user's stream.
type change struct {
	events           []Payload
	state            []eventstore.StateChange
	reserve, release []eventstore.Reservation
	commandID        uuid.UUID // the nil UUID for none
}

// changeTries bounds how often a command is decided again after it lost a race.
const changeTries = 16

// change decides on a user's present state and appends what was decided, again if the user changed meanwhile. A decision
// without events is done already: the answer is then where the user stands. It fails with ErrNotFound, with decide's error,
// with ErrLastAdmin where it would take away the last who can act as an administrator, or as eventstore.Log.Append does.
func (s *Service) change(ctx context.Context, id uuid.UUID, m eventstore.Metadata, decide func(User) (change, error)) (eventstore.Result, error) {
	for try := 1; ; try++ {
		u, err := s.ReadUser(ctx, id)
		if err != nil {
			return eventstore.Result{}, err
		}
		c, err := decide(*u)
		if err != nil {
			return eventstore.Result{}, err
		}
		if len(c.events) == 0 {
			return eventstore.Result{Position: u.Position, Version: u.Version, Unchanged: true}, nil
		}
		result, err := s.append(ctx, eventstore.Append{
			Stream:   eventstore.UserStream(id),
			Expected: eventstore.Expected(u.Version),
			Events:   newEvents(c.events),
			Metadata: m,
			Reserve:  c.reserve, Release: c.release,
			State:     append(c.state, s.adminChange(id, *u, c.events)...),
			CommandID: c.commandID,
		})
		if errors.Is(err, eventstore.ErrStateRefused) {
			return result, lastAdmin()
		}
		if !errors.Is(err, eventstore.ErrWrongExpectedVersion) || try == changeTries {
			return result, err
		}
	}
}
