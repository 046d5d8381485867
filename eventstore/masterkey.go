package eventstore

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// MasterKey is the secret that everything sealed stands on: it wraps the users' data keys, and the keys for
// reservations and for sealed state come from it by HKDF-SHA-256 (RFC 5869). It can't be printed by accident.
type MasterKey struct{ key [32]byte }

// ParseMasterKey reads 32 bytes in base64 (any alphabet, padded or not) or hexadecimal. Its error does not echo the text.
func ParseMasterKey(text string) (MasterKey, error) {
	var m MasterKey
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if raw, err := decode(text); err == nil && len(raw) == len(m.key) {
			copy(m.key[:], raw)
			return m, nil
		}
	}
	return m, errors.New("a master key is 32 bytes in base64 or hexadecimal; `openssl rand -base64 32` makes one")
}

// NewMasterKey makes a random master key and its text form.
func NewMasterKey() (MasterKey, string) {
	var m MasterKey
	rand.Read(m.key[:])
	return m, base64.StdEncoding.EncodeToString(m.key[:])
}

// Derive makes a 32-byte key for one purpose. The same purpose gives the same key.
func (m MasterKey) Derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, m.key[:], nil, "usher.example/"+purpose, 32)
	if err != nil { // only for a length beyond HKDF's limit
		panic(err)
	}
	return key
}

const hidden = "[hidden]"

func (MasterKey) String() string       { return hidden }
func (MasterKey) GoString() string     { return hidden }
func (MasterKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// CheckMasterKey says whether a database was made with the key: nil, or ErrWrongMasterKey. A new database is made with
// it: a key derived from it is kept (HKDF gives nothing of the master key away), so that a start with another one is
// noticed before anything is sealed. A database that has its key is only read.
func CheckMasterKey(ctx context.Context, db DB, m MasterKey) error {
	check := m.Derive("check")
	kept, err := keptCheck(ctx, db)
	if errors.Is(err, ErrNoRows) {
		_, err = db.Exec(ctx, `INSERT INTO deployment (id, key_check, created_at) VALUES (1, $1, $2) ON CONFLICT DO NOTHING`,
			check, time.Now().UTC())
		if err == nil {
			kept, err = keptCheck(ctx, db)
		}
	}
	if err != nil {
		return fmt.Errorf("check the master key: %w", err)
	}
	if !hmac.Equal(kept, check) {
		return ErrWrongMasterKey
	}
	return nil
}

func keptCheck(ctx context.Context, db DB) (kept []byte, err error) {
	err = db.QueryRow(ctx, `SELECT key_check FROM deployment WHERE id = 1`).Scan(&kept)
	return kept, err
}
