package identity

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Consent is what a user lets a client do in the user's name, until the user withdraws it.
type Consent struct {
	Client    string    `json:"client"`     // its client_id
	Scopes    []string  `json:"scopes"`     // sorted
	GivenAt   time.Time `json:"given_at"`   // the first of them
	ChangedAt time.Time `json:"changed_at"` // the last of them
}

const (
	// maxConsents bounds to how many clients a user has ever consented: all of them are in the user's state.
	maxConsents = 500
	// maxClientID and maxConsentScopes bound what a consent says. An id can be a URL.
	maxClientID      = 2048
	maxConsentScopes = 100
)

// consent is a Consent as the user's state has it. One that was withdrawn stays, for the sessions that began before.
type consent struct {
	Consent
	withdrawn time.Time // when it last was; zero for never
	live      bool
}

// Consents lists what a user lets clients do, in the order in which the user first agreed. Whether there still is such a client is for
// those to say who know clients. It fails as User does.
func (s *Service) Consents(ctx context.Context, user uuid.UUID) ([]Consent, error) {
	u, err := s.User(ctx, user)
	if err != nil {
		return nil, err
	}
	return u.Consents(), nil
}

// Consented is the scopes that a user lets a client have; nil where the user does not let it do anything. It is answered from memory,
// and fails as User does.
func (s *Service) Consented(ctx context.Context, user uuid.UUID, client string) (scopes []string, err error) {
	u, err := s.User(ctx, user)
	if err != nil {
		return nil, err
	}
	return u.Consented(client), nil
}

// GiveConsent lets a client have scopes, beside those that the user lets it have already; where that is all of them it is no event. It
// is one append. It fails with ErrNotFound, ErrUserLocked or ErrUserDisabled, with CodeInvalidRequest for what can't be consented to,
// or as eventstore.Log.Append does.
func (s *Service) GiveConsent(ctx context.Context, user uuid.UUID, client string, scopes []string, m eventstore.Metadata) (eventstore.Result, error) {
	return s.change(ctx, user, m, func(u User) (change, error) {
		events, err := giveConsent(u, client, scopes)
		return change{events: events}, err
	})
}

// WithdrawConsent takes back whatever a user lets a client do; where that is nothing it is no event. The client's grants have ended with
// it, and its tokens for the user are refused, whatever the user lets it do later: see User.Allows. It fails with ErrNotFound where there
// is no such user, or as eventstore.Log.Append does.
func (s *Service) WithdrawConsent(ctx context.Context, user uuid.UUID, client string, m eventstore.Metadata) (eventstore.Result, error) {
	result, err := s.change(ctx, user, m, func(u User) (change, error) {
		return when(u.Consented(client) != nil, ConsentWithdrawn{Client: client})
	})
	if err != nil || result.Unchanged {
		return result, err
	}
	result.Position = max(result.Position, s.endGrantsTo(context.WithoutCancel(ctx), user, client, m))
	return result, nil
}

// endGrantsTo ends the grants that a withdrawal has ended already, so that each is told of by an event and has no row. Should it not come
// that far, they have ended all the same, and ExpireSessions finds the rows. It answers with the last position that it wrote.
func (s *Service) endGrantsTo(ctx context.Context, user uuid.UUID, client string, m eventstore.Metadata) int64 {
	var last int64
	ids, err := s.sessionIDs(ctx, `user_id = $1 AND granted_to = $2`, user, client)
	if err == nil {
		last, err = s.endEach(ctx, user, ids, EndedRevoked, m, nil)
	}
	if err != nil {
		s.logger.WarnContext(ctx, "grants that have ended are still listed", slog.String("user", user.String()), slog.Any("error", err))
	}
	return last
}

// Consents lists what the user lets clients do, in the order in which the user first agreed.
func (u *User) Consents() []Consent {
	list := []Consent{}
	for _, c := range u.consents {
		if c.live {
			list = append(list, c.Consent)
		}
	}
	return list
}

// Consented is the scopes that the user lets a client have; nil where the user does not let it do anything. They must not be changed.
func (u *User) Consented(client string) []string {
	if i := u.consentTo(client); i >= 0 && u.consents[i].live {
		return u.consents[i].Scopes
	}
	return nil
}

// Allows says whether a session may act for the user by a client that needs a consent: the user has one, and has withdrawn none since
// the session began.
func (u *User) Allows(client string, session uuid.UUID) bool {
	return u.Consented(client) != nil && !u.withdrew(client, sessionStart(session))
}

// withdrew says whether the user has withdrawn what a client was let do since a moment: the client's grants of before are over.
func (u *User) withdrew(client string, since time.Time) bool {
	i := u.consentTo(client)
	return i >= 0 && since.Before(u.consents[i].withdrawn)
}

func (u *User) consentTo(client string) int {
	return slices.IndexFunc(u.consents, func(c consent) bool { return c.Client == client })
}

// What follows decides, and evolves.

func giveConsent(u User, client string, scopes []string) ([]Payload, error) {
	if err := mayLogIn(u); err != nil {
		return nil, err
	}
	switch {
	case client == "" || len(client) > maxClientID:
		return nil, refuse(CodeInvalidRequest, "the id of a client has 1 to %d bytes", maxClientID)
	case u.consentTo(client) < 0 && len(u.consents) >= maxConsents && !slices.ContainsFunc(u.consents, consent.isOver):
		return nil, refuse(CodeInvalidRequest, "the account lets %d applications in already; take that back from some", maxConsents)
	}
	before := u.Consented(client)
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(before, scopes))))
	if before != nil && len(all) == len(before) {
		return nil, nil
	}
	if len(all) > maxConsentScopes || slices.ContainsFunc(all, func(s string) bool { return s == "" || strings.ContainsFunc(s, notInScope) }) {
		return nil, refuse(CodeInvalidRequest, "a client has at most %d scopes, words of printable ASCII", maxConsentScopes)
	}
	if all == nil {
		all = []string{}
	}
	return []Payload{ConsentGiven{Client: client, Scopes: all}}, nil
}

// notInScope says whether a scope can't have a character (RFC 6749, section 3.3).
func notInScope(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }

// withdrawConsents decides on a user who has not agreed to anything so far: somebody else had the account.
func withdrawConsents(u User) (events []Payload) {
	for _, c := range u.Consents() {
		events = append(events, ConsentWithdrawn{Client: c.Client})
	}
	return events
}

func (c consent) isOver() bool { return !c.live }

// consent notes that the user lets a client have scopes. Beyond the bound it forgets one that was withdrawn: without it its
// client may do nothing all the more. It changes nothing of the state before.
func (u *User) consent(p ConsentGiven, at time.Time) {
	list := slices.Clone(u.consents)
	i := u.consentTo(p.Client)
	if i < 0 {
		if over := slices.IndexFunc(list, consent.isOver); over >= 0 && len(list) >= maxConsents {
			list = slices.Delete(list, over, over+1)
		}
		list, i = append(list, consent{Consent: Consent{Client: p.Client}}), len(list)
	}
	c := list[i]
	if !c.live {
		c.live, c.GivenAt = true, at
		list = append(slices.Delete(list, i, i+1), c)
		i = len(list) - 1
	}
	c.Scopes, c.ChangedAt = p.Scopes, at
	list[i] = c
	u.consents = list
}

// withdraw notes that the user lets a client do nothing any more.
func (u *User) withdraw(client string, at time.Time) {
	if i := u.consentTo(client); i >= 0 {
		u.consents = slices.Clone(u.consents)
		u.consents[i].live, u.consents[i].withdrawn = false, at
	}
}
