package identity

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// A failed login is an event, as often as guesses are free and no more, and never for an address that nobody has.
func TestLoginFailedIsRecorded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		now := &clock{now: time.Now().Truncate(time.Second)}
		s := d.service(t, func(c *Config) { c.Now = now.Now })
		u := mustRegister(t, s, "ada@example.org")
		for range 3 * accountFree {
			for _, email := range []string{"ada@example.org", "nobody@example.org"} {
				s.try(t, email, wrong)
			}
			now.add(longestWait)
		}
		if n := len(d.events(t, s)); n != 1 {
			t.Fatalf("%d events before they are recorded, want the registration alone: the answer waits for none", n)
		}
		stop := devstack.Background(t, s.RecordFailures)
		stop() // and it appends what waits first
		events := d.events(t, s)[1:]
		if len(events) != accountFree {
			t.Fatalf("events %q, want %d failed logins", types(events), accountFree)
		}
		for _, e := range events {
			p, err := Decode[LoginFailed](e)
			if err != nil {
				t.Fatal(err)
			}
			if p.Reason != MethodPassword || e.Stream.Kind != eventstore.KindSession || e.Stream.Subject != u.ID || e.Version != 1 || e.Metadata.Address != "192.0.2.1" {
				t.Errorf("%s %+v in %+v by %+v", e.Type, p, e.Stream, e.Metadata)
			}
		}
		if again, err := s.ReadUser(t.Context(), u.ID); err != nil || again.Version != 1 {
			t.Errorf("the user's stream: %+v, %v, want no more than the registration", again, err)
		}
	})
}

// What can't be recorded is said.
func TestLoginFailedIsNotLostSilently(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		var logged bytes.Buffer
		s := d.service(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		u := mustRegister(t, s, "ada@example.org")
		s.failures = make(chan failure, 1)
		s.try(t, "ada@example.org", wrong)
		if logged.Len() > 0 {
			t.Fatalf("logged: %s", &logged)
		}
		s.try(t, "ada@example.org", wrong)
		if text := logged.String(); !strings.Contains(text, "too many are waiting") || !strings.Contains(text, u.ID.String()) || strings.Contains(text, "example.org") {
			t.Errorf("logged %q, want that a failed login of the user is not recorded", text)
		}
	})
}
