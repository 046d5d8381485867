package identity

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func TestParseUserCode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]UserCode{
		"WDJB-MJHT": "WDJBMJHT", "wdjbmjht": "WDJBMJHT", " wdjb mjht ": "WDJBMJHT", "WD.JB_MJ-HT": "WDJBMJHT",
		"": "", "WDJB-MJH": "", "WDJB-MJHTW": "", "WDJA-MJHT": "", "WDJ8-MJHT": "", "WDJB–MJHT": "", "ＷDJBMJHT": "", strings.Repeat("-", 40) + "WDJBMJHT": "",
	} {
		if got, ok := ParseUserCode(text); got != want || ok != (want != "") {
			t.Errorf("ParseUserCode(%q) = %q, %v; want %q", text, string(got), ok, string(want))
		}
	}
	if got := UserCode("WDJBMJHT").Shown(); got != "WDJB-MJHT" {
		t.Errorf("shown as %q", got)
	}
	seen := map[UserCode]bool{}
	for range 1000 {
		code := newUserCode()
		if parsed, ok := ParseUserCode(code.Shown()); !ok || parsed != code || seen[code] {
			t.Fatalf("the code %q is none, or not new", string(code))
		}
		seen[code] = true
	}
}

var tvRequest = DeviceRequest{Client: "tv", Scopes: []string{"openid", "profile"}, Address: "198.51.100.7"}

func mustAsk(t *testing.T, s *Service, r DeviceRequest) DeviceAsked {
	t.Helper()
	asked, err := s.AskByDevice(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return asked
}

func wantPoll(t *testing.T, s *Service, when string, code DeviceCode, client string, want error) {
	t.Helper()
	if _, err := s.PollDevice(t.Context(), code, Grantee{Client: client}, eventstore.Metadata{}); !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", when, err, want)
	}
}

// A device is let in by whoever is logged in elsewhere, in another process, and goes on when that is over.
func TestDeviceIsLetIn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, nil)
		other := d.service(t, func(c *Config) { c.Now = at.Now })
		asked := mustAsk(t, s, tvRequest)
		wantPoll(t, s, "before any answer", asked.Device, "tv", ErrDevicePending)
		at.add(devicePace)
		wantPoll(t, other, "5 seconds later, elsewhere", asked.Device, "tv", ErrDevicePending)
		wantPoll(t, s, "at once again", asked.Device, "tv", ErrDeviceTooSoon)
		at.add(devicePace)
		wantPoll(t, s, "5 seconds after it was too soon", asked.Device, "tv", ErrDeviceTooSoon)
		at.add(3 * devicePace)
		wantPoll(t, s, "when it had slowed down", asked.Device, "tv", ErrDevicePending)
		wantPoll(t, s, "as another client", asked.Device, "other", ErrDeviceUnknown)
		wantPoll(t, s, "with another code", asked.Device+"A", "tv", ErrDeviceUnknown)

		found, err := other.FindDeviceRequest(t.Context(), login.User.ID, asked.User, eventstore.Metadata{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tvRequest, found); diff != "" {
			t.Errorf("what is asked (-want +got):\n%s", diff)
		}
		answer := DeviceAnswer{User: login.User.ID, Session: login.Session, Methods: []string{MethodPassword}, Allow: true}
		if err := other.AnswerDevice(t.Context(), asked.User, answer); err != nil {
			t.Fatal(err)
		}
		answer.Allow = false
		if err := s.AnswerDevice(t.Context(), asked.User, answer); !errors.Is(err, ErrNoDeviceRequest) {
			t.Errorf("a second answer: %v, want %v", err, ErrNoDeviceRequest)
		}
		if _, err := s.FindDeviceRequest(t.Context(), login.User.ID, asked.User, eventstore.Metadata{}); !errors.Is(err, ErrNoDeviceRequest) {
			t.Errorf("after the answer: %v, want %v", err, ErrNoDeviceRequest)
		}
		if _, err := s.EndSession(t.Context(), login.User.ID, login.Session, EndedLogout, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		result, err := s.PollDevice(t.Context(), asked.Device, Grantee{Client: "tv"}, eventstore.Metadata{})
		if err != nil {
			t.Fatal(err)
		}
		want := &Grant{Client: "tv", Scopes: tvRequest.Scopes, AuthTime: login.StartedAt, Methods: []string{MethodPassword}}
		if diff := cmp.Diff(want, result.Grant); diff != "" {
			t.Errorf("what is granted (-want +got):\n%s", diff)
		}
		if _, err := other.RefreshGrant(t.Context(), result.Refresh, Grantee{Client: "tv"}, eventstore.Metadata{}); err != nil {
			t.Errorf("its refresh token: %v", err)
		}
		wantPoll(t, other, "once more", asked.Device, "tv", ErrDeviceUnknown)
	})
}

// Whatever the device or the user is told no for, nothing begins.
func TestDeviceIsNotLetIn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, nil)
		answer := DeviceAnswer{User: login.User.ID, Session: login.Session, Methods: []string{MethodPassword}}
		denied := mustAsk(t, s, tvRequest)
		if err := s.AnswerDevice(t.Context(), denied.User, answer); err != nil {
			t.Fatal(err)
		}
		wantPoll(t, s, "denied", denied.Device, "tv", ErrDeviceDenied)

		answer.Allow = true
		over := mustAsk(t, s, tvRequest)
		if err := s.AnswerDevice(t.Context(), over.User, answer); err != nil {
			t.Fatal(err)
		}
		at.add(time.Second)
		if _, err := s.RevokeSessions(t.Context(), login.User.ID, eventstore.Metadata{}); err != nil {
			t.Fatal(err)
		}
		wantPoll(t, s, "logged out everywhere since", over.Device, "tv", ErrDeviceDenied)

		late := mustAsk(t, s, tvRequest)
		at.add(deviceRequestLifetime)
		if err := s.AnswerDevice(t.Context(), late.User, answer); !errors.Is(err, ErrNoDeviceRequest) {
			t.Errorf("an answer that comes late: %v, want %v", err, ErrNoDeviceRequest)
		}
		wantPoll(t, s, "late", late.Device, "tv", ErrDeviceExpired)
		at.add(deviceRequestKept)
		if err := s.dropDeviceRequests(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantPoll(t, s, "long after", late.Device, "tv", ErrDeviceUnknown)
		var left int
		if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM device_requests`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d requests are left, %v", left, err)
		}
	})
}

// However many processes a device asks at a time, one grant begins.
func TestDeviceIsLetInOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, nil)
		processes := []*Service{s, d.service(t, func(c *Config) { c.Now = at.Now })}
		asked := mustAsk(t, s, tvRequest)
		if err := s.AnswerDevice(t.Context(), asked.User, DeviceAnswer{User: login.User.ID, Session: login.Session, Allow: true}); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		outcomes := make([]error, 8)
		for i := range outcomes {
			wait.Go(func() {
				_, outcomes[i] = processes[i%2].PollDevice(t.Context(), asked.Device, Grantee{Client: "tv"}, eventstore.Metadata{})
			})
		}
		wait.Wait()
		began := 0
		for _, err := range outcomes {
			switch {
			case err == nil:
				began++
			case !errors.Is(err, ErrDeviceUnknown):
				t.Errorf("one of many: %v, want %v", err, ErrDeviceUnknown)
			}
		}
		if began != 1 {
			t.Errorf("%d grants began, want 1", began)
		}
		wantSessions(t, d, s, TypeSessionStarted, TypeSessionGranted)
	})
}

// Guesses at codes are counted, and codes of one's own don't buy more of them.
func TestGuessesAtUserCodes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, func(c *Config) { c.RateLimits = true })
		other := d.service(t, func(c *Config) { c.Now, c.RateLimits = at.Now, true })
		own := mustAsk(t, s, tvRequest)
		m := eventstore.Metadata{Address: "192.0.2.1"}
		guess := func(when string, by *Service, want error) {
			t.Helper()
			if _, err := by.FindDeviceRequest(t.Context(), login.User.ID, newUserCode(), m); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", when, err, want)
			}
		}
		for range accountFree - 1 {
			guess("a guess", s, ErrNoDeviceRequest)
			if _, err := s.FindDeviceRequest(t.Context(), login.User.ID, own.User, m); err != nil {
				t.Errorf("a code of one's own: %v", err)
			}
		}
		guess("the last guess", s, ErrNoDeviceRequest)
		guess("one too many, elsewhere", other, ErrThrottled)
		at.add(firstWait)
		if _, err := other.FindDeviceRequest(t.Context(), login.User.ID, own.User, m); err != nil {
			t.Errorf("a right code after the wait: %v", err)
		}
		guess("a guess after the wait", s, ErrNoDeviceRequest)
		guess("at once again", s, ErrThrottled)
		list, err := s.Throttled(t.Context(), login.User.ID)
		if err != nil || len(list) != 1 || list[0].Counted != scopeUserCode || list[0].Failures != accountFree+1 {
			t.Errorf("throttled: %+v, %v", list, err)
		}
		var network int
		if err := d.db.QueryRow(t.Context(), `SELECT failures FROM throttle WHERE scope = 'network'`).Scan(&network); err != nil || network == 0 {
			t.Errorf("counted on the network: %d, %v", network, err)
		}
		if _, err := s.FindDeviceRequest(t.Context(), uuid.Must(uuid.NewV7()), own.User, m); errors.Is(err, ErrThrottled) {
			t.Error("another user has to wait")
		}
		mustLogin(t, s) // which is counted apart
	})
}

// Anybody may ask, so what is open is bounded.
func TestDeviceRequestsAreBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, _ := loggedIn(t, d, nil)
		_, err := d.db.Exec(t.Context(), `
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO device_requests (device_hash, user_hash, client_id, scopes, address, created_at, expires_at, polls, poll_from, pace)
			SELECT `+map[bool]string{true: `decode(lpad(i::text, 8, '0'), 'hex'), decode(lpad(i::text, 8, '0'), 'hex')`, false: `CAST(i AS BLOB), CAST(i AS BLOB)`}[d.db.Dialect() == eventstore.Postgres]+
			`, 'tv', '[]', '', $2, $3, 0, $2, 5 FROM n`, maxClientRequests, at.Now().UTC(), at.Now().UTC().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AskByDevice(t.Context(), tvRequest); !errors.Is(err, ErrThrottled) {
			t.Errorf("one more of the client: %v, want %v", err, ErrThrottled)
		}
		mustAsk(t, s, DeviceRequest{Client: "other"})
		at.add(time.Minute)
		mustAsk(t, s, tvRequest)
	})
}
