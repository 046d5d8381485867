package mail

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/devstack/mailserver"
	"usher.example/publisher"
)

// recipients are whom the server's mails went to.
func (s *stack) recipients() []string {
	var list []string
	for _, m := range s.server.Mails() {
		list = append(list, m.To)
	}
	return list
}

// A mail server that is away delays mails and loses none. Nobody but the log is told, and that once.
func TestServerAway(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.server.Stop()
		m := s.started(t, nil)
		var want []string
		for i := range 5 {
			email := fmt.Sprintf("u%d@example.org", i)
			s.register(t, email)
			want = append(want, email)
		}
		devstack.Eventually(t, "the mailer has tried", func() bool { return s.output.Count("can't be handed over") > 0 && m.waiting.Load() == 5 })
		if status, err := ReadStatus(t.Context(), s.db); err != nil || status.Waiting != 5 || status.Since.IsZero() {
			t.Errorf("ReadStatus() = %+v, %v, want 5 that wait", status, err)
		}
		if err := s.server.Resume(); err != nil {
			t.Fatal(err)
		}
		s.await(t, 5)
		s.settle(t)
		seen := map[string]bool{}
		for _, to := range s.recipients() {
			seen[to] = true
		}
		for _, to := range want {
			if !seen[to] {
				t.Errorf("no mail to %s", to)
			}
		}
		m.wantCount(t, kindVerify, outcomeSent, 5)
		if n := s.output.Count("can't be handed over"); n != 1 {
			t.Errorf("the outage is logged %d times, want once", n)
		}
		devstack.Eventually(t, "the end of the outage is logged", func() bool { return s.output.Count("mail goes on") == 1 })
		if strings.Contains(s.output.String(), "@example.org") {
			t.Error("the log has addresses")
		}
	})
}

// A mailbox that puts its mail off waits by itself, longer each time; one that refuses it gets none.
func TestMailboxes(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		answer := func(to string) error {
			switch to {
			case "busy@example.org":
				return mailserver.Refuse(451, smtp.EnhancedCode{4, 3, 0})
			case "gone@example.org":
				return mailserver.Refuse(550, smtp.EnhancedCode{5, 1, 1})
			}
			return nil
		}
		s.server.OnRcpt(answer)
		m := s.started(t, nil)
		for _, email := range []string{"busy@example.org", "gone@example.org", "ada@example.org"} {
			s.register(t, email)
		}
		if mail := s.await(t, 1); mail.To != "ada@example.org" {
			t.Errorf("mail to %q, want ada@example.org", mail.To)
		}
		s.settle(t)
		m.wantCount(t, kindVerify, outcomeRefused, 1)
		m.wantCount(t, kindVerify, outcomeDelayed, 1)
		m.wantCount(t, kindVerify, outcomeSent, 1)
		if !strings.Contains(s.output.String(), "refused the message with 550") || strings.Contains(s.output.String(), "@example.org") {
			t.Error("the log lacks the refusal, or has addresses")
		}
		for attempts := 1; attempts < 4; attempts++ {
			s.clock.add(backoff(attempts))
			m.signal()
			s.settle(t)
			m.wantCount(t, kindVerify, outcomeDelayed, float64(attempts+1))
		}
		s.server.OnRcpt(nil)
		s.clock.add(backoff(4))
		m.signal()
		if mail := s.await(t, 2); mail.To != "busy@example.org" {
			t.Errorf("mail to %q, want busy@example.org", mail.To)
		}

		// One that never takes it is given up after a day.
		s.server.OnRcpt(answer)
		if err := s.users.RequestPasswordReset(t.Context(), "busy@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		s.settle(t)
		for range maxAttempts {
			s.clock.add(lastBackoff)
			m.signal()
			s.settle(t)
		}
		m.wantCount(t, kindReset, outcomeDelayed, maxAttempts-1)
		m.wantCount(t, kindReset, outcomeGivenUp, 1)
		var n int
		if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM mails`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d mails are left, %v, want none", n, err)
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for attempts := 1; attempts <= 8; attempts++ {
		got = append(got, backoff(attempts)/time.Minute)
	}
	if diff := cmp.Diff([]time.Duration{1, 2, 4, 8, 16, 32, 60, 60}, got); diff != "" {
		t.Errorf("backoff in minutes (-want +got):\n%s", diff)
	}
	if last := backoff(maxAttempts); last != lastBackoff {
		t.Errorf("backoff(%d) = %v, want %v", maxAttempts, last, lastBackoff)
	}
}

// A mail that breaks the connection each time keeps nobody else from theirs, and neither does a server that hangs.
func TestMailThatBreaksTheConnection(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		s.server.OnData(func(to string) error {
			switch to {
			case "cut@example.org":
				return mailserver.ErrDrop
			case "hang@example.org":
				<-hang
			}
			return nil
		})
		m := s.mailer(t, func(c *Config) { c.Transport = s.smtp(t, func(c *SMTPConfig) { c.Timeout = 200 * time.Millisecond }) })
		for _, email := range []string{"cut@example.org", "hang@example.org", "ada@example.org", "eve@example.org"} {
			s.register(t, email)
		}
		devstack.Background(t, m.Run)
		devstack.Eventually(t, "the others get theirs", func() bool {
			got := strings.Join(s.recipients(), " ")
			return strings.Contains(got, "ada@example.org") && strings.Contains(got, "eve@example.org")
		})
	})
}

// While NATS is away mails that are to be sent wait for it; what was written down before goes out all the same.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.started(t, nil)
		s.register(t, "first@example.org")
		s.await(t, 1)
		s.broker.Shutdown()
		s.register(t, "second@example.org")
		if err := s.users.RequestPasswordReset(t.Context(), "first@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		if err := s.broker.Restart(); err != nil {
			t.Fatal(err)
		}
		s.await(t, 3)
		s.settle(t)
		s.await(t, 3)
	})
}

// A code that was not sent yet is not sent once another was asked for.
func TestOneCodeAtATime(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		user := s.register(t, "ada@example.org")
		m := s.started(t, nil)
		s.server.OnRcpt(refusing(451, 4, 3, 0))
		for range 3 {
			s.append(t, user, identity.ActorAnonymous, identity.PasswordResetRequested{})
			s.append(t, user, identity.ActorUser(user), identity.EmailVerificationRequested{})
		}
		s.settle(t)
		s.server.OnRcpt(nil)
		s.clock.add(lastBackoff)
		m.signal()
		s.settle(t)
		s.await(t, 2)
	})
}

// forge puts messages into the stream that look like events that come next and are none, each about a user.
func (s *stack) forge(t *testing.T, eventType string, users ...uuid.UUID) {
	t.Helper()
	for _, user := range users {
		stream, err := s.js.Stream(t.Context(), publisher.DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		e := eventstore.Event{
			Position: int64(stream.CachedInfo().State.LastSeq) + 1, Stream: eventstore.UserStream(user), Version: 2, ID: uuid.New(),
			Type: eventType, SchemaVersion: 1, Data: []byte("{}"), RecordedAt: s.clock.Now().UTC(),
		}
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: "urn:usher:test"})
		if _, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: cloudevent.Subject(e), Header: header, Data: body}); err != nil {
			t.Fatal(err)
		}
	}
}

// Messages that are not the log's call for no mail, and keep nobody from theirs: not while the relay is halted, and not after
// the stream was made anew, up to whatever position the messages were.
func TestStreamOfAnotherLog(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.started(t, nil)
		user := s.register(t, "first@example.org")
		s.await(t, 1)
		s.settle(t)
		s.published(t)
		s.forge(t, identity.TypeUserPasswordResetRequested, user, user, user, user, user, user)
		for i := range 3 {
			s.register(t, fmt.Sprintf("halted-%d@example.org", i))
		}
		s.await(t, 4)
		s.settle(t)
		status, err := ReadStatus(t.Context(), s.db)
		if err != nil || status.Lag != 0 || !status.Running {
			t.Errorf("ReadStatus() = %+v, %v, want no lag and running", status, err)
		}
		if err := s.relay.Reset(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		s.published(t)
		for i := range 3 {
			s.register(t, fmt.Sprintf("reset-%d@example.org", i))
		}
		if err := s.users.RequestPasswordReset(t.Context(), "first@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		s.await(t, 8)
		s.settle(t)
		for _, m := range s.server.Mails()[:7] {
			if m.Subject() != "Confirm your email address" && m.To != "first@example.org" {
				t.Errorf("mail to %s about %q", m.To, m.Subject())
			}
		}
	})
}

// A checkpoint beyond the end of the log, as a table that was not restored with the others has it, is brought back.
func TestCheckpointBeyondTheLog(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.mailer(t, nil)
		if _, err := s.db.Exec(t.Context(), "UPDATE subscriptions SET checkpoint = 100 WHERE name = 'mail'"); err != nil {
			t.Fatal(err)
		}
		devstack.Background(t, m.Run)
		devstack.Eventually(t, "the checkpoint is within the log", func() bool {
			at, err := m.checkpoint(t.Context())
			return err == nil && at == 0
		})
		s.register(t, "ada@example.org")
		s.await(t, 1)
	})
}

// A mail that was in hand when the database gave way to one that lacks what it is about is not sent, and tells nobody of
// what another did.
func TestMailOfWhatDidNotHappen(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		ada, eve := s.register(t, "ada@example.org"), s.register(t, "eve@example.org")
		m := s.mailer(t, nil)
		to := hello(t).To
		for _, position := range []int64{2, 3} {
			if _, err := m.compose(t.Context(), job{position: position, user: ada, kind: kindPasswordChanged}, to); !errors.Is(err, errUnneeded) {
				t.Errorf("compose() at %d = %v, want %v", position, err, errUnneeded)
			}
		}
		if _, err := m.compose(t.Context(), job{position: 2, user: eve, kind: kindPasswordChanged}, to); err != nil {
			t.Error(err)
		}
	})
}

// Once the database has another history, as after a failover, whoever sends begins anew: mails go on without a restart.
func TestMailGoesOnInAnotherHistory(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		if s.db.Dialect() == eventstore.SQLite { // which has none
			return
		}
		s.started(t, nil)
		s.register(t, "ada@example.org")
		s.await(t, 1)
		until := func() (at time.Time) {
			if err := s.db.QueryRow(t.Context(), "SELECT expires_at FROM leases WHERE name = 'mail'").Scan(&at); err != nil {
				t.Fatal(err)
			}
			return at
		}
		_, err := s.db.Exec(t.Context(), "CREATE OR REPLACE FUNCTION log_history() RETURNS text LANGUAGE sql AS $$ SELECT '7/5/00000002' $$")
		if err != nil {
			t.Fatal(err)
		}
		changed := until()
		devstack.Eventually(t, "the lease is acquired anew", func() bool { return until().After(changed.Add(4 * time.Second)) })
		s.register(t, "bob@example.org")
		s.await(t, 2)
	})
}

// The database gives way to one that lacks the newest event, while mails are sent: how far they are is read from that database, and so
// whoever has the lost event's place in the log gets the mail that is due, as do those after it.
func TestMailsOfTheOtherHistory(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.started(t, nil)
		s.register(t, "ada@example.org")
		s.register(t, "lost@example.org")
		s.await(t, 2)
		s.settle(t)
		if err := s.db.Transact(t.Context(), func(tx eventstore.DB) error {
			_, err := tx.Exec(t.Context(), "DELETE FROM events WHERE position > 1")
			if err == nil {
				_, err = tx.Exec(t.Context(), "UPDATE subscriptions SET checkpoint = 1")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		s.register(t, "bob@example.org")
		s.register(t, "joe@example.org")
		s.await(t, 4)
		for i, to := range []string{"bob@example.org", "joe@example.org"} {
			if got := s.server.Mails()[2+i].To; got != to {
				t.Errorf("mail %d goes to %s, want %s", 2+i, got, to)
			}
		}
	})
}

// An event that can't be read keeps nobody from the mails that others call for, and its user hears of it all the same.
func TestMailGoesOnBehindWhatCantBeRead(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.mailer(t, nil)
		ada := s.register(t, "ada@example.org")
		s.append(t, ada, identity.ActorUser(ada), identity.PasswordChanged{Reason: identity.ReasonChange})
		s.register(t, "bob@example.org")
		events, err := s.log.ReadAll(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		events[1].Data = []byte("[1]")
		if err := m.handle(t.Context(), events); err != nil {
			t.Fatalf("handle() = %v", err)
		}
		devstack.Background(t, m.Run)
		s.await(t, 3)
		for i, to := range []string{"ada@example.org", "ada@example.org", "bob@example.org"} {
			if got := s.server.Mails()[i]; got.To != to {
				t.Errorf("mail %d goes to %s, want %s", i, got.To, to)
			}
		}
	})
}
