package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/projections"
	"usher.example/subscription"
)

const (
	// What is timed, from a commit on.
	toSubscriber = "subscriber"
	toReadModel  = "read model"

	commitInterval = 5 * time.Millisecond // 200 a second
	arrivalWait    = 30 * time.Second     // for the last event of a round
)

func latencyBenches() []bench {
	against := func(what, q string) string { return "NOTIFY, publish, upsert, by hand: " + what + ", " + q }
	lines := func(name, what string, p50 float64) []line {
		return []line{
			{
				name: name + "-p50", subject: usher, yardstick: bare, against: against(what, "p50"), show: quantile("p50", what, 0.50),
				targets: []target{millisAtMost("p50", p50)},
			},
			{name: name + "-p99", subject: usher, yardstick: bare, against: against(what, "p99"), show: quantile("p99", what, 0.99)},
		}
	}
	return []bench{{
		about:   "from commit to subscriber, and to read model, at 200 events a second",
		lines:   append(lines("to-subscriber", toSubscriber, 3), lines("to-read-model", toReadModel, 6)...),
		seconds: 3,
		setup: func(s *stage) ([]side, error) {
			p, err := openPipeline(s)
			if err != nil {
				return nil, err
			}
			f, err := openFloor(s)
			if err != nil {
				return nil, err
			}
			return []side{{name: usher, run: p.run}, {name: bare, run: f.run}}, nil
		},
	}}
}

// journeys are the times of events on their way, by position.
type journeys struct {
	mu        sync.Mutex
	committed map[int64]time.Time
	arrived   map[string]map[int64]time.Time
	changed   chan struct{} // capacity 1: something arrived
}

func newJourneys() *journeys {
	return &journeys{
		committed: map[int64]time.Time{},
		arrived:   map[string]map[int64]time.Time{toSubscriber: {}, toReadModel: {}},
		changed:   make(chan struct{}, 1),
	}
}

func (j *journeys) commit(position int64, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.committed[position] = at
}

func (j *journeys) arrive(where string, position int64) {
	at := time.Now()
	j.mu.Lock()
	j.arrived[where][position] = at
	j.mu.Unlock()
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

func (j *journeys) here(n int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.arrived[toSubscriber]) >= n && len(j.arrived[toReadModel]) >= n
}

// finish waits until n events have arrived everywhere, answers with how long each took, and forgets them.
func (j *journeys) finish(ctx context.Context, n int) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, arrivalWait)
	defer cancel()
	for !j.here(n) {
		select {
		case <-j.changed:
		case <-ctx.Done():
			return tally{}, fmt.Errorf("not all of %d events arrived: %w", n, context.Cause(ctx))
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	t := tally{ops: n, times: map[string][]time.Duration{}}
	for where, arrived := range j.arrived {
		for position, at := range arrived {
			// The one who committed may be told last.
			t.times[where] = append(t.times[where], max(0, at.Sub(j.committed[position])))
		}
		clear(arrived)
	}
	clear(j.committed)
	return t, nil
}

// lasting is over after some time.
func lasting(length time.Duration) (over func() bool) {
	end := time.Now().Add(length)
	return func() bool { return !time.Now().Before(end) }
}

// steadily calls do every interval until it is over, and answers with how often.
func steadily(ctx context.Context, over func() bool, do func() error) (int, error) {
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	n := 0
	for ; !over(); n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n, context.Cause(ctx)
		}
		if err := do(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// pipeline is usher from the log to a subscriber and to the read model of users.
type pipeline struct {
	*journeys
	log         *logOn
	checkpoints *projections.Checkpoints
}

func openPipeline(s *stage) (*pipeline, error) {
	p := &pipeline{journeys: newJourneys()}
	b, err := s.broker()
	if err != nil {
		return nil, err
	}
	// One caller appends one event at a time, so a commit is one position.
	if p.log, err = s.openLog(eventstore.Options{OnCommit: func(c eventstore.CommitStats) { p.commit(c.Head, time.Now()) }}); err != nil {
		return nil, err
	}
	p.checkpoints = projections.NewCheckpoints(p.log.store)
	js, err := jetstream.New(b.conn)
	if err != nil {
		return nil, err
	}
	relay, err := p.log.relay(b.conn)
	if err != nil {
		return nil, err
	}
	if err := relay.Flush(s.ctx); err != nil { // makes the stream
		return nil, err
	}
	runner := projections.Runner{
		Projection: projections.UserProjection{}, DB: p.log.store, Log: p.log.log, Checkpoints: p.checkpoints, JetStream: js, Logger: quiet,
	}
	seen := int64(0)
	subscriber := subscription.Subscription{
		JetStream: js, Name: "bench", Logger: quiet,
		Checkpoint: func(context.Context) (int64, error) { return seen, nil },
		Handle: func(_ context.Context, events []eventstore.Event) error {
			for _, e := range events {
				p.arrive(toSubscriber, e.Position)
			}
			seen = events[len(events)-1].Position
			return nil
		},
	}
	ctx, stop := context.WithCancel(s.ctx)
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{relay.Run, runner.Run, subscriber.Run} {
		group.Go(func() error { return run(ctx) })
	}
	s.after(func() error { stop(); return group.Wait() })
	return p, nil
}

func (p *pipeline) run(ctx context.Context, length time.Duration) (tally, error) {
	positions := make(chan int64, 1<<16)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for position := range positions {
			if err := p.awaitReadModel(ctx, position); err != nil {
				return err
			}
			p.arrive(toReadModel, position)
		}
		return nil
	})
	n, err := steadily(ctx, lasting(length), func() error {
		a, err := registration()
		if err != nil {
			return err
		}
		r, err := p.log.log.Append(ctx, a)
		if err == nil {
			positions <- r.Position
		}
		return err
	})
	close(positions)
	if err := errors.Join(err, group.Wait()); err != nil {
		return tally{}, err
	}
	return p.finish(context.WithoutCancel(ctx), n)
}

// awaitReadModel waits as a request with Usher-Min-Position does.
func (p *pipeline) awaitReadModel(ctx context.Context, position int64) error {
	ctx, cancel := context.WithTimeout(ctx, arrivalWait)
	defer cancel()
	for {
		err := p.checkpoints.Await(ctx, projections.UsersName, position)
		if !errors.Is(err, projections.ErrUnknownProjection) || ctx.Err() != nil {
			return err
		}
	}
}
