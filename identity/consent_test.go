package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
)

func consentTo(client string, scopes ...string) ConsentGiven {
	return ConsentGiven{Client: client, Scopes: scopes}
}

func TestGiveConsentDecides(t *testing.T) {
	t.Parallel()
	begun := []Payload{registered("ada@example.org", "Ada")}
	many := begun
	for i := range maxConsents {
		many = append(many, consentTo(fmt.Sprint("client", i), "a"))
	}
	for _, tt := range []struct {
		name   string
		given  []Payload
		client string
		scopes []string
		want   []Payload
		err    error
	}{
		{name: "the first, in any order and twice", given: begun, client: "c", scopes: []string{"openid", "email", "openid"}, want: []Payload{consentTo("c", "email", "openid")}},
		{name: "to nothing in particular", given: begun, client: "c", want: []Payload{ConsentGiven{Client: "c", Scopes: []string{}}}},
		{name: "to nothing more", given: append(begun, ConsentGiven{Client: "c", Scopes: []string{}}), client: "c"},
		{name: "the same", given: append(begun, consentTo("c", "email", "openid")), client: "c", scopes: []string{"openid", "email"}},
		{name: "fewer", given: append(begun, consentTo("c", "email", "openid")), client: "c", scopes: []string{"email"}},
		{name: "more", given: append(begun, consentTo("c", "openid")), client: "c", scopes: []string{"email"}, want: []Payload{consentTo("c", "email", "openid")}},
		{name: "to another", given: append(begun, consentTo("c", "openid")), client: "d", scopes: []string{"openid"}, want: []Payload{consentTo("d", "openid")}},
		{name: "after a withdrawal", given: append(begun, consentTo("c", "email", "openid"), ConsentWithdrawn{"c"}), client: "c", scopes: []string{"openid"},
			want: []Payload{consentTo("c", "openid")}},
		{name: "locked", given: append(begun, Locked{}), client: "c", err: ErrUserLocked},
		{name: "disabled", given: append(begun, Disabled{}), client: "c", err: ErrUserDisabled},
		{name: "to nobody", given: begun, scopes: []string{"openid"}, err: &Error{Code: CodeInvalidRequest}},
		{name: "to a long name", given: begun, client: strings.Repeat("c", maxClientID+1), err: &Error{Code: CodeInvalidRequest}},
		{name: "to what is no scope", given: begun, client: "c", scopes: []string{"a b"}, err: &Error{Code: CodeInvalidRequest}},
		{name: "to an empty one", given: begun, client: "c", scopes: []string{""}, err: &Error{Code: CodeInvalidRequest}},
		{name: "to too many", given: many, client: "c", scopes: []string{"a"}, err: &Error{Code: CodeInvalidRequest}},
		{name: "to one of as many", given: many, client: "client7", scopes: []string{"b"}, want: []Payload{consentTo("client7", "a", "b")}},
		{name: "where one was withdrawn", given: append(many, ConsentWithdrawn{"client3"}), client: "c", scopes: []string{"a"}, want: []Payload{consentTo("c", "a")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := giveConsent(state(t, given(tt.given...)), tt.client, tt.scopes)
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a user lets clients do follows from the events alone, and an earlier state is not changed by a later event.
func TestConsentsEvolve(t *testing.T) {
	t.Parallel()
	minute := func(n int) time.Time { return birth.Add(time.Duration(n) * time.Minute) }
	began := func(n int) uuid.UUID {
		id, err := newSessionID(minute(n))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	events := given(registered("ada@example.org", "Ada"), consentTo("c", "openid"), consentTo("d"), consentTo("c", "email", "openid"),
		ConsentWithdrawn{"c"}, ConsentWithdrawn{"unknown"}, consentTo("c", "email"), Erased{})
	type view struct {
		Consents          []Consent
		Scopes            []string
		Before, Since, By bool // whether a session that began before the withdrawal, since, and since by another client, may act
	}
	at := func(n int) view {
		u := state(t, events[:n])
		return view{u.Consents(), u.Consented("c"), u.Allows("c", began(3)), u.Allows("c", began(7)), u.Allows("e", began(7))}
	}
	c := func(given, changed int, client string, scopes ...string) Consent {
		return Consent{Client: client, Scopes: scopes, GivenAt: minute(given), ChangedAt: minute(changed)}
	}
	earlier := state(t, events[:4])
	for n, want := range map[int]view{
		1: {Consents: []Consent{}},
		2: {Consents: []Consent{c(1, 1, "c", "openid")}, Scopes: []string{"openid"}, Before: true, Since: true},
		4: {Consents: []Consent{c(1, 3, "c", "email", "openid"), c(2, 2, "d")}, Scopes: []string{"email", "openid"}, Before: true, Since: true},
		6: {Consents: []Consent{c(2, 2, "d")}},
		7: {Consents: []Consent{c(2, 2, "d"), c(6, 6, "c", "email")}, Scopes: []string{"email"}, Since: true},
		8: {Consents: []Consent{}},
	} {
		if diff := cmp.Diff(want, at(n)); diff != "" {
			t.Errorf("after %d events (-want +got):\n%s", n, diff)
		}
	}
	if _, err := evolve(earlier, events[4]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"email", "openid"}, earlier.Consented("c")); diff != "" {
		t.Errorf("an event changed the state before it (-want +got):\n%s", diff)
	}
}

// Of what was withdrawn a bounded number is remembered.
func TestConsentsAreBounded(t *testing.T) {
	t.Parallel()
	payloads := []Payload{registered("ada@example.org", "Ada")}
	for i := range maxConsents + 20 {
		client := fmt.Sprint("client", i)
		payloads = append(payloads, consentTo(client, "a"), ConsentWithdrawn{client})
	}
	u := state(t, given(append(payloads, consentTo("last", "a"))...))
	if len(u.consents) != maxConsents || u.Consented("last") == nil {
		t.Errorf("remembers %d, the last with %v", len(u.consents), u.Consented("last"))
	}
}

// Consents are given and withdrawn with one append each, or none, and other processes know.
func TestConsents(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, other := d.service(t, nil), d.service(t, nil)
		u := mustRegister(t, s, "ada@example.org")
		m := eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: ActorUser(u.ID)}
		want := func(when string, want ...string) {
			t.Helper()
			for _, s := range []*Service{s, other} {
				got, err := s.Consented(t.Context(), u.ID, "c")
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("%s: %v (-want +got):\n%s", when, err, diff)
				}
			}
		}
		done := func(when string, unchanged bool, r eventstore.Result, err error) {
			t.Helper()
			if err != nil || r.Unchanged != unchanged {
				t.Fatalf("%s: %+v, %v", when, r, err)
			}
		}
		give := func(scopes ...string) (eventstore.Result, error) {
			return s.GiveConsent(t.Context(), u.ID, "c", scopes, m)
		}
		withdraw := func() (eventstore.Result, error) { return other.WithdrawConsent(t.Context(), u.ID, "c", m) }
		r, err := withdraw()
		done("withdraw none", true, r, err)
		want("none")
		r, err = give("openid", "email")
		done("give", false, r, err)
		want("given", "email", "openid")
		r, err = give("email")
		done("give again", true, r, err)
		r, err = withdraw()
		done("withdraw", false, r, err)
		want("withdrawn")
		r, err = withdraw()
		done("withdraw again", true, r, err)
		r, err = give("email")
		done("give anew", false, r, err)
		want("given anew", "email")

		list, err := other.Consents(t.Context(), u.ID)
		if err != nil || len(list) != 1 || list[0].Client != "c" || !list[0].GivenAt.Equal(list[0].ChangedAt) {
			t.Errorf("Consents() = %+v, %v", list, err)
		}
		if _, err := s.Erase(t.Context(), u.ID, m); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Consented(t.Context(), u.ID, "c"); !errors.Is(err, ErrNotFound) {
			t.Errorf("of somebody erased: %v", err)
		}
		if _, err := give("openid"); !errors.Is(err, ErrNotFound) {
			t.Errorf("by somebody erased: %v", err)
		}
	})
}

// Who registered an address that is another's may have let clients in, which whoever reads the mail there has not.
func TestConsentsOfASquatterAreWithdrawn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		for verified, want := range map[bool][]string{false: nil, true: {"openid"}} {
			u := mustRegister(t, s, fmt.Sprintf("ada-%v@example.org", verified))
			if verified {
				var p EmailVerified
				p.Personal.Email = u.Email
				d.appendTo(t, s, u.ID, p)
			}
			if _, err := s.GiveConsent(t.Context(), u.ID, "c", []string{"openid"}, eventstore.Metadata{}); err != nil {
				t.Fatal(err)
			}
			code, _, err := s.NewCode(t.Context(), u.ID, PurposeReset)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.ResetPassword(t.Context(), code, another, uuid.Nil, eventstore.Metadata{}); err != nil {
				t.Fatal(err)
			}
			got, err := s.Consented(t.Context(), u.ID, "c")
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("verified %v: %v (-want +got):\n%s", verified, err, diff)
			}
		}
	})
}

// The grants of a client end with the consent that they stand on, those of others go on, and what was begun before begins no more.
func TestGrantsEndWithTheirConsent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s, at, login := loggedIn(t, d, nil)
		other := d.service(t, nil)
		user, m := login.User.ID, eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7())}
		to := func(client string) Grant {
			g := shopGrant(login)
			g.Client = client
			return g
		}
		give := func() {
			t.Helper()
			for _, client := range []string{"shop", "desk"} {
				if _, err := s.GiveConsent(t.Context(), user, client, []string{"openid"}, m); err != nil {
					t.Fatal(err)
				}
			}
		}
		give()
		_, shop := mustGrant(t, s, login, to("shop"))
		_, desk := mustGrant(t, s, login, to("desk"))
		begun, err := s.NewGrant()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.WithdrawConsent(t.Context(), user, "shop", m); err != nil {
			t.Fatal(err)
		}
		wantSessions(t, d, s, TypeSessionStarted, TypeSessionGranted, TypeSessionGranted, TypeSessionEnded+" revoked")
		give()
		if _, err := s.RefreshGrant(t.Context(), shop.Refresh, Grantee{Client: "shop"}, m); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("refresh of a grant without a consent: %v, want %v", err, ErrInvalidRefreshToken)
		}
		if _, err := s.StartGrant(t.Context(), begun, user, to("shop"), m); !errors.Is(err, ErrSessionEnded) {
			t.Errorf("a grant that was agreed to before the withdrawal: %v, want %v", err, ErrSessionEnded)
		}
		desk, err = s.RefreshGrant(t.Context(), desk.Refresh, Grantee{Client: "desk"}, m)
		if err != nil {
			t.Fatalf("refresh of another's grant: %v", err)
		}

		// A process that dies before it has ended them leaves rows that are good for nothing.
		u, err := s.ReadUser(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		for u.withdrew("shop", at.Now().Truncate(time.Millisecond)) { // the clock of the database is another
			at.set(time.Now())
		}
		_, again := mustGrant(t, s, login, to("shop"))
		d.appendTo(t, s, user, ConsentWithdrawn{Client: "shop"})
		if _, err := s.InspectRefresh(t.Context(), again.Refresh); !errors.Is(err, ErrInvalidRefreshToken) {
			t.Errorf("a look at a grant without a consent: %v, want %v", err, ErrInvalidRefreshToken)
		}
		if list, err := s.Sessions(t.Context(), user, login.Session); err != nil || len(list) != 2 {
			t.Errorf("the sessions are %+v, %v, want the login and the other grant", list, err)
		}
		if n, err := s.ExpireSessions(t.Context()); n != 1 || err != nil {
			t.Errorf("ExpireSessions() = %d, %v, want 1", n, err)
		}
		if _, err := s.RefreshGrant(t.Context(), desk.Refresh, Grantee{Client: "desk"}, m); err != nil {
			t.Errorf("refresh of another's grant, at last: %v", err)
		}
		mustRefresh(t, s, login.Refresh)
	})
}
