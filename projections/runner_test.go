package projections_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/subscription"
)

const consumer = "projection-users"

func TestCatchesUpAndFollows(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.churn(t, 300)
		r := s.runner()
		r.BatchSize = 50
		start(t, r)
		s.await(t)
		s.exact(t)

		s.publish(t, cloudevent.Options{})
		s.awaitState(t, projections.StateRunning)
		s.churn(t, 200)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		s.exact(t)
		s.awaitState(t, projections.StateRunning) // it reads the log where the stream is slow
		if got, want := s.status(t), (projections.Status{Name: "users", Generation: 1, CodeVersion: thisVersion, State: projections.StateRunning}); true {
			got.UpdatedAt, got.Position = time.Time{}, 0
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		}
	})
}

// following starts a runner that follows the stream and never looks at the log by itself.
func (s *stack) following(t *testing.T) {
	t.Helper()
	r := s.runner()
	r.Poll = time.Hour
	start(t, r)
	s.churn(t, 20)
	s.publish(t, cloudevent.Options{})
	s.await(t)
	s.awaitState(t, projections.StateRunning)
}

func TestFollowsTheStreamAlone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.following(t)
		for range 10 {
			s.churn(t, 20)
			s.publish(t, cloudevent.Options{})
			s.await(t)
		}
		s.exact(t)
	})
}

func TestPersonalFieldsLeftOutOfTheStream(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.following(t)
		s.churn(t, 200)
		s.publish(t, cloudevent.Options{OmitPersonal: true})
		s.await(t)
		s.exact(t)
	})
}

func TestRedeliveryOutOfOrder(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		c, err := s.js.CreateConsumer(t.Context(), subscription.Stream, jetstream.ConsumerConfig{
			Durable: consumer, AckPolicy: jetstream.AckAllPolicy, AckWait: 100 * time.Millisecond, MaxDeliver: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.following(t)
		// A thief takes messages of the consumer and keeps them, so that they come again later.
		for range 10 {
			thief, err := c.Fetch(5, jetstream.FetchMaxWait(20*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			s.churn(t, 20)
			s.publish(t, cloudevent.Options{})
			for range thief.Messages() {
			}
		}
		s.await(t)
		devstack.Eventually(t, "all is acknowledged", func() bool {
			info, err := c.Info(t.Context())
			return err == nil && info.NumAckPending == 0 && info.NumPending == 0
		})
		s.exact(t)
	})
}

func TestJumpInTheStreamIsReadFromTheLog(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.following(t)
		for range 3 {
			devstack.Eventually(t, "the consumer is there", func() bool { // which is made after the projection is said to run
				_, err := s.js.PauseConsumer(t.Context(), subscription.Stream, consumer, time.Now().Add(time.Hour))
				return err == nil
			})
			s.churn(t, 100)
			s.publish(t, cloudevent.Options{})
			stream, err := s.js.Stream(t.Context(), subscription.Stream)
			if err != nil {
				t.Fatal(err)
			}
			last := stream.CachedInfo().State.LastSeq
			for _, back := range []uint64{1, 2, 30, 95} { // but the last, after which nothing would tell
				if err := stream.DeleteMsg(t.Context(), last-back); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.js.ResumeConsumer(t.Context(), subscription.Stream, consumer); err != nil {
				t.Fatal(err)
			}
			s.churn(t, 1)
			s.publish(t, cloudevent.Options{}) // which wakes the consumer
			s.await(t)
			s.exact(t)
		}
	})
}

func TestStoppedBroker(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 50)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		for range 2 {
			s.broker.Shutdown()
			s.churn(t, 50)
			s.await(t) // the log is read instead
			s.exact(t)
			if err := s.broker.Restart(); err != nil {
				t.Fatal(err)
			}
			devstack.Eventually(t, "the connection is back", s.js.Conn().IsConnected)
			s.publish(t, cloudevent.Options{})
			s.churn(t, 50)
			s.publish(t, cloudevent.Options{})
			s.await(t)
			s.exact(t)
		}
	})
}

func TestRebuiltFromZeroIsTheSame(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stop := start(t, s.runner())
		for range 10 {
			s.churn(t, 40)
			s.publish(t, cloudevent.Options{})
			s.await(t)
		}
		stop()
		grown := s.table(t, "users_1")
		for _, statement := range []string{"DELETE FROM projections", "DROP VIEW users_live", "DROP TABLE users_1", "DROP TABLE IF EXISTS user_terms_1"} {
			if _, err := s.db.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		s.checkpoints = projections.NewCheckpoints(s.db)
		start(t, s.runner())
		s.await(t)
		s.exact(t)
		if diff := cmp.Diff(grown, s.table(t, "users_1")); diff != "" {
			t.Errorf("built from zero (-grown +rebuilt):\n%s", diff)
		}
	})
}

// table reads every column of a table's rows, as text.
func (s *stack) table(t *testing.T, name string) (content []string) {
	t.Helper()
	row := "CAST(t AS text)"
	if s.db.Dialect() == eventstore.SQLite {
		row = `json_array(id, email, email_key, name, name_key, status, locked, disabled, email_verified, roles, created_at, updated_at, version, position)`
	}
	rows, err := s.db.Query(t.Context(), "SELECT "+row+" FROM "+name+" t ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		content = append(content, line)
	}
	if err := rows.Err(); err != nil || len(content) == 0 {
		t.Fatalf("table %s: %d rows, %v", name, len(content), err)
	}
	return content
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		if err := s.operator().Pause(t.Context(), "users"); !errors.Is(err, projections.ErrUnknownProjection) {
			t.Errorf("Pause() = %v, want %v", err, projections.ErrUnknownProjection)
		}
		start(t, s.runner())
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		if err := s.operator().Pause(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		devstack.Eventually(t, "the runner says that it is paused", func() bool { return s.output.Contains("projection paused") })
		if got := s.status(t); got.State != projections.StatePaused || got.Position != 20 && got.Lag == 0 {
			t.Errorf("status = %+v, want paused before what came since", got)
		}
		if err := s.operator().Resume(t.Context(), "users"); err != nil {
			t.Fatal(err)
		}
		s.await(t)
		s.exact(t)
		s.awaitState(t, projections.StateRunning)
	})
}

func TestAwait(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		soon := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}
		if err := s.checkpoints.Await(soon(), "users", 1); !errors.Is(err, projections.ErrBehind) {
			t.Errorf("Await() of a read model that is not made = %v, want %v", err, projections.ErrBehind)
		}
		start(t, s.runner())
		s.churn(t, 10)
		s.publish(t, cloudevent.Options{})
		s.await(t)
		at := s.status(t).Position
		if err := s.checkpoints.Await(soon(), "users", at+1); !errors.Is(err, projections.ErrBehind) {
			t.Errorf("Await() = %v, want %v", err, projections.ErrBehind)
		}
		elsewhere := projections.NewCheckpoints(s.db) // as in a process that runs no projections
		reached := make(chan error, 40)
		for i := range 20 {
			for _, c := range []*projections.Checkpoints{s.checkpoints, elsewhere} {
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					reached <- c.Await(ctx, "users", at+int64(i)+1)
				}()
			}
		}
		s.churn(t, 20)
		s.publish(t, cloudevent.Options{})
		for range 40 {
			if err := <-reached; err != nil {
				t.Error(err)
			}
		}
	})
}

func (s *stack) status(t *testing.T) projections.Status {
	t.Helper()
	list, err := s.checkpoints.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("List() = %v, %v, want one projection", list, err)
	}
	return list[0]
}

func (s *stack) awaitState(t *testing.T, want projections.State) {
	t.Helper()
	devstack.Eventually(t, "the state is "+string(want), func() bool { return s.status(t).State == want })
}

// A message that is not the log's is applied no more where one that is comes after it in the same batch.
func TestForeignMessageInBetween(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.following(t)
		devstack.Eventually(t, "the consumer is there", func() bool {
			_, err := s.js.PauseConsumer(t.Context(), subscription.Stream, consumer, time.Now().Add(time.Hour))
			return err == nil
		})
		before, err := s.log.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.churn(t, 20)
		events, err := s.log.ReadAll(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events[before:] {
			if e.Position == before+5 { // somebody registers who exists nowhere
				forged := events[0]
				forged.Position, forged.ID, forged.Stream = e.Position, uuid.New(), eventstore.UserStream(uuid.New())
				e = forged
			}
			s.publishOne(t, e, cloudevent.Options{})
		}
		if _, err := s.js.ResumeConsumer(t.Context(), subscription.Stream, consumer); err != nil {
			t.Fatal(err)
		}
		s.churn(t, 1)
		s.publish(t, cloudevent.Options{}) // which wakes the consumer
		s.await(t)
		s.exact(t)
		if !s.output.Contains("events that the log does not have") {
			t.Error("nothing is logged of it")
		}
	})
}
