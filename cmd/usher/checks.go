package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/server"
	"usher.example/subscription"
	"usher.example/token"
)

// What is too much.
const (
	slowDatabase  = 250 * time.Millisecond // for the simplest query
	skewedClock   = 2 * time.Second        // between this machine and the database
	checkedTail   = 1000                   // events at the end of the log that are looked at one by one
	partitionRoom = 1_000_000              // positions that should have a partition ahead of need
	oldEvent      = time.Minute            // unpublished, or not in a read model
)

// Times are numbers in the figures of a check, and their names have the unit.
func seconds(d time.Duration) float64      { return d.Round(time.Millisecond).Seconds() }
func milliseconds(d time.Duration) float64 { return float64(d.Round(10*time.Microsecond)) / 1e6 }

// readiness is what /readyz stands on: those checks that are cheap, and without which the process is of no use.
func (d *deployment) readiness(p process) []server.Check {
	ready := func(component string, run func(context.Context, *deployment, *report)) server.Check {
		return server.Check{Name: component, Run: func(ctx context.Context) error {
			r := &report{component: component}
			run(ctx, d, r)
			for _, f := range r.findings {
				if f.Status == failed {
					return fmt.Errorf("%s: %s", f.Check, f.Detail)
				}
			}
			return nil
		}}
	}
	checks := []server.Check{ready("database", func(ctx context.Context, d *deployment, r *report) {
		checkDatabase(ctx, d, r)
		checkMasterKey(ctx, d, r)
	})}
	if p.api {
		checks = append(checks, ready("auth", checkAuth))
	}
	return checks
}

// checkDatabase answers the query that everything stands on. That the schema is the right one is known: the deployment
// could not have been opened otherwise.
func checkDatabase(ctx context.Context, d *deployment, r *report) {
	r.ok("schema", nil)
	began := time.Now()
	if _, err := d.log.Head(ctx); err != nil {
		r.fail("connection", "the database does not answer; check DATABASE_URL and the server: "+err.Error(), nil)
		return
	}
	latency := time.Since(began)
	figures := map[string]any{"latency_ms": milliseconds(latency)}
	if latency > slowDatabase {
		r.warn("connection", "the database answers slowly", figures)
	} else {
		r.ok("connection", figures)
	}
	if d.store.Dialect() != eventstore.Postgres { // the clock is this machine's
		return
	}
	var now time.Time
	began = time.Now()
	if err := d.store.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		r.fail("clock", err.Error(), nil)
		return
	}
	skew := now.Sub(began.Add(time.Since(began) / 2))
	figures = map[string]any{"skew_ms": milliseconds(skew)}
	if skew.Abs() > skewedClock {
		r.warn("clock", "the clocks of the database and of this machine differ; synchronise them, or tokens and sessions end at the wrong time", figures)
		return
	}
	r.ok("clock", figures)
}

// checkLog looks for gaps at the end of the log, and for partitions ahead of it.
func checkLog(ctx context.Context, d *deployment, r *report) {
	head, err := d.log.Head(ctx)
	if err != nil {
		r.fail("log", err.Error(), nil)
		return
	}
	from := max(0, head-checkedTail)
	events, err := d.store.ReadAll(ctx, from, checkedTail) // as they are stored: whoever checks need not open them
	figures := map[string]any{"head": head, "looked_at": len(events)}
	switch {
	case err != nil:
		r.fail("log", "the end of the log can't be read: "+err.Error(), figures)
	case int64(len(events)) < head-from:
		r.fail("log", fmt.Sprintf("%s missing among the last %d; restore the database from a backup", counted(head-from-int64(len(events)), "event is", "events are"), head-from), figures)
	default:
		r.ok("log", figures)
	}
	if d.store.Dialect() != eventstore.Postgres {
		return
	}
	var end int64
	err = d.store.QueryRow(ctx, "SELECT last_partitioned()").Scan(&end)
	figures = map[string]any{"room": end - head}
	switch {
	case err != nil:
		r.fail("partitions", err.Error(), nil)
	case end-head < partitionRoom:
		r.warn("partitions", "the log comes near the end of its last partition; a process that appends makes the next one, if its user may create tables", figures)
	default:
		r.ok("partitions", figures)
	}
}

// checkMasterKey finds that the key of this process is not the current one, and warns of a rotation that is not finished and of
// a key that is needed no more.
func checkMasterKey(ctx context.Context, d *deployment, r *report) {
	states, err := eventstore.MasterKeyStates(ctx, d.store)
	if err != nil {
		r.fail("master key", err.Error(), nil)
		return
	}
	used, known, current, figures := 0, 0, false, map[string]any{}
	for _, s := range states {
		if d.given(s.ID) {
			known++
			current = current || s.State == "current"
		}
		if s.State != "retired" {
			used++
			figures[s.State] = s.ID
		}
	}
	switch given := len(d.masterKeys); {
	case !current:
		r.fail("master key", "another key has taken the place of the one that this process was given; set MASTER_KEY to the new one, and restart it", figures)
	case used > 1:
		r.warn("master key", "a rotation is not finished; run `usher keys master rotate`", figures)
	case given > known:
		r.warn("master key", "a new key is given; once every process has it, run `usher keys master rotate`", figures)
	case given > used:
		r.warn("master key", "the key before is still given; take it out of the settings", figures)
	default:
		r.ok("master key", figures)
	}
}

// checkPrivileges warns of a database user who could change what must never change.
func checkPrivileges(ctx context.Context, d *deployment, r *report) {
	if d.store.Dialect() != eventstore.Postgres {
		return
	}
	var user string
	var super, change, alter bool
	err := d.store.QueryRow(ctx, `
		SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		       has_table_privilege('events', 'UPDATE') OR has_table_privilege('events', 'DELETE') OR has_table_privilege('events', 'TRUNCATE'),
		       pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'events'::regclass), 'USAGE')`).Scan(&user, &super, &change, &alter)
	figures := map[string]any{"user": user, "superuser": super, "may_change_events": change, "may_alter_tables": alter}
	switch {
	case err != nil:
		r.fail("privileges", err.Error(), nil)
	case super || alter:
		r.warn("privileges", "the database user could alter the tables; run the service as a user with fewer rights, see deploy/postgres", figures)
	case change:
		r.warn("privileges", "the database user could change or delete events; run the service as a user with fewer rights, see deploy/postgres", figures)
	default:
		r.ok("privileges", figures)
	}
}

// checkAuth looks at what access tokens are signed with.
func checkAuth(ctx context.Context, d *deployment, r *report) {
	if d.config.JWTAlgorithm == string(token.HS256) && d.config.JWTSecretKey == "" {
		r.fail("signing key", "JWT_SECRET_KEY is not set; expected "+expectOf("JWT_SECRET_KEY"), nil)
		return
	}
	keys, err := d.identity().SigningKeys(ctx)
	if err != nil {
		r.fail("signing key", err.Error(), nil)
		return
	}
	states := map[identity.KeyState]int{}
	for _, k := range keys {
		states[k.State]++
	}
	if states[identity.KeySigning] == 0 {
		r.warn("signing key", "there is none yet; the API makes it when it starts", map[string]any{"algorithm": d.config.JWTAlgorithm})
		return
	}
	figures := map[string]any{"algorithm": keys[0].Algorithm, "kid": keys[0].ID, "since": keys[0].Since.Format(time.RFC3339),
		"announced": states[identity.KeyAnnounced], "verifying": states[identity.KeyVerifying]}
	if keys[0].Algorithm != d.config.JWTAlgorithm && states[identity.KeyAnnounced] == 0 {
		r.warn("signing key", "tokens are signed with another algorithm than JWT_ALGORITHM; restart the API, or see `usher keys rotate --help`", figures)
		return
	}
	r.ok("signing key", figures)
}

// checkOutbox looks at the relay and at what it has left to publish.
func checkOutbox(ctx context.Context, d *deployment, r *report) {
	s, err := publisher.ReadStatus(ctx, d.log, d.store, publisher.DefaultStream, time.Now())
	if err != nil {
		r.fail("relay", err.Error(), nil)
		return
	}
	figures := map[string]any{"head": s.Head, "published": s.Published, "lag": s.Lag, "state": s.State}
	switch s.State {
	case publisher.StateHalted:
		r.fail("relay", "the relay has halted: "+s.Error+"; see `usher outbox reset --help`", figures)
	case publisher.StateBlocked:
		r.fail("relay", "an event can't be published: "+s.Error, figures)
	case publisher.StateStopped:
		r.fail("relay", "no relay runs; start `usher publish --continuous` or `usher serve --with publisher`", figures)
	case publisher.StateRetrying:
		r.fail("relay", "the relay tries again: "+s.Error, figures)
	case publisher.StateRebuilding:
		r.warn("relay", "the relay fills the JetStream stream again from the log", figures)
	default:
		r.ok("relay", figures)
	}
	age, err := d.ageAfter(ctx, s.Published)
	figures = map[string]any{"events": s.Lag, "oldest_seconds": seconds(age)}
	switch {
	case err != nil:
		r.fail("lag", err.Error(), nil)
	case age > oldEvent:
		r.warn("lag", "events wait to be published", figures)
	default:
		r.ok("lag", figures)
	}
}

// ageAfter is how old the first event after a position is; 0 where there is none.
func (d *deployment) ageAfter(ctx context.Context, position int64) (time.Duration, error) {
	events, err := d.store.ReadAll(ctx, position, 1)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return time.Since(events[0].RecordedAt), nil
}

// checkBroker looks at the JetStream stream and at the durable consumers that read it.
func checkBroker(ctx context.Context, d *deployment, r *report) {
	if d.natsURL == "" {
		r.warn("connection", "NATS_URL is not set, so nothing is published", nil)
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// What the user may not do is answered by nobody, and told beside.
	conn, err := d.connectNow(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(d.mayNot(err))
		}
	}))
	if err != nil {
		r.fail("connection", err.Error(), nil)
		return
	}
	defer conn.Close()
	rtt, err := conn.RTT()
	if err != nil {
		r.fail("connection", "NATS does not answer: "+err.Error(), nil)
		return
	}
	r.ok("connection", map[string]any{"server": conn.ConnectedServerVersion(), "rtt_ms": milliseconds(rtt)})
	relay, err := d.relay(conn)
	if err != nil {
		r.fail("stream", err.Error(), nil)
		return
	}
	s, err := relay.Inspect(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		r.fail("stream", "there is no JetStream stream "+publisher.DefaultStream+"; the relay makes it", nil)
		return
	case err != nil && context.Cause(ctx) != nil:
		r.fail("stream", context.Cause(ctx).Error(), nil)
		return
	case err != nil:
		r.fail("stream", err.Error(), nil)
		return
	}
	r.stream(d, s)
	for _, c := range s.Consumers {
		r.consumer(c)
	}
}

// violation is how the server tells which subject a user has no permission for.
var violation = regexp.MustCompile(`(?i)violation for (publish|subscription) to "([^"]+)"`)

// lacks says what the NATS user lacks permissions for.
func (d *deployment) lacks(violations ...error) string {
	var list []string
	for _, err := range violations {
		what := "do that: " + err.Error()
		if found := violation.FindStringSubmatch(what); found != nil {
			what = map[string]string{"publish": "publish to ", "subscription": "subscribe to "}[strings.ToLower(found[1])] + found[2]
		}
		list = append(list, what)
	}
	return fmt.Sprintf("the NATS user %s may not %s", cmp.Or(subscription.BrokerUser(d.natsURL), "of NATS_URL"), strings.Join(list, ", nor "))
}

// mayNot says what the NATS user lacks a permission for, and who has it.
func (d *deployment) mayNot(err error) error {
	return fmt.Errorf("%s; run the check as the user operator of deploy/nats/nats.conf, who may", d.lacks(err))
}

// consumer tells of a durable consumer: whether it is one of usher's own that somebody changed, or waits for its owner.
func (r *report) consumer(c publisher.ConsumerReport) {
	name := "consumer " + c.Name
	figures := map[string]any{"pending": c.Pending, "unacked": c.Unacked, "acked": c.Acked, "paused": c.Paused}
	_, perUser := c.Config.Metadata[cloudevent.MetadataPerUser]
	drift := subscription.Drift(c.Config)
	switch {
	case publisher.Intrudes(c.Config):
		r.fail(name, fmt.Sprintf("it delivers to %s, where usher's own requests go; a relay that runs removes it within seconds, and its log says so: find out who made it",
			c.Config.DeliverSubject), figures)
	case perUser:
		r.warn(name, "it is paused, since it filters by the subjects of a user, which there are no longer; give it the filter usher.v1.<shard>.>, "+
			"the shard being the last two digits of the user id, and resume it (`nats consumer edit`, `nats consumer resume`)", figures)
	case ownConsumer(c.Name) && len(drift) > 0:
		r.warn(name, fmt.Sprintf("somebody changed it: %v; the process that reads it sets it right within seconds", drift), figures)
	case ownConsumer(c.Name) && c.Paused:
		r.warn(name, fmt.Sprintf("it is paused; the relay does that for a moment while it fills the stream again, and otherwise `nats consumer resume %s %s` lets it go on",
			publisher.DefaultStream, c.Name), figures)
	default:
		r.ok(name, figures)
	}
}

// ownConsumer says whether usher reads through a durable consumer itself: for a read model, a webhook or mail.
func ownConsumer(name string) bool {
	return name == "mail" || strings.HasPrefix(name, "projection-") || strings.HasPrefix(name, "webhook-")
}

func (r *report) stream(d *deployment, s publisher.StreamReport) {
	figures := map[string]any{"first": s.First, "last": s.Last, "messages": s.Messages, "bytes": s.Bytes, "replicas": s.Replicas}
	switch {
	case s.Missing > 0:
		figures["missing_from"] = s.Missing
		r.fail("stream", fmt.Sprintf("messages are missing, the first at %d, and not because users were erased; a relay that runs fills the stream again within seconds, "+
			"and its log says so: see `usher outbox status`", s.Missing), figures)
	case len(s.Drift) > 0:
		r.warn("stream", fmt.Sprintf("its configuration is not the wanted one: %v; a relay that runs mends it where it may", s.Drift), figures)
	case s.Replicas < d.config.NATSReplicas:
		r.warn("stream", fmt.Sprintf("%s current, where %d are wanted", counted(s.Replicas, "replica is", "replicas are"), d.config.NATSReplicas), figures)
	default:
		r.ok("stream", figures)
	}
}

// checkProjections looks at every read model.
func checkProjections(ctx context.Context, d *deployment, r *report) {
	list, err := projections.NewCheckpoints(d.store).List(ctx)
	if err != nil {
		r.fail("read models", err.Error(), nil)
		return
	}
	known := map[string]bool{}
	for _, s := range list {
		known[s.Name] = true
		age, err := d.ageAfter(ctx, s.Position)
		figures := map[string]any{"position": s.Position, "lag": s.Lag, "age_seconds": seconds(age), "state": s.State, "generation": s.Generation, "parked": s.ParkedCount}
		switch {
		case err != nil:
			r.fail(s.Name, err.Error(), nil)
		case s.State == projections.StateFailing:
			r.fail(s.Name, "it can't go on: "+s.Error, figures)
		case s.State == projections.StateOutdated:
			r.fail(s.Name, s.Error, figures)
		case s.State == projections.StateStopped:
			r.fail(s.Name, "no process runs it; start `usher project` or `usher serve --with projections`", figures)
		case s.ParkedCount > 0:
			r.warn(s.Name, fmt.Sprintf("%s parked, of %s; see `usher projections list`", counted(s.ParkedCount, "event is", "events are"), counted(s.ParkedUsers, "user", "users")), figures)
		case s.Rebuild != nil && s.Rebuild.State == projections.RebuildFailed:
			r.warn(s.Name, "its rebuild failed: "+s.Rebuild.Error, figures)
		case s.Standby != nil && s.Standby.Error != "":
			r.warn(s.Name, "its standby is held up: "+s.Standby.Error, figures)
		case s.State == projections.StatePaused:
			r.warn(s.Name, "it is paused; `usher projections resume "+s.Name+"` lets it go on", figures)
		case age > oldEvent:
			r.warn(s.Name, "it is behind", figures)
		default:
			r.ok(s.Name, figures)
		}
	}
	for _, name := range projectionNames() {
		if !known[name] {
			r.fail(name, "it was never made; start `usher project` or `usher serve --with projections`", nil)
		}
	}
}
