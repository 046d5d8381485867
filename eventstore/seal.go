package eventstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Sealer seals personal fields with a data key of their user's own, and opens them.
//
// A sealed value is: format (1 byte, 1), nonce (12 bytes), AES-256-GCM ciphertext and tag. The additional data binds it
// to its stream, version and event type, so that a sealed value moved to another event does not open. A data key is wrapped
// under the master key, bound to its user: see masterRing for the form of what is.
//
// Destroying a user's wrapped key makes everything sealed for that user unreadable for ever. A Sealer keeps the keys that
// it was asked for in memory for a few seconds (keyFor), and no longer than until it is told (Forget).
type Sealer struct {
	masters *masterRing
	index   []byte
	keys    *lru.Cache[uuid.UUID, dataKey]
	fetch   func(context.Context, []uuid.UUID) (map[uuid.UUID][]byte, error)
}

const (
	sealFormat = 1
	nonceSize  = 12
	keyCache   = 1 << 13 // data keys kept open in memory, about 1,100 bytes each
	// keyFor is how long a key in memory is used before it is read again, in case it was destroyed by a process that could
	// not tell.
	keyFor = 5 * time.Second
)

// dataKey is a user's key in memory.
type dataKey struct {
	cipher.AEAD
	until time.Time
}

// NewSealer makes a sealer whose data keys are read by fetch, as a Store's DataKeys does.
func NewSealer(master MasterKey, fetch func(context.Context, []uuid.UUID) (map[uuid.UUID][]byte, error)) *Sealer {
	keys, err := lru.New[uuid.UUID, dataKey](keyCache)
	if err != nil { // only for a size of 0
		panic(err)
	}
	return &Sealer{
		masters: master.ring,
		index:   master.Derive("reservations"),
		keys:    keys,
		fetch:   fetch,
	}
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil { // only for a wrong length
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func seal(aead cipher.AEAD, plain, bind []byte) []byte {
	out := make([]byte, 1+nonceSize, 1+nonceSize+len(plain)+aead.Overhead())
	out[0] = sealFormat
	rand.Read(out[1:])
	return aead.Seal(out, out[1:], plain, bind)
}

var errSealed = errors.New("sealed value does not open: it was altered, moved, or sealed under another key")

func open(aead cipher.AEAD, sealed, bind []byte) ([]byte, error) {
	if len(sealed) < 1 || sealed[0] != sealFormat {
		return nil, errSealed
	}
	return openBody(aead, sealed[1:], bind)
}

// openBody opens a sealed value less what says how and under which key it is sealed.
func openBody(aead cipher.AEAD, body, bind []byte) ([]byte, error) {
	if len(body) < nonceSize {
		return nil, errSealed
	}
	plain, err := aead.Open(nil, body[:nonceSize], body[nonceSize:], bind)
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// SealState seals a secret for a state table, bound to where it is kept (for example "signing_keys/<kid>").
func (s *Sealer) SealState(place string, secret []byte) []byte {
	return s.masters.seal(forState, secret, []byte(place))
}

// OpenState opens what SealState made.
func (s *Sealer) OpenState(place string, sealed []byte) ([]byte, error) {
	plain, err := s.masters.open(forState, sealed, []byte(place))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, err)
	}
	return plain, nil
}

// SealFor seals what a state table keeps of a user with the user's own key, bound to where it is kept, so that it can be
// forgotten with the user. It fails with ErrNoKey, or as the database does.
func (s *Sealer) SealFor(ctx context.Context, user uuid.UUID, place string, plain []byte) ([]byte, error) {
	key, err := s.keyOf(ctx, user)
	if err != nil {
		return nil, err
	}
	return seal(key, plain, []byte(place)), nil
}

// OpenFor opens what SealFor made. It fails with ErrNoKey once the user's key is destroyed.
func (s *Sealer) OpenFor(ctx context.Context, user uuid.UUID, place string, sealed []byte) ([]byte, error) {
	key, err := s.keyOf(ctx, user)
	if err != nil {
		return nil, err
	}
	plain, err := open(key, sealed, []byte(place))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, err)
	}
	return plain, nil
}

func (s *Sealer) keyOf(ctx context.Context, user uuid.UUID) (cipher.AEAD, error) {
	keys, err := s.load(ctx, []uuid.UUID{user})
	if err != nil {
		return nil, err
	}
	if keys[user] == nil {
		return nil, ErrNoKey
	}
	return keys[user], nil
}

// ReservationKey is the HMAC-SHA-256 that stands for a reserved value in the database.
func (s *Sealer) ReservationKey(r Reservation) []byte {
	mac := hmac.New(sha256.New, s.index)
	mac.Write([]byte(r.Scope))
	mac.Write([]byte{0})
	mac.Write([]byte(r.Value))
	return mac.Sum(nil)
}

// newDataKey makes a data key for a user and its wrapped form.
func (s *Sealer) newDataKey(user uuid.UUID) (key cipher.AEAD, wrapped []byte) {
	raw := make([]byte, 32)
	rand.Read(raw)
	return newAEAD(raw), s.masters.seal(forDataKeys, raw, user[:])
}

// Forget drops a user's key from memory, after it was destroyed in the database.
func (s *Sealer) Forget(user uuid.UUID) { s.keys.Remove(user) }

func (s *Sealer) remember(user uuid.UUID, key cipher.AEAD) {
	s.keys.Add(user, dataKey{key, time.Now().Add(keyFor)})
}

// load brings the data keys of users into the answer: from memory, the others in one query.
func (s *Sealer) load(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]cipher.AEAD, error) {
	found := make(map[uuid.UUID]cipher.AEAD, len(users))
	var missing []uuid.UUID
	now := time.Now()
	for _, user := range users {
		if _, done := found[user]; done {
			continue
		}
		if key, ok := s.keys.Get(user); ok && now.Before(key.until) {
			found[user] = key.AEAD
			continue
		}
		missing = append(missing, user)
		found[user] = nil // marks a user as asked for
	}
	if len(missing) == 0 {
		return found, nil
	}
	wrapped, err := s.fetch(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	for user, w := range wrapped {
		if found[user], err = s.unwrap(user, w); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Learn takes over a user's wrapped data key that its caller has just read, so that it need not be read again.
func (s *Sealer) Learn(user uuid.UUID, wrapped []byte) error {
	if key, ok := s.keys.Get(user); ok {
		s.remember(user, key.AEAD)
		return nil
	}
	_, err := s.unwrap(user, wrapped)
	return err
}

// unwrap opens a user's wrapped data key, and keeps it in memory.
func (s *Sealer) unwrap(user uuid.UUID, wrapped []byte) (cipher.AEAD, error) {
	raw, err := s.masters.open(forDataKeys, wrapped, user[:])
	if err != nil {
		return nil, fmt.Errorf("open the data key of %s: %w", user, err)
	}
	key := newAEAD(raw)
	s.remember(user, key)
	return key, nil
}

// binding is the additional data of an event's personal fields.
func binding(stream uuid.UUID, version int, eventType string) []byte {
	out := make([]byte, 0, 16+8+len(eventType))
	out = append(out, stream[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(version))
	return append(out, eventType...)
}

// sealEvent seals the personal fields of an event and of its metadata: the length of the first (uvarint), the first,
// the second; both JSON objects.
func sealEvent(key cipher.AEAD, stream uuid.UUID, version int, e NewEvent, m Metadata) ([]byte, error) {
	plain := binary.AppendUvarint(make([]byte, 0, 256), uint64(len(e.Personal)))
	plain = append(plain, e.Personal...)
	if m.Address != "" || m.UserAgent != "" {
		meta, err := json.Marshal(personalMetadata{m.Address, m.UserAgent})
		if err != nil {
			return nil, err
		}
		plain = append(plain, meta...)
	}
	return seal(key, plain, binding(stream, version, e.Type)), nil
}

func openEvent(key cipher.AEAD, e *Event) error {
	plain, err := open(key, e.Sealed, binding(e.Stream.ID, e.Version, e.Type))
	if err != nil {
		return err
	}
	n, size := binary.Uvarint(plain)
	if size <= 0 || uint64(len(plain)-size) < n {
		return errSealed
	}
	if n > 0 {
		e.Personal = plain[size : size+int(n)]
	}
	if rest := plain[size+int(n):]; len(rest) > 0 {
		m, err := parsePersonal(rest)
		if err != nil {
			return err
		}
		e.Metadata.Address, e.Metadata.UserAgent = m.Address, m.UserAgent
	}
	e.Sealed = nil
	return nil
}

// Open opens the personal fields of events in place, with one query for all the data keys that are not in memory.
// An event whose key has been destroyed is marked Forgotten, which is no error.
func (s *Sealer) Open(ctx context.Context, events []Event) error {
	var users []uuid.UUID
	for i := range events {
		if events[i].Sealed != nil {
			users = append(users, events[i].Stream.Subject)
		}
	}
	if len(users) == 0 {
		return nil
	}
	keys, err := s.load(ctx, users)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		if e.Sealed == nil {
			continue
		}
		key := keys[e.Stream.Subject]
		if key == nil {
			e.Sealed, e.Forgotten = nil, true
			continue
		}
		if err := openEvent(key, e); err != nil {
			return fmt.Errorf("open %s at %d: %w", e.Type, e.Position, err)
		}
	}
	return nil
}
