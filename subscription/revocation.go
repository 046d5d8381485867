package subscription

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// RevocationFeed tells a service which sessions have ended, so that it refuses their access tokens although these have not
// expired. A token.Revocations is what to tell: its methods are those that the feed wants. Its fields are set before Run
// and not changed after.
//
// Every instance of a service needs the whole feed for itself, so there is no durable consumer and no checkpoint. Run
// begins with what happened within the lifetime of an access token: whatever ended earlier has no token left. After that
// it is behind the event by milliseconds. What is told twice does no harm.
//
// Its consumers have names out of a bounded set, so that the broker can hold a user to them: each feed has a place of its own
// among those of its NATS user. It leaves that when Run ends, keeps it through a reconnect, and where none is free waits for one and
// logs so. That of a process that was killed is free within a minute, so have some to spare: [RevocationConsumers].
//
// While the broker can't be reached nothing is told, and Age grows: what to do then is for the service to decide. It may
// go on, since an access token is good for minutes only, or ask /oauth2/introspect. The same goes for sessions that the log
// does not have any more, as after a restore: the feed tells of them once the relay follows or is reset, and while it halts
// Age tells nothing of that, as nothing is published. Only /oauth2/introspect knows of them then.
type RevocationFeed struct {
	JetStream jetstream.JetStream
	// Lifetime is the longest that an access token lives.
	Lifetime time.Duration
	// EndSession is told of one session that has ended, and EndUser of all sessions of a user that began before a moment,
	// except one; the nil UUID stands for none. They are called one at a time and must be quick.
	EndSession func(session uuid.UUID)
	EndUser    func(user uuid.UUID, before time.Time, except uuid.UUID)
	// EndConsent is told of the sessions of a user by one client that began before a moment: the user has withdrawn what the client was
	// let do. It may be nil, for a service that takes no token of a client.
	EndConsent func(user uuid.UUID, client string, before time.Time)
	// Renew is told that what was told so far may not have happened, as after a restore of the log: it is all told anew, and then
	// done is called, after which nothing else counts any more. It may be nil: then sessions that ended in vain stay ended.
	Renew func() (done func())

	// User is the NATS user whose places the feed may take, and Places how many that user has: the user that the connection logs in
	// as when empty, and Places (8) when zero. Without any user, as at the broker of `usher dev`, there is no bound.
	User   string
	Places int
	// Stream is the JetStream stream, Stream ("USHER") when empty.
	Stream string
	// Logger is slog.Default() when nil.
	Logger *slog.Logger

	once    sync.Once
	ready   chan struct{}
	mu      sync.Mutex
	current time.Time // when everything was known that had happened by then; zero for never
}

// The events that end sessions, beside what else they say.
const (
	sessionEnded    = "session.ended"
	userLocked      = "user.locked"
	userDisabled    = "user.disabled"
	passwordChanged = "user.password_changed"
	userErased      = "user.erased"
	withdrawn       = "user.consent_withdrawn"
	// What began in vain has ended too.
	sessionStarted = "session.started"
	sessionGranted = "session.granted"
	userRegistered = "user.registered"
	userImported   = "user.imported"

	reasonRehash = "rehash" // of user.password_changed: the same password, stored in another way
)

var revoking = []string{sessionEnded, userLocked, userDisabled, passwordChanged, userErased, withdrawn, eventstore.TypeRestored}

const (
	feedCheck    = time.Second      // between looks at whether anything is on its way
	feedMargin   = time.Minute      // of time, for clocks that differ
	feedExpiry   = 10 * time.Second // of a pull; the next is sent before
	feedInactive = 15 * time.Second // without a pull, after which the server forgets a consumer, and its place is free
)

// Ready is closed once everything has been told that happened before Run: from then on a service that refuses what it
// was told of may answer requests.
func (f *RevocationFeed) Ready() <-chan struct{} {
	f.once.Do(func() { f.ready = make(chan struct{}) })
	return f.ready
}

// Age is how long ago it was last certain that everything had been told: a second or less while all is well, and more and
// more while the broker can't be reached. Before the feed is ready it is the greatest duration there is.
func (f *RevocationFeed) Age() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current.IsZero() {
		return math.MaxInt64
	}
	return time.Since(f.current)
}

// caughtUp notes that everything was told that had happened by a moment.
func (f *RevocationFeed) caughtUp(moment time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current.IsZero() {
		f.Ready()
		close(f.ready)
	}
	if moment.After(f.current) {
		f.current = moment
	}
}

// Run tells until ctx ends, and then returns nil. It fails if the connection was closed. Everything else is logged and
// tried again.
//
// The credential has to be allowed what [RevocationConsumers] says: the user verifier of deploy/nats/nats.conf is.
func (f *RevocationFeed) Run(ctx context.Context) error {
	l := newFeedLoop(f)
	defer l.leaveAll(ctx)
	reported := ""
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		told, err := l.session(ctx)
		var final *finalError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &final):
			return final.error
		}
		if told > 0 || errors.Is(err, errReconnected) {
			wait, reported = firstWait, ""
		}
		if errors.Is(err, errRestored) {
			l.renew = true
			continue
		}
		if text := err.Error(); text != reported {
			reported = text
			l.logger.WarnContext(ctx, "what ends sessions is not heard of; trying again", slog.Any("error", err))
		}
		if eventstore.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

// feedLoop is a feed while it runs. It lives through sessions, and each tells everything that may still matter: that is
// little, and right whatever happened to the stream meanwhile.
type feedLoop struct {
	*RevocationFeed
	logger     *slog.Logger
	id         string         // tells its consumers from those of other feeds
	user       string         // whose places it takes; "" if there is no bound
	count      int            // of the user's places
	firstPlace int            // to try where it had none
	places     map[string]int // that it had last, by type of event

	turn     sync.Mutex  // of whoever tells or looks; the rest is its own
	tails    []*feedTail // of the session; none once that is over
	told     int         // messages of the session
	restored uuid.UUID   // the event that told of the last restore
	renew    bool        // the next session is to tell everything anew
	done     func()      // is called once the session has; nil if it need not
}

func newFeedLoop(f *RevocationFeed) *feedLoop {
	l := &feedLoop{
		RevocationFeed: f, logger: cmp.Or(f.Logger, slog.Default()).With("subscription", "revocations"), id: uuid.NewString(),
		user: cmp.Or(f.User, brokerUser(f.JetStream.Conn())), count: f.Places, places: make(map[string]int),
	}
	if l.count <= 0 {
		l.count = Places
	}
	l.firstPlace = rand.IntN(l.count)
	return l
}

// errRestored: the log was restored, so what was told has to be told anew.
var errRestored = errors.New("the log was restored")

// session tells what happened lately and what happens, until something fails. It says how many messages it had.
//
// There is a consumer for each type of event: what the server is asked for then has the one subject that it delivers, so that
// a credential may be allowed those that end sessions, and no event that has personal data in it.
func (l *feedLoop) session(ctx context.Context) (told int, err error) {
	conn := l.JetStream.Conn()
	status := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(status)
	if err := connected(ctx, conn, status); err != nil {
		return 0, err
	}
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	var done func()
	if l.renew && l.Renew != nil {
		done = l.Renew()
	}
	var tails []*feedTail
	for _, eventType := range revoking {
		if eventType == withdrawn && l.EndConsent == nil {
			continue
		}
		begin := time.Now()
		consumer, err := l.consumer(ctx, eventType)
		if err != nil {
			return 0, err
		}
		tail := &feedTail{consumer: consumer}
		if consumer.CachedInfo().NumPending == 0 {
			tail.current = begin
		}
		tails = append(tails, tail)
	}
	l.begin(tails, done)
	defer func() { told = l.end() }()
	for _, t := range tails {
		pull, err := t.consumer.Consume(func(m jetstream.Msg) {
			if err := l.take(ctx, t, m); err != nil {
				fail(err)
			}
		},
			jetstream.PullExpiry(feedExpiry), jetstream.PullHeartbeat(heartbeat),
			jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { fail(err) }))
		if err != nil {
			return 0, fmt.Errorf("pull: %w", err)
		}
		defer func() {
			pull.Stop()
			<-pull.Closed()
		}()
	}

	tick := time.NewTicker(feedCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.look(ctx, tails); err != nil {
				return 0, err
			}
		case err := <-failed:
			return 0, l.explained(fmt.Errorf("pull: %w", err))
		case s := <-status:
			if s == nats.CLOSED {
				return 0, Final(nats.ErrConnectionClosed)
			}
			return 0, errReconnected
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// begin makes these tails those of the session.
func (l *feedLoop) begin(tails []*feedTail, done func()) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.tails, l.done, l.told = tails, done, 0
	l.caughtUpWithAll()
}

// end makes sure that nothing is told any more: a message may be in hand for a while after its consumer was stopped.
func (l *feedLoop) end() (told int) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.tails = nil
	return l.told
}

// feedTail is the consumer of one type of event.
type feedTail struct {
	consumer jetstream.Consumer
	sequence uint64    // of the consumer's last message
	current  time.Time // when everything of the type had been told; zero for never
}

// take tells what a message says. It fails where one before it is missing.
func (l *feedLoop) take(ctx context.Context, t *feedTail, m jetstream.Msg) error {
	arrived := time.Now()
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if !slices.Contains(l.tails, t) {
		return nil // the session is over
	}
	if meta.Sequence.Consumer != t.sequence+1 { // nothing is delivered twice here, so it is lost
		return errJump
	}
	t.sequence = meta.Sequence.Consumer
	l.told++
	if l.tell(ctx, m, meta) {
		return errRestored
	}
	if meta.NumPending == 0 {
		t.current = arrived
		l.caughtUpWithAll()
	}
	return nil
}

// look asks the server whether anything is on its way.
func (l *feedLoop) look(ctx context.Context, tails []*feedTail) error {
	for _, t := range tails {
		asked := time.Now()
		info, err := l.info(ctx, t.consumer)
		if err != nil {
			return err
		}
		l.turn.Lock()
		if info.NumPending == 0 && info.Delivered.Consumer == t.sequence {
			t.current = asked
			l.caughtUpWithAll()
		}
		l.turn.Unlock()
	}
	return nil
}

// caughtUpWithAll notes until when everything of every type was told.
func (l *feedLoop) caughtUpWithAll() {
	last := l.tails[0].current
	for _, t := range l.tails {
		if t.current.Before(last) {
			last = t.current
		}
	}
	if last.IsZero() {
		return
	}
	if l.renew = false; l.done != nil {
		l.done()
		l.done = nil
	}
	l.caughtUp(last)
}

// consumer makes a consumer of one type of event that begins with what may still matter.
func (l *feedLoop) consumer(ctx context.Context, eventType string) (jetstream.Consumer, error) {
	since := l.since()
	config := jetstream.ConsumerConfig{
		FilterSubject: Type(eventType), AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: feedInactive,
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since, Metadata: map[string]string{metadataFeed: l.id},
	}
	if l.user == "" {
		return l.create(ctx, config)
	}
	return l.settle(ctx, eventType, config)
}

func (l *feedLoop) create(ctx context.Context, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	consumer, err := l.JetStream.CreateConsumer(ctx, l.stream(), config)
	if err != nil {
		return nil, l.explained(fmt.Errorf("make a consumer of %s: %w", config.FilterSubject, err))
	}
	return consumer, nil
}

func (l *feedLoop) stream() string { return cmp.Or(l.Stream, Stream) }

func (l *feedLoop) info(ctx context.Context, consumer jetstream.Consumer) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask about the consumer: %w", err)
	}
	return info, nil
}

// since is when the oldest events happened that may still matter.
func (l *feedLoop) since() time.Time { return time.Now().Add(-l.Lifetime - feedMargin) }

// tell tells what a message says. Of one that can't be read the header of the user may be left, and when it came: then all
// sessions of the user are taken to have ended, for they may have. It says whether the log was restored.
func (l *feedLoop) tell(ctx context.Context, m jetstream.Msg, meta *jetstream.MsgMetadata) (restored bool) {
	e, err := cloudevent.Decode(m.Headers(), m.Data())
	var content struct {
		Reason  string                 `json:"reason"`
		Session uuid.UUID              `json:"session"`
		Client  string                 `json:"client"`
		Void    []eventstore.VoidEvent `json:"void"`
		Part    int                    `json:"part"`
	}
	if err == nil {
		err = json.Unmarshal(e.Data, &content)
	}
	if err != nil {
		l.logger.ErrorContext(ctx, "message is no event", "position", meta.Sequence.Stream, slog.Any("error", err))
		if user, err := uuid.Parse(m.Headers().Get(cloudevent.HeaderSubject)); err == nil {
			l.EndUser(user, meta.Timestamp, uuid.Nil)
		}
		return false
	}
	if e.RecordedAt.Before(l.since()) { // the stream was filled again, or the event waited to be published
		return false
	}
	switch e.Type {
	case withdrawn:
		l.EndConsent(e.Stream.Subject, content.Client, e.RecordedAt)
		return false
	case eventstore.TypeRestored:
	default:
		l.revoke(e, content.Reason, content.Session)
		return false
	}
	for _, void := range content.Void {
		l.revokeVoid(e, void)
	}
	if content.Part > 1 || e.ID == l.restored {
		return false
	}
	l.restored = e.ID
	return true
}

// revokeVoid ends what began in vain, but has tokens.
func (l *feedLoop) revokeVoid(e eventstore.Event, void eventstore.VoidEvent) {
	switch void.Type {
	case sessionStarted, sessionGranted:
		l.EndSession(void.Stream)
	case userRegistered, userImported:
		l.EndUser(void.Stream, e.RecordedAt, uuid.Nil)
	}
}

func (l *feedLoop) revoke(e eventstore.Event, reason string, kept uuid.UUID) {
	switch e.Type {
	case sessionEnded:
		l.EndSession(e.Stream.ID)
	case userLocked, userDisabled, userErased:
		l.EndUser(e.Stream.Subject, e.RecordedAt, uuid.Nil)
	case passwordChanged:
		if reason != reasonRehash {
			l.EndUser(e.Stream.Subject, e.RecordedAt, kept)
		}
	}
}
