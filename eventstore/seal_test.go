package eventstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

func TestParseMasterKey(t *testing.T) {
	t.Parallel()
	raw := bytes.Repeat([]byte{0xfb, 0xef, 0x01, 0x3e}, 8)
	want, err := eventstore.ParseMasterKey(hex.EncodeToString(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		strings.ToUpper(hex.EncodeToString(raw)), base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw),
		base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
	} {
		if got, err := eventstore.ParseMasterKey(text); got.ID() != want.ID() || err != nil {
			t.Errorf("ParseMasterKey(%q) = another key, %v", text, err)
		}
	}
	for _, text := range []string{"", "short", hex.EncodeToString(raw[1:]), base64.StdEncoding.EncodeToString(append(raw, 1)), strings.Repeat("z", 64)} {
		_, err := eventstore.ParseMasterKey(text)
		if err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("ParseMasterKey(%q): %v, want an error that does not echo it", text, err)
		}
	}
}

func TestParseMasterKeys(t *testing.T) {
	t.Parallel()
	a, one := eventstore.NewMasterKey()
	b, two := eventstore.NewMasterKey()
	for text, want := range map[string][]string{
		one: {a.ID()}, " " + one + "\n": {a.ID()}, one + "," + two: {a.ID(), b.ID()}, two + "\r\n" + one + "\n": {b.ID(), a.ID()},
		"": nil, " ,\n": nil, one + two: nil, one + ",short": nil, one + "," + two + "," + one: nil,
	} {
		keys, err := eventstore.ParseMasterKeys(text)
		var got []string
		for _, k := range keys {
			got = append(got, k.ID())
		}
		if !slices.Equal(got, want) || (err != nil) != (want == nil) || err != nil && strings.Contains(err.Error(), one) {
			t.Errorf("ParseMasterKeys of %d bytes: %v, %v, want %v", len(text), got, err, want)
		}
	}
}

func TestMasterKeyIsNotPrinted(t *testing.T) {
	t.Parallel()
	key, text := eventstore.NewMasterKey()
	if again, err := eventstore.ParseMasterKey(text); again.ID() != key.ID() || err != nil {
		t.Errorf("the text of a new key is that of another, %v", err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", key)
	fmt.Fprintf(&out, "%v %+v %#v %s", key, key, key, key)
	if n := strings.Count(out.String(), "[hidden]"); n != 5 {
		t.Errorf("printed as %s", out.String())
	}
	if a, b := key.Derive("a"), key.Derive("b"); bytes.Equal(a, b) || !bytes.Equal(a, key.Derive("a")) || len(a) != 32 {
		t.Error("derived keys have to differ by purpose and by nothing else")
	}
}

func TestSealState(t *testing.T) {
	t.Parallel()
	master, _ := eventstore.NewMasterKey()
	s := eventstore.NewSealer(master, nil)
	secret := []byte("a private key")
	sealed := s.SealState("signing_keys/k1", secret)
	if bytes.Contains(sealed, secret) || bytes.Equal(sealed, s.SealState("signing_keys/k1", secret)) {
		t.Error("sealed values have to hide what is in them, and that two hold the same")
	}
	if got, err := s.OpenState("signing_keys/k1", sealed); !bytes.Equal(got, secret) || err != nil {
		t.Errorf("OpenState = %q, %v, want %q", got, err, secret)
	}
	if _, err := s.OpenState("signing_keys/k2", sealed); err == nil {
		t.Error("opened at another place")
	}
	for cut := range sealed {
		if _, err := s.OpenState("signing_keys/k1", sealed[:cut]); err == nil {
			t.Errorf("opened with %d of its %d bytes", cut, len(sealed))
		}
		altered := bytes.Clone(sealed)
		altered[cut] ^= 0x80
		if _, err := s.OpenState("signing_keys/k1", altered); err == nil {
			t.Errorf("opened with byte %d altered", cut)
		}
	}
	other, _ := eventstore.NewMasterKey()
	if _, err := eventstore.NewSealer(other, nil).OpenState("signing_keys/k1", sealed); err == nil {
		t.Error("opened with another key")
	}
}

// A key that was destroyed by another process is good for a few seconds more, and no longer, even if nobody tells.
func TestKeysAreReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		master, _ := eventstore.NewMasterKey()
		user := newID()
		wrapped := map[uuid.UUID][]byte{user: wrappedKey(t, master, user)}
		asked := 0
		s := eventstore.NewSealer(master, func(context.Context, []uuid.UUID) (map[uuid.UUID][]byte, error) {
			asked++
			return wrapped, nil
		})
		sealed, err := s.SealFor(t.Context(), user, "place", []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		clear(wrapped)
		open := func() error {
			_, err := s.OpenFor(t.Context(), user, "place", sealed)
			return err
		}
		if err := open(); err != nil || asked != 1 {
			t.Errorf("OpenFor = %v after %d reads, want the key in memory", err, asked)
		}
		time.Sleep(5 * time.Second)
		if err := open(); !errors.Is(err, eventstore.ErrNoKey) {
			t.Errorf("OpenFor = %v five seconds later, want ErrNoKey", err)
		}
	})
}

// wrappedKey is a user's data key as the database has it.
func wrappedKey(t *testing.T, master eventstore.MasterKey, user uuid.UUID) []byte {
	t.Helper()
	var stored []byte
	log := eventstore.New(keyStore{store: func(p *eventstore.Prepared) { stored = p.Key }}, master, eventstore.Options{})
	if _, err := log.Append(t.Context(), eventstore.Append{
		Stream: eventstore.UserStream(user), Events: []eventstore.NewEvent{{Type: "user.registered"}}, CreateKey: true,
	}); err != nil {
		t.Fatal(err)
	}
	return stored
}

// keyStore hands over what is committed.
type keyStore struct {
	eventstore.Store
	store func(*eventstore.Prepared)
}

func (s keyStore) OnConnect(func()) {}

func (s keyStore) Commit(_ context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	for _, p := range batch {
		s.store(p)
	}
	return make([]eventstore.Outcome, len(batch)), nil
}

func (keyStore) DataKeys(context.Context, []uuid.UUID) (map[uuid.UUID][]byte, error) { return nil, nil }

func TestReservationKey(t *testing.T) {
	t.Parallel()
	master, _ := eventstore.NewMasterKey()
	other, _ := eventstore.NewMasterKey()
	seen := map[string]eventstore.Reservation{}
	for _, r := range []eventstore.Reservation{
		{Scope: "email", Value: "a"}, {Scope: "email", Value: "b"}, {Scope: "emai", Value: "la"}, {Scope: "", Value: "emaila"}, {Scope: "emaila"},
	} {
		key := string(eventstore.NewSealer(master, nil).ReservationKey(r))
		if same, taken := seen[key]; taken {
			t.Errorf("%v has the key of %v", r, same)
		}
		seen[key] = r
		if key != string(eventstore.NewSealer(master, nil).ReservationKey(r)) {
			t.Errorf("%v has two keys", r)
		}
		if key == string(eventstore.NewSealer(other, nil).ReservationKey(r)) {
			t.Errorf("%v has the same key under another master key", r)
		}
	}
}

// Keys are read once, all that a page needs in one query, and are dropped from memory when they have to be.
func TestKeysAreReadInBatches(t *testing.T) {
	t.Parallel()
	log, db := setup(t, eventstore.Options{}, nil)
	ctx := t.Context()
	users := make([]uuid.UUID, 5)
	for i := range users {
		users[i] = newID()
		a := fact(users[i])
		a.Expected, a.CreateKey = eventstore.NoStream, true
		a.Events[0].Personal = json.RawMessage(`{"name": "Ada"}`)
		if _, err := log.Append(ctx, a); err != nil {
			t.Fatal(err)
		}
		a.Expected, a.CreateKey, a.Events[0].Personal = 1, false, nil
		a.Metadata.Address = "192.0.2.1"
		if _, err := log.Append(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	var asked [][]uuid.UUID
	masterOf := log.Sealer() // the sealer that has the keys in memory
	read := func(s *eventstore.Sealer) []eventstore.Event {
		t.Helper()
		events, err := db.ReadAll(ctx, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(ctx, events); err != nil {
			t.Fatal(err)
		}
		return events
	}
	for _, e := range read(masterOf) {
		if e.Forgotten || e.Sealed != nil || (len(e.Personal) == 0) == (e.Metadata.Address == "") {
			t.Errorf("opened as %+v", e)
		}
	}
	master, _ := eventstore.NewMasterKey()
	counting := eventstore.NewSealer(master, func(_ context.Context, users []uuid.UUID) (map[uuid.UUID][]byte, error) {
		asked = append(asked, users)
		return nil, nil // all forgotten
	})
	for _, e := range read(counting) {
		if !e.Forgotten {
			t.Errorf("opened as %+v", e)
		}
	}
	if len(asked) != 1 || len(asked[0]) != len(users) {
		t.Errorf("asked for %v, want one question for %d users", asked, len(users))
	}
	broken := errors.New("broken")
	failing := eventstore.NewSealer(master, func(context.Context, []uuid.UUID) (map[uuid.UUID][]byte, error) { return nil, broken })
	events, err := db.ReadAll(ctx, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := failing.Open(ctx, events); !errors.Is(err, broken) {
		t.Errorf("Open: %v, want %v", err, broken)
	}
}
