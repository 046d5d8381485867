package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/server"
	"usher.example/token"
)

// process is what one process does: the API, the relay, projections, webhooks, or several of them.
type process struct {
	api         bool
	publisher   bool
	projections []string // names
	webhooks    bool
	showMail    bool // in the log, where no mail server is set
	listeners
	conn  *nats.Conn                 // nil where there is no NATS, for a process that is just an API
	ready func(madeAdmin bool) error // is called once the API is about to answer
}

// parseRoles reads the value of --with.
func parseRoles(names []string) (process, error) {
	p := process{api: true}
	for _, name := range names {
		switch strings.TrimSpace(name) {
		case "publisher":
			p.publisher = true
		case "projections":
			p.projections = projectionNames()
		case "webhooks":
			p.webhooks = true
		default:
			return p, fmt.Errorf("%w: --with takes publisher, projections and webhooks, separated by commas", errUse)
		}
	}
	return p, nil
}

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "serve",
		Short:   "Run the API against Postgres and NATS",
		Example: "  usher serve --with publisher,projections,webhooks",
	}
	with := c.Flags().StringSlice("with", nil, "what else to run in this process: publisher, projections, webhooks")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := parseRoles(*with)
		if err != nil {
			return err
		}
		config, err := configFor(cmd)
		if err != nil {
			return err
		}
		if config.DatabaseURL == "" {
			return errors.New("DATABASE_URL is not set; expected " + expectOf("DATABASE_URL") + ", or run `usher dev`")
		}
		p.publisher = p.publisher || config.OutboxAutoProcess
		logger := newLogger(config, cmd.ErrOrStderr())
		d, err := openPostgres(cmd.Context(), config, logger)
		if err != nil {
			return err
		}
		defer d.close()
		d.warnOfPublicURL()
		if d.natsURL != "" || p.publisher || len(p.projections) > 0 || p.webhooks {
			if p.conn, err = d.connect(); err != nil {
				return err
			}
			defer p.conn.Close()
		}
		if p.listeners, err = listen(addr{config.HTTPAddr, "HTTP_ADDR"},
			addr{cmp.Or(config.MetricsAddr, defaultMetricsAddr), "METRICS_ADDR"}); err != nil {
			return errors.Join(err, p.listeners.close())
		}
		p.ready = func(madeAdmin bool) error {
			if madeAdmin {
				logger.Info("made the first administrator from ADMIN_EMAIL and ADMIN_PASSWORD")
			}
			logger.Info("listening", slog.String("http", p.http.Addr().String()),
				slog.String("metrics", p.metrics.Addr().String()), slog.String("version", version))
			return nil
		}
		return d.serve(cmd.Context(), p)
	}
	return c
}

// listeners are where a process answers. One that is nil is not served.
type listeners struct{ http, metrics net.Listener }

// addr is an address to listen at, and what it is set by.
type addr struct{ at, setBy string }

// listen listens where the API answers and where /metrics does. It names every address that can't be had, and answers with
// what it could open, to be closed.
func listen(api, metrics addr) (l listeners, err error) {
	var errs [2]error
	l.http, errs[0] = listenAt(api)
	l.metrics, errs[1] = listenAt(metrics)
	return l, errors.Join(errs[:]...)
}

func listenAt(a addr) (net.Listener, error) {
	l, err := net.Listen("tcp", a.at)
	if err != nil {
		return nil, fmt.Errorf("set %s to another address: %w", a.setBy, err)
	}
	return l, nil
}

func (l listeners) close() error {
	var errs []error
	for _, listener := range []net.Listener{l.http, l.metrics} {
		if listener != nil {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

// defaultMetricsAddr is where serve listens for scrapes unless METRICS_ADDR says otherwise.
const defaultMetricsAddr = ":9090"

// listenMetrics listens where METRICS_ADDR says, for processes that have no other reason to listen.
func (d *deployment) listenMetrics() (l listeners, err error) {
	if d.config.MetricsAddr == "" {
		return l, nil
	}
	if l.metrics, err = listenAt(addr{d.config.MetricsAddr, "METRICS_ADDR"}); err != nil {
		return l, err
	}
	d.logger.Info("listening", slog.String("metrics", l.metrics.Addr().String()), slog.String("version", version))
	return l, nil
}

// errDone ends what serves the API once the API has finished its requests.
var errDone = errors.New("shutting down")

// gcPercent lets the heap grow to five times what is live, unless GOGC says otherwise. That is a few MB, so the default
// would collect many times a second, and each time stop the threads that hash passwords, which are slow to stop.
const gcPercent = 400

// serve does what a process does until ctx ends or a part of it fails. The API goes first: what its requests need runs
// until the last of them is answered.
func (d *deployment) serve(ctx context.Context, p process) error {
	if !collectorChosen() {
		debug.SetGCPercent(gcPercent)
	}
	tracer, stopTracing, err := startTracing(ctx, d.logger)
	if err != nil {
		return err
	}
	defer stopTracing()
	d.tracer = tracer
	erased, err := d.awaitLedger(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while it waited
		}
		return err
	}
	background, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	group, background := errgroup.WithContext(background)
	front, err := d.start(background, group, p, erased)
	if err != nil {
		stop(err)
	} else {
		group.Go(func() error {
			// A part that fails ends the API too.
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(background, cancel)()
			defer stop(errDone)
			return front(ctx)
		})
	}
	if waited := group.Wait(); err == nil && !errors.Is(waited, errDone) {
		err = waited
	}
	if err == nil {
		d.logger.Info("stopped")
	}
	return err
}

// start starts everything but the API's requests in the group, and answers with what serves those, once no read model shows
// those who were erased up to a position.
func (d *deployment) start(ctx context.Context, group *errgroup.Group, p process, erased int64) (front func(context.Context) error, err error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(d.metrics.collectors()...)
	registry.MustRegister(poolCollectors(d.store)...)
	registry.MustRegister(&standing{d: d})
	checkpoints := projections.NewCheckpoints(d.store)
	if p.conn != nil {
		group.Go(func() error { return publisher.Announce(ctx, d.log, p.conn) })
	}
	if p.publisher {
		relay, err := d.relay(p.conn)
		if err != nil {
			return nil, err
		}
		registry.MustRegister(relayCollectors(relay)...)
		group.Go(func() error { return relay.Run(ctx) })
	}
	for _, projection := range allProjections() {
		if !slices.Contains(p.projections, projection.Name()) {
			continue
		}
		js, err := jetstream.New(p.conn)
		if err != nil {
			return nil, err
		}
		runner := &projections.Runner{Projection: projection, DB: d.store, Log: d.log, Checkpoints: checkpoints, JetStream: js,
			Tracer: d.tracer, Logger: d.logger, Holder: d.holder}
		group.Go(func() error { return runner.Run(ctx) })
	}
	if p.webhooks {
		worker, err := d.webhookWorker(p.conn)
		if err != nil {
			return nil, err
		}
		registry.MustRegister(worker.Metrics)
		group.Go(func() error { return worker.Run(ctx) })
	}
	if p.metrics != nil {
		group.Go(func() error { return server.ServeMetrics(ctx, p.metrics, registry, d.readiness(p), d.logger) })
	}
	if p.api {
		front, err := d.startAPI(ctx, group, p, registry, checkpoints)
		return func(ctx context.Context) error {
			if err := d.awaitReadModels(ctx, checkpoints, erased); err != nil {
				return err
			}
			return front(ctx)
		}, err
	}
	return func(ctx context.Context) error { <-ctx.Done(); return nil }, nil
}

// startAPI starts what the API stands on in the group, and answers with what serves its requests.
func (d *deployment) startAPI(ctx context.Context, group *errgroup.Group, p process, registry *prometheus.Registry,
	checkpoints *projections.Checkpoints,
) (func(context.Context) error, error) {
	c := d.config
	pool, err := password.NewPool(password.PoolConfig{Cost: c.BcryptRounds, Workers: c.HashWorkers})
	if err != nil {
		return nil, err
	}
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: c.accessLifetime()})
	policy, err := c.passwordPolicy()
	if err != nil {
		return nil, err
	}
	keys := newKeyring(d.logger)
	var users *identity.Service
	clients := client.New(client.Config{Log: d.log, DB: d.store, HTTP: d.outbound(), Logger: d.logger, Current: func() bool { return users.Current() }})
	users = identity.New(identity.Config{
		Log: d.log, Store: d.store, DB: d.store, Passwords: pool,
		Policy:                  policy,
		Rehash:                  c.RehashCheck,
		EnumerationSafe:         c.EnumerationSafe,
		LoginNeedsVerifiedEmail: c.LoginNeedsVerified,
		RefreshKey:              d.refreshKey,
		CodeKey:                 d.codeKey,
		PasswordMaxAge:          days(c.PasswordMaxAgeDays),
		RateLimits:              c.RateLimits == "on",
		Issuer:                  publicHost(c.AccountURL),
		SessionMax:              days(c.SessionMaxDays),
		SessionIdle:             days(c.JWTRefreshDays),
		UserAttributes:          c.UserAttributes,
		ReuseGrace:              time.Duration(c.JWTReuseGrace) * time.Second,
		SessionEnded:            revocations.EndSession,
		KeyRotated:              keys.notify,
		ClientChanged:           clients.Changed,
		Forked: func() (done func()) {
			checkpoints.Forget()
			keys.notify()
			return revocations.Renew()
		},
		LoadKeys:       keys.load,
		AccessLifetime: c.accessLifetime(),
		Ledger:         d.ledger(),
		Logger:         d.logger,
	})
	if err := checkRoles(ctx, users); err != nil {
		return nil, err
	}
	if err := clients.Adopt(ctx); err != nil {
		return nil, err
	}
	group.Go(func() error { return pool.Run(ctx) })
	group.Go(func() error { return users.Follow(ctx, d.wake(ctx, p.conn, users)) })
	group.Go(func() error { return users.RecordFailures(ctx) })
	group.Go(func() error { return users.RecordUses(ctx) })
	group.Go(func() error { return users.Sweep(ctx, cmp.Or(d.holder, rand.Text())) })
	group.Go(func() error { return clients.Sweep(ctx) })
	madeAdmin := false
	if c.AdminEmail != "" {
		if _, madeAdmin, err = users.EnsureAdmin(ctx, c.AdminEmail, password.Password(c.AdminPassword)); err != nil {
			return nil, fmt.Errorf("make the first administrator from ADMIN_EMAIL and ADMIN_PASSWORD: %w", err)
		}
	}
	d.settleErasures(ctx, users)
	if err := d.startMail(ctx, group, p, registry, users); err != nil {
		return nil, err
	}
	if err := keys.start(ctx, c, users); err != nil {
		return nil, err
	}
	group.Go(func() error { return keys.run(ctx) })
	front, err := d.front(p, registry, foundation{users, pool, keys, clients, revocations, checkpoints})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := p.ready(madeAdmin); err != nil {
			return err
		}
		return front.Run(ctx, p.http)
	}, nil
}

// checkRoles keeps users who have had the name of a role since before it meant anything from doing what it means.
func checkRoles(ctx context.Context, users *identity.Service) error {
	list, err := users.UnadoptedRoles(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	return fmt.Errorf("%s had a role before it was one of usher's own: list them by `usher users roles unadopted`; then run `usher users roles adopt %s`, or `rename` where something else is meant",
		counted(len(list), "user", "users"), list[0].Role)
}

// wake is signalled when another process may have appended. While NATS is cut off, the service is told not to rely on it.
func (d *deployment) wake(ctx context.Context, conn *nats.Conn, users *identity.Service) <-chan struct{} {
	if conn == nil {
		users.WakeCut(true)
		return nil
	}
	wake := make(chan struct{}, 1)
	signal := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	if _, err := conn.Subscribe(publisher.AppendedSubject, func(*nats.Msg) { signal() }); err != nil {
		d.logger.Error("commits of other processes are not heard of", slog.Any("error", err))
		users.WakeCut(true)
		return nil
	}
	users.WakeCut(!conn.IsConnected())
	changes := conn.StatusChanged()
	go func() {
		defer conn.RemoveStatusListener(changes)
		for {
			select {
			case status := <-changes:
				users.WakeCut(status != nats.CONNECTED)
				signal()
			case <-ctx.Done():
				return
			}
		}
	}()
	return wake
}
