package identity

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// TestDecideOnAccount: given events, when a command, then events or an error. The last of the given events is a minute old
// or as long ago as is said.
func TestDecideOnAccount(t *testing.T) {
	t.Parallel()
	email, err := ParseEmail("ada@example.net")
	if err != nil {
		t.Fatal(err)
	}
	present, err := ParseEmail("Ada@example.org")
	if err != nil {
		t.Fatal(err)
	}
	born := registered("Ada@example.org", "Ada")
	again, reset, wanted := EmailVerificationRequested{}, PasswordResetRequested{}, emailWanted("ada@example.net")
	type command func(User, time.Time) ([]Payload, error)
	change := func(u User, now time.Time) ([]Payload, error) { return requestEmailChange(u, email, now) }
	for name, c := range map[string]struct {
		given []Payload
		after time.Duration
		when  command
		then  []Payload
		err   error
	}{
		"another code to verify":                  {[]Payload{born}, 0, requestVerification, []Payload{again}, nil},
		"of a verified address":                   {[]Payload{born, verified("Ada@example.org")}, 0, requestVerification, nil, nil},
		"of nobody":                               {nil, 0, requestVerification, nil, ErrInvalidCredentials},
		"of a locked user":                        {[]Payload{born, Locked{}}, 0, requestVerification, nil, ErrUserLocked},
		"of a disabled user":                      {[]Payload{born, Disabled{}}, 0, requestVerification, nil, ErrUserDisabled},
		"at once":                                 {[]Payload{born, again}, 59 * time.Second, requestVerification, nil, ErrThrottled},
		"after a minute":                          {[]Payload{born, again}, time.Minute, requestVerification, []Payload{again}, nil},
		"once more":                               {[]Payload{born, again, again, again, again}, time.Minute, requestVerification, []Payload{again}, nil},
		"five times in an hour":                   {[]Payload{born, again, again, again, again, again}, time.Minute, requestVerification, nil, ErrThrottled},
		"an hour after the first of five":         {[]Payload{born, again, again, again, again, again}, 56 * time.Minute, requestVerification, []Payload{again}, nil},
		"beside others":                           {[]Payload{born, reset, reset, reset, reset, wanted, reset}, 0, requestVerification, []Payload{again}, nil},
		"reset":                                   {[]Payload{born}, 0, requestPasswordReset, []Payload{reset}, nil},
		"reset, verified":                         {[]Payload{born, verified("Ada@example.org")}, 0, requestPasswordReset, []Payload{reset}, nil},
		"reset, locked":                           {[]Payload{born, Locked{}}, 0, requestPasswordReset, nil, ErrUserLocked},
		"reset, erased":                           {[]Payload{born, Erased{}}, 0, requestPasswordReset, nil, ErrInvalidCredentials},
		"reset at once":                           {[]Payload{born, reset}, time.Second, requestPasswordReset, nil, ErrThrottled},
		"reset five times in an hour":             {[]Payload{born, reset, reset, again, reset, reset, reset}, time.Minute, requestPasswordReset, nil, ErrThrottled},
		"another address":                         {[]Payload{born}, 0, change, []Payload{wanted}, nil},
		"another address, disabled":               {[]Payload{born, Disabled{}}, 0, change, nil, ErrUserDisabled},
		"another address at once":                 {[]Payload{born, wanted}, time.Second, change, nil, ErrThrottled},
		"the address that the user has":           {[]Payload{born}, 0, func(u User, now time.Time) ([]Payload, error) { return requestEmailChange(u, present, now) }, nil, ErrInvalidEmail},
		"another address, asked for half an hour": {[]Payload{born, wanted}, 30 * time.Minute, change, []Payload{wanted}, nil},
	} {
		events := given(c.given...)
		now := birth
		if len(events) > 0 {
			now = events[len(events)-1].RecordedAt
		}
		got, err := c.when(state(t, events), now.Add(c.after))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", name, err, c.err)
		}
		if err != nil {
			got = nil
		}
		if diff := cmp.Diff(c.then, got); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecideOnUsedCode(t *testing.T) {
	t.Parallel()
	born := registered("Ada@example.org", "Ada")
	for name, c := range map[string]struct {
		given   []Payload
		purpose Purpose
		address string // that a code is for
		then    []Payload
	}{
		"verify":                         {[]Payload{born}, PurposeVerify, "Ada@example.org", []Payload{verified("Ada@example.org")}},
		"verified":                       {[]Payload{born, verified("Ada@example.org")}, PurposeVerify, "", nil},
		"change":                         {[]Payload{born, emailWanted("b@example.org")}, PurposeEmail, "b@example.org", []Payload{emailChanged("b@example.org")}},
		"change of mind":                 {[]Payload{born, emailWanted("b@example.org"), emailWanted("c@example.org")}, PurposeEmail, "c@example.org", []Payload{emailChanged("c@example.org")}},
		"nothing wanted":                 {[]Payload{born}, PurposeEmail, "", nil},
		"changed":                        {[]Payload{born, emailWanted("b@example.org"), emailChanged("b@example.org")}, PurposeEmail, "", nil},
		"wanted before a password":       {[]Payload{born, emailWanted("b@example.org"), PasswordChanged{Reason: ReasonReset}}, PurposeEmail, "", nil},
		"wanted before a rehash":         {[]Payload{born, emailWanted("b@example.org"), PasswordChanged{Reason: ReasonRehash}}, PurposeEmail, "b@example.org", []Payload{emailChanged("b@example.org")}},
		"wanted before a lock":           {[]Payload{born, emailWanted("b@example.org"), Locked{}, Unlocked{}}, PurposeEmail, "", nil},
		"wanted before being disabled":   {[]Payload{born, emailWanted("b@example.org"), Disabled{}, Enabled{}}, PurposeEmail, "", nil},
		"reset":                          {[]Payload{born}, PurposeReset, "Ada@example.org", nil},
		"reset, locked":                  {[]Payload{born, Locked{}}, PurposeReset, "", nil},
		"verify, disabled":               {[]Payload{born, Disabled{}}, PurposeVerify, "", nil},
		"verify, nobody":                 {nil, PurposeVerify, "", nil},
		"a code for no purpose":          {[]Payload{born}, "none", "", nil},
		"verify, after another address":  {[]Payload{born, emailWanted("b@example.org"), emailChanged("b@example.org")}, PurposeVerify, "", nil},
		"reset, after another address":   {[]Payload{born, emailWanted("b@example.org"), emailChanged("b@example.org")}, PurposeReset, "b@example.org", nil},
		"reset, with an address in mind": {[]Payload{born, emailWanted("b@example.org")}, PurposeReset, "Ada@example.org", nil},
	} {
		u := state(t, given(c.given...))
		if got := codeAddress(u, c.purpose); got != c.address {
			t.Errorf("%s: a code is for %q, want %q", name, got, c.address)
		}
		if c.address == "" || c.purpose == PurposeReset {
			continue
		}
		got := verifyEmail(u)
		if c.purpose == PurposeEmail {
			done, err := changeEmail(u)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got = done.events
		}
		if diff := cmp.Diff(c.then, got); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
}

func TestThrottledSaysWhen(t *testing.T) {
	t.Parallel()
	events := given(registered("a@example.org", ""), EmailVerificationRequested{}, EmailVerificationRequested{})
	var throttled *Error
	_, err := requestVerification(state(t, events), events[2].RecordedAt.Add(20*time.Second))
	if !errors.As(err, &throttled) || throttled.RetryAfter != 40*time.Second {
		t.Errorf("20 s after the last: %v, retry after %v, want 40 s", err, throttled.RetryAfter)
	}
}

// Who has an address, and what they may do, is kept from those who only know it.
func TestAskingByAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now = at.Now })
		u := mustRegister(t, s, "ada@example.org")
		locked := mustRegister(t, s, "locked@example.org")
		d.appendTo(t, s, locked.ID, Locked{})
		ask := func(address string) {
			t.Helper()
			m := eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: ActorAnonymous}
			if err := s.RequestPasswordReset(t.Context(), address, uuid.Nil, m); err != nil {
				t.Errorf("RequestPasswordReset(%q) = %v", address, err)
			}
			if err := s.RequestVerificationOf(t.Context(), address, uuid.Nil, m); err != nil {
				t.Errorf("RequestVerificationOf(%q) = %v", address, err)
			}
		}
		for _, address := range []string{"ADA@example.org", "ada@example.org", "locked@example.org", "nobody@example.org"} {
			ask(address)
		}
		at.add(2 * time.Minute)
		ask("ada@example.org")
		if err := s.RequestPasswordReset(t.Context(), "no address", uuid.Nil, eventstore.Metadata{}); !errors.Is(err, ErrInvalidEmail) {
			t.Errorf("RequestPasswordReset() of no address = %v, want %v", err, ErrInvalidEmail)
		}
		d.appendTo(t, s, u.ID, verified("ada@example.org"))
		at.add(2 * time.Minute)
		ask("ada@example.org")
		want := []string{
			TypeUserRegistered, TypeUserRegistered, TypeUserLocked,
			TypeUserPasswordResetRequested, TypeUserEmailVerificationRequested,
			TypeUserPasswordResetRequested, TypeUserEmailVerificationRequested,
			TypeUserEmailVerified, TypeUserPasswordResetRequested,
		}
		if diff := cmp.Diff(want, types(d.events(t, s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestEmailChange(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		wants := func(address string) MailCode {
			t.Helper()
			d.appendTo(t, s, u.ID, emailWanted(address))
			code, to, err := s.NewCode(t.Context(), u.ID, PurposeEmail)
			if err != nil || to != address {
				t.Fatalf("NewCode() for %q = for %q, %v", address, to, err)
			}
			return code
		}
		first := wants("ada@example.com")
		code := wants("Ada@example.net")
		if err := s.verified(t, first); !errors.Is(err, ErrInvalidCode) {
			t.Errorf("Verify() of an address that was given up = %v, want %v", err, ErrInvalidCode)
		}
		if err := s.verified(t, code); err != nil {
			t.Fatal(err)
		}
		if got, err := s.User(t.Context(), u.ID); err != nil || got.Email != "Ada@example.net" || !got.EmailVerified {
			t.Errorf("User() = %+v, %v", got, err)
		}
		if err := s.logsIn(t, "ADA@example.net", secret); err != nil {
			t.Errorf("Login() with the new address = %v", err)
		}
		if err := s.logsIn(t, "ada@example.org", secret); !errors.Is(err, ErrInvalidCredentials) {
			t.Errorf("Login() with the address before = %v, want %v", err, ErrInvalidCredentials)
		}
		if _, err := s.Register(t.Context(), Registration{Email: "ada@example.net", Password: secret}); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("Register() of the new address = %v, want %v", err, ErrEmailTaken)
		}
		mustRegister(t, s, "ada@example.org") // it is free again

		// The same address in another spelling.
		if err := s.verified(t, wants("ada@example.net")); err != nil {
			t.Error(err)
		}
		if err := s.logsIn(t, "ada@example.net", secret); err != nil {
			t.Errorf("Login() with the other spelling = %v", err)
		}

		// Somebody else is faster.
		code = wants("eve@example.net")
		mustRegister(t, s, "eve@example.net")
		if err := s.verified(t, code); !errors.Is(err, ErrEmailTaken) {
			t.Errorf("Verify() of an address that is taken by now = %v, want %v", err, ErrEmailTaken)
		}
		if _, _, err := s.NewCode(t.Context(), u.ID, PurposeEmail); !errors.Is(err, ErrCodeNotNeeded) {
			t.Errorf("NewCode() for somebody else's address = %v, want %v", err, ErrCodeNotNeeded)
		}
	})
}

// Another address takes the present password, and a code from there.
func TestASVS_7_5_1_RequestEmailChange(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, safe := d.service(t, nil), d.service(t, func(c *Config) { c.EnumerationSafe = true })
		u := mustRegister(t, s, "ada@example.org")
		mustRegister(t, s, "eve@example.org")
		ask := func(s *Service, p password.Password, address string) error {
			t.Helper()
			_, err := s.RequestEmailChange(t.Context(), u.ID, Proof{Password: p}, address, uuid.Nil, eventstore.Metadata{})
			return err
		}
		for _, c := range []struct {
			service *Service
			secret  password.Password
			address string
			want    error
		}{
			{s, "wrong password", "ada@example.net", ErrInvalidCredentials},
			{s, "", "ada@example.net", ErrInvalidCredentials},
			{s, secret, "no address", ErrInvalidEmail},
			{s, secret, "ada@example.org", ErrInvalidEmail},
			{s, secret, "EVE@example.org", ErrEmailTaken},
			{s, "wrong password", "eve@example.org", ErrInvalidCredentials},
			{safe, secret, "eve@example.org", nil},
			{s, secret, "ada@example.net", ErrThrottled},
		} {
			if err := ask(c.service, c.secret, c.address); !errors.Is(err, c.want) {
				t.Errorf("RequestEmailChange(%q) = %v, want %v", c.address, err, c.want)
			}
		}
		// That the address is taken was not told; nothing is mailed there.
		if _, _, err := s.NewCode(t.Context(), u.ID, PurposeEmail); !errors.Is(err, ErrCodeNotNeeded) {
			t.Errorf("NewCode() = %v, want %v", err, ErrCodeNotNeeded)
		}
		var asked []string
		for _, e := range d.events(t, s) {
			if e.Stream.ID == u.ID {
				asked = append(asked, e.Type)
			}
		}
		if diff := cmp.Diff([]string{TypeUserRegistered, TypeUserEmailChangeRequested}, asked); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}
