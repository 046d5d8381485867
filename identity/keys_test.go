package identity

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
)

// minute is a moment.
func minute(n float64) time.Time {
	return birth.Add(time.Duration(n * float64(time.Minute)))
}

// stored is a key as the database has it: made and announced at a minute, signing from another, with tokens that live for
// half an hour.
func stored(id string, created, from float64) SigningKey {
	return SigningKey{ID: id, Algorithm: "ES256", CreatedAt: minute(created), SignsFrom: minute(from), lifetime: 30 * time.Minute}
}

// states shows keys with their states, and since and until when they have them, in minutes.
func states(keys []SigningKey) string {
	var list []string
	for _, k := range keys {
		until := "-"
		if !k.Until.IsZero() {
			until = fmt.Sprint(k.Until.Sub(birth).Minutes())
		}
		list = append(list, fmt.Sprintf("%s %s %v to %s", k.ID, k.State, k.Since.Sub(birth).Minutes(), until))
	}
	return strings.Join(list, ", ")
}

func TestStatesOfKeys(t *testing.T) {
	t.Parallel()
	first, second, third := stored("k1", 0, 0), stored("k2", 60, 70), stored("k3", 90, 90)
	longer := first
	longer.lifetime = 24 * time.Hour
	for name, c := range map[string]struct {
		keys []SigningKey
		now  float64
		want string
	}{
		"none":                                 {nil, 0, ""},
		"the first":                            {[]SigningKey{first}, 0, "k1 signing 0 to -"},
		"the next is announced":                {[]SigningKey{first, second}, 60, "k1 signing 0 to 70, k2 announced 60 to 70"},
		"the moment before it signs":           {[]SigningKey{second, first}, 69.9, "k1 signing 0 to 70, k2 announced 60 to 70"},
		"the moment it signs":                  {[]SigningKey{first, second}, 70, "k2 signing 70 to -, k1 verifying 70 to 101"},
		"the last token has almost expired":    {[]SigningKey{first, second}, 100.9, "k2 signing 70 to -, k1 verifying 70 to 101"},
		"the last token has expired":           {[]SigningKey{first, second}, 101, "k2 signing 70 to -"},
		"two rotations, and all still verify":  {[]SigningKey{first, second, third}, 91, "k3 signing 90 to -, k2 verifying 90 to 121, k1 verifying 70 to 101"},
		"a key whose tokens live longer":       {[]SigningKey{longer, second, third}, 122, "k3 signing 90 to -, k1 verifying 70 to 1511"},
		"only one that is announced, of three": {[]SigningKey{third, first, second}, 65, "k1 signing 0 to 70, k3 announced 90 to 90, k2 announced 60 to 70"},
	} {
		if got := states(keysAt(slices.Clone(c.keys), minute(c.now))); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestDecideOnKeys: given keys, when another is wished for, then a rotation or nothing.
func TestDecideOnKeys(t *testing.T) {
	t.Parallel()
	other := func(k SigningKey) SigningKey {
		k.Algorithm = "EdDSA"
		return k
	}
	one, announced := []SigningKey{stored("k1", 0, 0)}, []SigningKey{stored("k1", 0, 0), stored("k2", 60, 70)}
	replaced := []SigningKey{stored("k1", 0, 0), stored("k2", 60, 60)}
	es, given := KeyWish{Algorithm: "ES256"}, KeyWish{Algorithm: "ES256", ID: "k1"}
	with := func(w KeyWish, change func(*KeyWish)) KeyWish {
		change(&w)
		return w
	}
	later := func(w *KeyWish) { w.From = minute(75) }
	leaked := func(w *KeyWish) { w.Leaked = true }
	const now = 65
	for name, c := range map[string]struct {
		keys   []SigningKey
		wish   KeyWish
		ensure *rotation
		rotate *rotation
	}{
		"no key":                    {nil, es, &rotation{from: minute(now)}, &rotation{from: minute(now)}},
		"no key, later":             {nil, with(es, later), &rotation{from: minute(now)}, &rotation{from: minute(now)}},
		"a key":                     {one, es, nil, &rotation{from: minute(now)}},
		"a key, later":              {one, with(es, later), nil, &rotation{from: minute(75)}},
		"another algorithm":         {[]SigningKey{other(one[0])}, es, &rotation{from: minute(now)}, &rotation{from: minute(now)}},
		"the key that is given":     {one, given, nil, nil},
		"another key is given":      {[]SigningKey{stored("k0", 0, 0)}, given, &rotation{from: minute(now)}, &rotation{from: minute(now)}},
		"back to an earlier key":    {replaced, given, &rotation{from: minute(now)}, &rotation{from: minute(now)}},
		"one is announced":          {announced, es, nil, &rotation{key: "k2", from: minute(now)}},
		"one is announced, earlier": {announced, with(es, later), nil, nil},
		"another kind is announced": {[]SigningKey{announced[0], other(announced[1])}, es, nil, &rotation{drop: []string{"k2"}, from: minute(now)}},
		"this kind is announced":    {[]SigningKey{other(announced[0]), announced[1]}, es, nil, &rotation{key: "k2", from: minute(now)}},
		"leaked":                    {announced, with(es, leaked), nil, &rotation{drop: []string{"k1", "k2"}, from: minute(now)}},
		"leaked, later":             {one, with(with(es, leaked), later), nil, &rotation{drop: []string{"k1"}, from: minute(now)}},
		"leaked, and no other":      {one, with(given, leaked), nil, nil},
	} {
		keys := keysAt(slices.Clone(c.keys), minute(now))
		slices.SortFunc(keys, func(a, b SigningKey) int { return strings.Compare(a.ID, b.ID) })
		if diff := cmp.Diff(c.ensure, ensureKey(keys, c.wish, minute(now)), cmp.AllowUnexported(rotation{})); diff != "" {
			t.Errorf("%s: ensure (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(c.rotate, rotateKey(keys, c.wish, minute(now)), cmp.AllowUnexported(rotation{})); diff != "" {
			t.Errorf("%s: rotate (-want +got):\n%s", name, diff)
		}
	}
}

// maker makes keys k1, k2, …
func maker(algorithm string) KeyWish {
	made := new(atomic.Int32)
	return KeyWish{Algorithm: algorithm, Generate: func() (string, []byte, error) {
		id := fmt.Sprintf("%s-%d", algorithm, made.Add(1))
		return id, []byte("private part of " + id), nil
	}}
}

func mustKeys(t *testing.T, s *Service) []SigningKey {
	t.Helper()
	keys, err := s.UseSigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func wantKeys(t *testing.T, s *Service, want ...string) {
	t.Helper()
	var got []string
	for _, k := range mustKeys(t, s) {
		got = append(got, k.ID+" "+string(k.State))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestEnsureSigningKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		wish := maker("ES256")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := services[i%2].EnsureSigningKey(context.WithoutCancel(t.Context()), wish); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		s := services[1]
		keys := mustKeys(t, s)
		if len(keys) != 1 || keys[0].State != KeySigning || string(keys[0].Private) != "private part of "+keys[0].ID {
			t.Fatalf("keys = %v, want one that signs", keys)
		}
		es := keys[0]
		if err := services[0].EnsureSigningKey(t.Context(), maker("EdDSA")); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, s, "EdDSA-1 signing", es.ID+" verifying")
		if diff := cmp.Diff([]string{TypeKeyRotated, TypeKeyRotated}, types(d.events(t, s))); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		next := mustKeys(t, s)[0]
		for _, text := range []string{fmt.Sprintf("%v", next), fmt.Sprintf("%+v", next), fmt.Sprintf("%#v", next), next.LogValue().String()} {
			if strings.Contains(text, string(next.Private)) {
				t.Errorf("a private key was printed: %s", text)
			}
		}
		var sealed []byte
		if err := d.db.QueryRow(t.Context(), `SELECT private FROM signing_keys WHERE kid = $1`, next.ID).Scan(&sealed); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, next.Private) {
			t.Error("a private key is stored in the clear")
		}
	})
}

// The life of a key, as two processes see it that never talk: announced, signing, verifying, gone.
func TestRotateSigningKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		clock := &clock{now: time.Now()}
		config := func(c *Config) { c.Now, c.AccessLifetime = clock.Now, 30*time.Minute }
		operator, server := d.service(t, config), d.service(t, config)
		wish := maker("ES256")
		if err := server.EnsureSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		wish.From = clock.Now().Add(10 * time.Minute)
		var rotated atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				is, err := []*Service{operator, server}[i%2].RotateSigningKey(context.WithoutCancel(t.Context()), wish)
				if err != nil {
					t.Error(err)
				}
				if is {
					rotated.Add(1)
				}
			})
		}
		wg.Wait()
		if rotated.Load() != 1 {
			t.Errorf("%d of 8 announcements at once were new, want 1", rotated.Load())
		}
		next := mustKeys(t, server)[1].ID
		wantKeys(t, server, "ES256-1 signing", next+" announced")
		clock.add(10 * time.Minute)
		wantKeys(t, server, next+" signing", "ES256-1 verifying")
		clock.add(30 * time.Minute)
		wantKeys(t, operator, next+" signing", "ES256-1 verifying")
		clock.add(keyMargin)
		wantKeys(t, server, next+" signing")

		count := func() (n int) {
			t.Helper()
			if err := d.db.QueryRow(t.Context(), `SELECT count(*) FROM signing_keys`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := count(); n != 2 {
			t.Errorf("%d keys are stored, want 2", n)
		}
		for range 2 {
			if err := operator.dropSpentKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := count(); n != 1 {
				t.Errorf("%d keys are stored after a sweep, want 1", n)
			}
		}
		var rotations []KeyRotated
		for _, e := range d.events(t, server) {
			p, err := Decode[KeyRotated](e)
			if err != nil {
				t.Fatal(err)
			}
			rotations = append(rotations, p)
			if want := []string{ActorSystem, ActorOperator}[e.Version-1]; e.Metadata.Actor != want {
				t.Errorf("rotation %d was done by %s, want %s", e.Version, e.Metadata.Actor, want)
			}
		}
		if len(rotations) != 2 || rotations[1].KeyID != next || !rotations[1].SignsFrom.Equal(wish.From.Truncate(time.Microsecond)) {
			t.Errorf("events = %+v, want the second to be of %s from %v on", rotations, next, wish.From)
		}
	})
}

// A key verifies for as long as the tokens live of whichever process signs with it.
func TestKeyOutlivesItsTokens(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		clock := &clock{now: time.Now()}
		with := func(lifetime time.Duration) *Service {
			return d.service(t, func(c *Config) { c.Now, c.AccessLifetime = clock.Now, lifetime })
		}
		short, long := with(time.Minute), with(24*time.Hour)
		wish := maker("ES256")
		if err := short.EnsureSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		mustKeys(t, long)
		clock.add(time.Second)
		if _, err := short.RotateSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		if keys := mustKeys(t, short); len(keys) != 2 || keys[1].Until.Sub(keys[0].SignsFrom) != 24*time.Hour+keyMargin {
			t.Errorf("keys = %s, want the first to verify for a day", states(keys))
		}
	})
}

func TestRotateAfterALeak(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.AccessLifetime = time.Hour })
		wish := maker("ES256")
		if err := s.EnsureSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RotateSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, s, "ES256-2 signing", "ES256-1 verifying")
		wish.Leaked = true
		if _, err := s.RotateSigningKey(t.Context(), wish); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, s, "ES256-3 signing")
	})
}

// A given key, such as a shared secret that the settings hold, is a key like any other: another one replaces it, and the
// old one verifies until its tokens have expired, although the settings have forgotten it.
func TestGivenKeys(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, func(c *Config) { c.AccessLifetime = time.Hour })
		given := func(id string) KeyWish {
			return KeyWish{Algorithm: "HS256", ID: id, Generate: func() (string, []byte, error) { return id, []byte("secret of " + id), nil }}
		}
		for _, id := range []string{"a", "a", "b", "b", "a"} {
			if err := s.EnsureSigningKey(t.Context(), given(id)); err != nil {
				t.Fatal(err)
			}
		}
		wantKeys(t, s, "a signing", "b verifying")
		if n := len(d.events(t, s)); n != 3 {
			t.Errorf("%d rotations, want 3", n)
		}
		if rotated, err := s.RotateSigningKey(t.Context(), given("a")); rotated || err != nil {
			t.Errorf("rotated to the key that signs: %v, %v", rotated, err)
		}
	})
}

// Whoever follows the log hears of a rotation elsewhere.
func TestFollowHearsOfRotations(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		var heard atomic.Int32
		here := d.service(t, func(c *Config) { c.KeyRotated = func() { heard.Add(1) } })
		elsewhere := d.service(t, nil)
		following(t, here)
		before := heard.Load()
		if err := elsewhere.EnsureSigningKey(t.Context(), maker("ES256")); err != nil {
			t.Fatal(err)
		}
		devstack.Eventually(t, "the rotation is heard of", func() bool { return heard.Load() > before })
	})
}

// The one who loses a race decides again on what the winner left.
func TestRotationsRace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		services := []*Service{d.service(t, nil), d.service(t, nil)}
		wish := maker("ES256")
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if _, err := services[i%2].RotateSigningKey(context.WithoutCancel(t.Context()), wish); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		signing := 0
		for _, k := range mustKeys(t, services[0]) {
			if k.State == KeySigning {
				signing++
			}
		}
		version, err := d.StreamVersion(t.Context(), eventstore.SystemStream("keys").ID)
		if err != nil || version != 6 || signing != 1 {
			t.Errorf("%d rotations (%v), %d keys sign; want 6 and 1", version, err, signing)
		}
	})
}

// Whoever signs in, or goes on, after keys were found to be leaked gets a token by a key that is in force, whatever the process
// was told of it.
func TestKeysAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		operator := d.service(t, nil)
		mustRegister(t, operator, "ada@example.org")
		var s *Service
		var inUse string
		load := func(ctx context.Context) error {
			keys, err := s.UseSigningKeys(ctx)
			if err == nil {
				inUse = keys[0].ID
			}
			return err
		}
		s = d.service(t, func(c *Config) { c.LoadKeys = load })
		r := mustLogin(t, s) // signs with no keys yet
		leaked := maker("ES256")
		if err := s.EnsureSigningKey(t.Context(), leaked); err != nil {
			t.Fatal(err)
		}
		leaked.Leaked = true
		if err := load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, next := range map[string]func() LoginResult{
			"login":          func() LoginResult { return mustLogin(t, s) },
			"refresh":        func() LoginResult { return mustRefresh(t, s, r.Refresh) },
			"lost reply":     func() LoginResult { return mustRefresh(t, s, r.Refresh) },
			"login, again":   func() LoginResult { return mustLogin(t, s) },
			"refresh, again": func() LoginResult { return mustRefresh(t, s, r.Refresh) },
		} {
			if rotated, err := operator.RotateSigningKey(t.Context(), leaked); err != nil || !rotated {
				t.Fatal(rotated, err)
			}
			next()
			if want := mustKeys(t, operator)[0].ID; inUse != want {
				t.Errorf("%s: signs with %s, want %s", name, inUse, want)
			}
		}
	})
}

// The keys of ID tokens and those of access tokens know nothing of each other.
func TestKeysOfIDTokensStandBeside(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		at := &clock{now: time.Now()}
		s := d.service(t, func(c *Config) { c.Now, c.AccessLifetime = at.Now, time.Hour })
		n := 0
		wish := func(forID bool, from time.Time) KeyWish {
			return KeyWish{Algorithm: "RS256", IDTokens: forID, From: from, Generate: func() (string, []byte, error) {
				n++
				return fmt.Sprintf("k%d", n), []byte("private"), nil
			}}
		}
		for _, w := range []KeyWish{wish(false, time.Time{}), wish(true, time.Time{}), wish(true, time.Time{})} {
			if err := s.EnsureSigningKey(t.Context(), w); err != nil {
				t.Fatal(err)
			}
		}
		at.add(time.Minute)
		if rotated, err := s.RotateSigningKey(t.Context(), wish(false, time.Time{})); !rotated || err != nil {
			t.Fatalf("RotateSigningKey = %v, %v", rotated, err)
		}
		states := func() (list []string) {
			t.Helper()
			keys, err := s.SigningKeys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				list = append(list, fmt.Sprint(k.ID, " ", k.State, " ", k.IDTokens))
			}
			return list
		}
		if diff := cmp.Diff([]string{"k3 signing false", "k1 verifying false", "k2 signing true"}, states()); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
		at.add(2 * time.Hour)
		if err := s.dropSpentKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		stored, err := s.storedKeys(t.Context(), false)
		if diff := cmp.Diff([]string{"k3 signing false", "k2 signing true"}, states()); diff != "" || len(stored) != 2 || err != nil {
			t.Errorf("keys once k1 is spent, %d stored, %v (-want +got):\n%s", len(stored), err, diff)
		}
	})
}
