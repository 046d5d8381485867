package eventstore

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// MasterKey is the secret that everything sealed stands on. It can't be printed by accident.
//
// It seals directly what can be sealed anew when it is replaced: the users' data keys and the secrets of state tables. What
// can't, such as the HMACs that addresses are found by, comes from the root: 32 random bytes of the deployment's own, which
// the database has sealed under each master key that is accepted, and which stays the same for ever.
//
// As ParseMasterKey makes it, a key stands alone and is its own root. Unlock makes the one of a database out of it.
type MasterKey struct {
	key  [32]byte
	root [32]byte
	ring *masterRing
}

// ParseMasterKey reads 32 bytes in base64 (any alphabet, padded or not) or hexadecimal. Its error does not echo the text.
func ParseMasterKey(text string) (MasterKey, error) {
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if raw, err := decode(text); err == nil && len(raw) == 32 {
			return newMasterKey([32]byte(raw)), nil
		}
	}
	return MasterKey{}, errors.New("a master key is 32 bytes in base64 or hexadecimal; `openssl rand -base64 32` makes one")
}

// ParseMasterKeys reads one master key, or two while one takes the place of the other: the new one first, then the one
// before it, separated by a comma or by white space. Its error does not echo the text.
func ParseMasterKeys(text string) ([]MasterKey, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
	if len(words) < 1 || len(words) > 2 {
		return nil, fmt.Errorf("%d master keys, where one belongs, or the new one and the one before it", len(words))
	}
	keys := make([]MasterKey, len(words))
	for i, word := range words {
		var err error
		if keys[i], err = ParseMasterKey(word); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// NewMasterKey makes a random master key and its text form.
func NewMasterKey() (MasterKey, string) {
	var raw [32]byte
	rand.Read(raw[:])
	return newMasterKey(raw), base64.StdEncoding.EncodeToString(raw[:])
}

func newMasterKey(raw [32]byte) MasterKey {
	m := MasterKey{key: raw, root: raw}
	m.ring = newMasterRing(m)
	return m
}

// Derive makes a 32-byte key for one purpose from the root, by HKDF-SHA-256 (RFC 5869). The same purpose gives the same key,
// whatever master keys come and go.
func (m MasterKey) Derive(purpose string) []byte { return derive(m.root, purpose) }

func derive(secret [32]byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, secret[:], nil, "usher/"+purpose, 32) // never the module's path, which changes
	if err != nil {                                                        // only for a length beyond HKDF's limit
		panic(err)
	}
	return key
}

// ID names the key in the database and to operators: 16 hexadecimal digits, which give nothing of the key away.
func (m MasterKey) ID() string { return m.id().String() }

func (m MasterKey) id() masterID { return masterID(derive(m.key, "id")[:8]) }

const hidden = "[hidden]"

func (MasterKey) String() string       { return hidden }
func (MasterKey) GoString() string     { return hidden }
func (MasterKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// rootPlace is what the root is bound to where it is sealed under a master key.
var rootPlace = []byte("master_keys")

// Unlock makes the master key of a database out of those that a process is given: one, or two while one takes the place of
// the other. A new database gets a root, and the first of the keys. It fails with ErrWrongMasterKey where a key that the
// database still uses is not among them.
func Unlock(ctx context.Context, db DB, given ...MasterKey) (MasterKey, error) {
	used, err := usedKeys(ctx, db)
	if err == nil && len(used) == 0 {
		if err = beginKeys(ctx, db, given[0]); err == nil {
			used, err = usedKeys(ctx, db)
		}
	}
	if err != nil {
		return MasterKey{}, fmt.Errorf("read the master keys: %w", err)
	}
	m := MasterKey{ring: newMasterRing(given...)}
	known := 0
	for _, u := range used {
		if m.ring.keys[u.id] == nil {
			continue
		}
		root, err := m.ring.open(forRoot, u.root, rootPlace)
		if err != nil || len(root) != len(m.root) {
			return MasterKey{}, fmt.Errorf("read the root: %w", errSealed)
		}
		m.root = [32]byte(root)
		known++
	}
	switch {
	case known == 0:
		return MasterKey{}, ErrWrongMasterKey
	case known < len(used):
		return MasterKey{}, fmt.Errorf("%w alone: the rotation is not finished, so the other key is needed too", ErrWrongMasterKey)
	}
	for _, g := range given {
		if g.id() == used[0].id {
			m.key = g.key
		}
	}
	m.ring.reload = func(ctx context.Context) (masterID, error) {
		used, err := usedKeys(ctx, db)
		if err == nil && len(used) == 0 {
			err = ErrNoRows
		}
		if err != nil {
			return masterID{}, fmt.Errorf("read the master keys: %w", err)
		}
		return used[0].id, nil
	}
	return m, m.ring.use(used[0].id)
}

// usedKey is a master key as the database has it.
type usedKey struct {
	id    masterID
	root  []byte
	since time.Time
}

// usedKeys reads the master keys that are in use, the one to seal with first. There are two while one takes the place of the
// other, and none in a new database.
func usedKeys(ctx context.Context, db DB) ([]usedKey, error) {
	rows, err := db.Query(ctx, `SELECT id, root, created_at FROM master_keys WHERE state <> 'retired' ORDER BY state = 'current' DESC`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var used []usedKey
	for rows.Next() {
		var u usedKey
		var id []byte
		if err := rows.Scan(&id, &u.root, &u.since); err != nil {
			return nil, err
		}
		if len(id) != len(u.id) {
			return nil, fmt.Errorf("a master key's id has %d bytes", len(id))
		}
		u.id = masterID(id)
		used = append(used, u)
	}
	return used, rows.Err()
}

// beginKeys makes the root of a new database. Of two that begin at the same time one does; the other reads what it made.
func beginKeys(ctx context.Context, db DB, m MasterKey) error {
	root := make([]byte, len(m.root))
	rand.Read(root)
	id := m.id()
	_, err := db.Exec(ctx, `INSERT INTO master_keys (id, root, state, created_at) VALUES ($1, $2, 'current', $3) ON CONFLICT DO NOTHING`,
		id[:], m.ring.seal(forRoot, root, rootPlace), time.Now().UTC())
	return err
}
