package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher/eventstore"
)

// SigningKey is a key that signs access tokens. It can't be printed by accident.
type SigningKey struct {
	ID        string // the kid
	Algorithm string
	Private   []byte // in the form of the package that made it
	CreatedAt time.Time
}

// String names the key and hides its private part, as GoString and LogValue do.
func (k SigningKey) String() string { return k.Algorithm + " key " + k.ID }

// GoString is String.
func (k SigningKey) GoString() string { return k.String() }

// LogValue is String.
func (k SigningKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// keyRing is the state of the system stream of signing keys.
type keyRing struct {
	current KeyRotated // zero before the first key
	version int
}

func (r keyRing) evolve(e eventstore.Event) (keyRing, error) {
	p, err := Decode[KeyRotated](e)
	if err != nil {
		return keyRing{}, err
	}
	return keyRing{current: p, version: e.Version}, nil
}

// rotate decides on a new current key. Where the current key is of the same algorithm already, nothing happens.
func rotate(r keyRing, id, algorithm string) []Payload {
	if r.signs(algorithm) {
		return nil
	}
	return []Payload{KeyRotated{KeyID: id, Algorithm: algorithm}}
}

func (r keyRing) signs(algorithm string) bool { return r.current.Algorithm == algorithm }

func keysStream() eventstore.Stream { return eventstore.SystemStream("keys") }

// EnsureSigningKey answers with the key that signs access tokens now. Where there is none of the algorithm, generate
// makes its id and private part, which is stored sealed. Processes that start at the same time end up with one key.
func (s *Service) EnsureSigningKey(ctx context.Context, algorithm string, generate func() (id string, private []byte, err error)) (SigningKey, error) {
	for {
		ring, err := s.keyRing(ctx)
		if err != nil {
			return SigningKey{}, err
		}
		if ring.signs(algorithm) {
			return s.signingKey(ctx, ring.current.KeyID)
		}
		id, private, err := generate()
		if err != nil {
			return SigningKey{}, fmt.Errorf("generate a signing key: %w", err)
		}
		key := SigningKey{ID: id, Algorithm: algorithm, Private: private, CreatedAt: s.now().UTC().Truncate(time.Microsecond)}
		correlation, err := uuid.NewV7()
		if err != nil {
			return SigningKey{}, err
		}
		_, err = s.log.Append(ctx, eventstore.Append{
			Stream:   keysStream(),
			Expected: eventstore.Expected(ring.version),
			Events:   newEvents(rotate(ring, id, algorithm)),
			Metadata: eventstore.Metadata{Correlation: correlation, Actor: ActorSystem},
			State: []eventstore.StateChange{stateRow("signing_keys", map[string]any{
				"kid": key.ID, "algorithm": key.Algorithm, "created_at": key.CreatedAt,
				"private": `\x` + hex.EncodeToString(s.log.Sealer().SealState(keyPlace(key.ID), key.Private)),
			})},
		})
		if errors.Is(err, eventstore.ErrWrongExpectedVersion) {
			continue // another process was first
		}
		if err != nil {
			return SigningKey{}, fmt.Errorf("store the signing key: %w", err)
		}
		return key, nil
	}
}

// SigningKeys answers with every key that signs access tokens or did, the newest first.
func (s *Service) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	return s.readKeys(ctx, `SELECT kid, algorithm, private, created_at FROM signing_keys ORDER BY created_at DESC, kid`)
}

func (s *Service) signingKey(ctx context.Context, id string) (SigningKey, error) {
	keys, err := s.readKeys(ctx, `SELECT kid, algorithm, private, created_at FROM signing_keys WHERE kid = $1`, id)
	if err != nil {
		return SigningKey{}, err
	}
	if len(keys) == 0 {
		return SigningKey{}, fmt.Errorf("read the signing key %s: %w", id, eventstore.ErrNoRows)
	}
	return keys[0], nil
}

func (s *Service) readKeys(ctx context.Context, query string, args ...any) ([]SigningKey, error) {
	rows, err := s.db.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	defer rows.Close()
	var keys []SigningKey
	for rows.Next() {
		var k SigningKey
		var sealed []byte
		if err := rows.Scan(&k.ID, &k.Algorithm, &sealed, &k.CreatedAt); err != nil {
			return nil, fmt.Errorf("read signing keys: %w", err)
		}
		if k.Private, err = s.log.Sealer().OpenState(keyPlace(k.ID), sealed); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return keys, nil
}

func (s *Service) keyRing(ctx context.Context) (keyRing, error) {
	var ring keyRing
	for {
		events, err := s.log.ReadStream(ctx, keysStream().ID, ring.version, streamPage)
		if err != nil {
			return keyRing{}, err
		}
		for _, e := range events {
			if ring, err = ring.evolve(e); err != nil {
				return keyRing{}, err
			}
		}
		if len(events) < streamPage {
			return ring, nil
		}
	}
}

func keyPlace(id string) string { return "signing_keys/" + id }
