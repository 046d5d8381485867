package webhook

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// Worker sends the events of every active webhook. Any number of processes may run one: for each webhook one of them, which
// holds its lease, works, and the others stand by.
type Worker struct {
	Service   *Service
	JetStream jetstream.JetStream // whose stream is followed
	Stream    string              // subscription.Stream when empty

	// Holder names this worker among all that there are; random when empty. One that comes back under the same name after
	// a crash need not wait for the end of its own leases, and must be sure that the other is dead.
	Holder string
	// LeaseTTL is how long a process that died keeps the others from taking over; 5 s when 0.
	LeaseTTL time.Duration
	// Poll is how often the webhooks are looked at, for what was changed by another process; 1 s when 0.
	Poll time.Duration
	// Metrics is told of every attempt; may be nil.
	Metrics *Metrics
	// Tracer records the attempts of events whose trace is sampled; nothing is when nil.
	Tracer trace.Tracer
}

const (
	defaultTTL  = 5 * time.Second
	defaultPoll = time.Second
	// tidyEvery is how often what is left of deleted webhooks, and what else is over, is looked for.
	tidyEvery = time.Minute

	consumerPrefix = "webhook-"
	leasePrefix    = "webhook/"
)

func (w *Worker) ttl() time.Duration   { return cmp.Or(w.LeaseTTL, defaultTTL) }
func (w *Worker) poll() time.Duration  { return cmp.Or(w.Poll, defaultPoll) }
func (w *Worker) logger() *slog.Logger { return w.Service.Logger }

// Run works until ctx ends, and then returns nil, after the requests that are on their way were answered or a few seconds
// have passed. Whatever fails is logged and tried again.
func (w *Worker) Run(ctx context.Context) error {
	holder := cmp.Or(w.Holder, eventstore.NewHolder())
	r := roster{worker: w, holder: holder, running: map[uuid.UUID]*running{}, broken: map[uuid.UUID]bool{}}
	defer r.stop()
	tick := time.NewTicker(w.poll())
	defer tick.Stop()
	var tidied time.Time
	failing := false
	for {
		list, err := w.Service.query(ctx, w.Service.DB, withSecrets, "WHERE s.status = 'active'")
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			w.logger().WarnContext(ctx, "webhooks are not seen; trying again", slog.Any("error", err))
		case err == nil:
			r.follow(ctx, list)
		}
		failing = err != nil
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			if err := w.tidy(ctx); err != nil && ctx.Err() == nil {
				w.logger().WarnContext(ctx, "something of deleted webhooks was left", slog.Any("error", err))
			}
		}
		select {
		case <-tick.C:
		case <-w.Service.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// roster is the endpoints that a worker has at work.
type roster struct {
	worker  *Worker
	holder  string
	running map[uuid.UUID]*running
	broken  map[uuid.UUID]bool // webhooks that can't be used, which was said
	group   errgroup.Group
}

type running struct {
	*endpoint
	cancel context.CancelFunc
	ended  chan struct{}
}

// follow starts the endpoints of webhooks that are new, tells the others what was changed, and stops those that are gone.
func (r *roster) follow(ctx context.Context, list []stored) {
	active := map[uuid.UUID]bool{}
	for _, hook := range list {
		active[hook.ID] = true
		t, err := r.worker.Service.target(hook)
		if err != nil {
			if !r.broken[hook.ID] {
				r.worker.logger().ErrorContext(ctx, "webhook can't be used", slog.String("webhook", hook.ID.String()), slog.Any("error", err))
			}
			r.broken[hook.ID] = true
			continue
		}
		delete(r.broken, hook.ID)
		if now, ok := r.running[hook.ID]; ok && !now.over() {
			now.see(t)
			continue
		}
		r.start(ctx, hook.ID, t)
	}
	maps.DeleteFunc(r.broken, func(id uuid.UUID, _ bool) bool { return !active[id] })
	for id, now := range r.running {
		if !active[id] {
			now.cancel()
		}
		if now.over() {
			delete(r.running, id)
		}
	}
}

func (r *running) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (r *roster) start(ctx context.Context, id uuid.UUID, t *target) {
	ctx, cancel := context.WithCancel(ctx)
	now := &running{endpoint: newEndpoint(r.worker, id, t), cancel: cancel, ended: make(chan struct{})}
	r.running[id] = now
	r.group.Go(func() error {
		defer close(now.ended)
		defer cancel()
		now.run(ctx, r.holder)
		return nil
	})
}

func (r *roster) stop() {
	for _, now := range r.running {
		now.cancel()
	}
	_ = r.group.Wait() // they fail with nothing
}

// target is what of a webhook may change while it is at work.
type target struct {
	url        *url.URL
	filters    []string
	signer     *signer
	pending    int
	dead       int
	deadInARow int
	changes    int64
}

func (s *Service) target(w stored) (*target, error) {
	if w.unusable != nil {
		return nil, w.unusable
	}
	to, err := url.Parse(w.URL)
	if err != nil {
		return nil, errors.New("its URL can't be read") // and not be shown
	}
	keys, err := openKeyRing(s.Log.Sealer(), w.ID, w.secrets)
	return &target{to, w.Events, newSigner(keys), w.Pending, w.Dead, w.deadInARow, w.changes}, err
}

// ConsumerName is the name of a webhook's durable consumer. Permissions of NATS can't tell the consumers of webhooks, which come and go,
// from those that others may make and edit; so nobody who is not shown the name can guess it.
func (s *Service) ConsumerName(id uuid.UUID) string {
	key := s.Log.Sealer().ReservationKey(eventstore.Reservation{Scope: "webhook-consumer", Value: id.String()})
	return consumerPrefix + id.String() + "-" + hex.EncodeToString(key[:16])
}
