package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity/mail"
	"usher.example/projections"
	"usher.example/publisher"
	"usher.example/publisher/webhook"
)

// logMetrics tells how appends go.
type logMetrics struct {
	duration prometheus.Histogram
	batch    prometheus.Histogram
	events   prometheus.Counter
}

func newLogMetrics() *logMetrics {
	return &logMetrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "usher_commit_duration_seconds", Help: "How long a commit of waiting appends took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "usher_commit_appends", Help: "Appends that shared a commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "usher_events_appended_total", Help: "Events that this process wrote.",
		}),
	}
}

// observe is told of each commit.
func (m *logMetrics) observe(s eventstore.CommitStats) {
	m.duration.Observe(s.Duration.Seconds())
	m.batch.Observe(float64(s.Appends))
	m.events.Add(float64(s.Events))
}

func (m *logMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.batch, m.events}
}

// relayCollectors count what the relay of this process did. How far the relay of the deployment is, any process tells: see
// standing.
func relayCollectors(r *publisher.Relay) []prometheus.Collector {
	counter := func(name, help string, value func(publisher.Counters) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
			return float64(value(r.Counters()))
		})
	}
	return []prometheus.Collector{
		counter("usher_relay_resyncs_total", "Times the relay began anew from the state of the JetStream stream.",
			func(c publisher.Counters) int64 { return c.Resyncs }),
		counter("usher_relay_tails_lost_total", "Times the JetStream stream had lost its newest events.",
			func(c publisher.Counters) int64 { return c.TailsLost }),
		counter("usher_relay_rebuilds_total", "Times the JetStream stream was filled again from the log.",
			func(c publisher.Counters) int64 { return c.Rebuilds }),
		counter("usher_relay_restores_total", "Times the JetStream stream was made a copy again of a log that had another history than was published.",
			func(c publisher.Counters) int64 { return c.Restores }),
	}
}

// poolCollectors tell of the connections to Postgres that everything but commits share; SQLite has none.
func poolCollectors(store eventstore.Store) []prometheus.Collector {
	pg, ok := store.(*postgres.Store)
	if !ok {
		return nil
	}
	gauge := func(name, help string, value func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(pg.Stat()) })
	}
	return []prometheus.Collector{
		gauge("usher_database_connections", "Open connections to the database.", func(s *pgxpool.Stat) float64 { return float64(s.TotalConns()) }),
		gauge("usher_database_connections_busy", "Connections at work.", func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) }),
		gauge("usher_database_connections_max", "DATABASE_MAX_CONNS.", func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "usher_database_waits_total", Help: "Times somebody had to wait for a connection.",
		}, func() float64 { return float64(pg.Stat().EmptyAcquireCount()) }),
	}
}

// standing tells how far the whole deployment is, as the database has it: the same in every process. It is read when it
// is scraped, and at most once in a while however often that is.
type standing struct {
	d *deployment

	mu      sync.Mutex
	read    time.Time
	metrics []prometheus.Metric
}

const (
	standingFor  = time.Second
	standingTime = 3 * time.Second // for all the queries of a scrape
)

var (
	headDesc       = prometheus.NewDesc("usher_log_head_position", "The position of the newest event.", nil, nil)
	publishedDesc  = prometheus.NewDesc("usher_relay_position", "The position of the newest event that is published.", nil, nil)
	relayLagDesc   = prometheus.NewDesc("usher_relay_lag_events", "Events that are not published yet.", nil, nil)
	relayAgeDesc   = prometheus.NewDesc("usher_relay_lag_seconds", "How long the oldest of them has been waiting.", nil, nil)
	relayUpDesc    = prometheus.NewDesc("usher_relay_running", "1 while a relay publishes, 0 while none runs or it can't go on.", nil, nil)
	relayHaltDesc  = prometheus.NewDesc("usher_relay_halted", "1 while the relay needs an operator.", nil, nil)
	checkpointDesc = prometheus.NewDesc("usher_projection_position", "The checkpoint of a projection.", []string{"projection"}, nil)
	lagDesc        = prometheus.NewDesc("usher_projection_lag_events", "Events that are not in a read model yet.", []string{"projection"}, nil)
	ageDesc        = prometheus.NewDesc("usher_projection_lag_seconds", "How long the oldest of them has been waiting.", []string{"projection"}, nil)
	upDesc         = prometheus.NewDesc("usher_projection_running", "1 while a process keeps a read model up to date.", []string{"projection"}, nil)
	pendingDesc    = prometheus.NewDesc("usher_webhook_pending", "Deliveries to webhooks that are pending.", nil, nil)
	deadDesc       = prometheus.NewDesc("usher_webhook_dead_letters", "Deliveries to webhooks that are dead.", nil, nil)
	mailLagDesc    = prometheus.NewDesc("usher_mail_lag_events", "Events that were not looked at yet for the mails that they call for.", nil, nil)
	mailAgeDesc    = prometheus.NewDesc("usher_mail_lag_seconds", "How long the oldest of them has been waiting.", nil, nil)
	mailUpDesc     = prometheus.NewDesc("usher_mail_running", "1 while a process sends mail; absent where mail was never set up.", nil, nil)
	mailWaitDesc   = prometheus.NewDesc("usher_mail_waiting_seconds", "How long the oldest mail waits that no mailbox has put off.", nil, nil)
	parkedDesc     = prometheus.NewDesc("usher_projection_parked_events", "Events that a projection set aside.", []string{"projection"}, nil)
)

// Describe implements prometheus.Collector. The names of projections are not known beforehand, so nothing is promised.
func (*standing) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. Where the database does not answer in time there is nothing to tell, which
// alerts take as a sign of its own.
func (s *standing) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) > standingFor {
		ctx, cancel := context.WithTimeout(context.Background(), standingTime)
		defer cancel()
		var err error
		if s.metrics, err = s.d.readStanding(ctx); err != nil {
			s.d.logger.Warn("how far the deployment is can't be read for a scrape", slog.Any("error", err))
		}
		s.read = time.Now()
	}
	for _, m := range s.metrics {
		out <- m
	}
}

func (d *deployment) readStanding(ctx context.Context) (list []prometheus.Metric, err error) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		list = append(list, prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...))
	}
	relay, err := publisher.ReadStatus(ctx, d.log, d.store, publisher.DefaultStream, time.Now())
	if err != nil {
		return nil, err
	}
	age, err := d.ageAfter(ctx, relay.Published)
	if err != nil {
		return nil, err
	}
	gauge(headDesc, float64(relay.Head))
	gauge(publishedDesc, float64(relay.Published))
	gauge(relayLagDesc, float64(relay.Lag))
	gauge(relayAgeDesc, age.Seconds())
	gauge(relayUpDesc, one(relay.State == publisher.StateRunning))
	gauge(relayHaltDesc, one(relay.State == publisher.StateHalted || relay.State == publisher.StateBlocked))
	models, err := projections.NewCheckpoints(d.store).List(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range models {
		if age, err = d.ageAfter(ctx, m.Position); err != nil {
			return nil, err
		}
		gauge(checkpointDesc, float64(m.Position), m.Name)
		gauge(lagDesc, float64(m.Lag), m.Name)
		gauge(ageDesc, age.Seconds(), m.Name)
		gauge(upDesc, one(m.State == projections.StateRunning || m.State == projections.StateCatchingUp), m.Name)
		gauge(parkedDesc, float64(m.ParkedCount), m.Name)
	}
	mails, err := mail.ReadStatus(ctx, d.store)
	if err != nil && !errors.Is(err, eventstore.ErrNoRows) {
		return nil, err
	}
	if err == nil {
		if age, err = d.ageAfter(ctx, mails.Position); err != nil {
			return nil, err
		}
		gauge(mailLagDesc, float64(mails.Lag))
		gauge(mailAgeDesc, age.Seconds())
		gauge(mailUpDesc, one(mails.Running))
		gauge(mailWaitDesc, mailAge(mails).Seconds())
	}
	hooks, err := d.webhooks.List(ctx, uuid.Nil, webhook.MaxWebhooks)
	if err != nil {
		return nil, err
	}
	pending, dead := 0, 0
	for _, h := range hooks {
		pending, dead = pending+h.Pending, dead+h.Dead
	}
	gauge(pendingDesc, float64(pending))
	gauge(deadDesc, float64(dead))
	return list, nil
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
