package mail

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// However many users ask for mails to one address, under whatever spelling, it gets a few: one at a time, and no more than a
// few an hour. Mails of other kinds, and to others, are not held up by that.
func TestMailsToOneAddressAreBounded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.started(t, nil)
		var users []uuid.UUID
		for i := range 12 {
			users = append(users, s.register(t, fmt.Sprintf("user%d@example.org", i)))
		}
		n := len(users) // their own addresses are to be verified
		s.settle(t)
		s.await(t, n)
		ask := func(user uuid.UUID, address string) {
			var p identity.EmailChangeRequested
			p.Personal.Email = address
			s.append(t, user, identity.ActorUser(user), p)
		}
		for i, user := range users {
			ask(user, []string{"bystander@example.net", "Bystander@EXAMPLE.net"}[i%2])
		}
		s.settle(t)
		n++
		if got := s.await(t, n); got.Subject() != "Confirm your new email address" {
			t.Fatalf("mail about %q", got.Subject())
		}
		// The others wait for their turn, one a minute, until there were too many.
		for range codeBound.limit - 1 {
			s.clock.add(codeBound.pause)
			m.signal()
			s.settle(t)
			n++
			s.await(t, n)
		}
		s.clock.add(codeBound.pause)
		m.signal()
		s.settle(t)
		s.await(t, n)
		m.wantCount(t, kindEmail, outcomeTooMany, float64(len(users)-codeBound.limit))
		// What is of another kind is not held up, nor who is somebody else.
		s.append(t, users[0], identity.ActorAnonymous, identity.PasswordResetRequested{})
		ask(users[0], "else@example.net")
		s.settle(t)
		s.await(t, n+2)
		// After an hour there is room again.
		s.clock.add(boundWindow)
		ask(users[1], "bystander@example.net")
		s.settle(t)
		if got := s.await(t, n+3); got.To != "bystander@example.net" {
			t.Errorf("mail to %s", got.To)
		}
	})
}

// Addresses that differ in what follows a plus sign are one mailbox to many servers.
func TestMailsToOneMailboxAreBounded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.started(t, nil)
		const users = 40
		for i := range users {
			s.register(t, fmt.Sprintf("bystander+%d@example.net", i))
		}
		s.settle(t)
		s.await(t, mailboxBound.limit)
		m.wantCount(t, kindVerify, outcomeTooMany, users-float64(mailboxBound.limit))
		s.register(t, "somebody+else@example.net")
		s.settle(t)
		if got := s.await(t, mailboxBound.limit+1); got.To != "somebody+else@example.net" {
			t.Errorf("mail to %s", got.To)
		}
	})
}

// A mail that is not sent for that reason spends no code: the one that was mailed before stays good.
func TestCodeOutlivesMailsThatAreTooMany(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.started(t, nil)
		user := s.register(t, "ada@example.org")
		s.settle(t)
		code := identity.MailCode(s.await(t, 1).Code())
		s.append(t, user, identity.ActorAnonymous, identity.EmailVerificationRequested{})
		s.settle(t)
		s.await(t, 1)
		if _, err := s.users.Verify(t.Context(), code, uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Errorf("the code of the mail that was sent: %v", err)
		}
	})
}

func TestBound(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(ages ...time.Duration) (sent []time.Time) {
		for _, age := range ages {
			sent = append(sent, now.Add(-age))
		}
		return sent
	}
	b := bound{time.Minute, 2}
	for _, c := range []struct {
		sent []time.Time
		want time.Duration
	}{
		{nil, 0},
		{ago(20 * time.Second), 40 * time.Second},
		{ago(time.Minute), 0},
		{ago(50*time.Minute, 2*time.Minute), 10 * time.Minute},
		{ago(time.Hour, 30*time.Second), 30 * time.Second},
		{ago(time.Hour, 2*time.Minute), 0},
	} {
		if got := b.wait(c.sent, now); got != c.want {
			t.Errorf("wait after %v = %v, want %v", c.sent, got, c.want)
		}
	}
}
