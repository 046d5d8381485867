package mail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/internal/devstack/mailserver"
)

// TestMails: when an event, then a mail to somebody that says something.
func TestMails(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.started(t, nil)
		user := s.register(t, "Ada@example.org")
		self, admin := identity.ActorUser(user), identity.ActorUser(uuid.Must(uuid.NewV7()))
		var wanted identity.EmailChangeRequested
		wanted.Personal.Email = "ada@bücher.example"
		var changed identity.EmailChanged
		changed.Personal.Email = "ada@example.net"
		var speaks identity.ProfileUpdated
		speaks.Personal.Attributes = []byte(`{"locale":"de-AT"}`)
		n := 0
		for _, c := range []struct {
			name    string
			when    func()
			to      string // "" where there is no mail
			subject string
			link    string
			has     []string
			lacks   []string
		}{
			{"registered", func() {}, "Ada@example.org", "Confirm your email address", "/account/verify?code=", []string{"24 hours"}, []string{"192.0.2.1"}},
			{"asked to verify again", func() { s.append(t, user, self, identity.EmailVerificationRequested{}) }, "Ada@example.org", "Confirm your email address", "/account/verify?code=", nil, nil},
			{"asked to reset", func() { s.append(t, user, identity.ActorAnonymous, identity.PasswordResetRequested{}) }, "Ada@example.org", "Choose a new password", "/account/reset?code=",
				[]string{"an hour"}, []string{"192.0.2.9"}},
			{"wants another address", func() { s.append(t, user, self, wanted) }, "ada@xn--bcher-kva.example", "Confirm your new email address", "/account/email?code=", nil, nil},
			{"changed the password", func() { s.append(t, user, self, identity.PasswordChanged{Reason: identity.ReasonChange}) }, "Ada@example.org", "Your password was changed", "",
				[]string{"From: 192.0.2.9", "With: <b>Firefox</b> http: //evil.test", "Time: "}, nil},
			{"was given a password", func() { s.append(t, user, admin, identity.PasswordChanged{Reason: identity.ReasonAdmin}) }, "Ada@example.org", "Your password was changed", "",
				[]string{"By: those who run the service"}, []string{"192.0.2.9", "Firefox"}},
			{"was hashed anew", func() { s.append(t, user, self, identity.PasswordChanged{Reason: identity.ReasonRehash}) }, "", "", "", nil, nil},
			{"switched one-time passwords on", func() { s.append(t, user, self, identity.TOTPEnabled{}) }, "Ada@example.org", "One-time passwords were switched on", "",
				[]string{"From: 192.0.2.9"}, nil},
			{"made recovery codes", func() { s.append(t, user, self, identity.RecoveryCodesGenerated{Count: 10}) }, "Ada@example.org", "New recovery codes were made", "", nil, nil},
			{"switched them off", func() { s.append(t, user, self, identity.TOTPDisabled{Reason: identity.ReasonChange}) }, "Ada@example.org", "One-time passwords were switched off", "", nil, nil},
			{"has another address", func() { s.append(t, user, self, changed) }, "Ada@example.org", "Your email address was changed", "", []string{"does not belong to it any more"},
				[]string{"ada@example.net"}},
			{"asked to reset with it", func() { s.append(t, user, identity.ActorAnonymous, identity.PasswordResetRequested{}) }, "ada@example.net", "Choose a new password", "/account/reset?code=", nil, nil},
			{"asked to verify a verified address", func() { s.append(t, user, self, identity.EmailVerificationRequested{}) }, "", "", "", nil, nil},
			{"logged in", func() { s.login(t, user, "192.0.2.1", "phone") }, "", "", "", nil, nil},
			{"logged in there again", func() { s.login(t, user, "192.0.2.1", "phone") }, "", "", "", nil, nil},
			{"logged in elsewhere", func() { s.login(t, user, "198.51.100.7", "phone") }, "ada@example.net", "A login from a new device", "", []string{"From: 198.51.100.7", "With: phone"}, nil},
			{"logged in with something else", func() { s.login(t, user, "192.0.2.1", "tablet") }, "ada@example.net", "A login from a new device", "", []string{"With: tablet"}, nil},
			{"logged in elsewhere again", func() { s.login(t, user, "198.51.100.7", "phone") }, "", "", "", nil, nil},
			{"reads German and changed the password", func() {
				s.append(t, user, self, speaks)
				s.append(t, user, self, identity.PasswordChanged{Reason: identity.ReasonChange})
			}, "ada@example.net", "Ihr Passwort wurde geändert", "", []string{"Von: 192.0.2.9", "Zeit: "}, nil},
			{"was locked", func() { s.append(t, user, admin, identity.Locked{}) }, "", "", "", nil, nil},
			{"asked to reset while locked", func() { s.append(t, user, identity.ActorAnonymous, identity.PasswordResetRequested{}) }, "", "", "", nil, nil},
		} {
			s.clock.add(codeBound.pause)
			c.when()
			s.settle(t)
			if c.to != "" {
				n++
			}
			mails := s.server.Mails()
			if len(mails) != n {
				t.Fatalf("%s: %d mails so far, want %d", c.name, len(mails), n)
			}
			if c.to == "" {
				continue
			}
			got := mails[n-1]
			if got.To != c.to || got.From != "no-reply@usher.test" || got.Subject() != c.subject {
				t.Errorf("%s: mail from %q to %q about %q, want %q about %q", c.name, got.From, got.To, got.Subject(), c.to, c.subject)
			}
			for _, header := range []struct{ name, want string }{
				{"From", "=?utf-8?q?Usher_=E2=9C=93?= <no-reply@usher.test>"}, {"To", "<" + c.to + ">"}, {"Auto-Submitted", "auto-generated"}, {"User-Agent", ""},
			} {
				if h := got.Header.Get(header.name); h != header.want {
					t.Errorf("%s: %s: %q, want %q", c.name, header.name, h, header.want)
				}
			}
			if date, err := got.Header.Date(); err != nil || time.Since(date).Abs() > time.Hour {
				t.Errorf("%s: dated %v, %v", c.name, date, err)
			}
			link := "https://usher.test" + c.link + got.Code()
			if (c.link != "") != (got.Code() != "") || c.link != "" && (strings.Count(got.Text, link+"\n") != 1 || strings.Count(got.HTML, link) != 2) {
				t.Errorf("%s: the link is not as it should be:\n%s\n%s", c.name, got.Text, got.HTML)
			}
			for _, text := range c.has {
				if !strings.Contains(got.Text, text) {
					t.Errorf("%s: lacks %q:\n%s", c.name, text, got.Text)
				}
			}
			for _, text := range append(c.lacks, "Ada http", "://evil.test") {
				if strings.Contains(got.Text, text) || strings.Contains(got.HTML, text) {
					t.Errorf("%s: has %q:\n%s\n%s", c.name, text, got.Text, got.HTML)
				}
			}
			if strings.Contains(got.HTML, "<b>") {
				t.Errorf("%s: what a client sent is HTML:\n%s", c.name, got.HTML)
			}
		}
		m.wantCount(t, kindVerify, outcomeSent, 2)
		m.wantCount(t, kindVerify, outcomeUnneeded, 1)
		m.wantCount(t, kindNewDevice, outcomeSent, 2)
		devstack.Eventually(t, "nothing waits", func() bool { return m.waiting.Load() == 0 })
	})
}

// The codes of mails are good, the last one of each purpose, and they are nowhere but in the mails.
func TestCodesOfMails(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.started(t, nil)
		user := s.register(t, "ada@example.org")
		first := s.await(t, 1).Code()
		s.settle(t) // it is counted, before the clock is put forward
		s.clock.add(codeBound.pause)
		if err := s.users.RequestVerificationOf(t.Context(), "ada@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		second := s.await(t, 2).Code()
		if err := s.users.RequestPasswordReset(t.Context(), "ada@example.org", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		reset := s.await(t, 3).Code()
		s.settle(t)
		s.wantNowhere(t, first, second, reset)
		for code, want := range map[string]identity.Code{first: identity.CodeInvalidCode, second: "", "AAAA": identity.CodeInvalidCode} {
			_, err := s.users.Verify(t.Context(), identity.MailCode(code), uuid.Nil, eventstore.Metadata{})
			if got := identity.CodeOf(err); err != nil && got != want || err == nil && want != "" {
				t.Errorf("Verify() = %v, want %q", err, want)
			}
		}
		if _, err := s.users.ResetPassword(t.Context(), identity.MailCode(reset), "a wholly different phrase", uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Error(err)
		}
		if mail := s.await(t, 4); mail.Subject() != "Your password was changed" {
			t.Errorf("mail about %q, want the password", mail.Subject())
		}
		if u, err := s.users.User(t.Context(), user); err != nil || !u.EmailVerified {
			t.Errorf("User() = %+v, %v", u, err)
		}
	})
}

// wantNowhere searches the database, the log output and the events for secrets.
func (s *stack) wantNowhere(t *testing.T, secrets ...string) {
	t.Helper()
	places := map[string]string{"log output": s.output.String()}
	events, err := s.log.ReadAll(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		places["events"] += fmt.Sprintf("%s %+v\n", e.Payload(), e.Metadata)
	}
	for table, columns := range map[string][]string{
		"codes":   {"user_id", "purpose", "hash", "address"},
		"mails":   {"position", "user_id", "kind", "due_at"},
		"devices": {"user_id", "device"}, "mail_targets": {"target", "sent"},
	} {
		for _, column := range columns {
			rows, err := s.db.Query(t.Context(), "SELECT CAST("+column+" AS TEXT) FROM "+table)
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var text string
				if err := rows.Scan(&text); err != nil {
					t.Fatal(err)
				}
				places[table] += text + "\n"
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			rows.Close()
		}
	}
	if !strings.Contains(places["events"], "ada@example.org") || !strings.Contains(places["codes"], "reset") {
		t.Fatalf("the search does not find what is there: %v", places)
	}
	for place, text := range places {
		for _, secret := range secrets {
			if secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s: has a code", place)
			}
		}
		if place != "events" && strings.Contains(text, "ada@example.org") {
			t.Errorf("%s: has the address", place)
		}
	}
}

// What was there before mail was, and what is read long after it happened, is not mailed about.
func TestNothingOfLongAgo(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		s.register(t, "before@example.org")
		m := s.mailer(t, nil)
		s.register(t, "old@example.org")
		s.clock.add(maxAge + time.Hour)
		stop := devstack.Background(t, m.Run)
		s.settle(t)
		stop()
		m.wantCount(t, kindVerify, outcomeStale, 1)
		// A later start goes on where the last one was.
		s.clock.add(-maxAge)
		s.register(t, "now@example.org")
		s.started(t, nil)
		if mail := s.await(t, 1); mail.To != "now@example.org" {
			t.Errorf("mail to %q, want now@example.org", mail.To)
		}
	})
}

func TestMailsOfErasedUsers(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.mailer(t, nil)
		user := s.register(t, "ada@example.org")
		s.register(t, "eve@example.org")
		s.login(t, user, "192.0.2.1", "phone")
		s.login(t, user, "192.0.2.2", "phone")
		s.append(t, user, identity.ActorUser(user), identity.PasswordChanged{Reason: identity.ReasonChange})
		s.server.OnRcpt(func(string) error { return mailserver.Refuse(451, smtp.EnhancedCode{4, 7, 1}) })
		stop := devstack.Background(t, m.Run)
		s.settle(t)
		stop()
		rows := func(table string) (n int) {
			if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" WHERE user_id = $1", user).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if mails, devices := rows("mails"), rows("devices"); mails != 3 || devices != 2 {
			t.Fatalf("%d mails and %d devices, want 3 and 2", mails, devices)
		}
		s.appendTo(t, eventstore.UserStream(user), eventstore.Metadata{}, identity.Erased{})
		if n := rows("mails") + rows("devices") + rows("codes"); n != 0 {
			t.Errorf("%d rows of a user who was erased", n)
		}
		s.server.OnRcpt(nil)
		s.clock.add(2 * time.Hour)
		devstack.Background(t, m.Run)
		s.settle(t)
		if mail := s.await(t, 1); mail.To != "eve@example.org" {
			t.Errorf("mail to %q, want eve@example.org", mail.To)
		}
	})
}

// A user's events that are read after the user was erased leave nothing behind, and are no error.
func TestErasedBeforeItIsRead(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.mailer(t, nil)
		user := s.register(t, "ada@example.org")
		s.login(t, user, "192.0.2.1", "phone")
		s.append(t, user, identity.ActorUser(user), identity.PasswordChanged{Reason: identity.ReasonChange})
		s.appendTo(t, eventstore.UserStream(user), eventstore.Metadata{}, identity.Erased{})
		devstack.Background(t, m.Run)
		s.register(t, "eve@example.org")
		if mail := s.await(t, 1); mail.To != "eve@example.org" {
			t.Errorf("mail to %q, want eve@example.org", mail.To)
		}
		s.settle(t)
		var n int
		if err := s.db.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM mails) + (SELECT count(*) FROM devices)`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows, %v, want none", n, err)
		}
	})
}

// A mail that another version wrote down, which knows more kinds, is put off: after an upgrade it is sent.
func TestMailOfAnUnknownKind(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		m := s.started(t, nil)
		user := s.register(t, "ada@example.org")
		s.settle(t)
		if _, err := s.db.Exec(t.Context(), `INSERT INTO mails (position, user_id, kind, due_at, attempts, claimed) VALUES (1, $1, 'of_tomorrow', $2, 0, false)`,
			user, s.clock.Now().UTC()); err != nil {
			t.Fatal(err)
		}
		m.signal()
		devstack.Eventually(t, "it is put off", func() bool {
			var attempts int
			err := s.db.QueryRow(t.Context(), `SELECT attempts FROM mails WHERE kind = 'of_tomorrow'`).Scan(&attempts)
			return err == nil && attempts == 1
		})
		s.await(t, 1)
	})
}

// Somebody who knows the password can't fill the mailbox with notices, nor the table.
func TestDevicesAreBounded(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		user := s.register(t, "ada@example.org")
		m := s.started(t, nil)
		for i := range 2 * maxDevices {
			s.login(t, user, "192.0.2.1", fmt.Sprintf("robot %d", i))
		}
		s.settle(t)
		m.wantCount(t, kindNewDevice, outcomeSent, maxNotices-1) // the first device is none that is told of
		var n int
		if err := s.db.QueryRow(t.Context(), `SELECT count(*) FROM devices`).Scan(&n); err != nil || n != maxDevices {
			t.Errorf("%d devices are kept, %v, want %d", n, err, maxDevices)
		}
		s.login(t, user, "192.0.2.1", fmt.Sprintf("robot %d", 2*maxDevices-1))
		s.login(t, user, "", "")
		s.settle(t)
		m.wantCount(t, kindNewDevice, outcomeSent, maxNotices-1)
	})
}

// However many processes there are, each mail is sent once, and one takes over when the other goes.
func TestOneOfManySends(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		stops := make([]func(), 3)
		for i := range stops {
			m := s.mailer(t, nil)
			stops[i] = devstack.Background(t, m.Run)
		}
		var want []string
		for i := range 30 {
			email := fmt.Sprintf("u%02d@example.org", i)
			s.register(t, email)
			want = append(want, email)
			if i%10 == 9 {
				s.await(t, i+1)
				stops[i/10]()
				if i == 19 {
					s.started(t, nil)
				}
			}
		}
		s.settle(t)
		var got []string
		for _, mail := range s.server.Mails() {
			got = append(got, mail.To)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("mails (-want +got):\n%s", diff)
		}
	})
}

// mortal is the database of a process that can die: from then on nothing of it reaches the database any more.
type mortal struct {
	eventstore.DB
	dead *atomic.Bool
}

func (m mortal) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	if m.dead.Load() {
		return 0, eventstore.ErrUnavailable
	}
	return m.DB.Exec(ctx, sql, args...)
}

func (m mortal) QueryRow(ctx context.Context, sql string, args ...any) eventstore.Row {
	if m.dead.Load() {
		return noRow{}
	}
	return m.DB.QueryRow(ctx, sql, args...)
}

func (m mortal) Transact(ctx context.Context, do func(eventstore.DB) error) error {
	if m.dead.Load() {
		return eventstore.ErrUnavailable
	}
	return m.DB.Transact(ctx, do)
}

type noRow struct{}

func (noRow) Scan(...any) error { return eventstore.ErrUnavailable }

// A process that dies between sending a mail and noting so costs one mail too many, and the code of the last one is good.
func TestDeathAfterSending(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		dead := &atomic.Bool{}
		s.server.OnData(func(string) error {
			dead.Store(true)
			return nil
		})
		s.started(t, func(c *Config) { c.DB = mortal{s.db, dead} })
		s.register(t, "ada@example.org")
		first := s.await(t, 1).Code()
		s.started(t, nil)
		second := s.await(t, 2).Code()
		s.settle(t)
		s.await(t, 2)
		if _, err := s.users.Verify(t.Context(), identity.MailCode(first), uuid.Nil, eventstore.Metadata{}); err == nil {
			t.Error("the code of the first mail is good, although another was sent after it")
		}
		if _, err := s.users.Verify(t.Context(), identity.MailCode(second), uuid.Nil, eventstore.Metadata{}); err != nil {
			t.Error("the code of the last mail is not good:", err)
		}
	})
}

// A process that is told to stop while it sends a mail finishes that one, so that it is not sent again.
func TestStopWhileSending(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		reached, stopping := make(chan struct{}), make(chan struct{})
		s.server.OnData(func(string) error {
			close(reached)
			<-stopping
			return nil
		})
		m := s.mailer(t, nil)
		s.register(t, "ada@example.org")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		<-reached
		cancel()
		close(stopping)
		if err := <-done; err != nil {
			t.Errorf("Run() = %v, want nil", err)
		}
		m.wantCount(t, kindVerify, outcomeSent, 1)
		s.server.OnData(nil)
		s.started(t, nil)
		s.register(t, "eve@example.org")
		s.settle(t)
		if mail := s.await(t, 2); mail.To != "eve@example.org" {
			t.Errorf("mail to %q, want eve@example.org", mail.To)
		}
	})
}

// A database that does not answer keeps nobody from stopping, whatever was to be noted of a mail that was sent.
func TestStopWhileTheDatabaseDoesNotAnswer(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		if s.db.Dialect() == eventstore.SQLite { // which gives up by itself
			return
		}
		m := s.mailer(t, nil)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		err := s.db.Transact(t.Context(), func(tx eventstore.DB) error {
			if _, err := tx.Exec(t.Context(), "LOCK TABLE mail_targets IN EXCLUSIVE MODE"); err != nil {
				return err
			}
			go func() { done <- m.Run(ctx) }()
			s.register(t, "ada@example.org")
			s.await(t, 1)
			stop()
			select {
			case err := <-done:
				return err
			case <-time.After(time.Minute):
				return errors.New("the mailer does not stop")
			}
		})
		if err != nil {
			t.Error(err)
		}
		var left int
		if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM mails").Scan(&left); err != nil || left != 0 {
			t.Errorf("%d mails are still to be sent, %v, want none", left, err)
		}
	})
}
