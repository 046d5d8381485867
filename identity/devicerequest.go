package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// DeviceRequest is what a device without a browser asks for: a client on it shows a code, which somebody types into a browser of
// theirs, and says yes or no (RFC 8628).
type DeviceRequest struct {
	Client  string // its client_id
	Scopes  []string
	Address string // that it asked from
}

// DeviceCode is what a device asks with whether there is an answer. It can't be printed by accident. The database has an HMAC of it.
type DeviceCode string

func (DeviceCode) String() string       { return "[hidden]" }
func (DeviceCode) GoString() string     { return "[hidden]" }
func (DeviceCode) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// UserCode is what a device shows: eight letters of userCodeLetters. It can't be printed by accident. The database has an HMAC of it.
type UserCode string

func (UserCode) String() string       { return "[hidden]" }
func (UserCode) GoString() string     { return "[hidden]" }
func (UserCode) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// userCodeLetters are consonants that nobody takes for another letter or a digit, so that no code is a word (RFC 8628, section 6.1).
// There are some 2^34 codes, of which whoever guesses may try a few in an hour.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

const userCodeLength = 8

// ParseUserCode reads a code as somebody types it: in small letters, and with whatever stands between. It is false for what is none.
func ParseUserCode(text string) (UserCode, bool) {
	if len(text) > 4*userCodeLength {
		return "", false
	}
	code := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '.' || r == '_' || r == '\u00a0' {
			return -1
		}
		return r
	}, strings.ToUpper(text))
	if len(code) != userCodeLength || strings.Trim(code, userCodeLetters) != "" {
		return "", false
	}
	return UserCode(code), true
}

// Shown is the code as people read it: in two parts.
func (c UserCode) Shown() string {
	if len(c) != userCodeLength {
		return ""
	}
	return string(c[:userCodeLength/2]) + "-" + string(c[userCodeLength/2:])
}

// newUserCode makes a code, each as likely as any other.
func newUserCode() UserCode {
	code := make([]byte, 0, userCodeLength)
	const even = 256 - 256%len(userCodeLetters) // what is not below would make some letters likelier
	for len(code) < userCodeLength {
		var raw [2 * userCodeLength]byte
		_, _ = rand.Read(raw[:]) // which never fails
		for _, b := range raw {
			if int(b) < even && len(code) < userCodeLength {
				code = append(code, userCodeLetters[int(b)%len(userCodeLetters)])
			}
		}
	}
	return UserCode(code)
}

const (
	// deviceRequestLifetime is how long somebody has to answer, and the device to fetch that.
	deviceRequestLifetime = 10 * time.Minute
	// deviceRequestKept is how long after that it is still known that there was a request.
	deviceRequestKept = 10 * time.Minute
	// devicePace is how long a device waits between two questions; and by how much longer from then on, each time that it does not.
	devicePace    = 5 * time.Second
	longestPace   = time.Minute
	devicePaceOff = time.Second // by how much it may be off, on its way here
	// maxClientRequests and maxRequests bound the requests that are open, of one client and of all. Anybody may ask.
	maxClientRequests = 5000
	maxRequests       = 20000
)

// DeviceAsked is what a device is told that has asked.
type DeviceAsked struct {
	Device   DeviceCode
	User     UserCode
	Lifetime time.Duration
	Pace     time.Duration // how long to wait between two questions
}

// AskByDevice begins a request. It fails with CodeThrottled where too many are open, or as the database does.
func (s *Service) AskByDevice(ctx context.Context, r DeviceRequest) (DeviceAsked, error) {
	now := s.now().UTC()
	var ofClient, all int
	// Who asks at the same moment may be let through beside; the bounds are far below what would hurt.
	err := s.db.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM device_requests WHERE client_id = $1 AND expires_at > $2), (SELECT count(*) FROM device_requests WHERE expires_at > $2)`,
		r.Client, now).Scan(&ofClient, &all)
	if err != nil {
		return DeviceAsked{}, fmt.Errorf("count the requests of devices: %w", err)
	}
	if ofClient >= maxClientRequests || all >= maxRequests {
		return DeviceAsked{}, &Error{Code: CodeThrottled, Detail: "too many devices wait for an answer", RetryAfter: time.Minute}
	}
	asked := DeviceAsked{Device: DeviceCode(rand.Text() + rand.Text()), Lifetime: deviceRequestLifetime, Pace: devicePace}
	const tries = 3 // two codes are hardly ever the same
	for range tries {
		asked.User = newUserCode()
		n, err := s.db.Exec(ctx, `
			INSERT INTO device_requests (device_hash, user_hash, client_id, scopes, address, created_at, expires_at, polls, poll_from, pace)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $6, $8) ON CONFLICT DO NOTHING`,
			s.deviceHash(asked.Device), s.userCodeHash(asked.User), r.Client, string(marshal(r.Scopes)), r.Address, now, now.Add(asked.Lifetime), int(devicePace/time.Second))
		if err != nil {
			return DeviceAsked{}, fmt.Errorf("note the request of a device: %w", err)
		}
		if n == 1 {
			return asked, nil
		}
	}
	return DeviceAsked{}, errors.New("note the request of a device: its codes are taken")
}

func (s *Service) deviceHash(c DeviceCode) []byte { return s.codeMAC("device request", string(c)) }

func (s *Service) userCodeHash(c UserCode) []byte { return s.codeMAC("user code", string(c)) }

// ErrNoDeviceRequest: no device waits for an answer to the code that was typed.
var ErrNoDeviceRequest = &Error{Code: CodeInvalidCode, Detail: "no device shows this code, or it has expired or was answered"}

// FindDeviceRequest is the request of a device that shows a code and waits for an answer. Guesses are counted on the user and on the
// network, and a right code makes none of them undone: whoever guesses could ask for that. It fails with ErrNoDeviceRequest, with
// ErrThrottled after too many of those, or as the database does.
func (s *Service) FindDeviceRequest(ctx context.Context, user uuid.UUID, code UserCode, m eventstore.Metadata) (DeviceRequest, error) {
	a := s.throttle.beginApart(scopeUserCode, user)
	if network := networkOf(m); s.throttle.networks && network != "" {
		a.network = s.throttle.key(scopeNetwork, network)
	}
	if err := a.enter(ctx); err != nil {
		return DeviceRequest{}, err
	}
	defer a.leave()
	var r DeviceRequest
	var scopes string
	err := s.db.QueryRow(ctx, `SELECT client_id, scopes, address FROM device_requests WHERE user_hash = $1 AND expires_at > $2 AND user_id IS NULL`,
		s.userCodeHash(code), s.now().UTC()).Scan(&r.Client, &scopes, &r.Address)
	if errors.Is(err, eventstore.ErrNoRows) {
		if _, err := a.failed(ctx, user); err != nil {
			return DeviceRequest{}, err
		}
		return DeviceRequest{}, ErrNoDeviceRequest
	}
	if err == nil {
		err = json.Unmarshal([]byte(scopes), &r.Scopes)
	}
	if err != nil {
		return DeviceRequest{}, fmt.Errorf("look up the request of a device: %w", err)
	}
	return r, nil
}

// DeviceAnswer is what somebody answers a device who is logged in.
type DeviceAnswer struct {
	User    uuid.UUID
	Session uuid.UUID // that the user is logged in to, and was by these methods
	Methods []string
	Allow   bool
}

// AnswerDevice answers the request of a device that shows a code, which FindDeviceRequest has found: it is answered once. Where the
// answer is yes it names the grant that the device may begin with PollDevice. That is under no other session: the device goes on when
// the browser is logged out, until its own session is ended, or all of the user's. It fails with ErrNoDeviceRequest, or as the
// database does.
func (s *Service) AnswerDevice(ctx context.Context, code UserCode, a DeviceAnswer) error {
	var grant uuid.NullUUID
	var granted *string
	if a.Allow {
		id, err := s.NewGrant()
		if err != nil {
			return err
		}
		text := string(marshal(Grant{AuthTime: sessionStart(a.Session).UTC(), Methods: a.Methods}))
		grant, granted = uuid.NullUUID{UUID: id, Valid: true}, &text
	}
	n, err := s.db.Exec(ctx, `
		UPDATE device_requests SET user_id = $3, grant_id = $4, granted = $5, address = ''
		 WHERE user_hash = $1 AND expires_at > $2 AND user_id IS NULL`, s.userCodeHash(code), s.now().UTC(), a.User, grant, granted)
	switch {
	case err != nil:
		return fmt.Errorf("answer the request of a device: %w", err)
	case n == 0:
		return ErrNoDeviceRequest
	}
	return nil
}

// What a device is told that asks whether there is an answer.
var (
	ErrDevicePending = errors.New("nobody has answered yet")
	ErrDeviceTooSoon = errors.New("the device asks too often, and has to wait for longer from now on")
	ErrDeviceDenied  = errors.New("the answer is no")
	ErrDeviceExpired = errors.New("nobody has answered in time")
	ErrDeviceUnknown = errors.New("the client has no such code, or it was used before")
)

// deviceRow is what is known of a request.
type deviceRow struct {
	DeviceRequest
	expires, from time.Time
	polls, pace   int
	user, grant   uuid.NullUUID
	granted       *string
}

// PollDevice has the grant begin that a device of a client has asked for, if the answer was yes. It begins once, by one append, however
// many processes are asked at a time: see StartGrant. It fails with one of the errors above; with ErrDeviceDenied too where the user's
// sessions were ended since; or as StartGrant does.
func (s *Service) PollDevice(ctx context.Context, code DeviceCode, by Grantee, m eventstore.Metadata) (LoginResult, error) {
	hash, now := s.deviceHash(code), s.now().UTC()
	row, err := s.readDevice(ctx, hash)
	switch {
	case err != nil:
		return LoginResult{}, err
	case row.Client != by.Client:
		return LoginResult{}, ErrDeviceUnknown
	case !now.Before(row.expires):
		return LoginResult{}, ErrDeviceExpired
	case !row.user.Valid:
		return LoginResult{}, s.paceDevice(ctx, hash, row, now)
	case !row.grant.Valid:
		return LoginResult{}, ErrDeviceDenied
	}
	var g Grant
	if err := json.Unmarshal([]byte(*row.granted), &g); err != nil {
		return LoginResult{}, fmt.Errorf("read what a device was granted: %w", err)
	}
	g.Client, g.Scopes, g.Confirmation = row.Client, row.Scopes, by.Confirmation
	if id, err := uuid.Parse(row.Client); err == nil {
		m.Actor = ActorDelegated(row.user.UUID, id)
	}
	result, err := s.StartGrant(ctx, row.grant.UUID, row.user.UUID, g, m)
	switch {
	case errors.Is(err, ErrGrantStarted):
		return LoginResult{}, ErrDeviceUnknown
	case errors.Is(err, ErrSessionEnded):
		return LoginResult{}, ErrDeviceDenied
	}
	return result, err
}

func (s *Service) readDevice(ctx context.Context, hash []byte) (r deviceRow, err error) {
	var scopes string
	err = s.db.QueryRow(ctx, `SELECT client_id, scopes, expires_at, polls, poll_from, pace, user_id, grant_id, granted FROM device_requests WHERE device_hash = $1`, hash).
		Scan(&r.Client, &scopes, &r.expires, &r.polls, &r.from, &r.pace, &r.user, &r.grant, &r.granted)
	if errors.Is(err, eventstore.ErrNoRows) {
		return r, ErrDeviceUnknown
	}
	if err == nil {
		err = json.Unmarshal([]byte(scopes), &r.Scopes)
	}
	if err != nil {
		return r, fmt.Errorf("read the request of a device: %w", err)
	}
	return r, nil
}

// paceDevice notes that a device has asked while there is no answer, and says whether that was too soon (RFC 8628, section 3.5).
func (s *Service) paceDevice(ctx context.Context, hash []byte, row deviceRow, now time.Time) error {
	told := ErrDevicePending
	pace := time.Duration(row.pace) * time.Second
	if now.Before(row.from) {
		told, pace = ErrDeviceTooSoon, min(pace+devicePace, longestPace)
	}
	n, err := s.db.Exec(ctx, `UPDATE device_requests SET polls = polls + 1, poll_from = $3, pace = $4 WHERE device_hash = $1 AND polls = $2`,
		hash, row.polls, now.Add(pace-devicePaceOff), int(pace/time.Second))
	switch {
	case err != nil:
		return fmt.Errorf("note that a device has asked: %w", err)
	case n == 0: // it has asked another process at the same moment
		return ErrDeviceTooSoon
	}
	return told
}

// denyDevices takes back what devices were answered that have not fetched it: their sessions would begin after all others have ended.
func (s *Service) denyDevices(ctx context.Context, user uuid.UUID) error {
	if _, err := s.db.Exec(ctx, `UPDATE device_requests SET grant_id = NULL, granted = NULL WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("take back what devices were answered: %w", err)
	}
	return nil
}

// dropDeviceRequests removes the requests that nothing is to be said about any more.
func (s *Service) dropDeviceRequests(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM device_requests WHERE expires_at <= $1`, s.now().UTC().Add(-deviceRequestKept)); err != nil {
		return fmt.Errorf("remove requests of devices: %w", err)
	}
	return nil
}
