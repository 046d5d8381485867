package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"usher.example/eventstore"
)

func stormBenches() []bench {
	const (
		unbounded   = "unbounded storm"
		gets        = "GETs alone"
		logins      = "logins alone"
		usherDuring = "storm"
	)
	p99 := quantile("p99", getTimes, 0.99)
	return []bench{{
		about: fmt.Sprintf("16 callers log in, bcrypt cost %d, 4 callers GET /v1/me 100 times a second each", stormCost),
		lines: []line{
			{
				name: "storm-logins", subject: usherDuring, yardstick: logins, against: "the logins alone", show: rate,
				targets: []target{rateAtLeast(0.95)},
			},
			{
				name: "storm-get", subject: usherDuring, yardstick: gets, against: "the GETs alone, p99", show: p99, noCPU: true,
				targets: []target{quantileAtMost("p99", 3)},
			},
			{
				name: "storm-logins-unbounded", subject: usherDuring, yardstick: unbounded, against: "hashing without a pool", show: rate,
			},
			{
				name: "storm-get-unbounded", subject: usherDuring, yardstick: unbounded, against: "hashing without a pool, p99", show: p99, noCPU: true,
			},
		},
		seconds: 3,
		setup: func(s *stage) ([]side, error) {
			l, err := s.openLog(eventstore.Options{})
			if err != nil {
				return nil, err
			}
			pooled, err := openStorm(s, l, usherServer, nil)
			if err != nil {
				return nil, err
			}
			wild, err := openStorm(s, l, unboundedServer, pooled.visitors)
			if err != nil {
				return nil, err
			}
			return []side{
				pooled.side(usherDuring, true, true), wild.side(unbounded, true, true),
				pooled.side(gets, false, true), pooled.side(logins, true, false),
			}, nil
		},
	}}
}

const (
	getTimes     = "get"
	stormCost    = 10 // a quarter of the default's work, so that a round has many logins
	stormLogins  = 16
	stormGetters = 4
	getInterval  = 10 * time.Millisecond
)

// storm is a server with those who besiege it.
type storm struct {
	server   *httpServer
	postgres *process
	visitors []visitor
	logins   []*client
	gets     []*client
}

// openStorm starts a server. Users are those of another server on the same log, or new ones.
func openStorm(s *stage, l *logOn, kind serverKind, users []visitor) (*storm, error) {
	server, err := s.serve(l, serverConfig{Kind: kind, Cost: stormCost})
	if err != nil {
		return nil, err
	}
	st := &storm{server: server, postgres: s.postgres, visitors: slices.Clone(users)}
	if users == nil {
		if st.visitors, err = s.register(server, stormLogins); err != nil {
			return nil, err
		}
	}
	for i := range stormGetters {
		if err := st.visitors[i].enter(server); err != nil {
			return nil, err
		}
	}
	if st.logins, err = s.dial(server, stormLogins); err != nil {
		return nil, err
	}
	st.gets, err = s.dial(server, stormGetters)
	return st, err
}

// side besieges the server with logins, with GETs, or with both. Its operations are the logins, or the GETs if there are
// no logins.
func (st *storm) side(name string, logins, gets bool) side {
	return side{name: name, counts: []*process{st.server.process, st.postgres}, run: func(ctx context.Context, length time.Duration) (t tally, err error) {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		over, end := context.WithCancel(ctx)
		defer end()
		if !logins {
			over, end = context.WithTimeout(ctx, length)
			defer end()
		}
		var group sync.WaitGroup
		times := make([][]time.Duration, stormGetters)
		for i := range stormGetters {
			if gets {
				group.Go(func() {
					var err error
					if times[i], err = st.getSteadily(over, i); err != nil {
						stop(err)
					}
				})
			}
		}
		if logins {
			t, err = hammer(ctx, stormLogins, length, func(_ context.Context, caller int) error {
				_, err := st.logins[caller].do(st.visitors[caller].login)
				return err
			})
			end()
		}
		group.Wait()
		if err == nil {
			err = context.Cause(ctx)
		}
		t.times = map[string][]time.Duration{getTimes: slices.Concat(times...)}
		if !logins {
			t.ops = len(t.times[getTimes])
		}
		return t, err
	}}
}

// getSteadily makes a GET every interval until ctx ends, and answers with how long each took. What is late because the
// one before it was slow has been waiting since it was due.
func (st *storm) getSteadily(ctx context.Context, i int) ([]time.Duration, error) {
	var times []time.Duration
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := time.Now(); ; due = due.Add(getInterval) {
		began := due
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return times, nil
			}
			began = time.Now() // a timer that is late is not the server's fault
		}
		if ctx.Err() != nil {
			return times, nil
		}
		if _, err := st.gets[i].do(st.visitors[i].me); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
}
