package token

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// sessionAt is the id of a session that began at a time.
func sessionAt(began time.Time) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	ms := began.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { return now }
	r := NewRevocations(RevocationsConfig{Lifetime: time.Hour, Now: clock})
	user, other := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	old, kept, later := sessionAt(now.Add(-time.Hour)), sessionAt(now.Add(-time.Minute)), sessionAt(now.Add(time.Minute))
	claims := func(user, session uuid.UUID) Claims {
		return Claims{Subject: user.String(), Session: session.String(), IssuedAt: now}
	}
	want := func(when string, want bool, c Claims) {
		t.Helper()
		if got := r.Revoked(c); got != want {
			t.Errorf("%s: Revoked() = %v, want %v", when, got, want)
		}
	}
	want("nothing ended", false, claims(user, old))

	r.EndSession(old)
	want("the session ended", true, claims(user, old))
	want("another session", false, claims(user, kept))

	r.EndUser(user, now, kept)
	want("the kept session", false, claims(user, kept))
	want("one that began before", true, claims(user, sessionAt(now.Add(-time.Second))))
	want("one that began after", false, claims(user, later))
	want("another user's", false, claims(other, sessionAt(now.Add(-time.Second))))

	r.EndUser(user, now.Add(time.Second), uuid.Nil)
	want("the kept session, once all ended", true, claims(user, kept))
	r.EndUser(user, now, kept)
	want("once all ended, told late of an earlier ending", true, claims(user, kept))
	want("no session", false, Claims{Subject: user.String()})
	want("no user", false, Claims{Session: old.String()})

	by := func(user uuid.UUID, client string, session uuid.UUID) Claims {
		return Claims{Subject: user.String(), Client: client, Session: session.String(), IssuedAt: now}
	}
	r.EndConsent(other, "shop", now)
	want("a client that may no longer", true, by(other, "shop", kept))
	r.EndConsent(other, "shop", now.Add(-time.Hour))
	want("the same client, told late of an earlier withdrawal", true, by(other, "shop", kept))
	want("one that may again", false, by(other, "shop", later))
	want("another client", false, by(other, "desk", kept))
	want("no client", false, claims(other, kept))
	want("the client, of another user", false, by(uuid.Must(uuid.NewV7()), "shop", kept))

	// It is held for a lifetime at least, and for two at most.
	now = now.Add(59 * time.Minute)
	r.EndSession(uuid.Must(uuid.NewV7()))
	want("within the lifetime", true, claims(user, old))
	now = now.Add(2 * time.Minute)
	r.EndSession(uuid.Must(uuid.NewV7()))
	want("in the second generation", true, claims(user, old))
	now = now.Add(61 * time.Minute)
	r.EndSession(uuid.Must(uuid.NewV7()))
	want("after both", false, claims(user, old))
}

// A set that is full refuses what was issued until then, and no more.
func TestRevocationsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := NewRevocations(RevocationsConfig{Lifetime: time.Hour, Limit: 100, Now: func() time.Time { return now }})
	for range 1000 {
		r.EndSession(uuid.Must(uuid.NewV7()))
		if n := r.recent.size() + r.older.size(); n > 100 {
			t.Fatalf("holds %d, want at most 100", n)
		}
	}
	c := Claims{Subject: uuid.NewString(), Session: uuid.NewString(), IssuedAt: now}
	if !r.Revoked(c) {
		t.Error("a token issued before the set was full is let pass")
	}
	c.IssuedAt = now.Add(time.Second)
	if r.Revoked(c) {
		t.Error("a token issued after it is refused")
	}
}

func TestRevocationsConcurrently(t *testing.T) {
	t.Parallel()
	r := NewRevocations(RevocationsConfig{Lifetime: time.Nanosecond, Limit: 10})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				id := uuid.Must(uuid.NewV7())
				r.EndSession(id)
				r.EndUser(id, time.Now(), uuid.Nil)
				r.EndConsent(id, "shop", time.Now())
				r.Revoked(Claims{Subject: id.String(), Session: id.String(), IssuedAt: time.Now()})
			}
		})
	}
	wg.Wait()
}

// What is not told anew is forgotten, and nothing is before that.
func TestRevocationsAreRenewed(t *testing.T) {
	t.Parallel()
	r := NewRevocations(RevocationsConfig{Lifetime: time.Hour})
	id := func() uuid.UUID { return uuid.Must(uuid.NewV7()) }
	claims := func(session, user uuid.UUID) Claims {
		return Claims{Session: session.String(), Subject: user.String(), IssuedAt: time.Now()}
	}
	still, void, user, voidUser := id(), id(), id(), id()
	for _, session := range []uuid.UUID{still, void} {
		r.EndSession(session)
	}
	later := time.Now().Add(time.Minute)
	for _, u := range []uuid.UUID{user, voidUser} {
		r.EndUser(u, later, uuid.Nil)
	}
	stillBy, voidBy := claims(id(), id()), claims(id(), id())
	stillBy.Client, voidBy.Client = "shop", "shop"
	withdraw := func(c Claims) { r.EndConsent(uuid.MustParse(c.Subject), c.Client, later) }
	withdraw(stillBy)
	withdraw(voidBy)
	done := r.Renew()
	r.EndSession(still)
	r.EndUser(user, later, uuid.Nil)
	withdraw(stillBy)
	for _, c := range []Claims{claims(still, id()), claims(void, id()), claims(id(), user), claims(id(), voidUser), stillBy, voidBy} {
		if !r.Revoked(c) {
			t.Errorf("%+v is not revoked while it is told anew", c)
		}
	}
	done()
	for want, list := range map[bool][]Claims{
		true: {claims(still, id()), claims(id(), user), stillBy}, false: {claims(void, id()), claims(id(), voidUser), voidBy},
	} {
		for _, c := range list {
			if got := r.Revoked(c); got != want {
				t.Errorf("%+v: revoked is %v, want %v", c, got, want)
			}
		}
	}
}
