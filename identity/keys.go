package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// KeyState says what a signing key is for at a moment.
type KeyState string

// The states of a signing key, in the order in which it goes through them. Then it is gone.
const (
	KeyAnnounced KeyState = "announced" // it will sign; those who verify can learn it meanwhile
	KeySigning   KeyState = "signing"   // there is one at a time
	KeyVerifying KeyState = "verifying" // it signs no more, and tokens that it signed are still good
)

// SigningKey is a key that signs access tokens, or will, or did; or one of the others, for ID tokens. It can't be printed by accident.
//
// Its state follows from times that are kept with the keys, so every process comes to the same one without being told:
// the key that was the last to begin signing is the one that signs, and the ones before it verify until their last tokens
// have expired.
type SigningKey struct {
	ID        string // the kid
	Algorithm string
	Private   []byte // in the form of the package that made it
	IDTokens  bool   // it signs these, and never an access token
	CreatedAt time.Time
	SignsFrom time.Time

	State KeyState
	Since time.Time // when it came to the state
	Until time.Time // when it leaves it; zero for a signing key that has no successor

	lifetime time.Duration // the longest that a token of it lives, as far as those know who sign
}

// String names the key and hides its private part, as GoString and LogValue do.
func (k SigningKey) String() string { return k.Algorithm + " key " + k.ID }

// GoString is String.
func (k SigningKey) GoString() string { return k.String() }

// LogValue is String.
func (k SigningKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// keyMargin is how long a key verifies beyond the last token that it should have signed: processes learn of a rotation
// within seconds of each other, and their clocks differ.
const keyMargin = time.Minute

// keysAt puts the stored keys into the states that they have at a moment: first those of access tokens, the signing one before the
// others and then the newest first, and then those of ID tokens in the same way. Those that are of no use any more are left out. It
// sorts what is stored, the newest first.
func keysAt(stored []SigningKey, now time.Time) []SigningKey {
	return append(keysFor(false, stored, now), keysFor(true, stored, now)...)
}

// keysFor is keysAt of one of the two kinds, which know nothing of each other.
func keysFor(idTokens bool, stored []SigningKey, now time.Time) (keys []SigningKey) {
	slices.SortFunc(stored, func(a, b SigningKey) int {
		return cmp.Or(b.SignsFrom.Compare(a.SignsFrom), cmp.Compare(b.ID, a.ID))
	})
	var successor time.Time // when the key before in the list begins to sign
	for _, k := range stored {
		switch {
		case k.IDTokens != idTokens:
			continue
		case k.SignsFrom.After(now):
			k.State, k.Since, k.Until = KeyAnnounced, k.CreatedAt, k.SignsFrom
		case successor.IsZero() || successor.After(now):
			k.State, k.Since, k.Until = KeySigning, k.SignsFrom, successor
		default:
			k.State, k.Since, k.Until = KeyVerifying, successor, successor.Add(k.lifetime+keyMargin)
		}
		successor = k.SignsFrom
		if k.State != KeyVerifying || k.Until.After(now) {
			keys = append(keys, k)
		}
	}
	if i := slices.IndexFunc(keys, SigningKey.signs); i > 0 {
		signing := keys[i]
		keys = slices.Insert(slices.Delete(keys, i, i+1), 0, signing)
	}
	return keys
}

func (k SigningKey) signs() bool { return k.State == KeySigning }

// KeyWish says which key is to sign access tokens, or ID tokens.
type KeyWish struct {
	Algorithm string
	IDTokens  bool
	// ID is that of the only key that will do, for an algorithm whose key is given; "" where any key of the algorithm is
	// good, and a new one is made for a rotation.
	ID string
	// Generate makes the key.
	Generate func() (id string, private []byte, err error)

	// From is when the key begins to sign; at once where it is not after now.
	From time.Time
	// Leaked says that none of the keys before is to be trusted: they verify no more, so every access token has to be
	// refreshed. The new key signs at once.
	Leaked bool
}

func (w KeyWish) is(k SigningKey) bool {
	return k.Algorithm == w.Algorithm && k.IDTokens == w.IDTokens && (w.ID == "" || w.ID == k.ID)
}

// rotation is what a wish for another key comes to.
type rotation struct {
	key  string   // that begins to sign at from: the id of one that is announced already, "" for a new one
	drop []string // ids of keys that are of no use any more
	from time.Time
}

// rotateKey decides on a wish for another key. At most one key is announced at a time: one that the wish does not mean goes,
// since it has signed nothing, and one that it does begins to sign earlier if that is wished. Where there is nothing to
// do, the answer is nil.
func rotateKey(keys []SigningKey, w KeyWish, now time.Time) *rotation {
	r := &rotation{from: now}
	signing := slices.IndexFunc(keys, SigningKey.signs)
	if signing >= 0 {
		if w.From.After(now) && !w.Leaked {
			r.from = w.From
		}
		if before := keys[signing].SignsFrom; !r.from.After(before) { // no two begin at once
			r.from = before.Add(time.Microsecond)
		}
	}
	for _, k := range keys {
		switch {
		case w.Leaked && k.ID == w.ID:
			return nil // no other key will do, and this one won't
		case w.Leaked, k.State == KeyAnnounced && !w.is(k):
			r.drop = append(r.drop, k.ID)
		case k.State == KeyAnnounced:
			if !r.from.Before(k.SignsFrom) {
				return nil
			}
			r.key = k.ID
		}
	}
	if r.key == "" && w.ID != "" && signing >= 0 && w.is(keys[signing]) {
		return nil
	}
	return r
}

// ensureKey decides on a wish that any key fulfils which is as wished, and signs or is about to.
func ensureKey(keys []SigningKey, w KeyWish, now time.Time) *rotation {
	if slices.ContainsFunc(keys, func(k SigningKey) bool { return k.State != KeyVerifying && w.is(k) }) {
		return nil
	}
	return rotateKey(keys, w, now)
}

func keysStream() eventstore.Stream { return eventstore.SystemStream("keys") }

// EnsureSigningKey sees to it that a key signs, or is announced to, that is as wished. Processes that start
// at the same time end up with one key. A key of another kind goes on to verify.
func (s *Service) EnsureSigningKey(ctx context.Context, w KeyWish) error {
	_, err := s.rotateTo(ctx, w, ensureKey, ActorSystem)
	return err
}

// RotateSigningKey has another key sign access tokens from w.From on, and says whether that is new: it is not where such
// a key is announced already, or the only one that will do signs.
func (s *Service) RotateSigningKey(ctx context.Context, w KeyWish) (rotated bool, err error) {
	return s.rotateTo(ctx, w, rotateKey, ActorOperator)
}

func (s *Service) rotateTo(ctx context.Context, w KeyWish, decide func([]SigningKey, KeyWish, time.Time) *rotation, actor string) (bool, error) {
	for {
		// The version first: whoever changes the keys after it was read makes the append fail.
		version, err := s.store.StreamVersion(ctx, keysStream().ID)
		if err != nil {
			return false, fmt.Errorf("rotate the signing key: %w", err)
		}
		stored, err := s.storedKeys(ctx, false)
		if err != nil {
			return false, err
		}
		now := s.now().UTC().Truncate(time.Microsecond)
		keys := keysFor(w.IDTokens, stored, now)
		r := decide(keys, w, now)
		if r == nil {
			return false, nil
		}
		key, err := s.newSigningKey(keys, w, r, now)
		if err != nil {
			return false, err
		}
		err = s.appendKey(ctx, eventstore.Expected(version), key, r.drop, actor)
		if errors.Is(err, eventstore.ErrWrongExpectedVersion) {
			continue // another process was first
		}
		return err == nil, err
	}
}

// newSigningKey is the key that a rotation is to.
func (s *Service) newSigningKey(keys []SigningKey, w KeyWish, r *rotation, now time.Time) (SigningKey, error) {
	from := r.from.UTC().Truncate(time.Microsecond)
	for _, k := range keys {
		if k.ID == r.key {
			k.SignsFrom = from
			return k, nil
		}
	}
	id, private, err := w.Generate()
	if err != nil {
		return SigningKey{}, fmt.Errorf("generate a signing key: %w", err)
	}
	k := SigningKey{ID: id, Algorithm: w.Algorithm, IDTokens: w.IDTokens, Private: private, CreatedAt: now, SignsFrom: from, lifetime: s.accessLifetime}
	for _, before := range keys {
		if before.ID == id { // it has signed before, and takes its place among the keys anew
			k.lifetime = max(k.lifetime, before.lifetime)
		}
	}
	return k, nil
}

func (s *Service) appendKey(ctx context.Context, expected eventstore.Expected, k SigningKey, drop []string, actor string) error {
	correlation, err := uuid.NewV7()
	if err != nil {
		return err
	}
	state := []eventstore.StateChange{stateRow("signing_keys", map[string]any{
		"kid": k.ID, "algorithm": k.Algorithm, "created_at": k.CreatedAt.UTC(), "signs_from": k.SignsFrom, "token_seconds": seconds(k.lifetime), "id_tokens": k.IDTokens,
		"private": bytea(s.log.Sealer().SealState(keyPlace(k.ID), k.Private)),
	})}
	for _, id := range drop {
		state = append(state, dropRow("signing_keys", map[string]any{"kid": id}))
	}
	_, err = s.log.Append(ctx, eventstore.Append{
		Stream:   keysStream(),
		Expected: expected,
		Events:   newEvents([]Payload{KeyRotated{KeyID: k.ID, Algorithm: k.Algorithm, IDTokens: k.IDTokens, SignsFrom: k.SignsFrom}}),
		Metadata: eventstore.Metadata{Correlation: correlation, Actor: actor},
		State:    state,
	})
	if err != nil {
		return fmt.Errorf("store the signing key: %w", err)
	}
	return nil
}

// seconds is a lifetime as it is stored.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// SigningKeys answers with the keys in force: the one that signs first, unless there is none yet, and then the newest
// first. Their private parts are left out.
func (s *Service) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	stored, err := s.storedKeys(ctx, false)
	if err != nil {
		return nil, err
	}
	return keysAt(stored, s.now()), nil
}

// UseSigningKeys is SigningKeys for a process that signs with them, and gets their private parts: it is noted how long the tokens live that this
// process issues, so that a key verifies for as long as any of its tokens may.
func (s *Service) UseSigningKeys(ctx context.Context) ([]SigningKey, error) {
	// The version first: what is read after it is at least as new.
	version, err := s.store.StreamVersion(ctx, keysStream().ID)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	stored, err := s.storedKeys(ctx, true)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(stored, func(k SigningKey) bool { return k.lifetime < s.accessLifetime }) {
		if _, err := s.db.Exec(ctx, `UPDATE signing_keys SET token_seconds = $1 WHERE token_seconds < $1`, seconds(s.accessLifetime)); err != nil {
			return nil, fmt.Errorf("note the lifetime of tokens: %w", err)
		}
		for i := range stored {
			stored[i].lifetime = max(stored[i].lifetime, s.accessLifetime)
		}
	}
	s.keys.version.Store(int64(version))
	return keysAt(stored, s.now()), nil
}

// keysKnown is how new the signing keys are that this process signs with.
type keysKnown struct {
	loading sync.Mutex
	version atomic.Int64 // of their stream, before they were read; 0 where they never were
}

// keysInUse is what an append is given that begins a session: the access token that follows is signed with these keys. There
// is none where nothing is signed.
func (s *Service) keysInUse() []eventstore.StreamVersion {
	version := int(s.keys.version.Load())
	if s.loadKeys == nil || version == 0 {
		return nil
	}
	return []eventstore.StreamVersion{{Stream: keysStream().ID, Version: version}}
}

// keepKeysAt has the signing keys read again unless those in use are of a version of their stream. Without it a token could be
// signed with a key that another process has just found to be leaked, and would be good for nothing.
func (s *Service) keepKeysAt(ctx context.Context, version int) error {
	used := s.keys.version.Load()
	if used == 0 || used == int64(version) {
		return nil
	}
	return s.leaveKeys(ctx, int(used))
}

// leaveKeys has the signing keys read again that are of a version which is not the newest.
func (s *Service) leaveKeys(ctx context.Context, version int) error {
	if s.loadKeys == nil {
		return nil
	}
	s.keys.loading.Lock()
	defer s.keys.loading.Unlock()
	if s.keys.version.Load() != int64(version) {
		return nil // somebody else did it
	}
	if err := s.loadKeys(ctx); err != nil {
		return fmt.Errorf("read the signing keys again: %w", err)
	}
	return nil
}

// dropSpentKeys removes the keys that no token needs any more, with their private parts. The oldest goes first and keeps
// the others: until when a key verifies follows from the one after it.
func (s *Service) dropSpentKeys(ctx context.Context) error {
	stored, err := s.storedKeys(ctx, false)
	if err != nil {
		return err
	}
	inForce := keysAt(stored, s.now())
	var kept [2]bool                            // of each kind one is in force
	for _, k := range slices.Backward(stored) { // which has the newest first by now
		kind := &kept[0]
		if k.IDTokens {
			kind = &kept[1]
		}
		if *kind = *kind || slices.ContainsFunc(inForce, func(f SigningKey) bool { return f.ID == k.ID }); *kind {
			continue
		}
		// One that begins to sign again meanwhile is not the one that was found.
		n, err := s.db.Exec(ctx, `DELETE FROM signing_keys WHERE kid = $1 AND signs_from = $2`, k.ID, k.SignsFrom)
		if err != nil {
			return fmt.Errorf("remove the signing key %s: %w", k.ID, err)
		}
		if n > 0 {
			s.logger.InfoContext(ctx, "removed a signing key whose tokens have all expired", slog.Any("key", k))
		}
	}
	return nil
}

// storedKeys are all keys, with their private parts or without: who only looks at them may not read those, see deploy/postgres.
func (s *Service) storedKeys(ctx context.Context, private bool) (keys []SigningKey, err error) {
	column := "NULL"
	if private {
		column = "private"
	}
	rows, err := s.db.Query(ctx, `SELECT kid, algorithm, `+column+`, created_at, signs_from, token_seconds, coalesce(id_tokens, false) FROM signing_keys`)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var k SigningKey
		var sealed []byte
		var lifetime int64
		if err := rows.Scan(&k.ID, &k.Algorithm, &sealed, &k.CreatedAt, &k.SignsFrom, &lifetime, &k.IDTokens); err != nil {
			return nil, fmt.Errorf("read signing keys: %w", err)
		}
		k.CreatedAt, k.SignsFrom, k.lifetime = k.CreatedAt.UTC(), k.SignsFrom.UTC(), time.Duration(lifetime)*time.Second
		if private {
			if k.Private, err = s.log.Sealer().OpenState(keyPlace(k.ID), sealed); err != nil {
				return nil, err
			}
		}
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return keys, nil
}

// SealedColumns are those of this package whose values are sealed under the master key itself, for its rotation.
var SealedColumns = []eventstore.SealedColumn{{
	Table: "signing_keys", Column: "private", Key: []string{"kid"},
	Scan:  func() []any { return []any{new(string)} },
	Place: func(row []any) string { return keyPlace(*row[0].(*string)) },
}}

func keyPlace(id string) string { return "signing_keys/" + id }
